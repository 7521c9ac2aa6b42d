"""The checks of ``make check`` that are not a tool's own: each must be able to fail."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from tests.support.process import ROOT
from tests.support.vulnerabilities import CANARY, check

BASELINE = ROOT / ".secrets.baseline"
LOCK = ROOT / "requirements.lock"
FLAWED = {"id": "PYSEC-1", "fix_versions": ["1.26.5"]}

Entries = list[dict[str, Any]] | None


class PipAudit:
    """Answers as pip-audit does: of the canary, then of the lock."""

    def __init__(self, canary: Entries, lock: Entries) -> None:
        self._answers = iter([canary, lock])
        self.asked: list[Sequence[str]] = []

    def __call__(self, options: Sequence[str], deadline_s: float) -> Entries:
        self.asked.append(options)
        return next(self._answers)


def entry(name: str, *flaws: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": list(flaws)}


KNOWN = [entry("urllib3", FLAWED)]


def test_a_lock_without_known_vulnerabilities_passes() -> None:
    ask = PipAudit(KNOWN, [entry("a"), entry("b")])
    code, lines = check(LOCK, ask)
    assert code == 0
    assert lines == [f"known vulnerabilities: none in 2 pins of {LOCK}"]
    assert str(LOCK) in ask.asked[1]


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        ([entry("a"), entry("b", FLAWED)], "b 1.0: PYSEC-1, mended in 1.26.5"),
        ([entry("b", FLAWED | {"fix_versions": []})], "mended in no release yet"),
        ([entry("a"), {"name": "b", "skip_reason": "not found"}], "b: not found"),
        ([], "no answer"),
        (None, "no answer"),
    ],
)
def test_a_vulnerable_pin_or_one_that_nobody_knows_fails(pins: Entries, words: str) -> None:
    code, lines = check(LOCK, PipAudit(KNOWN, pins))
    assert code == 1
    assert words in lines[0]


@pytest.mark.parametrize(
    "canary", [None, [], [entry("urllib3")], [{"name": "urllib3", "skip_reason": "not found"}]]
)
def test_where_the_data_is_out_of_reach_one_line_says_so(canary: Entries) -> None:
    ask = PipAudit(canary, None)
    code, lines = check(LOCK, ask)
    assert (code, len(lines), len(ask.asked)) == (0, 1, 1)
    assert "not checked" in lines[0]


def test_pip_audit_itself_without_a_network_is_soon_said_to_be_out_of_reach(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), f"http://127.0.0.1:{port}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.vulnerabilities", str(LOCK)],
        cwd=ROOT,
        env={
            **os.environ,
            **nowhere,
            "NO_PROXY": "",
            "no_proxy": "",
            "HOME": str(tmp_path),
            "XDG_CACHE_HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"known vulnerabilities: not checked, .*\n", done.stdout)


def test_the_canary_is_not_what_we_depend_on() -> None:
    assert CANARY not in LOCK.read_text()


def scan(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Scan one file as ``make check`` does."""
    shutil.copy(BASELINE, folder / "baseline")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    hook = Path(sys.executable).with_name("detect-secrets-hook")
    return subprocess.run(
        [str(hook), "--no-verify", "--baseline", "baseline", name],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_private_key_or_an_access_key_in_a_file_is_found(tmp_path: Path) -> None:
    pem = CryptoSigner.generate_ed25519().private_bytes
    (tmp_path / "key.py").write_bytes(b'KEY = """' + pem + b'"""\n')
    found = scan(tmp_path, "key.py")
    assert (found.returncode, "Private Key" in found.stdout) == (1, True), found
    (tmp_path / "access.py").write_text(f"ACCESS = 'AKIA{pem.hex().upper()[60:76]}'\n")
    found = scan(tmp_path, "access.py")
    assert (found.returncode, "AWS Access Key" in found.stdout) == (1, True), found
    (tmp_path / "plain.py").write_text("URL = 'https://example.org'\n")
    assert scan(tmp_path, "plain.py").returncode == 0
