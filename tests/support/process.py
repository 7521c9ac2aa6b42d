"""Real genctl processes: the console script, and commands forked from a warm process."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.crash import Request

ROOT = Path(__file__).resolve().parents[2]
CONSOLE_SCRIPT = Path(sys.executable).with_name("genctl")
MARK = "GENCTL_SYSTEM_TESTS"
"""An environment variable that every process started here, and all its children, carry."""
DEADLINE_S = 120


def environment(mark: str) -> dict[str, str]:
    """The environment of a test's processes: plain text, no terminal, one thread for BLAS."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return keep | {MARK: mark, "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200", "LC_ALL": "C.UTF-8"}


def left_running(mark: str) -> list[str]:
    """The command lines of all processes that carry ``mark``."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # it ended, or is somebody else's
    return found


@dataclass(frozen=True)
class Finished:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document it printed."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The one JSON document it printed because it failed."""
        assert self.code != 0, self
        return json.loads(self.err)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents it printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def ok(self) -> Self:
        """Itself, if it did what it was asked."""
        assert self.code == 0, self
        return self

    def refused(self, code: int, *words: str) -> Self:
        """Itself, if it failed with ``code`` and a message that says ``words``, no traceback."""
        message = self.out + self.err
        assert self.code == code, self
        assert "Traceback" not in message, self
        for word in words:
            assert word in message, (word, self)
        return self


@dataclass(frozen=True)
class Forked:
    """What a child of the warm process did: commands that ended, and steps it took on the disk."""

    killed: bool
    finished: list[Finished]
    steps: list[tuple[str, str]]


class Console:
    """Runs the installed console script in a folder."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self._environ = dict(environ)

    def __call__(self, *command: object) -> Finished:
        with self.start(*command) as process:
            out, err = process.communicate(timeout=DEADLINE_S)
        return Finished(process.returncode, out.decode(), err.decode())

    def start(self, *command: object) -> subprocess.Popen[bytes]:
        """The command as a running process with its output in pipes."""
        return subprocess.Popen(
            [str(CONSOLE_SCRIPT), *map(str, command)],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


class Warm:
    """Runs commands in children of one warm process; see :mod:`tests.support.crash`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash"],
            cwd=ROOT,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(DEADLINE_S)

    def fork(
        self,
        folder: Path,
        commands: Sequence[Sequence[object]],
        *,
        kill_at: int | None = None,
        kill_after_s: float | None = None,
    ) -> Forked:
        """Run ``commands`` one after the other in one child; see :class:`Request`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request: Request = {
            "commands": [list(map(str, command)) for command in commands],
            "folder": str(folder),
            "kill_at": kill_at,
            "kill_after_s": kill_after_s,
        }
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], DEADLINE_S)
        if not ready:
            self._process.kill()
            raise AssertionError(f"no answer in {DEADLINE_S} s to {commands}")
        reply = json.loads(self._process.stdout.readline())
        finished = [Finished(*each) for each in reply["finished"]]
        assert reply["killed"] or reply["clean"], (commands, finished)
        return Forked(reply["killed"], finished, [(step, path) for step, path in reply["steps"]])


class Genctl:
    """Runs each command in its own process, forked warm, in one folder."""

    def __init__(self, warm: Warm, folder: Path) -> None:
        self.warm = warm
        self.folder = folder

    def __call__(self, *command: object) -> Finished:
        return self.warm.fork(self.folder, [command]).finished[0]

    def killed_at(self, step: int, *command: object) -> Forked:
        """Run a command, killed before its ``step``-th change to the disk if it comes that far."""
        return self.warm.fork(self.folder, [command], kill_at=step)

    def killed_after(self, seconds: float, *command: object) -> Forked:
        """Run a command, killed when ``seconds`` have passed if it takes that long."""
        return self.warm.fork(self.folder, [command], kill_after_s=seconds)
