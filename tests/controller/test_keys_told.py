"""What people are told of their keys: where they are, what expired, what a draft would change."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from builder.keys import create_key, no_passphrase, public_path
from controller import clock, root_drafts
from controller.cli import main
from controller.commands import release
from controller.shown_keys import show
from controller.writer_keys import NewKey, revoke, rotate, threshold
from manifests.errors import BadSetting
from tests.support.corpus import upserts
from tests.support.homes import TestableWriter, add, make_writer

ROOMY = 80
"""Columns of an ordinary terminal."""


@pytest.fixture
def writer(tmp_path: Path) -> TestableWriter:
    home = make_writer(tmp_path)
    add(home, upserts(range(3)))
    return home


def run(*command: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in command], catch_exceptions=False)


def told(*command: object) -> str:
    result = run(*command)
    assert result.exit_code == 0, result.output
    return result.output


def spare(folder: Path) -> Path:
    create_key(folder / "spare", lambda: None, no_passphrase)
    return public_path(folder / "spare")


def carried_away(writer: TestableWriter) -> None:
    (writer.home / "keys/root.pem").unlink()


def reopened(writer: TestableWriter) -> TestableWriter:
    return TestableWriter(writer.home)


def at(monkeypatch: pytest.MonkeyPatch, change: timedelta) -> None:
    real = clock.now()
    monkeypatch.setattr(clock, "now", lambda: real + change)


def test_a_lost_key_file_is_said_to_be_lost(writer: TestableWriter) -> None:
    rotate(writer, "online", NewKey(), add=True)
    (writer.home / "keys/online-2.pem").unlink()
    first, second = show(reopened(writer))["roles"]["online"]["keys"]
    assert (first["where"], first["missing_from"]) == ("file:keys/online.pem", None)
    assert (second["where"], second["missing_from"]) == (None, "file:keys/online-2.pem")
    assert "file:keys/online-2.pem is not there" in told("keys", "show", writer.home)


def test_keys_show_fits_a_terminal_and_a_draft_lacks_one_holder_a_line(
    writer: TestableWriter, tmp_path: Path
) -> None:
    carried_away(writer)
    rotate(writer, "root", NewKey(public=spare(tmp_path)), add=True)
    shown = show(reopened(writer))
    lines = told("keys", "show", writer.home).splitlines()
    for role in shown["roles"].values():
        for key in role["keys"]:
            assert any(line.split()[2:3] == [key["keyid"][:16]] for line in lines)
    assert shown["draft"] is not None
    before, after = shown["draft"]["lacking"]
    assert len(after["keyids"]) == 2
    for keyid in (*before["keyids"], *after["keyids"]):
        assert keyid[:16] in [line.strip() for line in lines]
    of_keys = lines[1 : 1 + lines[1:].index(next(line for line in lines if "metadata" in line))]
    assert max(map(len, of_keys)) <= ROOMY


def test_what_has_expired_is_marked(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "(expired)" not in told("keys", "show", writer.home)
    assert "(expired)" not in told("status", writer.home)
    assert writer.status()["expired"] is False
    at(monkeypatch, timedelta(days=400))
    expired = {name: each["expired"] for name, each in show(writer)["metadata"].items()}
    assert expired == {"root": False, "targets": True, "snapshot": True, "timestamp": True}
    assert writer.status()["expired"] is True
    assert told("keys", "show", writer.home).count("(expired)") == 3
    assert told("status", writer.home).count("(expired)") == 1


def test_a_key_that_stays_locked_leaves_no_receipt(writer: TestableWriter) -> None:
    receipts = (writer.home / "audit.jsonl").read_bytes()
    (writer.home / "keys/targets.pem").unlink()
    generation = writer.current().signed.record.active
    assert generation is not None
    for _ in range(2):
        with pytest.raises(BadSetting, match=r"targets\.pem is not there"):
            reopened(writer).override_embedder(generation, "never signed")
    assert (writer.home / "audit.jsonl").read_bytes() == receipts
    (writer.home / "keys/online.pem").unlink()
    with pytest.raises(BadSetting, match="is not there"):
        reopened(writer).override_embedder(generation, "never signed")
    assert (writer.home / "audit.jsonl").read_bytes() == receipts


def test_a_draft_that_changes_nothing_any_more_is_removed(
    writer: TestableWriter, tmp_path: Path
) -> None:
    rotate(writer, "root", NewKey(public=spare(tmp_path)), add=True)
    carried_away(writer)
    assert not threshold(reopened(writer), "root", 2).published
    assert root_drafts.path_of(writer).exists()
    said = told("keys", "threshold", writer.home, "root", 1)
    assert "would change nothing any more and is removed" in said
    assert "Root version 2 stays" in said
    assert not root_drafts.path_of(writer).exists()
    assert show(reopened(writer))["draft"] is None
    assert not threshold(reopened(writer), "root", 1).changed
    assert threshold(reopened(writer), "root", 2).version == 3


def test_a_key_that_the_draft_takes_away_already_is_not_replaced_again(
    writer: TestableWriter, tmp_path: Path
) -> None:
    rotate(writer, "root", NewKey(public=spare(tmp_path)), add=True)
    carried_away(writer)
    _, gone = (key["keyid"] for key in show(reopened(writer))["roles"]["root"]["keys"])
    revoke(reopened(writer), gone[:12])
    with pytest.raises(BadSetting, match=r"the draft that waits has taken .* away .*--add"):
        rotate(reopened(writer), "root", NewKey(), instead_of=gone[:8])
    with pytest.raises(BadSetting, match="keys show"):
        rotate(reopened(writer), "root", NewKey(), instead_of="0123456789")
    assert not rotate(reopened(writer), "root", NewKey(), add=True).published


def test_a_key_without_a_passphrase_is_said_to_be_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GENCTL_KEY_PASSPHRASE", raising=False)
    said = told("keys", "init", tmp_path / "plain")
    assert "not encrypted; --encrypt asks for a passphrase" in said
    monkeypatch.setenv("GENCTL_KEY_PASSPHRASE", "nobody guesses it")
    said = told("keys", "init", tmp_path / "locked", "--encrypt")
    assert "not encrypted" not in said
    assert "encrypted" in said


def test_signing_again_with_a_clock_that_is_behind_is_told(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "clock" not in told("keys", "refresh", writer.home)
    at(monkeypatch, timedelta(hours=-3))
    result = run("keys", "refresh", writer.home)
    assert result.exit_code == 0
    assert "one of the clocks is wrong" in result.output
    assert "runbooks/clock.md" in result.output


def test_ingest_names_the_next_step(writer: TestableWriter, tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text('{"id": "a", "text": "owls"}\n')
    said = told("ingest", writer.home, tmp_path / "more.jsonl")
    assert f"genctl release {writer.home}" in said


def test_release_names_the_nodes_command_on_a_terminal_where_it_is_short(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown() -> str:
        release._tell_next(writer)
        return " ".join(capsys.readouterr().out.split())

    monkeypatch.setattr(release, "LONGEST_HINT", 1000)
    assert not shown()  # into a pipe
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    (store,) = writer.settings.stores
    assert f"node bootstrap NODE --store {store} --root {writer.home}/root.json" in shown()
    monkeypatch.setattr(release, "LONGEST_HINT", 20)
    assert not shown()
