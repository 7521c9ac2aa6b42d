"""Stop a forked child before each change it makes to the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from durable import files

ANYWHERE = Path("/")


def count_steps(act: Callable[[], object], below: Path = ANYWHERE) -> int:
    """How many changes ``act`` makes to what is ``below`` a folder; it is run in a child."""
    reading, writing = os.pipe()

    def count(_: str, path: Path) -> None:
        if path.is_relative_to(below):
            os.write(writing, b".")

    child = os.fork()
    if child == 0:
        status = 1
        try:
            files.observe(count)
            act()
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        steps = len(pipe.read())
    _, status = os.waitpid(child, 0)
    assert status == 0
    return steps


def killed_at(step: int, act: Callable[[], object], below: Path = ANYWHERE) -> bool:
    """Run ``act`` in a child that kills itself before its ``step``-th change; whether it did.

    Changes count that are made to what is ``below`` a folder.
    """
    child = os.fork()
    if child == 0:
        remaining = step

        def observer(_: str, path: Path) -> None:
            nonlocal remaining
            if not path.is_relative_to(below):
                return
            if remaining == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            remaining -= 1

        try:
            files.observe(observer)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False
