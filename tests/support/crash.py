"""A warm process that forks one child a request, runs genctl commands in it and may kill it.

Starting Python and importing everything takes a second; a fork takes milliseconds. Each child is a
process of its own that runs ``controller.cli.main`` as the console script does, on real files. It
can be killed with SIGKILL before its n-th change to the disk, or after a time.

The parent imports what the commands import but runs none of them, so it has no threads whose locks
or pools a child could inherit broken. Requests and replies are lines of JSON on stdin and stdout.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

from controller.cli import main
from durable import files


class Request(TypedDict):
    """``commands`` run one after the other in one child.

    It is killed before its step ``kill_at``, counted from 0, or when ``kill_after_s`` have passed.
    """

    commands: list[list[str]]
    folder: str
    kill_at: int | None
    kill_after_s: float | None


def _in_child(request: Request, codes: int, steps: int, streams: Sequence[tuple[int, int]]) -> None:
    os.chdir(request["folder"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    files.observe(_observer(request["kill_at"], steps))
    for command, (out, err) in zip(request["commands"], streams, strict=True):
        os.dup2(out, 1)
        os.dup2(err, 2)
        code = _run(command)
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(codes, b"%d\n" % code)


def _observer(kill_at: int | None, steps: int) -> Callable[[str, Path], None]:
    seen, lock = 0, threading.Lock()

    def observer(step: str, path: Path) -> None:
        nonlocal seen
        with lock:  # never let go of once the kill is due: no other thread changes a thing
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()
            seen += 1
            os.write(steps, json.dumps([step, str(path)]).encode() + b"\n")

    return observer


def _run(command: list[str]) -> int:
    sys.argv = ["genctl", *command]
    try:
        main(command, prog_name="genctl")
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        sys.stderr.write(f"{ended.code}\n")
        return 1
    except BaseException:  # noqa: BLE001 - what the interpreter does with what nobody caught
        traceback.print_exc()
        return 1
    return 0


def _kill_after(child: int, seconds: float) -> None:
    ended = os.pidfd_open(child)
    try:
        if not select.select([ended], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(ended)


def _content(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode("utf-8", "replace")


def _answer(request: Request) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:

        def memory() -> int:
            descriptor = os.memfd_create("genctl")
            stack.callback(os.close, descriptor)
            return descriptor

        codes, steps = memory(), memory()
        streams = [(memory(), memory()) for _ in request["commands"]]
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _in_child(request, codes, steps, streams)
                status = 0
            finally:
                os._exit(status)
        if request["kill_after_s"] is not None:
            _kill_after(child, request["kill_after_s"])
        _, status = os.waitpid(child, 0)
        ended = [int(line) for line in _content(codes).splitlines()]
        return {
            "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
            "clean": status == 0,
            "steps": [json.loads(line) for line in _content(steps).splitlines()],
            "finished": [
                [code, _content(out), _content(err)]
                for code, (out, err) in zip(ended, streams, strict=False)
            ],
        }


def _modules_of_a_story() -> list[str]:
    """Which modules the commands import, found out by a child that runs them."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with tempfile.TemporaryDirectory() as folder, os.fdopen(writing, "w") as report:
            os.chdir(folder)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            Path("d.jsonl").write_text('{"id": "a", "text": "some words"}\n')
            for line in (
                "init w --store s",
                "ingest w d.jsonl",
                "release w",
                "generations w",
                "node bootstrap n --store s --root w/root.json",
                "node status n",
                "query n words --json",
                "query n words",
            ):
                _run(line.split())
            report.write("\n".join(sys.modules))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as report:
        names = report.read().split("\n")
    os.waitpid(child, 0)
    return names


def _requests() -> Iterator[Request]:
    for line in sys.stdin.buffer:
        yield json.loads(line)


def serve() -> None:
    """Answer requests until stdin ends."""
    for name in _modules_of_a_story():
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    assert threading.active_count() == 1
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing but replies goes to the replies
    for request in _requests():
        replies.write(json.dumps(_answer(request)) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve()
