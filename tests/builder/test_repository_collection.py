"""Writers and a collection of garbage that meet: rows 46 to 49.

The collection is at first the one of :mod:`tests.support.collection`, which drops whatever a test
asks for, then genctl's own. What a writer stalled for is a hook in the store ahead of its swap.
"""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from builder.collect import Progress
from builder.prepared_merges import PreparedMerge, PreparedMerges
from controller import clock, collection, kept_objects
from controller.accounts import accounts
from controller.retaining import tag
from manifests.errors import (
    GenerationCollected,
    ObjectMissing,
    StoreUnavailable,
    Unrepairable,
    WriterFenced,
)
from manifests.identifiers import content_id
from manifests.names import symbol_key
from manifests.record import ControlRecord
from manifests.retention import RetentionPolicy
from query.request import Request
from store.leases import new_lease, write_lease
from store.port import ObjectInfo, Store
from tests.builder.raced_store import RacedStore, Swap, overwriting
from tests.manifests import samples
from tests.support.collection import (
    collect,
    keys_of,
    move_record,
    orphans,
    reached,
    reached_by,
)
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
    only_of,
    store_of,
    symbols_of,
)


@pytest.fixture
def writer(tmp_path: Path) -> TestableWriter:
    """Two generations of nothing in common released, and a third built upon the second."""
    home = make_writer(tmp_path)
    add(home, upserts(range(5)))
    add(home, upserts(range(5, 10)))
    built(home, upserts(range(10, 14)))
    return home


@pytest.fixture
def collector(writer: TestableWriter) -> TestableWriter:
    """Another home of the same shard, which collects while the first stalls."""
    return copy_of(writer, "collector")


def ids(writer: TestableWriter) -> list[str]:
    return writer.residence.resident_ids()


def record_of(writer: TestableWriter) -> ControlRecord:
    return writer.current().signed.record


def stalled(writer: TestableWriter, meanwhile: Callable[[], object]) -> FaultyStore:
    """``meanwhile`` happens after the writer has put everything, just before its swap."""
    store = FaultyStore(writer.front or store_of(writer))
    store.before_swap = lambda: no_result(meanwhile())
    writer.front = store
    return store


def no_result(_: object) -> None:
    """Makes a statement of an expression."""


def assert_serves(writer: TestableWriter, generation_id: str, document: int) -> None:
    """A fresh node gets the active generation, whole, and it is this one."""
    node = new_node(writer, f"fresh-{document}-{writer.current().signed.timestamp.version}")
    assert node.bootstrap().activated
    assert node.pointer().active.generation_id == generation_id
    hits = node.query(node.reader(), Request(text=f"unique{document}", mode="lexical")).hits
    assert hits[0].id == f"d{document}"


class Stalling(RacedStore):
    """A writer that has read the record stalls before it writes anything; then comes its swap."""

    def __init__(self, behind: Store, meanwhile: Callable[[], object], swap: Swap) -> None:
        super().__init__(behind, swap=swap)
        self._meanwhile = iter([meanwhile])

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        for meanwhile in self._meanwhile:
            meanwhile()
        return super().put_if_absent(key, parts)


@pytest.mark.parametrize("has_put_everything", [False, True])
def test_row_47_a_rollback_stalled_past_a_collection_is_fenced(
    writer: TestableWriter, collector: TestableWriter, has_put_everything: bool
) -> None:
    first, second, _ = ids(writer)
    node = make_node(writer)
    needed = reached_by(writer, [first]) - reached_by(writer, [second])
    assert needed
    store = store_of(writer)
    if has_put_everything:
        stalled(writer, lambda: collect(collector, [second]))
    else:
        writer.front = Stalling(store, lambda: collect(collector, [second]), store.compare_and_swap)
    with pytest.raises(WriterFenced):
        writer.rollback(first, "stalled")
    record = record_of(collector)
    assert (record.active, record.retained) == (second, (second,))
    assert not needed & keys_of(store)
    assert not node.bootstrap().activated
    assert_serves(collector, second, 7)
    # Run again, it says what became of the generation that it wanted.
    with pytest.raises(GenerationCollected):
        writer.rollback(first, "stalled")


def test_row_47_without_the_comparison_it_would_bring_back_what_was_collected(
    writer: TestableWriter, collector: TestableWriter
) -> None:
    """The same on a store that ignores the condition: nothing else keeps the stalled writer out."""
    first, second, _ = ids(writer)
    store = store_of(writer)
    writer.front = Stalling(store, lambda: collect(collector, [second]), overwriting(store))
    writer.rollback(first, "stalled")
    record = record_of(collector)
    assert record.active == first
    assert first in record.retained
    assert reached(collector) - keys_of(store)
    with pytest.raises((ObjectMissing, Unrepairable)):
        new_node(collector).bootstrap()


def test_row_47_without_the_comparison_the_record_would_lose_the_metadata_it_names(
    writer: TestableWriter, collector: TestableWriter
) -> None:
    first, second, _ = ids(writer)
    writer.front = RacedStore(store_of(writer), swap=overwriting(store_of(writer)))
    stalled(writer, lambda: collect(collector, [second]))
    writer.rollback(first, "stalled")
    with pytest.raises(ObjectMissing):
        collector.current()


def test_row_44_without_the_comparison_an_acknowledged_publish_would_be_lost(
    writer: TestableWriter, collector: TestableWriter
) -> None:
    third = ids(writer)[2]
    writer.front = RacedStore(store_of(writer), swap=overwriting(store_of(writer)))
    stalled(writer, lambda: collector.publish(third))
    writer.rollback(None, "stalled")
    assert third not in [entry.generation_id for entry in record_of(collector).published]


def test_row_48_a_collection_during_a_publish_fences_it(
    writer: TestableWriter, collector: TestableWriter
) -> None:
    _, second, third = ids(writer)
    gone: set[str] = set()
    stalled(writer, lambda: gone.update(collect(collector, [second])))
    with pytest.raises(WriterFenced):
        writer.publish(third)
    assert [key for key in gone if key.startswith("symbols/")]
    assert third not in [entry.generation_id for entry in record_of(collector).published]
    writer.front = None
    (report,) = writer.publish(third)
    assert report.uploaded_objects > 0
    assert writer.activate(third)
    assert_serves(writer, third, 12)


def interrupted(writer: TestableWriter) -> set[str]:
    """Publish until all symbols are sent, and die there; the keys that are left."""
    store = FaultyStore(store_of(writer))
    writer.front = store

    def die() -> None:
        store.fail_at = store.mutations

    store.before_swap = die
    with pytest.raises(StoreUnavailable):
        writer.publish(None)
    writer.front = None
    return {key for key in orphans(writer) if key.startswith("symbols/")}


class Taking(RacedStore):
    """A collection that moved the record long ago takes one symbol as soon as it was seen."""

    def __init__(self, behind: Store, taken: str) -> None:
        super().__init__(behind)
        self._taken = taken
        self.listings: list[str] = []

    def stat(self, key: str) -> ObjectInfo | None:
        found = super().stat(key)
        if key == self._taken:
            self.delete(key)
        return found

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.listings.append(prefix)
        return super().list(prefix)


def test_row_48_a_symbol_that_is_collected_after_it_was_seen_is_not_signed_for(
    writer: TestableWriter, collector: TestableWriter
) -> None:
    """The record was moved before the publish read it, so that the comparison cannot tell."""
    _, second, third = ids(writer)
    left = sorted(interrupted(writer))
    move_record(collector, [second])
    before = record_of(collector)
    for taken in (left[0], left[-1]):
        writer.front = Taking(store_of(writer), taken)
        with pytest.raises(WriterFenced, match="deleted"):
            writer.publish(third)
        assert record_of(collector) == before
    writer.front = None
    (report,) = writer.publish(third)
    assert report.uploaded_objects == 1
    assert writer.activate(third)
    assert_serves(writer, third, 12)


def test_row_48_looking_again_costs_a_listing_for_each_new_artifact(writer: TestableWriter) -> None:
    second, third = writer.built()[1:]
    new = {a.blake3 for a in third.artifacts} - {a.blake3 for a in second.artifacts}
    store = Taking(store_of(writer), "nothing")
    writer.front = store
    writer.publish(None)
    assert sorted(prefix.split("/")[2] for prefix in store.listings) == sorted(new)


def test_row_48_a_generation_upon_one_that_was_collected_is_sent_whole(
    writer: TestableWriter, collector: TestableWriter
) -> None:
    first, second, third = ids(writer)
    writer.rollback(first, "the second is bad")
    collect(collector, [first])
    assert reached_by(writer, [second]) - keys_of(store_of(writer))
    writer.publish(third)
    assert writer.activate(third)
    assert_serves(writer, third, 7)


def test_row_49_what_a_dead_publish_leaves_can_be_told_from_the_rest_and_collected(
    writer: TestableWriter, collector: TestableWriter
) -> None:
    _, second, third = ids(writer)
    kept = reached(writer)
    assert kept <= keys_of(store_of(writer))
    earlier = orphans(writer)
    before = keys_of(store_of(writer))
    interrupted(writer)
    left = orphans(writer) - earlier
    assert left == keys_of(store_of(writer)) - before
    assert {key.split("/")[0] for key in left} == {"symbols", "targets", "metadata"}
    assert not left & kept
    assert left <= collect(collector, record_of(writer).retained)
    assert orphans(writer) == set()
    assert_serves(writer, second, 7)
    writer.publish(third)
    assert writer.activate(third)
    assert_serves(writer, third, 12)
    collect(collector, [third])
    assert_serves(writer, third, 12)


def test_row_49_the_version_that_a_dead_publish_took_is_skipped(writer: TestableWriter) -> None:
    taken = writer.current().signed.targets.version + 1
    interrupted(writer)
    assert f"metadata/{taken}.targets.json" in orphans(writer)
    writer.publish(None)
    signed = writer.current().signed
    assert (signed.targets.version, signed.snapshot.version) == (taken + 1, taken + 1)
    assert f"metadata/{taken}.targets.json" in orphans(writer)


def test_row_45_a_commit_that_others_have_built_upon_before_it_was_known_is_not_lost(
    writer: TestableWriter, collector: TestableWriter
) -> None:
    _, _, third = ids(writer)
    store = store_of(writer)

    def lost_and_overtaken(key: str, data: bytes, expected: str | None) -> bool:
        assert store.compare_and_swap(key, data, expected)
        assert collector.activate(third)
        raise StoreUnavailable("the answer was lost, says the test")

    writer.front = RacedStore(store, swap=lost_and_overtaken)
    with pytest.raises(WriterFenced, match="did not say"):
        writer.publish(third)
    writer.front = None
    (report,) = writer.publish(third)
    assert report.already_published
    assert_serves(writer, third, 12)


def test_row_46_a_store_that_answers_nothing_but_conflicts_is_left_as_it_was(
    writer: TestableWriter,
) -> None:
    """The adapter tries again a few times (tests/store/test_s3_faults.py), then gives up."""
    before = writer.current().token
    faulty = stalled(writer, lambda: None)
    faulty.lose_answer = False
    with pytest.raises(StoreUnavailable):
        writer.publish(None)
    assert writer.current().token == before


# --- genctl's own collection ----------------------------------------------------------------------


@pytest.fixture
def retaining(writer: TestableWriter) -> TestableWriter:
    """Three generations released and a fourth built; a collection drops the first."""
    writer.publish(None)
    writer.activate(ids(writer)[-1])
    built(writer, upserts(range(30, 34)))
    return with_retention(writer)


def with_retention(writer: TestableWriter) -> TestableWriter:
    writer.settings = writer.settings.model_copy(
        update={"retention": RetentionPolicy(keep_last=1), "collection_grace_hours": 0}
    )
    return writer


def unwatched(_: int) -> Progress:
    return no_result


def no_garbage(writer: TestableWriter) -> bool:
    """Whether nothing is left but what is needed, and old metadata."""
    (store,) = accounts(writer).stores
    return not store.young.objects and set(store.garbage) <= {"metadata", "records"}


def test_row_39_a_collection_whose_store_dies_at_any_change_is_finished_by_the_next(
    retaining: TestableWriter, tmp_path: Path
) -> None:
    released = ids(retaining)
    rounds = 0
    for outcome_unknown in (False, True):
        for fail_at in itertools.count():
            folder = tmp_path / f"{fail_at}-{outcome_unknown}"
            writer = with_retention(copy_with_store(retaining, folder))
            store = FaultyStore(store_of(writer))
            store.fail_at, store.outcome_unknown = fail_at, outcome_unknown
            writer.front = store
            try:
                collection.collect(writer, unwatched)
            except (StoreUnavailable, WriterFenced):
                writer.front = None
                found = accounts(writer)
                assert found.missing == (), fail_at
            else:
                break
            collection.collect(writer, unwatched)
            assert accounts(writer).missing == ()
            assert no_garbage(writer)
            assert ids(writer) == released[1:]
            assert record_of(writer).collecting is None
            shutil.rmtree(folder)
            rounds += 1
    assert rounds > 20


def test_row_49_what_a_dead_publish_sent_is_kept_as_long_as_its_generation_waits_for_the_next(
    retaining: TestableWriter,
) -> None:
    left = interrupted(retaining)
    assert left
    collection.collect(retaining, unwatched)
    assert left <= keys_of(store_of(retaining))
    (report,) = retaining.publish(None)
    assert report.uploaded_objects == 0


def test_a_merge_that_waits_for_the_next_build_keeps_its_artifacts(
    retaining: TestableWriter,
) -> None:
    residence = retaining.residence
    kept, stray = b"k" * 100, b"s" * 100
    for data in (kept, stray):
        path = retaining.home / "made"
        path.write_bytes(data)
        residence.take_in(path, content_id(data))
    artifact = samples.heads(0, 5).model_copy(update={"blake3": content_id(kept)})
    merge = PreparedMerge.of([artifact], [artifact], None, [])
    PreparedMerges(retaining.home, residence).add(merge)
    key = symbol_key(content_id(kept), 0)
    store_of(retaining).put_if_absent(key, [b"sent ahead"])
    collection.collect(retaining, unwatched)
    assert residence.artifact_path(content_id(kept)).exists()
    assert not residence.artifact_path(content_id(stray)).exists()
    assert key in keys_of(store_of(retaining))
    told = kept_objects.explain(retaining, content_id(kept))
    assert told.keepers == ((f"merge {merge.id}", ("waits for the next build",)),)


def test_row_58_a_collected_generation_that_a_lease_keeps_here_is_not_published_again(
    retaining: TestableWriter,
) -> None:
    first, _, _, fourth = ids(retaining)
    lease = new_lease(first, "reader", "a test", clock.now(), timedelta(hours=1))
    store = store_of(retaining)
    retaining.front = Stalling(store, lambda: write_lease(store, lease), store.compare_and_swap)
    report = collection.collect(retaining, unwatched)
    retaining.front = None
    assert report.leased_meanwhile == (first,)
    assert first in ids(retaining)
    with pytest.raises(GenerationCollected):
        retaining.publish(first)
    assert [each.generation_id for each in retaining.publish(None)] == [fourth]


def test_a_collection_emits_an_event_with_what_it_freed(
    retaining: TestableWriter, caplog: pytest.LogCaptureFixture
) -> None:
    first = ids(retaining)[0]
    with caplog.at_level(logging.INFO, "genctl.events"):
        report = collection.collect(retaining, unwatched)
    (event,) = [each for each in caplog.records if each.message == "generations_collected"]
    facts = event.__dict__["facts"]
    assert facts["generation_ids"] == (first,)
    assert facts["freed_bytes"] == report.freed_bytes > 0


def test_row_47_a_collector_overtaken_between_its_two_looks_deletes_nothing_more(
    retaining: TestableWriter,
) -> None:
    """A copy of the home that was made while it collected takes the collection for its own."""
    store = store_of(retaining)

    class Overtaking(RacedStore):
        """The first deletion lets the copy publish before the second batch is begun."""

        has_overtaken = False

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            found = [*super().list(prefix)]
            if prefix == "" and record_of(retaining).collecting and not self.has_overtaken:
                self.has_overtaken = True
                other = copy_of(retaining, "copy")
                other.publish(None)
            return iter(found)

    retaining.front = Overtaking(store)
    before = keys_of(store)
    with pytest.raises(WriterFenced):
        collection.collect(retaining, unwatched)
    assert before <= keys_of(store)


def test_who_moves_the_record_just_after_a_collection_began_ends_it_before_it_deletes(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path)
    released = [add(writer, upserts([number])).generation_id for number in range(4)]
    other = copy_of(writer, "other")
    policy = {"retention": RetentionPolicy(keep_last=1), "collection_grace_hours": 0}
    writer.settings = writer.settings.model_copy(update=policy)
    store = store_of(writer)
    before = keys_of(store)
    swapped: list[str] = []

    def swap(key: str, data: bytes, expected: str | None) -> bool:
        done = store.compare_and_swap(key, data, expected)
        if not swapped:
            swapped.append(key)
            tag(other, released[-1], "meanwhile")
        return done

    writer.front = RacedStore(store, swap=swap)
    with pytest.raises(WriterFenced, match="just after"):
        collection.collect(writer, lambda _: lambda _: None)
    assert before <= keys_of(store)


def test_what_only_a_lease_keeps_is_missed_when_it_is_gone(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    released = [add(writer, upserts([number])).generation_id for number in range(4)]
    policy = {"retention": RetentionPolicy(keep_last=1), "collection_grace_hours": 0}
    writer.settings = writer.settings.model_copy(update=policy)
    store = store_of(writer)
    lease = new_lease(released[0], "reader", "a test", clock.now(), timedelta(hours=1))

    def swap(key: str, data: bytes, expected: str | None) -> bool:
        write_lease(store, lease)  # after the plan, before the fence
        return store.compare_and_swap(key, data, expected)

    writer.front = RacedStore(store, swap=swap)
    report = collection.collect(writer, lambda _: lambda _: None)
    assert report.leased_meanwhile == (released[0],)
    assert accounts(writer).missing == ()
    only = only_of(writer, 0)[0]
    shutil.rmtree(symbols_of(writer, only))
    assert {each.key for each in accounts(writer).missing} == {
        symbol_key(only.blake3, number) for number in range(only.symbols.m)
    }
