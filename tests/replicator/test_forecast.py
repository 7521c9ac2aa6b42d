"""What is foreseen of a transfer is what the transfer then moves, byte for byte."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.residence import Residence
from manifests.errors import (
    ExpansionExceeded,
    GenctlError,
    LengthExceeded,
    StoreUnavailable,
    Unrepairable,
)
from manifests.names import artifact_key, symbol_key, table_key
from replicator.forecast import Forecast, forecast
from replicator.plan import FetchPlan
from replicator.scrub import mend_artifact
from replicator.sources import Supply
from replicator.tally import FetchTally
from store.memory import MemoryStore
from store.port import ObjectInfo, Store
from store.spread import symbol_store
from tests.replicator.encoded import EncodedArtifact, encoded_artifact

CUTS = {"one chunk": (3000, 1, 2), "small": (40_000, 5, 6), "large": (500_001, 10, 12)}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, EncodedArtifact]:
    return {
        name: encoded_artifact(tmp_path_factory.mktemp("encoded"), size_bytes, k, m)
        for name, (size_bytes, k, m) in CUTS.items()
    }


@pytest.fixture(params=CUTS)
def one(request: pytest.FixtureRequest, encoded: dict[str, EncodedArtifact]) -> EncodedArtifact:
    return encoded[request.param]


class NamedStore(MemoryStore):
    """A store in memory with a name of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def url(self) -> str:
        return f"memory:{self._name}"


class SilentStore(NamedStore):
    """A store that does not answer."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        raise StoreUnavailable("it does not answer")

    def stat(self, key: str) -> ObjectInfo | None:
        raise StoreUnavailable("it does not answer")

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        raise StoreUnavailable("it does not answer")

    def read_into(self, key: str, **_: object) -> int:
        raise StoreUnavailable("it does not answer")


class EndlessPeer(NamedStore):
    """A peer that has what it should, and whose listing never ends."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        raise AssertionError("asked for a listing")


class ExcessivePeer(SilentStore):
    """A peer that answers every question at too great a length, or packed."""

    def __init__(self, name: str, error: type[GenctlError]) -> None:
        super().__init__(name)
        self._error = error

    def stat(self, key: str) -> ObjectInfo | None:
        raise self._error("it says too much")


class SlowPeer(SilentStore):
    """A peer that says that it is not there once all of ``asked`` were asked."""

    def __init__(self, name: str, asked: threading.Barrier) -> None:
        super().__init__(name)
        self._asked = asked
        self._first = threading.Lock()

    def stat(self, key: str) -> ObjectInfo | None:
        if self._first.acquire(blocking=False):
            self._asked.wait(timeout=60)
        return super().stat(key)


def spread(one: EncodedArtifact, store_count: int, lost: Sequence[int] = ()) -> list[MemoryStore]:
    """The symbols but for the lost ones, each in the store where it belongs."""
    stores = [NamedStore(f"s{number}") for number in range(store_count)]
    artifact_id = one.artifact.blake3
    for number, body in enumerate(one.objects):
        if number not in lost:
            store = stores[symbol_store(artifact_id, number, store_count)]
            store.put_if_absent(symbol_key(artifact_id, number), [body])
    return list(stores)


def peer(one: EncodedArtifact, name: str, *, table: bool = True) -> MemoryStore:
    """A node that serves the artifact, and perhaps its table."""
    store = EndlessPeer(name)
    store.put_if_absent(artifact_key(one.artifact.blake3), [one.data])
    if table and one.geometry.column_count * one.geometry.k > 1:
        body = one.objects[0][one.geometry.table_range(0).offset :]
        store.put_if_absent(table_key(one.artifact.blake3), [body])
    return store


def supply_of(stores: Sequence[Store], peers: Sequence[Store]) -> Supply:
    return Supply(tuple(peers), tuple(stores), 4, 1 << 16, time.monotonic)


def foresee(
    one: EncodedArtifact, home: Path, stores: Sequence[Store], peers: Sequence[Store] = ()
) -> Forecast:
    plan = FetchPlan((), (one.artifact,))
    return forecast(plan, Residence(home), supply_of(stores, peers), home / "incoming")


def fetch(
    one: EncodedArtifact, home: Path, stores: Sequence[Store], peers: Sequence[Store] = ()
) -> FetchTally:
    residence, supply = Residence(home), supply_of(stores, peers)
    return mend_artifact(residence, one.artifact, supply, home / "incoming", lambda _: None)


def check(
    one: EncodedArtifact, home: Path, stores: Sequence[Store], peers: Sequence[Store] = ()
) -> Forecast:
    """Foresee, fetch, and compare."""
    before = home_bytes(home)
    foreseen = foresee(one, home, stores, peers)
    assert home_bytes(home) == before, "nothing was fetched"
    assert foreseen.shortfalls == ()
    tally = fetch(one, home, stores, peers)
    moved = {url: size for url, size in tally.sources.items() if size}
    assert {each.url: each.size_bytes for each in foreseen.sources if each.size_bytes} == moved
    assert foreseen.bytes_from("peer") == tally.peer_bytes
    assert foreseen.bytes_from("store") == tally.store_bytes
    assert foreseen.resume_bytes == tally.resumed_bytes
    assert foreseen.rebuilt_bytes == tally.repaired_bytes
    assert home_bytes(home) - before == foreseen.disk_peak_bytes
    assert Residence(home).artifact_path(one.artifact.blake3).read_bytes() == one.data
    return foreseen


def refusals(foreseen: Forecast) -> list[str | None]:
    return [None if each.refusal is None else each.refusal.message for each in foreseen.sources]


def home_bytes(home: Path) -> int:
    plain = (path for path in home.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in plain)


def test_a_healthy_store_gives_each_byte_once_and_one_table(
    one: EncodedArtifact, tmp_path: Path
) -> None:
    foreseen = check(one, tmp_path, spread(one, 1))
    single = one.geometry.k == 1
    assert foreseen.table_bytes == (0 if single else one.geometry.table_size_bytes)
    assert foreseen.fetch_bytes == len(one.data) + foreseen.table_bytes
    assert foreseen.repair_bytes == foreseen.rebuilt_bytes == foreseen.resume_bytes == 0


def test_every_loss_that_is_survived_is_foreseen_to_the_byte(
    encoded: dict[str, EncodedArtifact], tmp_path: Path
) -> None:
    homes = (tmp_path / str(number) for number in itertools.count())
    for one in encoded.values():
        k, m = one.geometry.k, one.geometry.m
        for lost in itertools.combinations(range(m), m - k):
            foreseen = check(one, next(homes), spread(one, 1, lost))
            of_sources = sum(number < k for number in lost)
            assert (foreseen.repair_bytes > 0) == (foreseen.rebuilt_bytes > 0) == (of_sources > 0)


def test_one_loss_more_is_foreseen_as_unrepairable_and_is(
    one: EncodedArtifact, tmp_path: Path
) -> None:
    lost = range(one.geometry.m - one.geometry.k + 1)
    stores = spread(one, 1, lost)
    (shortfall,) = foresee(one, tmp_path, stores).shortfalls
    assert shortfall.artifact == one.artifact
    with pytest.raises(Unrepairable):
        fetch(one, tmp_path, stores)


@pytest.mark.parametrize("lost", [(), (0,), (4,)])
def test_three_stores_give_what_each_of_them_has(
    one: EncodedArtifact, tmp_path: Path, lost: tuple[int, ...]
) -> None:
    foreseen = check(one, tmp_path, spread(one, 3, [n for n in lost if n < one.geometry.m - 1]))
    assert len(foreseen.sources) == 3


def test_symbols_in_other_stores_than_they_belong_in_are_found(
    one: EncodedArtifact, tmp_path: Path
) -> None:
    first, second, third = spread(one, 3)
    check(one, tmp_path, [third, first, second])


def test_two_peers_share_the_work_and_stores_give_nothing(
    one: EncodedArtifact, tmp_path: Path
) -> None:
    foreseen = check(one, tmp_path, spread(one, 1), [peer(one, "p0"), peer(one, "p1")])
    assert foreseen.bytes_from("store") == 0
    assert foreseen.bytes_from("peer") == len(one.data) + foreseen.table_bytes


def test_a_peer_without_the_table_and_one_with_nothing_leave_it_to_the_stores(
    one: EncodedArtifact, tmp_path: Path
) -> None:
    peers = [peer(one, "p0", table=False), NamedStore("p1")]
    foreseen = check(one, tmp_path, spread(one, 2), peers)
    assert foreseen.bytes_from("store") == foreseen.table_bytes


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_objects_that_were_cut_short_are_foreseen_up_to_where_they_end(
    encoded: dict[str, EncodedArtifact],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    one = encoded[data.draw(st.sampled_from(sorted(CUTS)))]
    geometry = one.geometry
    numbers = data.draw(st.sets(st.integers(0, geometry.m - 1), max_size=geometry.m - geometry.k))
    changes: dict[int, bytes | None] = {
        n: one.objects[n][: data.draw(st.integers(0, len(one.objects[n]) - 1))] for n in numbers
    }
    check(one, tmp_path_factory.mktemp("cut"), [one.store(changes)])


@pytest.mark.parametrize("seed", range(6))
def test_what_an_interrupted_fetch_left_is_resumed(
    encoded: dict[str, EncodedArtifact], tmp_path: Path, seed: int
) -> None:
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)
    one = encoded["large"]
    left = bytearray(one.data[: chance.randrange(1, len(one.data))])
    for _ in range(seed):
        left[chance.randrange(len(left))] ^= 1
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / one.artifact.blake3).write_bytes(left)
    foreseen = check(one, tmp_path, spread(one, 1, [chance.randrange(12)]))
    assert 0 <= foreseen.resume_bytes <= len(left)


def test_a_damaged_artifact_keeps_what_is_good_of_it(
    encoded: dict[str, EncodedArtifact], tmp_path: Path
) -> None:
    one = encoded["large"]
    check(one, tmp_path, spread(one, 1))
    path = Residence(tmp_path).artifact_path(one.artifact.blake3)
    damaged = bytearray(one.data)
    damaged[5] ^= 1
    damaged[60_000] ^= 1
    path.write_bytes(damaged)
    foreseen = check(one, tmp_path, spread(one, 1))
    assert foreseen.table_bytes == foreseen.disk_peak_bytes == 0
    assert foreseen.fetch_bytes == 2 * 4096


def test_a_link_in_the_place_of_an_artifact_is_not_counted_as_here(
    encoded: dict[str, EncodedArtifact], tmp_path: Path
) -> None:
    one, home = encoded["large"], tmp_path / "home"
    home.mkdir()
    check(one, home, spread(one, 1))
    path = Residence(home).artifact_path(one.artifact.blake3)
    path.symlink_to(path.rename(tmp_path / "elsewhere"))
    foreseen = check(one, home, spread(one, 1))
    assert foreseen.resume_bytes == 0
    assert foreseen.disk_peak_bytes == one.artifact.size_bytes


def test_a_source_that_does_not_answer_is_named_and_taken_to_have_nothing(
    encoded: dict[str, EncodedArtifact], tmp_path: Path
) -> None:
    one = encoded["large"]
    foreseen = check(one, tmp_path, spread(one, 1), [SilentStore("p0")])
    assert refusals(foreseen) == [
        "it does not answer",
        None,
    ]


def test_silent_sources_are_waited_for_at_the_same_time(
    one: EncodedArtifact, tmp_path: Path
) -> None:
    asked = threading.Barrier(3)
    peers = [SlowPeer(f"p{number}", asked) for number in range(3)]
    expected = foresee(one, tmp_path, spread(one, 1), peers)
    assert refusals(expected) == ["it does not answer"] * 3 + [None]
    assert not asked.broken


@pytest.mark.parametrize("error", [LengthExceeded, ExpansionExceeded])
def test_a_peer_whose_answers_exceed_all_bounds_is_named_and_taken_to_have_nothing(
    encoded: dict[str, EncodedArtifact], tmp_path: Path, error: type[GenctlError]
) -> None:
    one = encoded["large"]
    excessive = ExcessivePeer("p0", error)
    foreseen = check(one, tmp_path, spread(one, 1), [excessive, peer(one, "p1")])
    assert refusals(foreseen) == [
        "it says too much",
        None,
        None,
    ]
    assert foreseen.bytes_from("store") == foreseen.table_bytes


def test_what_cannot_be_had_while_a_store_is_silent_is_not_called_lost(
    encoded: dict[str, EncodedArtifact], tmp_path: Path
) -> None:
    one = encoded["large"]
    (shortfall,) = foresee(one, tmp_path, [SilentStore("s0")]).shortfalls
    assert "does not answer" in shortfall.reason
    with pytest.raises(StoreUnavailable):
        fetch(one, tmp_path, [SilentStore("s0")])
