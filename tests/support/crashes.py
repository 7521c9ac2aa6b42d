"""Stop a forked child before each change it makes to the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from durable import files


def count_steps(act: Callable[[], object]) -> int:
    """How many changes to the disk ``act`` makes; it is run in a child."""
    reading, writing = os.pipe()

    def count(_: str, __: Path) -> None:
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


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Run ``act`` in a child that kills itself before its ``step``-th change; whether it did."""
    child = os.fork()
    if child == 0:
        remaining = step

        def observer(_: str, __: Path) -> None:
            nonlocal remaining
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
