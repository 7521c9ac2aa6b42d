"""Rows 47 and 48: a writer's process stops anywhere, a collection goes past it, and it goes on.

The process is stopped by SIGSTOP, as one is that swaps or whose machine was suspended. Meanwhile
another home of the same shard collects (:mod:`tests.support.collection`), and the node serves.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from controller.writer import WriterHome
from tests.support.collection import collect, keys_of, reached, reached_by
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
    """Two generations released and served by the node n; the home w2 has built a third."""

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
    for number in (1, 2):
        ingest(genctl, documents(number * 10, number * 10 + 4), 10)
        released.append(release(genctl))
    bootstrap(genctl)
    copy(genctl.folder / "w", genctl.folder / "w2")
    ingest(genctl, documents(30, 34), 10, home="w2")
    genctl("build", "w2").ok()
    return World(genctl, environment(mark), released)


def assert_the_second_serves(world: World, fresh: str) -> None:
    report = bootstrap(world.genctl, fresh)
    assert report["generation_id"] == world.released[1]
    assert len(ids(ask(world.genctl, fresh, "common"))) == 10


@pytest.mark.parametrize("place", BEFORE_THE_SWAP)
def test_rows_47_and_48_a_publish_stopped_past_a_collection_is_fenced(
    world: World, place: str
) -> None:
    genctl, collector = world.genctl, world.collector
    second = world.released[1]
    with stalled(genctl.folder, world.environ, *BEFORE_THE_SWAP[place], "publish", "w2") as writer:
        gone = collect(collector, [second])
        assert gone
        after = collector.current().token
        assert len(ids(ask(genctl, "n", "common"))) == 10
        writer.finish().refused(5, "WriterFenced")
    assert collector.current().token == after
    assert collector.current().signed.record.retained == (second,)
    assert_the_second_serves(world, "n2")
    third = release(genctl, "w2")
    assert not reached(WriterHome(genctl.folder / "w2")) - keys_of(collector.store())
    assert bootstrap(genctl)["generation_id"] == third
    assert ids(ask(genctl, "n", "own32", "--mode", "lexical")) == ["d32"]


@pytest.mark.parametrize("place", ["the record", "the targets", "the snapshot"])
def test_row_47_a_rollback_stopped_past_a_collection_brings_nothing_back(
    world: World, place: str
) -> None:
    genctl, collector = world.genctl, world.collector
    first, second = world.released
    needed = reached_by(collector, [first]) - reached_by(collector, [second])
    command = ["rollback", "w2", "--to", first, "--reason", "stopped"]
    with stalled(genctl.folder, world.environ, *BEFORE_THE_SWAP[place], *command) as writer:
        gone = collect(collector, [second])
        assert needed <= gone
        assert len(ids(ask(genctl, "n", "common"))) == 10
        writer.finish().refused(5, "WriterFenced")
    record = collector.current().signed.record
    assert (record.active, record.retained) == (second, (second,))
    assert not needed & keys_of(collector.store())
    assert_the_second_serves(world, "n2")
    genctl(*command).refused(3, "GenerationCollected")


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
        assert len(ids(ask(genctl, "n", "common"))) == 10
        other.go_on()
        writer.finish().ok()
        other.finish().refused(5, "WriterFenced")
    record = collector.current().signed.record
    third = genctl("generations", "w2", "--json").ok().json[-1]["generation_id"]
    assert record.published[-1].generation_id == third
    assert record.active == world.released[1]
