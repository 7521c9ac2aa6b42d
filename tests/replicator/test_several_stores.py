"""Symbols spread over three stores: any of them lost, damaged or away."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from controller import clock
from controller.node import NodeHome
from manifests.errors import StoreUnavailable, Unrepairable
from manifests.names import symbol_key
from query.request import Request
from replicator import download
from replicator.fetch import Progress
from replicator.health import STORE_FAILURES_IN_A_ROW
from replicator.plan import FetchPlan
from replicator.sources import Place, Sources
from replicator.tally import FetchTally
from store.memory import MemoryStore
from store.port import Store
from store.retrying import Backoff
from store.spread import symbol_store
from symbols.geometry import choose
from tests.replicator.encoded import EncodedArtifact, encoded_artifact, fetch_from
from tests.replicator.transfers import Clock, peer_with, transferring
from tests.support.corpus import upserts
from tests.support.homes import add, make_node, make_writer
from tests.support.slow_store import SlowStore, failing, healthy, torn

COUNT = 3
SIZES = [5_000, 300_000, 2_000_000]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[EncodedArtifact]:
    """One of every cut that genctl gives artifacts in three stores."""
    folder = tmp_path_factory.mktemp("artifacts")
    cuts = [choose(size_bytes, COUNT) for size_bytes in SIZES]
    assert len({(cut.k, cut.m) for cut in cuts}) == len(SIZES)
    return [
        encoded_artifact(folder, cut.size_bytes // 10, cut.k, cut.m, seed=seed)
        for seed, cut in enumerate(cuts, 1)
    ]


@pytest.fixture(autouse=True)
def no_hedges(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is: these tests count bytes."""
    monkeypatch.setattr(download, "HEDGE_AFTER_S", 60.0)


def spread(encoded: EncodedArtifact) -> list[SlowStore]:
    """Three stores with the symbols that belong in each."""
    stores = [MemoryStore(f"s{n}") for n in range(COUNT)]
    for number, body in enumerate(encoded.objects):
        belongs = symbol_store(encoded.artifact.blake3, number, COUNT)
        stores[belongs].put_if_absent(symbol_key(encoded.artifact.blake3, number), [body])
    return [SlowStore(store) for store in stores]


def fetched(encoded: EncodedArtifact, folder: Path, stores: list[SlowStore]) -> FetchTally:
    for place in ("", "tables/", "incoming/"):
        (folder / f"{place}{encoded.artifact.blake3}").unlink(missing_ok=True)
    tally = fetch_from(encoded.artifact, folder, stores)
    assert (folder / encoded.artifact.blake3).read_bytes() == encoded.data
    return tally


def test_each_symbol_is_asked_of_the_store_it_belongs_in(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    for encoded in artifacts:
        stores = spread(encoded)
        tally = fetched(encoded, tmp_path, stores)
        is_single = encoded.artifact.symbols.k == 1
        table_bytes = 0 if is_single else encoded.geometry.table_size_bytes
        assert tally.store_bytes == len(encoded.data) + table_bytes
        assert (tally.damaged_symbols, tally.repaired_chunks) == (0, 0)
        assert sum(len(store.bulk) for store in stores) == encoded.geometry.k


def test_row_29_row_52_any_one_store_may_have_lost_everything(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    for encoded in artifacts:
        for lost in range(COUNT):
            stores = spread(encoded)
            stores[lost] = SlowStore(MemoryStore("empty"))
            tally = fetched(encoded, tmp_path, stores)
            sources = sum(
                symbol_store(encoded.artifact.blake3, n, COUNT) == lost
                for n in range(encoded.geometry.k)
            )
            assert (tally.repaired_artifacts > 0) == (sources > 0)


def test_row_30_two_lost_stores_are_unrepairable(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    for encoded in artifacts[1:]:
        for pair in combinations(range(COUNT), 2):
            stores = spread(encoded)
            for lost in pair:
                stores[lost] = SlowStore(MemoryStore(f"empty{lost}"))
            with pytest.raises(Unrepairable) as caught:
                fetched(encoded, tmp_path, stores)
            assert caught.value.facts["damaged_symbols"] == [
                number
                for number in range(encoded.geometry.m)
                if symbol_store(encoded.artifact.blake3, number, COUNT) in pair
            ]


def test_row_29_symbols_in_another_store_than_they_belong_in_are_found(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    """Stores that were named in another order, or one more than there were."""
    for encoded in artifacts:
        stores = spread(encoded)
        assert fetched(encoded, tmp_path, stores[::-1]).repaired_chunks == 0
        more = [SlowStore(MemoryStore("new")), *stores]
        assert fetched(encoded, tmp_path, more).repaired_chunks == 0


@pytest.mark.parametrize("away", range(COUNT))
@pytest.mark.parametrize("after_bytes", [None, 0, 4096])
def test_row_50_row_54_one_store_that_is_away_is_made_up_for(
    artifacts: list[EncodedArtifact], tmp_path: Path, away: int, after_bytes: int | None
) -> None:
    for encoded in artifacts:
        stores = spread(encoded)
        stores[away].behave = lambda _: failing() if after_bytes is None else torn(after_bytes)
        tally = fetched(encoded, tmp_path, stores)
        assert tally.damaged_symbols == 0, "nobody knows what it has lost"
        if after_bytes != 4096:  # a read that was cut is asked for again, and gets on
            assert len(stores[away].readings) <= STORE_FAILURES_IN_A_ROW + 4 + 1


def test_row_50_all_stores_away_is_unavailable_and_they_are_asked_again_later(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    for encoded in artifacts:
        stores = spread(encoded)
        for store in stores:
            store.behave = lambda _: failing()
        time_s = Clock()
        sources = Sources([], stores, time_s)
        with transferring(tmp_path, sources) as (fetcher, downloads):
            target = tmp_path / encoded.artifact.blake3
            for _ in range(4):
                with pytest.raises(StoreUnavailable):
                    fetcher.fetch(encoded.artifact, tmp_path / "incoming", target, lambda _: None)
            for store in stores:
                store.behave = lambda _: healthy
            time_s.now_s += 3600
            fetcher.fetch(encoded.artifact, tmp_path / "incoming", target, lambda _: None)
        assert target.read_bytes() == encoded.data
        assert downloads.counting.tally().damaged_symbols == 0


def test_row_50_a_loss_that_a_store_that_is_away_could_make_up_for_is_not_final(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    for encoded in artifacts[1:]:
        stores = spread(encoded)
        stores[0].behave = lambda _: failing()
        stores[1:] = [SlowStore(MemoryStore(f"empty{n}")) for n in (1, 2)]
        with pytest.raises(StoreUnavailable):
            fetched(encoded, tmp_path, stores)
        stores[0].behave = lambda _: healthy
        with pytest.raises(Unrepairable):
            fetched(encoded, tmp_path, stores)


def test_row_30_a_peer_makes_up_for_stores_that_have_lost_everything(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    for encoded in artifacts:
        empty: list[Store] = [MemoryStore(f"s{n}") for n in range(COUNT)]
        peer = peer_with(encoded)
        tally = fetch_from(encoded.artifact, tmp_path, empty, [peer])
        assert (tmp_path / encoded.artifact.blake3).read_bytes() == encoded.data
        assert tally.store_bytes == 0


def test_row_52_an_object_that_is_missing_is_asked_for_once_in_each_store(
    artifacts: list[EncodedArtifact], tmp_path: Path
) -> None:
    encoded = artifacts[-1]
    stores = spread(encoded)
    gone = symbol_key(encoded.artifact.blake3, 3)
    stores[symbol_store(encoded.artifact.blake3, 3, COUNT)].delete(gone)
    asked: list[str] = []

    class Watched(Sources):
        def absent(self, place: Place) -> None:
            asked.append(place.source.url)
            super().absent(place)

    sources = Watched([], stores, Clock())
    tally = fetch_from(encoded.artifact, tmp_path, stores, sources=sources)
    assert sorted(asked) == sorted(store.url for store in stores)
    assert tally.damaged_symbols == 1


def test_row_50_row_54_stores_that_go_away_in_a_fetch_leave_the_node_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "BACKOFF", Backoff(sleep=lambda _: None, jitter=lambda: 0.0))
    writer = make_writer(tmp_path)
    add(writer, upserts(range(5)))
    node = make_node(writer)
    before = node.pointer()
    newest = add(writer, upserts(range(5, 200)))
    store, away = tmp_path / "store", tmp_path / "away"

    def on_plan(_: FetchPlan) -> Progress:
        store.rename(away)
        return lambda _: None

    with pytest.raises(StoreUnavailable):
        node.bootstrap(on_plan)
    assert NodeHome(node.home).pointer() == before
    answer = node.query(node.reader(), Request(text="unique3", mode="lexical"))
    assert answer.hits[0].id == "d3"
    away.rename(store)
    assert node.bootstrap().activated
    assert node.pointer().active == newest
