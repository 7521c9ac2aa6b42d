"""Leases: what counts, for how long, and what lies beside them and is none."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, strategies

from manifests.canonical import to_canonical
from manifests.errors import LengthExceeded, ManifestMalformed, SchemaTooNew, StoreUnavailable
from store.leases import (
    LONGEST,
    MAX_SIZE_BYTES,
    MAX_UNREADABLE,
    MOST_AHEAD,
    Lease,
    is_holder,
    is_purpose,
    lease_key,
    leases_in,
    new_lease,
    read_lease,
    write_lease,
)
from store.locate import open_store
from store.memory import MemoryStore
from store.port import Store
from store.spread import SpreadStore

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
FIRST = "g000000000001-0123456789ab"
SECOND = "g000000000002-0123456789ab"


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return (
        MemoryStore("memory")
        if request.param == "memory"
        else open_store(str(tmp_path / "store"), create=True)
    )


def lease(generation_id: str = FIRST, holder: str = "alice", lasting: timedelta = HOUR) -> Lease:
    return new_lease(generation_id, holder, "a backup", NOW, lasting)


def test_a_lease_is_canonical_json_under_its_generation_and_holder(store: Store) -> None:
    write_lease(store, lease())
    assert store.get(f"leases/{FIRST}/alice.json", length=1000) == (
        b'{"expires_at":"2026-11-21T13:00:00Z","generation_id":"g000000000001-0123456789ab",'
        b'"holder":"alice","purpose":"a backup","schema_version":1,'
        b'"taken_at":"2026-11-21T12:00:00Z"}'
    )
    assert read_lease(store, FIRST, "alice") == lease()
    assert read_lease(store, FIRST, "bob") is None


def test_leases_are_listed_by_generation_and_holder(store: Store) -> None:
    all_of_them = [lease(), lease(FIRST, "bob"), lease(SECOND, "alice")]
    for each in reversed(all_of_them):
        write_lease(store, each)
    found = leases_in(store)
    assert list(found.leases) == all_of_them
    assert (found.unreadable, found.unreadable_count) == ((), 0)


def test_a_lease_ends_when_it_says_so() -> None:
    one = lease(lasting=HOUR)
    assert not one.has_expired(NOW)
    assert not one.has_expired(NOW + HOUR - timedelta(seconds=1))
    assert one.has_expired(NOW + HOUR)


def test_whether_it_ended_long_ago_says_nothing_of_one_that_was_just_taken() -> None:
    one, day = lease(lasting=HOUR), timedelta(days=1)
    assert not one.has_expired(NOW, for_longer_than=7 * day)
    assert not one.has_expired(NOW + HOUR, for_longer_than=7 * day)
    assert not one.has_expired(NOW + 7 * day, for_longer_than=7 * day)
    assert one.has_expired(NOW + HOUR + 7 * day, for_longer_than=7 * day)


def test_a_planted_lease_counts_for_no_longer_than_any_may() -> None:
    for_ever = lease(lasting=timedelta(days=36_500))
    assert not for_ever.has_expired(NOW + LONGEST - timedelta(seconds=1))
    assert for_ever.has_expired(NOW + LONGEST)
    later = new_lease(FIRST, "alice", "", NOW + MOST_AHEAD + timedelta(seconds=1), HOUR)
    assert later.has_expired(NOW), "it was taken in a future that no clock can be in"
    assert not later.has_expired(NOW + HOUR)


@given(
    taken=strategies.timedeltas(min_value=timedelta(days=-400), max_value=timedelta(days=400)),
    lasting=strategies.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)),
)
def test_whatever_a_lease_says_it_counts_for_60_days_from_now_at_most(
    taken: timedelta, lasting: timedelta
) -> None:
    one = new_lease(FIRST, "alice", "", NOW + taken, lasting)
    if not one.has_expired(NOW):
        assert one.has_expired(NOW + MOST_AHEAD + LONGEST)


GARBAGE = {
    "not-json": b"\xff\x00",
    "empty": b"",
    "other-holder": to_canonical(lease(holder="bob")),
    "other-generation": to_canonical(lease(SECOND, "other-generation")),
    "not-canonical": to_canonical(lease(holder="not-canonical")) + b"\n",
    "newer": to_canonical(lease(holder="newer")).replace(
        b'"schema_version":1', b'"schema_version":2'
    ),
    "no-such-day": to_canonical(lease(holder="no-such-day")).replace(b"2026-11-21", b"2026-02-30"),
    "backwards": to_canonical(lease(holder="backwards", lasting=-HOUR)),
    "too-long": b"x" * (MAX_SIZE_BYTES + 1),
}


def test_what_is_no_lease_is_told_and_hides_none(store: Store) -> None:
    write_lease(store, lease())
    for name, data in GARBAGE.items():
        assert store.put_if_absent(lease_key(FIRST, name), [data])
    strange = ["leases/a", "leases/g1/x.json", f"leases/{FIRST}/x.txt", f"leases/{FIRST}/a/b.json"]
    for key in [*strange, f"leases/{FIRST}/Alice.json"]:
        assert store.put_if_absent(key, [to_canonical(lease())])
    found = leases_in(store)
    assert found.leases == (lease(),)
    assert {each.key for each in found.unreadable} == {
        *(lease_key(FIRST, name) for name in GARBAGE),
        *strange,
        f"leases/{FIRST}/Alice.json",
    }
    assert all(each.reason and each.store == store.url for each in found.unreadable)
    for name in GARBAGE:
        with pytest.raises((LengthExceeded, ManifestMalformed, SchemaTooNew)):
            read_lease(store, FIRST, name)


def test_of_a_flood_of_garbage_the_first_are_told_and_all_are_counted() -> None:
    store = MemoryStore("memory")
    for number in range(MAX_UNREADABLE + 50):
        store.put_if_absent(f"leases/{FIRST}/n{number:04}.json", [b"{"])
    write_lease(store, lease(SECOND))
    found = leases_in(SpreadStore([store, MemoryStore("other")]))
    assert found.leases == (lease(SECOND),)
    assert (len(found.unreadable), found.unreadable_count) == (MAX_UNREADABLE, MAX_UNREADABLE + 50)


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=list(GARBAGE))
def test_a_lease_takes_the_place_of_what_is_none(store: Store, garbage: bytes) -> None:
    store.put_if_absent(lease().key, [garbage])
    write_lease(store, lease())
    assert read_lease(store, FIRST, "alice") == lease()


def test_writing_the_same_lease_again_is_writing_it_once(store: Store) -> None:
    for lasting in (HOUR, HOUR, 2 * HOUR, HOUR):
        write_lease(store, lease(lasting=lasting))
        assert read_lease(store, FIRST, "alice") == lease(lasting=lasting)


def test_of_writes_at_once_each_is_acknowledged_and_one_stands(store: Store) -> None:
    mine = [lease(lasting=HOUR * number) for number in range(1, 5)]
    threads = [threading.Thread(target=write_lease, args=[store, each]) for each in mine]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert read_lease(store, FIRST, "alice") in mine


def test_a_lease_in_any_of_several_stores_counts_and_the_latest_of_one_holder() -> None:
    stores = [MemoryStore(f"s{number}") for number in range(3)]
    write_lease(stores[2], lease())
    write_lease(stores[0], lease(SECOND, lasting=HOUR))
    write_lease(stores[1], lease(SECOND, lasting=2 * HOUR))
    for order in (stores, stores[::-1]):
        assert leases_in(SpreadStore(order)).leases == (lease(), lease(SECOND, lasting=2 * HOUR))


def test_leases_are_not_known_where_a_store_does_not_answer(tmp_path: Path) -> None:
    silent = open_store(str(tmp_path / "not mounted"))
    with pytest.raises(StoreUnavailable):
        leases_in(SpreadStore([MemoryStore("s0"), silent]))


@pytest.mark.parametrize("name", ["a", "0", "node-1.example", "a" * 63])
def test_names_of_holders(name: str) -> None:
    assert is_holder(name)
    assert lease(holder=name).key.endswith(f"/{name}.json")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-a", ".a", "A", "a/b", "a\\b", "a b", "ä", "a\n", "a\0", "a" * 64]
)
def test_names_that_no_holder_can_have(name: str) -> None:
    assert not is_holder(name)
    with pytest.raises(ValueError, match="holder"):
        lease(holder=name)


def test_a_purpose_is_one_line_of_text() -> None:
    assert is_purpose("")
    assert is_purpose("a nightly backup – of März")
    for text in ("a\nb", "\x1b[2J", "x" * 201, "\ud800"):
        assert not is_purpose(text)
