"""A genctl command in a process of its own that stops itself before a step it takes on the disk.

``python -m tests.system.stalled STEP PATTERN COMMAND…`` runs the command as the console script
does. Before its first step of the name ``STEP`` (``link``, ``rename``, ``fsync``…) on a path that
holds ``PATTERN`` the process says so on its standard output and stops, as ``kill -STOP`` would have
it; ``SIGCONT`` lets it go on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from controller.cli import main
from durable import files
from tests.support.process import DEADLINE_S, ROOT, Finished

STOPPED = b"stopped\n"


class Stalled:
    """A command that has stopped."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def go_on(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def finish(self) -> Finished:
        """Let it go on to its end, and give what it left."""
        self.go_on()
        out, err = self._process.communicate(timeout=DEADLINE_S)
        return Finished(self._process.returncode, out.decode(), err.decode())


@contextlib.contextmanager
def stalled(
    folder: Path, environ: Mapping[str, str], step: str, pattern: str, *command: object
) -> Iterator[Stalled]:
    """Run a command in ``folder`` until it has stopped; it is killed when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.stalled", step, pattern, *map(str, command)],
        cwd=folder,
        env={**environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], DEADLINE_S)[0], "it never stopped"
            said = os.read(process.stdout.fileno(), len(STOPPED))
            assert said == STOPPED, (said, process.communicate(timeout=DEADLINE_S))
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            yield Stalled(process)
        finally:
            process.kill()


def _run(step: str, pattern: str, command: list[str]) -> None:
    has_stopped, lock = False, threading.Lock()

    def stop(taken: str, path: Path) -> None:
        nonlocal has_stopped
        with lock:
            if not has_stopped and taken == step and pattern in str(path):
                has_stopped = True
                os.write(1, STOPPED)
                os.kill(os.getpid(), signal.SIGSTOP)

    files.observe(stop)
    sys.argv = ["genctl", *command]
    main(command, prog_name="genctl")


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2], sys.argv[3:])
