from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
import pytest
from rich.cells import cell_len

from controller.commands.generations import show
from controller.terminal import facts, report_error, say, table
from manifests.errors import BadSetting, StoreUnavailable, UnsignedRecord
from tests.support.homes import built, make_writer

LONG = "the store shows one thing and this home has signed another, so nothing was signed: " * 2
COMMAND = "`genctl keys rotate HOME online --replace 0123456789abcdef`"


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> None:
    """As if both streams were a terminal."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))


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


def test_a_key_that_is_longer_than_a_line_is_broken_after_slashes_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    key = f"generations/g000000000002-34f4bbd46494/files/lexical/{'5' * 32}.store"
    say(f"  missing: {key} in w/home: it is not there, see symbols/bb/{'0' * 64}/00 for more")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert key in "".join(line.strip() for line in lines)
    assert f"{'0' * 64}/" in "\n".join(lines)
    assert "in w/home: it is not there" in " ".join(line.strip() for line in lines)


def test_into_a_pipe_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(BadSetting(LONG), as_json=False)
    assert capsys.readouterr().err == f"genctl: BadSetting: {LONG}\n"


def test_an_error_names_one_runbook_its_own_where_it_has_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for error, name in (
        (UnsignedRecord("x"), "trust"),
        (UnsignedRecord("x").with_runbook("store-lost"), "store-lost"),
        (StoreUnavailable("x").with_runbook("store-lost"), "store-lost"),
    ):
        report_error(error, as_json=False)
        assert capsys.readouterr().err == f"genctl: {error.name}: x\n  see runbooks/{name}.md\n"
        report_error(error, as_json=True)
        assert json.loads(capsys.readouterr().err)["runbook"] == f"runbooks/{name}.md"
    assert UnsignedRecord("x").runbook == "trust"


ID = "g000000000123-0123456789ab"
ROWS = [
    [ID, "1–123", "5,183", "active; tagged release-2026-11; pinned: what the paper cites in §7"],
    [ID, "124", "5,184", "x" * 100],
    [ID, "125", "5,185", "日本語の文書" * 12],
]
COLUMNS = [("generation", "left"), ("commits", "right"), ("documents", "right"), ("state", "left")]


def test_on_a_terminal_the_last_column_goes_on_below_and_nothing_is_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    table(COLUMNS, ROWS)
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(map(cell_len, lines)) <= 80
    start = lines[0].index("state")
    states = ["".join(line[start:] for line in part) for part in parts_of(lines[1:])]
    assert [state.replace(" ", "") for state in states] == [r[-1].replace(" ", "") for r in ROWS]
    assert "release-2026-11" in "".join(lines), "words stay whole where they can"


def parts_of(lines: list[str]) -> list[list[str]]:
    """Lines by the row that they are of."""
    found: list[list[str]] = []
    for line in lines:
        if line.startswith("g"):
            found.append([])
        found[-1].append(line)
    return found


def test_columns_that_can_be_spared_go_only_where_the_last_has_no_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_terminal(monkeypatch)
    wide = [("generation", "left"), ("a" * 20, "left"), ("b" * 20, "left"), ("state", "left")]
    for headings, left_out in (
        (wide, ["a" * 20]),
        (COLUMNS, []),
    ):
        table(headings, [[ID, "1", "2", "built; not here; pinned"]], spare=["a" * 20, "commits"])
        out = click.unstyle(capsys.readouterr().out)
        assert max(map(len, out.splitlines())) <= 80
        assert [name for name, _ in headings if name not in out] == left_out


@pytest.mark.parametrize(("length", "left_out"), [(40, []), (50, ["size"]), (90, ["size", "b"])])
def test_names_are_never_broken_and_other_columns_give_way(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    length: int,
    left_out: list[str],
) -> None:
    on_terminal(monkeypatch)
    columns = [("a", "left"), ("b", "left"), ("size", "right"), ("artifact", "left")]
    names = [f"lexical/{'5' * (length - 18)}.fieldnorm", "lexical/meta.json"]
    rows = [["a" * 10, "b" * 10, "1.1 KiB", name] for name in names]
    table(columns, rows, spare=["size", "b"], are_names=True)
    headings, *lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert [line.split()[-1] for line in lines] == names
    assert [name for name, _ in columns if name not in headings.split()] == sorted(left_out)


def test_show_breaks_no_name_of_an_artifact(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    writer = make_writer(tmp_path)
    manifest = built(writer, [{"id": "d", "text": "word"}])
    on_terminal(monkeypatch, columns=60)
    show.main([str(writer.home), manifest.generation_id], standalone_mode=False)
    shown = click.unstyle(capsys.readouterr().out).split()
    assert {artifact.name for artifact in manifest.artifacts} <= set(shown)


def test_into_a_pipe_a_table_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    table(COLUMNS, ROWS, spare=["commits"])
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert [line.split(None, 3)[-1] for line in lines[1:]] == [row[-1] for row in ROWS]
