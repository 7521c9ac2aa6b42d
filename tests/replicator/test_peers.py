"""Peers before stores; one that lies, dies or is slow is left, and the artifact arrives intact."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from manifests.names import artifact_key, table_key
from replicator import download
from replicator.sources import Sources
from store.memory import MemoryStore
from tests.replicator.encoded import EncodedArtifact, encoded_artifact, fetch_from
from tests.replicator.transfers import (
    Clock,
    fetch_together,
    peer_with,
    store_with,
    transferring,
)
from tests.support.slow_store import (
    Behaviour,
    Reading,
    SlowStore,
    absent,
    dripping,
    failing,
    healthy,
    lying,
    short,
    stalling,
    torn,
)

pytestmark = pytest.mark.usefixtures("small_runs", "unhedged")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    return encoded_artifact(tmp_path_factory.mktemp("large"), 400_003, 10, 12)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    """One chunk, which has no table that anybody would ask for."""
    return encoded_artifact(tmp_path_factory.mktemp("small"), 4_000, 1, 2, seed=2)


def is_here(encoded: EncodedArtifact, folder: Path) -> bool:
    return (folder / encoded.artifact.blake3).read_bytes() == encoded.data


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    """The events about peers, and which peer each is about."""
    return [
        (record.getMessage(), record.__dict__["facts"]["peer"])
        for record in caplog.records
        if record.name == "genctl.events" and "peer" in record.__dict__["facts"]
    ]


def of_bulk(behaviour: Behaviour) -> Callable[[Reading], Behaviour]:
    """Tables arrive, other bytes as ``behaviour`` has it."""
    return lambda reading: behaviour if reading.is_bulk else healthy


def test_a_peer_that_has_everything_leaves_nothing_to_the_store(
    large: EncodedArtifact, small: EncodedArtifact, tmp_path: Path
) -> None:
    peer, store = SlowStore(peer_with(large, small)), SlowStore(store_with(large, small))
    outcome = fetch_together([large, small], tmp_path, [store], [peer])
    assert outcome.errors == {}
    assert store.readings == []
    assert outcome.tally.store_bytes == 0
    moved_bytes = len(large.data) + len(small.data) + large.geometry.table_size_bytes
    assert outcome.tally.peer_bytes == moved_bytes


def test_several_peers_share_the_work(large: EncodedArtifact, tmp_path: Path) -> None:
    peers = [SlowStore(peer_with(large, name=f"p{n}")) for n in range(3)]
    store = SlowStore(store_with(large))
    tally = fetch_from(large.artifact, tmp_path, [store], peers)
    assert is_here(large, tmp_path)
    assert store.readings == []
    assert min(tally.sources[peer.url] for peer in peers) > len(large.data) // 5


def test_what_is_on_the_disk_is_asked_of_nobody(large: EncodedArtifact, tmp_path: Path) -> None:
    peer, store = SlowStore(peer_with(large)), SlowStore(store_with(large))
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / large.artifact.blake3).write_bytes(large.data)
    tally = fetch_from(large.artifact, tmp_path, [store], [peer])
    assert tally.resumed_bytes == len(large.data)
    assert peer.bulk == store.bulk == store.readings == []
    assert tally.fetched_bytes == large.geometry.table_size_bytes


def test_row_52_a_peer_that_has_nothing_is_asked_once_for_each_artifact(
    large: EncodedArtifact, small: EncodedArtifact, tmp_path: Path
) -> None:
    peer = SlowStore(MemoryStore("empty"), lambda _: absent)
    peer.put_if_absent("any", [b""])
    store = SlowStore(store_with(large, small))
    none = SlowStore(peer_with(), lambda _: absent)
    with_some = SlowStore(peer_with(small, name="some"))
    outcome = fetch_together([large, small], tmp_path, [store], [none, with_some], reads_at_once=1)
    assert outcome.errors == {}
    assert with_some.url in outcome.tally.sources
    keys = {reading.key for reading in store.readings}
    assert not any(small.artifact.blake3 in key for key in keys)
    assert outcome.tally.store_bytes == len(large.data) + large.geometry.table_size_bytes
    assert outcome.tally.damaged_symbols == 0


LIES: list[tuple[str, Behaviour]] = [
    ("everywhere", lying()),
    ("in one byte", lying(300_000)),
    ("in its first byte", lying(0)),
    ("in its last byte", lying(400_002)),
    ("too short", short(100)),
    ("empty", short(0)),
]


@pytest.mark.parametrize("lie", [lie for _, lie in LIES], ids=[name for name, _ in LIES])
def test_row_53_a_lying_peer_is_named_and_not_asked_again(
    large: EncodedArtifact, tmp_path: Path, caplog: pytest.LogCaptureFixture, lie: Behaviour
) -> None:
    caplog.set_level(logging.INFO, "genctl.events")
    liar = SlowStore(peer_with(large, name="liar"), of_bulk(lie))
    sources = Sources([liar], [store_with(large)], Clock())
    with transferring(tmp_path, sources, reads_at_once=1) as (fetcher, downloads):
        target = tmp_path / large.artifact.blake3
        fetcher.fetch(large.artifact, tmp_path / "incoming", target, lambda _: None)
        asked = len(liar.readings)
        assert sources.peers[0].health.state(sources._now_s()) == "open"
        target.unlink()
        fetcher.fetch(large.artifact, tmp_path / "incoming", target, lambda _: None)
        assert len(liar.readings) == asked
    assert is_here(large, tmp_path)
    assert told(caplog) == [("peer_corrupt", "memory:liar")]
    assert downloads.counting.tally().repaired_chunks == 0


def test_row_53_a_liar_is_shunned_though_other_reads_of_it_succeed(
    large: EncodedArtifact,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The reads that were under way when it lied end well, and clear nothing."""
    liar = SlowStore(peer_with(large, name="liar"))

    def lie_last(reading: Reading) -> None:
        if len(liar.bulk) < 4:
            stalling(10)(reading)
        else:
            lying()(reading)

    liar.behave = of_bulk(lie_last)

    class Told(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            liar.release()

    events, handler = logging.getLogger("genctl.events"), Told()
    caplog.set_level(logging.INFO, events.name)
    events.addHandler(handler)
    try:
        tally = fetch_from(large.artifact, tmp_path, [store_with(large)], [liar])
    finally:
        events.removeHandler(handler)
    assert is_here(large, tmp_path)
    assert told(caplog) == [("peer_corrupt", "memory:liar")]
    assert len(liar.bulk) == 4
    assert sum(reading.sent_bytes == len(reading.data) for reading in liar.bulk) == 4
    assert tally.store_bytes < len(large.data), "three reads of it counted"


def test_row_53_a_peer_with_another_artifact_of_that_name_is_shunned(
    large: EncodedArtifact, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "genctl.events")
    other = encoded_artifact(tmp_path, len(large.data), 10, 12, seed=9)
    liar = peer_with(name="liar")
    liar.put_if_absent(artifact_key(large.artifact.blake3), [other.data])
    liar.put_if_absent(table_key(large.artifact.blake3), [peer_table(other)])
    watched = SlowStore(liar)
    fetch_from(large.artifact, tmp_path, [store_with(large)], [watched])
    assert is_here(large, tmp_path)
    # Its first read was begun before its table was looked at.
    assert len([r for r in watched.readings if not r.is_bulk]) == 1
    assert len(watched.bulk) <= 4
    assert set(told(caplog)) == {("peer_corrupt", "memory:liar")}


def test_of_nine_peers_that_fail_one_is_asked_for_a_table_before_the_store(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    """Silent ones would each take their time, one after the other."""
    peers = [
        SlowStore(
            peer_with(large, name=f"p{n}"),
            lambda reading: healthy if reading.is_bulk else failing(),
        )
        for n in range(9)
    ]
    tally = fetch_from(large.artifact, tmp_path, [SlowStore(store_with(large))], peers)
    assert is_here(large, tmp_path)
    assert sum(not reading.is_bulk for peer in peers for reading in peer.readings) == 1
    assert tally.store_bytes == large.geometry.table_size_bytes
    assert tally.peer_bytes == len(large.data), "the others may still have the artifact"


def peer_table(encoded: EncodedArtifact) -> bytes:
    return encoded.objects[0][encoded.geometry.table_range(0).offset :]


def test_row_53_when_every_peer_lies_the_store_gives_it_all(
    large: EncodedArtifact, small: EncodedArtifact, tmp_path: Path
) -> None:
    liars = [SlowStore(peer_with(large, small, name=f"p{n}"), lambda _: lying()) for n in range(3)]
    outcome = fetch_together([large, small], tmp_path, [store_with(large, small)], liars)
    assert outcome.errors == {}
    assert outcome.tally.damaged_symbols == 0
    assert all(len(liar.readings) <= 4 + 2 for liar in liars)


@pytest.mark.parametrize(
    ("fault", "reads"),
    [
        # One failure, and what was under way; cut in the middle, a second read has the rest.
        (failing(), range(1, 1 + 4 + 1)),
        (failing(5_000), range(1, 1_000)),
        (torn(0), range(1, 1 + 4 + 1)),
        (torn(5_000), range(1, 1_000)),
    ],
    ids=["503", "503 in the middle", "cut at once", "dies in the middle"],
)
def test_row_50_row_51_others_take_over_from_a_peer_that_fails(
    large: EncodedArtifact, tmp_path: Path, fault: Behaviour, reads: range
) -> None:
    bad = SlowStore(peer_with(large, name="bad"), of_bulk(fault))
    good = SlowStore(peer_with(large, name="good"))
    store = SlowStore(store_with(large))
    tally = fetch_from(large.artifact, tmp_path, [store], [bad, good])
    assert is_here(large, tmp_path)
    assert store.bulk == []
    assert len(bad.bulk) in reads
    assert tally.repaired_chunks == 0


def test_row_51_what_came_before_a_body_was_cut_is_kept(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    """Chunks that were checked are not asked for again."""
    bad = SlowStore(peer_with(large, name="bad"), of_bulk(torn(4_096)))
    store = SlowStore(store_with(large))
    tally = fetch_from(large.artifact, tmp_path, [store], [bad])
    assert is_here(large, tmp_path)
    assert len(bad.bulk) > 1
    assert tally.fetched_bytes == len(large.data) + large.geometry.table_size_bytes


@pytest.mark.parametrize("slow", [dripping, stalling(5_000)], ids=["drips", "falls silent"])
def test_row_28_a_peer_that_is_slow_is_demoted(
    large: EncodedArtifact, tmp_path: Path, slow: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "HEDGE_AFTER_S", 0.1)
    bad = SlowStore(peer_with(large, name="bad"), of_bulk(slow))
    good = SlowStore(peer_with(large, name="good"))
    clock = Clock()
    sources = Sources([bad, good], [SlowStore(store_with(large))], clock)
    with transferring(tmp_path, sources) as (fetcher, _):
        target = tmp_path / large.artifact.blake3
        fetcher.fetch(large.artifact, tmp_path / "incoming", target, lambda _: None)
    assert is_here(large, tmp_path)
    slow_one, fast_one = (peer.health for peer in sources.peers)
    assert slow_one.state(clock()) == "open"
    assert fast_one.state(clock()) == "closed"
    assert all(reading.stopped for reading in bad.bulk)
