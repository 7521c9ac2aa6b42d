"""The way of a collection through stores: what it deletes, and when it stops."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from builder import presence
from builder.collect import BATCH_OBJECTS, judged, refusing_overtaken, survey, sweep
from builder.garbage import Marks
from builder.presence import Presence
from builder.reachable import Reach, Root
from builder.repository import TIMESTAMP_KEY
from controller import clock
from manifests.errors import StoreUnavailable, WriterFenced
from manifests.names import symbol_key
from store.locate import open_store
from store.memory import MemoryStore
from store.spread import SpreadStore, symbol_store
from tests.builder.reached import ONE, TWO, root
from tests.builder.test_garbage import NOW, OLD, marks
from tests.support.faulty_store import FaultyStore


def never() -> None:
    """Nobody overtakes."""


def unwatched(_: int) -> None:
    """Nobody counts."""


def holding(*keys: str, name: str = "store") -> MemoryStore:
    """A store with objects of ten bytes that are old enough."""
    store = MemoryStore(name, lambda: OLD)
    for key in keys:
        store.put_if_absent(key, [b"0123456789"])
    return store


def keys_in(store: MemoryStore) -> list[str]:
    return [info.key for info in store.list("")]


KEPT, GONE = symbol_key(ONE.blake3, 0), symbol_key(TWO.blake3, 0)


def test_each_object_is_judged_once_in_each_store_in_the_order_of_the_keys() -> None:
    stores = [holding("b", GONE, name="1"), holding("a", "b", name="2")]
    found = [(each.info.key, each.place) for each in judged(stores, marks(store_count=2))]
    assert found == [("a", 1), ("b", 0), ("b", 1), (GONE, 0)]


def test_a_survey_deletes_nothing_and_a_sweep_what_it_found() -> None:
    stores = [holding(KEPT, GONE, "else", name="1"), holding(GONE, name="2")]
    by = marks(store_count=1)
    planned = survey(stores, by)
    assert [tally.garbage_objects for tally in planned] == [1, 1]
    assert keys_in(stores[0]) == sorted([KEPT, GONE, "else"])
    gone: list[int] = []
    swept = sweep(stores, by, never, gone.append)
    assert swept == planned
    assert gone == [10, 10]
    assert keys_in(stores[0]) == sorted([KEPT, "else"])
    assert keys_in(stores[1]) == []
    assert [tally.garbage_objects for tally in sweep(stores, by, never, unwatched)] == [0, 0]


def test_a_sweep_asks_before_every_batch_and_deletes_nothing_once_it_was_overtaken() -> None:
    numbers = range(BATCH_OBJECTS * 3 + 1)
    store = holding(*(f"probe/{number:032x}" for number in numbers))
    asked: list[int] = []

    def refuse() -> None:
        asked.append(len(keys_in(store)))
        if len(asked) == 3:
            raise WriterFenced("overtaken, says the test")

    with pytest.raises(WriterFenced):
        sweep([store], marks(), refuse, unwatched)
    left = len(numbers) - 2 * BATCH_OBJECTS
    assert asked == [len(numbers), len(numbers) - BATCH_OBJECTS, left]
    assert len(keys_in(store)) == left
    sweep([store], marks(), never, unwatched)
    assert keys_in(store) == []


def test_nobody_is_asked_where_there_is_nothing_to_delete() -> None:
    def refuse() -> None:
        raise AssertionError("asked")

    sweep([holding(KEPT)], marks(), refuse, unwatched)


def test_a_store_that_fails_ends_a_sweep_and_another_one_goes_on() -> None:
    behind = holding(*(f"probe/{number:032x}" for number in range(20)))
    store = FaultyStore(behind)
    store.fail_at = 5
    with pytest.raises(StoreUnavailable):
        sweep([store], marks(), never, unwatched)
    assert 0 < len(keys_in(behind)) < 20
    store.revive()
    (tally,) = sweep([store], marks(), never, unwatched)
    assert tally.garbage_objects == 15
    assert keys_in(behind) == []


def test_a_bucket_is_swept_as_any_other_store(s3_url: str) -> None:
    store = open_store(s3_url, create=True)
    for key in (KEPT, GONE, "else", *(f"probe/{number:032x}" for number in range(300))):
        store.put_if_absent(key, [b"0123456789"])
    (young,) = survey([store], marks(now=clock.now()))
    assert (young.garbage_objects, young.young.objects) == (0, 301)
    (swept,) = sweep([store], marks(now=clock.now() + timedelta(days=2)), never, unwatched)
    assert (swept.garbage_objects, swept.garbage_bytes) == (301, 3010)
    assert [info.key for info in store.list("")] == sorted([KEPT, "else"])


def test_who_finds_another_record_than_its_own_is_overtaken() -> None:
    store = holding()
    store.compare_and_swap(TIMESTAMP_KEY, b"mine", None)
    found = store.get_versioned(TIMESTAMP_KEY, limit_bytes=100)
    assert found is not None
    refuse = refusing_overtaken(store, found.version)
    refuse()
    store.compare_and_swap(TIMESTAMP_KEY, b"another's", found.version)
    with pytest.raises(WriterFenced):
        refuse()
    store.delete(TIMESTAMP_KEY)
    with pytest.raises(WriterFenced):
        refuse()


# --- presence -------------------------------------------------------------------------------------

ONLY_ONE = Reach([Root("published", ("why",), (ONE,), is_stored=True)])


def whole() -> list[MemoryStore]:
    """Two stores with every symbol of ``ONE`` where it belongs, and a mirrored object."""
    stores = [MemoryStore("1", lambda: OLD), MemoryStore("2", lambda: OLD)]
    spread = SpreadStore(stores)
    for number in range(ONE.symbols.m):
        (size_bytes,) = ONLY_ONE.symbol_sizes(ONE.blake3, number)
        spread.put_if_absent(symbol_key(ONE.blake3, number), [b"x" * size_bytes])
    for store in stores:
        store.put_if_absent("mirrored", [b"x"])
    return stores


def missing(stores: Sequence[MemoryStore], reach: Reach = ONLY_ONE) -> dict[tuple[str, str], str]:
    presence = Presence(reach, stores, ["mirrored"])
    grace = timedelta(hours=1)
    by = Marks(reach, len(stores), frozenset(), {}, frozenset(), frozenset(), NOW, grace)
    survey(stores, by, presence.saw)
    return {(each.where, each.key): each.what for each in presence.missing()}


def test_nothing_is_missing_from_stores_that_have_it_all() -> None:
    assert missing(whole()) == {}


def test_what_no_store_has_is_missing_where_it_belongs() -> None:
    for number in range(ONE.symbols.m):
        stores, key = whole(), symbol_key(ONE.blake3, number)
        SpreadStore(stores).delete(key)
        url = stores[symbol_store(ONE.blake3, number, 2)].url
        assert missing(stores) == {(url, key): "it is not there"}


def test_a_symbol_that_is_short_or_in_another_store_is_missing_and_told_how() -> None:
    key = symbol_key(ONE.blake3, 1)
    stores = whole()
    right = symbol_store(ONE.blake3, 1, 2)
    url = stores[right].url
    stores[right].delete(key)
    stores[1 - right].put_if_absent(key, [b"x"])
    assert missing(stores) == {(url, key): f"it is in {stores[1 - right].url} instead"}
    stores[right].put_if_absent(key, [b"x"])
    assert missing(stores)[url, key].startswith("it has 1 bytes, and should have")


def test_what_is_mirrored_must_be_in_every_store() -> None:
    stores = whole()
    stores[1].delete("mirrored")
    assert missing(stores) == {("memory:2", "mirrored"): "it is not there"}
    with_manifest = Reach([root("published", ONE)])
    assert ("memory:1", "manifest of published") in missing(whole(), with_manifest)


def test_of_symbols_that_are_not_as_they_should_be_so_many_are_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence, "MAX_UNKNOWN", 1)
    stores = whole()
    for number in (0, 1):
        key = symbol_key(ONE.blake3, number)
        SpreadStore(stores).delete(key)
        SpreadStore(stores).put_if_absent(key, [b"x"])
    told = sorted(missing(stores).values())
    assert len(told) == 2, "all are missing"
    assert [each.startswith("it has 1 bytes") for each in told] == [True, False]
    assert told[1] == "it is not there, or not in its place and full length"
