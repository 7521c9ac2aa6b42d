"""Part of ``make check``: no pinned dependency has a known vulnerability.

``python -m tests.support.vulnerabilities requirements.lock`` asks PyPI's data through pip-audit. A
mirror of PyPI may have the packages and not that data, and pip-audit then finds nothing wrong with
anything. So it is first asked of a release that is known to be vulnerable. If it does not say so,
or there is no answer in time, the data is out of reach from here: one line says that the check was
not run, and nothing fails for it. In every other case each pin must have been looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CANARY = "urllib3==1.26.4"
"""CVE-2021-33503 and later ones."""

CANARY_DEADLINE_S = 10
DEADLINE_S = 60
SOCKET_DEADLINE_S = 5

Ask = Callable[[Sequence[str], float], list[dict[str, Any]] | None]
"""pip-audit's options and a deadline in seconds; its entry of each dependency, or ``None``."""


def ask_pip_audit(options: Sequence[str], deadline_s: float) -> list[dict[str, Any]] | None:
    """What pip-audit says of each dependency, or ``None`` if it has no answer by the deadline."""
    command = [
        *(sys.executable, "-m", "pip_audit", "--disable-pip", "--format", "json"),
        *("--progress-spinner", "off", "--timeout", str(SOCKET_DEADLINE_S)),
        *options,
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=deadline_s,
            check=False,
        )
        dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        return None
    return dependencies


def check(lock: Path, ask: Ask = ask_pip_audit) -> tuple[int, list[str]]:
    """An exit code and what to print: 0 if all is well, or nobody can tell from here."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as canary:
        canary.write(CANARY)
        canary.flush()
        answer = ask(["--no-deps", "--requirement", canary.name], CANARY_DEADLINE_S)
    if not answer or not answer[0].get("vulns"):
        return 0, ["known vulnerabilities: not checked, PyPI's data is out of reach from here"]
    pins = ask(["--require-hashes", "--requirement", str(lock)], DEADLINE_S)
    if not pins:
        return 1, [f"known vulnerabilities: pip-audit had no answer for {lock} in {DEADLINE_S} s"]
    found = [
        f"{pin['name']} {pin['version']}: {flaw['id']}, mended in "
        f"{', '.join(flaw['fix_versions']) or 'no release yet'}"
        for pin in pins
        for flaw in pin.get("vulns", [])
    ]
    found += [f"{pin['name']}: {pin['skip_reason']}" for pin in pins if "skip_reason" in pin]
    if found:
        return 1, [*found, f"known vulnerabilities: see above; mend the pins of {lock}"]
    return 0, [f"known vulnerabilities: none in {len(pins)} pins of {lock}"]


if __name__ == "__main__":
    code, lines = check(Path(sys.argv[1]))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.exit(code)
