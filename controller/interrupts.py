"""Ctrl-C from the first moments of a process to its last: exit code 130, and no traceback."""

import os
import signal
from collections.abc import Callable
from typing import Any

EXIT_CODE = 130


class Interrupts:
    """What SIGINT does to this process; what Python has it do, unless :meth:`load` was called."""

    def __init__(self) -> None:
        self._is_ours = False
        self._is_noted = False

    def load(self) -> None:
        """Note one while the command line is loaded, and leave at once with a second one.

        Where SIGINT is ignored (nohup, a background job), it stays so.
        """
        self._is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._heed(self._note)

    def run(self) -> None:
        """A command runs: it gets ``KeyboardInterrupt``.

        Raises:
            KeyboardInterrupt: it came while the command line was loaded.
        """
        self._heed(signal.default_int_handler)
        if self._is_noted:
            raise KeyboardInterrupt

    def tell(self) -> None:
        """It is told how the command ended, and not to be broken off."""
        self._heed(signal.SIG_IGN)

    def end(self, exit_code: int) -> None:
        """All is told: whoever does not wait for the rest has this exit code."""
        self._heed(lambda *_: os._exit(exit_code))

    def _note(self, *_: object) -> None:
        if self._is_noted:
            os._exit(EXIT_CODE)
        self._is_noted = True

    def _heed(self, handler: Callable[..., Any] | signal.Handlers) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, handler)


INTERRUPTS = Interrupts()
"""This process's."""
