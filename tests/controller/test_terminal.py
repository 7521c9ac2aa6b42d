from __future__ import annotations

import os
import sys

import pytest

from controller.terminal import facts, report_error, say
from manifests.errors import BadSetting, UnsignedRecord

LONG = "the store shows one thing and this home has signed another, so nothing was signed: " * 2
COMMAND = "`genctl keys rotate HOME online --replace 0123456789abcdef`"


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if both streams were a terminal of 80 columns."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 24)))


def test_lines_end_between_words_before_the_terminal_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    say(f"  {LONG}")
    facts("Keys", [("root", LONG), ("online", "here")])
    report_error(UnsignedRecord(LONG), as_json=False)
    printed = capsys.readouterr()
    lines = [*printed.out.splitlines(), *printed.err.splitlines()]
    assert max(map(len, lines)) <= 80
    assert " ".join(printed.err.split()).startswith(f"genctl: UnsignedRecord: {LONG.strip()} see")
    assert all(line.startswith("  ") for line in printed.out.splitlines() if line != "Keys")


def test_a_command_stays_in_one_piece(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    report_error(BadSetting(f"{LONG}run {COMMAND} there"), as_json=False)
    assert COMMAND in capsys.readouterr().err


def test_into_a_pipe_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(BadSetting(LONG), as_json=False)
    assert capsys.readouterr().err == f"genctl: BadSetting: {LONG}\n"
