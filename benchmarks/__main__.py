"""``python -m benchmarks [NAME]``: one benchmark, or all of them one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

from benchmarks.harness import Outcome, finish

NAMES = (
    "query",
    "build",
    "quality",
    "encode",
    "publish",
    "wire",
    "repair",
    "memory",
    "peers",
    "catchup",
    "incremental",
    "amplification",
    "retained",
    "versions",
    "trust",
)


def main(arguments: list[str]) -> int:
    """Run what was asked for: 0 when all of it holds, 1 when not, 2 for an unknown name."""
    unknown = [name for name in arguments if name not in NAMES]
    if unknown:
        print(f"no benchmark is called {unknown[0]}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    codes = []
    for name in arguments or NAMES:
        run: Callable[[], Outcome] = import_module(f"benchmarks.{name}").run
        codes.append(finish(run()))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
