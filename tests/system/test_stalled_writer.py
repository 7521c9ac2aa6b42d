"""Rows 47 and 48: a writer's process stops anywhere, a collection goes past it, and it goes on.

The process is stopped by SIGSTOP, as one is that swaps or whose machine was suspended. Meanwhile
another home of the same shard runs ``genctl gc``, or publishes, and the node serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from controller import clock
from controller.writer import WriterHome
from store.leases import new_lease, write_lease
from tests.support.collection import keys_of, reached_by, set_collection
from tests.support.process import Genctl, environment
from tests.system.stalled import stalled
from tests.system.world import (
    ask,
    bootstrap,
    copy,
    documents,
    ids,
    ingest,
    release,
    writer_home,
)

BEFORE_THE_SWAP = {
    "the first symbol": ("write", "/s/symbols/"),
    "a symbol's name": ("link", "/s/symbols/"),
    "the manifest": ("write", "/s/targets/manifests/"),
    "the record": ("write", ".control.json"),
    "the targets": ("link", ".targets.json"),
    "the snapshot": ("link", ".snapshot.json"),
}


@dataclass(frozen=True)
class World:
    """Three generations released and served by the node n; the home w2 has built a fourth.

    A collection in w drops the first: the second is what a rollback goes to.
    """

    genctl: Genctl
    environ: dict[str, str]
    released: list[str]

    @property
    def collector(self) -> WriterHome:
        return WriterHome(self.genctl.folder / "w")


@pytest.fixture
def world(genctl: Genctl, mark: str) -> World:
    writer_home(genctl)
    released = []
    for number in (1, 2, 3):
        ingest(genctl, documents(number * 10, number * 10 + 4), 10)
        released.append(release(genctl))
    bootstrap(genctl)
    copy(genctl.folder / "w", genctl.folder / "w2")
    ingest(genctl, documents(40, 44), 10, home="w2")
    genctl("build", "w2").ok()
    set_collection(genctl.folder / "w", keep_last=1)
    return World(genctl, environment(mark), released)


def assert_the_third_serves(world: World, fresh: str) -> None:
    report = bootstrap(world.genctl, fresh)
    assert report["generation_id"] == world.released[2]
    assert len(ids(ask(world.genctl, fresh, "common"))) == 15


def collected(world: World) -> set[str]:
    """Collect in w; the keys of symbols and manifests that are gone."""
    before = keys_of(world.collector.store())
    report = world.genctl("gc", "w", "--json").ok().json
    assert report["dropped"] == world.released[:1]
    gone = before - keys_of(world.collector.store())
    assert sum(each["garbage_bytes"] for each in report["stores"]) > 0
    return {key for key in gone if key.startswith(("symbols/", "targets/manifests/"))}


@pytest.mark.parametrize("place", BEFORE_THE_SWAP)
def test_rows_47_and_48_a_publish_stopped_past_a_collection_is_fenced(
    world: World, place: str
) -> None:
    genctl, collector = world.genctl, world.collector
    with stalled(genctl.folder, world.environ, *BEFORE_THE_SWAP[place], "publish", "w2") as writer:
        assert collected(world)
        after = collector.current().token
        assert len(ids(ask(genctl, "n", "common"))) == 15
        writer.finish().refused(5, "WriterFenced")
    assert collector.current().token == after
    assert collector.current().signed.record.retained == tuple(world.released[1:])
    assert_the_third_serves(world, "n2")
    fourth = release(genctl, "w2")
    assert genctl("fsck", "w2", "--json").ok().json["missing"] == []
    assert bootstrap(genctl)["generation_id"] == fourth
    assert ids(ask(genctl, "n", "own42", "--mode", "lexical")) == ["d42"]


@pytest.mark.parametrize("place", ["the record", "the targets", "the snapshot"])
def test_row_47_a_rollback_stopped_past_a_collection_brings_nothing_back(
    world: World, place: str
) -> None:
    genctl, collector = world.genctl, world.collector
    first, second, third = world.released
    needed = reached_by(collector, [first]) - reached_by(collector, [second, third])
    command = ["rollback", "w2", "--to", first, "--reason", "stopped"]
    with stalled(genctl.folder, world.environ, *BEFORE_THE_SWAP[place], *command) as writer:
        assert needed <= collected(world)
        assert len(ids(ask(genctl, "n", "common"))) == 15
        writer.finish().refused(5, "WriterFenced")
    record = collector.current().signed.record
    assert (record.active, record.retained) == (third, (second, third))
    assert not needed & keys_of(collector.store())
    assert_the_third_serves(world, "n2")
    genctl(*command).refused(3, "GenerationCollected")


@pytest.mark.parametrize("place", ["the record", "the targets", "the snapshot"])
def test_row_47_a_collection_stopped_past_a_publish_is_fenced_and_deletes_nothing(
    world: World, place: str
) -> None:
    genctl, collector = world.genctl, world.collector
    with stalled(genctl.folder, world.environ, *BEFORE_THE_SWAP[place], "gc", "w") as gc:
        fourth = release(genctl, "w2")
        before = keys_of(collector.store())
        gc.finish().refused(5, "WriterFenced")
    assert before <= keys_of(collector.store())
    record = collector.current().signed.record
    assert (record.active, record.collecting) == (fourth, None)
    assert genctl("fsck", "w2", "--json").ok().json["missing"] == []
    # It has not built what another home published meanwhile, so it deletes nothing from now on.
    genctl("gc", "w").refused(5, "WriterFenced")


@pytest.mark.parametrize("place", ["a symbol", "a manifest"])
def test_row_48_nobody_publishes_while_a_collection_is_deleting(world: World, place: str) -> None:
    genctl = world.genctl
    removed = ("remove", {"a symbol": "/s/symbols/", "a manifest": "/s/targets/manifests/"}[place])
    with stalled(genctl.folder, world.environ, *removed, "gc", "w") as gc:
        genctl("publish", "w").refused(4, "HomeLocked")
        genctl("publish", "w2").refused(6, "CollectionUnderWay", "collection")
        assert len(ids(ask(genctl, "n", "common"))) == 15
        gc.finish().ok()
    assert_the_third_serves(world, "n2")
    assert genctl("fsck", "w", "--json").ok().json["missing"] == []
    genctl("publish", "w2").ok()


def test_row_57_a_lease_taken_while_the_record_is_moved_keeps_what_it_was_taken_of(
    world: World,
) -> None:
    """Its taker read the record after it, and the generation was still there."""
    genctl, collector = world.genctl, world.collector
    first = world.released[0]
    needed = reached_by(collector, [first])
    lease = new_lease(first, "reader", "a test", clock.now(), timedelta(hours=1))
    within = ("rename", "/metadata/timestamp.json")
    with stalled(genctl.folder, world.environ, *within, "gc", "w", "--json") as gc:
        write_lease(collector.store().stores[0], lease)
        assert first in collector.current().signed.record.retained
        report = gc.finish().ok().json
    assert report["leased_meanwhile"] == [first]
    assert first not in collector.current().signed.record.retained
    assert needed <= keys_of(collector.store())
    assert first in collector.residence.resident_ids()
    explained = genctl("gc", "w", "--explain", first, "--json").ok().json["kept_by"]
    assert explained == [{"name": first, "reasons": [f"lease of reader until {lease.expires_at}"]}]
    assert genctl("fsck", "w", "--json").ok().json["generation_ids"] == world.released
    collector.store().delete(lease.key)
    assert genctl("gc", "w", "--json").ok().json["record_moved"]
    assert not (needed - reached_by(collector, world.released[1:])) & keys_of(collector.store())
    assert first not in collector.residence.resident_ids()


def test_row_47_who_is_stopped_within_the_commit_point_holds_the_others_up_and_wins(
    world: World,
) -> None:
    """A folder's record is replaced under a lock: nobody gets past a writer that stops there."""
    genctl, collector = world.genctl, world.collector
    publish = ["publish", "w2"]
    rollback = ["rollback", "w", "--reason", "meanwhile"]
    within = ("rename", "/metadata/timestamp.json")
    with (
        stalled(genctl.folder, world.environ, *within, *publish) as writer,
        stalled(genctl.folder, world.environ, *BEFORE_THE_SWAP["the snapshot"], *rollback) as other,
    ):
        assert len(ids(ask(genctl, "n", "common"))) == 15
        other.go_on()
        writer.finish().ok()
        other.finish().refused(5, "WriterFenced")
    record = collector.current().signed.record
    fourth = genctl("generations", "w2", "--json").ok().json[-1]["generation_id"]
    assert record.published[-1].generation_id == fourth
    assert record.active == world.released[2]
