"""What quarantine.json keeps, and what it never does: grow without end, raise, forget on a kill."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from durable import files
from manifests.errors import (
    DiskFull,
    ManifestHashMismatch,
    ManifestIncomplete,
    ManifestMalformed,
    QuarantineCorrupt,
)
from manifests.identifiers import content_id
from replicator import quarantine
from replicator.quarantine import REFUSED, UNSIGNED, Quarantine
from tests.support.flips import flips
from tests.support.watching import hearing

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
LATER = datetime(2024, 5, 7, 7, 8, 9, tzinfo=UTC)
EVENT = "generation_quarantined"
ONE, TWO = content_id(b"one"), content_id(b"two")


def test_entries_survive_another_process_and_the_same_content_is_counted(tmp_path: Path) -> None:
    with hearing() as events:
        assert Quarantine(tmp_path).add(ONE, "ForkDetected", "two of them", NOW, role="timestamp")
        assert not Quarantine(tmp_path).add(ONE, "ForkDetected", "again", LATER, role="snapshot")
        assert Quarantine(tmp_path).add(TWO, "ManifestHashMismatch", "no", LATER)
    one, two = Quarantine(tmp_path).entries()
    assert (one.content_hash, one.error, one.message, one.seen) == (
        ONE,
        "ForkDetected",
        "again",
        2,
    )
    assert (one.first_seen, one.last_seen) == (NOW.isoformat(), LATER.isoformat())
    assert one.facts == {"role": "snapshot"}
    assert [facts["content_hash"] for facts in events.of(EVENT)] == [ONE, TWO]
    assert two.content_hash == TWO


def test_one_content_refused_for_two_reasons_has_two_entries_and_the_graver_counts(
    tmp_path: Path,
) -> None:
    kept = Quarantine(tmp_path)
    for error in ("ManifestHashMismatch", "ManifestIncomplete", "ManifestHashMismatch"):
        kept.add(ONE, error, "no", NOW)
    assert [entry.error for entry in kept.entries()] == [
        "ManifestHashMismatch",
        "ManifestIncomplete",
    ]
    with pytest.raises(ManifestIncomplete):
        kept.refuse([TWO, ONE])
    assert len(kept.clear(ONE)) == 2
    kept.refuse([TWO, ONE])


def test_clearing_forgets_what_is_named_or_everything(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path)
    kept.add(ONE, "ManifestIncomplete", "no", NOW)
    kept.add(TWO, "ManifestIncomplete", "no", NOW)
    assert kept.clear(content_id(b"three")) == ()
    assert not kept.is_clear()
    (gone,) = kept.clear(ONE)
    assert gone.content_hash == ONE
    (left,) = kept.entries()
    assert kept.clear() == (left,)
    assert kept.entries() == ()
    assert kept.is_clear()


def test_entries_are_bounded_and_unsigned_bytes_make_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 12
    monkeypatch.setattr(quarantine, "MAX_ENTRIES", most)
    kept = Quarantine(tmp_path)
    kept.add(ONE, "ManifestIncomplete", "signed", NOW)
    for number in range(most + 9):
        assert kept.add(content_id(b"%d" % number), "ManifestHashMismatch", "no", NOW)
    state = kept.state()
    assert (len(state.entries), state.dropped) == (most, 10)
    left = {entry.content_hash for entry in state.entries}
    assert ONE in left
    assert content_id(b"9") not in left
    assert content_id(b"10") in left
    with hearing() as events:
        for number in range(most):
            kept.add(content_id(b"signed %d" % number), "ManifestIncomplete", "no", NOW)
        assert kept.add(TWO, "ManifestHashMismatch", "no", NOW)
    assert len(events.of(EVENT)) == most + 1
    left = {entry.content_hash for entry in kept.entries()}
    assert ONE not in left, "what is signed goes last, but the oldest goes"
    assert TWO not in left, "what is unsigned does not displace what is signed"
    assert {entry.error for entry in kept.entries()} == {"ManifestIncomplete"}
    assert (len(kept.entries()), kept.state().dropped) == (most, 10 + most + 1)


@pytest.mark.parametrize("text", ["x" * 100_000, "\ud800", "日本" * 10_000, "\0\x1b[31m"])
def test_whatever_an_error_says_is_kept_in_bounded_unicode(tmp_path: Path, text: str) -> None:
    kept = Quarantine(tmp_path)
    with hearing() as events:
        facts = {f"fact{number:02d}": text for number in range(99)}
        assert kept.add(ONE, "ManifestMalformed", text, NOW, **facts)
    (entry,) = kept.entries()
    assert entry.message
    assert (tmp_path / "quarantine.json").stat().st_size < 20_000
    assert events.of(EVENT)[0]["kept"] is True


def test_what_the_disk_does_not_keep_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFull("full")

    monkeypatch.setattr(files, "replace_file", full)
    with (
        hearing() as events,
        pytest.raises(ManifestHashMismatch),
        Quarantine(tmp_path).noting(NOW),
    ):
        raise ManifestHashMismatch("no", content_hash=ONE)
    (facts,) = events.of(EVENT)
    assert facts["kept"] is False


def test_an_error_that_names_no_content_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ManifestMalformed), Quarantine(tmp_path).noting(NOW):
        raise ManifestMalformed("no", quarantined=ONE)
    assert Quarantine(tmp_path).entries() == ()


def test_errors_of_unsigned_bytes_never_keep_anything_out() -> None:
    assert not UNSIGNED & REFUSED.keys()


def test_every_flip_of_the_quarantine_itself_is_found(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path)
    kept.add("0" * 64, "ManifestIncomplete", "no", NOW, generation_id="g")
    path = tmp_path / "quarantine.json"
    whole = path.read_bytes()
    for damaged in flips(whole):
        path.write_bytes(damaged)
        with pytest.raises(QuarantineCorrupt):
            kept.entries()
        assert not kept.is_clear()
    path.write_bytes(whole)
    assert [entry.content_hash for entry in kept.entries()] == ["0" * 64]
