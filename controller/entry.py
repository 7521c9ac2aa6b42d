"""What the console script calls: a process's first moments, before the command line is loaded."""

import os
import sys

from controller.interrupts import INTERRUPTS


def silence_stderr() -> None:
    """Have what is written to stderr go nowhere."""
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - to the end


def main() -> None:
    """Load the command line and run it."""
    INTERRUPTS.load()
    if sys.stderr is None:  # closed by whoever started this; a file opened next would be "stderr"
        silence_stderr()
    from controller.cli import main as run

    run()
