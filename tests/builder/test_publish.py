"""Publishing is resumable, repeatable and fenced: rows 35, 44, 45 and 49."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from controller.new_home import init_home
from manifests.errors import (
    GenerationNotPublished,
    GenerationUnknown,
    HomeOccupied,
    StoreUnavailable,
    WriterFenced,
)
from manifests.names import symbol_key
from manifests.record import ControlRecord
from query.request import Request
from tests.support.corpus import upserts
from tests.support.faulty_store import FaultyStore
from tests.support.homes import (
    TestableWriter,
    add,
    built,
    copy_of,
    copy_with_store,
    make_node,
    make_writer,
    new_node,
    store_of,
)


@pytest.fixture
def writer(tmp_path: Path) -> TestableWriter:
    """One generation released, a second one built."""
    home = make_writer(tmp_path)
    add(home, upserts(range(5)))
    built(home, upserts(range(5, 8)))
    return home


def record_of(writer: TestableWriter) -> ControlRecord:
    return writer.current().signed.record


def faulty(writer: TestableWriter) -> FaultyStore:
    store = FaultyStore(store_of(writer))
    writer.front = store
    return store


def no_result(_: object) -> None:
    """Makes a statement of an expression."""


def objects(writer: TestableWriter) -> set[str]:
    return {info.key for info in store_of(writer).list("symbols/")}


def test_publishing_sends_every_symbol_once(writer: TestableWriter) -> None:
    before = objects(writer)
    manifest = writer.built()[1]
    (report,) = writer.publish(None)
    known = {artifact.blake3 for artifact in writer.built()[0].artifacts}
    new = [artifact for artifact in manifest.artifacts if artifact.blake3 not in known]
    expected = {symbol_key(a.blake3, number) for a in new for number in range(a.symbols.m)}
    assert objects(writer) - before == expected
    assert report.uploaded_artifacts == len(new)
    assert report.uploaded_objects == len(expected)
    assert report.reused_artifacts == len(manifest.artifacts) - len(new)
    assert not report.already_published
    assert record_of(writer).active == writer.built()[0].generation_id


def test_publishing_again_changes_nothing(writer: TestableWriter) -> None:
    writer.publish(None)
    before = writer.current()
    everything = {info.key for info in store_of(writer).list("")}
    (report,) = writer.publish(None)
    assert report.already_published
    assert report.uploaded_objects == report.uploaded_bytes == 0
    assert writer.current().token == before.token
    assert {info.key for info in store_of(writer).list("")} == everything


def test_publishing_the_latest_publishes_those_before_it_first(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    manifests = [built(writer, upserts([number])) for number in range(3)]
    reports = writer.publish(None)
    assert [report.generation_id for report in reports] == [m.generation_id for m in manifests]
    assert record_of(writer).active is None
    assert writer.activate(manifests[2].generation_id)
    assert not writer.activate(manifests[2].generation_id)
    assert make_node(writer).pointer().active.high_seq == 3


def test_publishing_up_to_one_leaves_the_later_ones(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    manifests = [built(writer, upserts([number])) for number in range(3)]
    writer.publish(manifests[1].generation_id)
    assert [e.generation_id for e in record_of(writer).published] == [
        m.generation_id for m in manifests[:2]
    ]
    with pytest.raises(GenerationNotPublished):
        writer.activate(manifests[2].generation_id)


def test_what_was_not_built_cannot_be_published(writer: TestableWriter) -> None:
    with pytest.raises(GenerationUnknown):
        writer.publish("g000000000009-0123456789ab")


def test_a_truncated_symbol_in_the_store_is_replaced(writer: TestableWriter) -> None:
    manifest = writer.built()[1]
    known = {each.blake3 for each in writer.built()[0].artifacts}
    artifact = next(each for each in manifest.artifacts if each.blake3 not in known)
    key = symbol_key(artifact.blake3, 0)
    store_of(writer).put_if_absent(key, [b"truncated"])
    writer.publish(None)
    stored = store_of(writer).stat(key)
    assert stored is not None
    assert stored.size_bytes > artifact.size_bytes / artifact.symbols.k


def test_row_35_a_publish_that_loses_the_store_anywhere_finishes_when_run_again(
    writer: TestableWriter, tmp_path: Path
) -> None:
    generation_id = writer.built()[1].generation_id
    before = record_of(writer)
    fail_at, finished = 0, False
    while not finished:
        attempt = copy_with_store(writer, tmp_path / f"attempt-{fail_at}")
        store = faulty(attempt)
        store.fail_at = fail_at
        try:
            attempt.publish(None)
            finished = True
        except StoreUnavailable:
            attempt.front = None
            assert record_of(attempt) == before
        attempt.front = None
        attempt.publish(None)
        attempt.activate(generation_id)
        after = record_of(attempt)
        assert [entry.generation_id for entry in after.published[1:]] == [generation_id]
        node = new_node(attempt)
        assert node.bootstrap().activated
        assert node.query(node.reader(), Request(text="unique6", mode="lexical")).hits[0].id == "d6"
        fail_at += 1
    assert fail_at > 20


def test_row_45_a_store_that_dies_after_a_mutation_gets_there_in_the_end(
    writer: TestableWriter,
) -> None:
    before = record_of(writer)
    attempts = 0
    while record_of(writer) == before:
        store = faulty(writer)
        store.fail_at, store.outcome_unknown = attempts, True
        with contextlib.suppress(StoreUnavailable):
            writer.publish(None)
        writer.front = None
        attempts += 1
    assert attempts > 4
    (report,) = writer.publish(None)
    assert report.already_published
    writer.activate(writer.built()[1].generation_id)
    assert make_node(writer).pointer().active.high_seq == 2


def test_row_35_nothing_is_visible_before_the_timestamp_is_swapped(writer: TestableWriter) -> None:
    node = make_node(writer)
    before = record_of(writer)
    attempts = 0
    while True:
        store = faulty(writer)
        store.fail_at = attempts
        try:
            writer.publish(None)
        except StoreUnavailable:
            attempts += 1
            writer.front = None
            assert record_of(writer) == before
            assert not node.bootstrap().activated
        else:
            break
    assert attempts > 3
    assert len(record_of(writer).published) == 2


def test_row_45_a_swap_that_happened_but_was_not_answered_is_a_success(
    writer: TestableWriter,
) -> None:
    store = faulty(writer)
    store.lose_answer = True
    (report,) = writer.publish(None)
    assert not report.already_published
    assert len(record_of(writer).published) == 2


def test_row_45_a_swap_that_did_not_happen_and_was_not_answered_is_unavailable(
    writer: TestableWriter,
) -> None:
    store = faulty(writer)
    store.lose_answer = False
    with pytest.raises(StoreUnavailable):
        writer.publish(None)
    assert len(record_of(writer).published) == 1
    writer.publish(None)
    assert len(record_of(writer).published) == 2


def test_row_45_a_lost_race_that_was_not_answered_is_fenced(
    writer: TestableWriter, tmp_path: Path
) -> None:
    rival = copy_of(writer, "rival")
    store = faulty(writer)
    store.before_swap = lambda: no_result(rival.publish(None))
    store.lose_answer = True
    with pytest.raises(WriterFenced):
        writer.publish(None)
    assert len(record_of(rival).published) == 2


def test_row_44_of_two_writers_one_commits_and_the_other_is_fenced(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(5)))
    rival = copy_of(writer, "rival")
    mine = built(writer, upserts(range(5, 8)))
    theirs = built(rival, upserts(range(20, 24)))
    node = make_node(writer)

    def rival_first() -> None:
        rival.publish(theirs.generation_id)
        rival.activate(theirs.generation_id)

    faulty(writer).before_swap = rival_first
    with pytest.raises(WriterFenced):
        writer.publish(mine.generation_id)
    record = record_of(rival)
    assert [entry.generation_id for entry in record.published[1:]] == [theirs.generation_id]
    assert record.active == theirs.generation_id
    node.bootstrap()
    assert node.pointer().active.generation_id == theirs.generation_id
    assert node.query(node.reader(), Request(text="unique22", mode="lexical")).hits[0].id == "d22"
    # The loser cannot get its branch of history in, whatever it tries.
    with pytest.raises(WriterFenced):
        writer.publish(mine.generation_id)
    with pytest.raises(WriterFenced):
        writer.activate(mine.generation_id)
    assert record_of(rival) == record


def test_row_44_an_activation_that_loses_the_race_is_fenced(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    first = add(writer, upserts(range(3)))
    second = add(writer, upserts(range(3, 6)))
    rival = copy_of(writer, "rival")
    faulty(writer).before_swap = lambda: no_result(rival.rollback(None, "rival"))
    built(writer, upserts([9]))
    with pytest.raises(WriterFenced):
        writer.publish(None)
    assert record_of(rival).active == first.generation_id
    writer.publish(None)
    assert record_of(writer).active == first.generation_id
    assert writer.activate(second.generation_id)


def test_row_49_versions_that_a_dead_attempt_took_are_skipped(writer: TestableWriter) -> None:
    for fail_at in range(1, 100):
        store = faulty(writer)
        store.fail_at = fail_at
        try:
            writer.publish(None)
        except StoreUnavailable:
            continue
        break
    # Attempts that died after N.targets.json left it; the record went past it.
    signed = writer.current().signed
    assert signed.targets.version > 4
    metadata = {info.key for info in store_of(writer).list("metadata/")}
    assert {f"metadata/{v}.targets.json" for v in range(1, signed.targets.version + 1)} <= metadata
    assert signed.timestamp.version == 4
    writer.front = None
    writer.activate(writer.built()[1].generation_id)
    assert make_node(writer).pointer().active.high_seq == 2


def test_initialising_twice_and_over_another_store(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    before = writer.current().token
    assert not init_home(writer.home, writer.settings)
    assert writer.current().token == before
    with pytest.raises(HomeOccupied):
        init_home(tmp_path / "other", writer.settings)
