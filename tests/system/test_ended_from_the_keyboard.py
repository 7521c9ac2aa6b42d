"""Ctrl-C at any moment of a process: exit code 130, one message, and never a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.process import CONSOLE_SCRIPT, DEADLINE_S, ROOT, Console, Finished, environment

HOLD = """
import os

def hold():
    os.write(int(os.environ["REACHED"]), b"!")
    os.read(int(os.environ["GO_ON"]), 1)
"""
HOLD_AN_IMPORT = """
import os, sys
from hold import hold

class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == os.environ["HELD_MODULE"]:
            sys.meta_path.remove(Finder)
            hold()

sys.meta_path.insert(0, Finder)
"""
HOLD_THE_TELLING = """
from hold import hold
from controller import entry, terminal

def held(*arguments, tell=terminal.report_error, **options):
    hold()
    tell(*arguments, **options)

terminal.report_error = held
entry.main()
"""
HOLD_THE_PIPE = HOLD_THE_TELLING.replace(
    "entry.main()",
    """
from controller import writer

class Home(writer.WriterHome):
    def ingest(self, *arguments, **options):
        hold()
        return super().ingest(*arguments, **options)

writer.WriterHome = Home
entry.main()
""",
)
HOLD_THE_END = """
import atexit
from hold import hold
from controller import entry

atexit.register(hold)
entry.main()
"""


@dataclass(frozen=True)
class Held:
    """A process that has come to where it is held."""

    process: subprocess.Popen[bytes]
    reached: int
    going_on: int

    def reach(self) -> None:
        """Wait until it is held."""
        assert os.read(self.reached, 1) == b"!", self.process.communicate()

    def go_on(self) -> None:
        os.write(self.going_on, b"!")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def finished(self) -> Finished:
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return Finished(self.process.returncode, out.decode(), err.decode())


Start = Callable[..., Held]


@pytest.fixture
def home(console: Console) -> Path:
    """A writer's home beside a pipe that nobody writes to."""
    console("init", "w", "--store", "s").ok()
    os.mkfifo(console.folder / "pipe")
    return console.folder


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Iterator[Start]:
    """Starts a process and gives it when it is held; it is gone at the end."""
    (tmp_path / "hold.py").write_text(HOLD)
    with contextlib.ExitStack() as stack:

        def started(
            words: Sequence[object], sigint: signal.Handlers | None = None, **variables: str
        ) -> Held:
            reached, reaching = os.pipe()
            waiting, going_on = os.pipe()
            for descriptor in (reached, going_on):
                stack.callback(os.close, descriptor)
            # Where tests run in the background, the signal is ignored, and processes inherit that.
            before = signal.signal(signal.SIGINT, sigint or signal.default_int_handler)
            try:
                process = stack.enter_context(
                    subprocess.Popen(
                        [str(word) for word in words],
                        cwd=tmp_path,
                        env=environment(mark)
                        | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
                        | {"REACHED": str(reaching), "GO_ON": str(waiting)}
                        | variables,
                        pass_fds=(reaching, waiting),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                    )
                )
            finally:
                signal.signal(signal.SIGINT, before)
                os.close(reaching)
                os.close(waiting)
            stack.callback(process.kill)
            held = Held(process, reached, going_on)
            held.reach()
            return held

        yield started


@pytest.fixture
def start_at_import(start: Start, tmp_path: Path) -> Callable[..., Held]:
    """Starts the console script and gives it when it begins to import a module."""
    (tmp_path / "sitecustomize.py").write_text(HOLD_AN_IMPORT)

    def started(module: str, *words: object, sigint: signal.Handlers | None = None) -> Held:
        return start([CONSOLE_SCRIPT, *words], sigint, HELD_MODULE=module)

    return started


def check_interrupted(finished: Finished) -> None:
    assert (finished.code, finished.out) == (130, ""), finished
    assert finished.err.count("\n") == 1, "one message"
    assert (finished.error["error"], finished.error["exit_code"]) == ("Interrupted", 130)


@pytest.mark.parametrize(
    "module",
    ["controller.cli", "click", "controller.commands", "controller.terminal", "manifests.errors",
     "controller.commands.writer"],
)  # fmt: skip
def test_an_interrupt_while_the_command_line_is_loaded_ends_the_command(
    start_at_import: Start, module: str
) -> None:
    held = start_at_import(module, "node", "status", "nohome", "--json")
    held.interrupt()
    held.go_on()
    check_interrupted(held.finished())


def test_a_second_interrupt_while_the_command_line_is_loaded_leaves_at_once(
    start_at_import: Start,
) -> None:
    held = start_at_import("click", "node", "status", "nohome")
    for _ in range(DEADLINE_S):
        held.interrupt()
        with contextlib.suppress(subprocess.TimeoutExpired):
            held.process.wait(1)
            break
    assert held.finished() == Finished(130, "", "")


@pytest.mark.parametrize("module", ["pydantic", "controller.settings", "controller.writer"])
def test_an_interrupt_while_a_command_loads_what_it_needs_ends_it(
    home: Path, start_at_import: Start, module: str
) -> None:
    held = start_at_import(module, "ingest", "w", "pipe", "--json")
    held.interrupt()
    held.go_on()
    check_interrupted(held.finished())


def test_a_process_whose_parent_ignores_interrupts_goes_on(start_at_import: Start) -> None:
    held = start_at_import("click", "--version", sigint=signal.SIG_IGN)
    held.interrupt()
    held.go_on()
    assert "genctl" in held.finished().ok().out


def test_interrupts_while_one_is_told_change_nothing(home: Path, start: Start) -> None:
    held = start([sys.executable, "-c", HOLD_THE_PIPE, "ingest", "w", "pipe", "--json"])
    held.interrupt()
    held.go_on()
    held.reach()
    for _ in range(3):
        held.interrupt()
    held.go_on()
    check_interrupted(held.finished())


def test_interrupts_while_an_error_is_told_change_nothing(start: Start) -> None:
    words = ["node", "status", "nohome", "--json"]
    held = start([sys.executable, "-c", HOLD_THE_TELLING, *words])
    for _ in range(3):
        held.interrupt()
    held.go_on()
    finished = held.finished()
    assert (finished.code, finished.error["error"]) == (3, "HomeMissing")


def test_an_interrupt_at_the_very_end_changes_nothing(start: Start) -> None:
    held = start([sys.executable, "-c", HOLD_THE_END, "--version"])
    held.interrupt()
    held.go_on()
    finished = held.finished().ok()
    assert ("genctl" in finished.out, finished.err) == (True, "")


@pytest.mark.parametrize("stderr", [">&-", ">/dev/full", "</dev/null"])
@pytest.mark.parametrize(("words", "code"), [("node bootstrap nohome --json", 3), ("bogus", 2)])
def test_the_exit_code_of_an_error_stands_where_nobody_hears_it(
    console: Console, stderr: str, words: str, code: int
) -> None:
    line = f'exec "$0" {words} 2{stderr}'
    run = subprocess.run(
        ["sh", "-c", line, str(CONSOLE_SCRIPT)],
        cwd=console.folder,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (run.returncode, run.stdout) == (code, b"")
