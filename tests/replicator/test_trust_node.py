"""A whole node whose trust state is damaged, behind, or given anew; it serves throughout."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller import clock
from controller.new_node import open_node, repin_node
from controller.node import NodeHome
from controller.node_status import status_of
from manifests.errors import (
    BadSetting,
    BelowMinimumVersion,
    ForkDetected,
    HomeMissing,
    MetadataRollback,
    ObjectMissing,
    TrustStateCorrupt,
    UnsignedRecord,
    UnsignedRollback,
    WrongRecordType,
)
from query.request import Request
from tests.support.corpus import upserts
from tests.support.crashes import count_steps, killed_at
from tests.support.homes import (
    TestableWriter,
    add,
    copy_with_node,
    make_node,
    make_writer,
    new_node,
)
from tests.support.process import Console, environment, left_running
from tests.support.serving import ask

MARK = f"trust-{os.getpid()}"


@dataclass
class World:
    writer: TestableWriter
    node: NodeHome

    @property
    def mark(self) -> Path:
        return self.node.home / "trust/high_water.json"

    @property
    def root(self) -> Path:
        return self.writer.home / "root.json"

    def answers(self) -> str:
        node = NodeHome(self.node.home)
        return node.query(node.reader(), Request(text="unique3", mode="lexical")).hits[0].id


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer that released one generation, a node that serves it."""
    folder = tmp_path_factory.mktemp("made")
    writer = make_writer(folder)
    add(writer, upserts(range(5)))
    make_node(writer)
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> World:
    """The same in a folder of the test's own."""
    return World(*copy_with_node(made, tmp_path / "world"))


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    yield Console(tmp_path / "world", environment(MARK))
    assert left_running(MARK) == []


def test_row_16_a_node_process_serves_on_with_a_damaged_mark_until_it_is_given_its_root_again(
    world: World, console: Console
) -> None:
    process = console.start("node", "serve", "node", "--listen", "127.0.0.1:0", "--json")
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        world.mark.write_bytes(b"damaged")
        refused = console("node", "bootstrap", "node")
        refused.refused(6, "TrustStateCorrupt", "genctl node repin", "runbooks/trust-state.md")
        answer = console("query", "node", "unique3", "--mode", "lexical", "--json").ok().json
        assert answer["hits"][0]["id"] == "d3"
        status = console("node", "status", "node", "--json").ok().json
        assert status["trust"].startswith("TrustStateCorrupt")
        assert status["active"] == world.node.pointer().active.generation_id
        assert json.loads(ask(url, "/v1/health")[2])["commit_seq"] == 1
        before = world.node.pointer()
        repinned = console("node", "repin", "node", "--root", "writer/root.json", "--json")
        assert repinned.ok().json == {"record_version": 3}
        assert NodeHome(world.node.home).pointer() == before
        caught_up = console("node", "bootstrap", "node", "--json").ok().json
        assert (caught_up["fetched_bytes"], caught_up["activated"]) == (0, False)
        assert console("node", "status", "node", "--json").ok().json["trust"] == "ok"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_repin_is_refused_where_the_record_is_not_the_roots(world: World, tmp_path: Path) -> None:
    stranger = make_writer(tmp_path / "stranger")
    world.mark.write_bytes(b"damaged")
    kept = {path: path.read_bytes() for path in world.node.home.rglob("*.json")}
    with pytest.raises(UnsignedRecord):
        repin_node(world.node.home, stranger.home / "root.json", None)
    with pytest.raises(BelowMinimumVersion):
        repin_node(world.node.home, world.root, 4)
    record = tmp_path / "record.json"
    shutil.copyfile(Path(world.node.settings.stores[0]) / "metadata/timestamp.json", record)
    with pytest.raises(WrongRecordType):
        repin_node(world.node.home, record, None)
    with pytest.raises(BadSetting):
        repin_node(world.node.home, tmp_path / "missing.json", None)
    with pytest.raises(HomeMissing):
        repin_node(tmp_path / "missing", world.root, None)
    for path, data in kept.items():
        assert path.read_bytes() == data
    with pytest.raises(TrustStateCorrupt):
        world.node.bootstrap()
    assert world.answers() == "d3"


def test_a_repin_to_another_root_keeps_generations_and_pointer(
    world: World, tmp_path: Path
) -> None:
    """The writer has lost its keys and began anew with others in the same place."""
    heir = make_writer(tmp_path / "heir")
    add(heir, upserts(range(9)))
    store = Path(world.node.settings.stores[0])
    shutil.rmtree(store)
    shutil.copytree(heir.settings.stores[0], store)
    with pytest.raises(UnsignedRecord):
        world.node.bootstrap()
    before = world.node.pointer()
    repinned = repin_node(world.node.home, heir.home / "root.json", 3)
    assert repinned.settings.minimum_version == 3
    assert repinned.pointer() == before
    assert repinned.record() == heir.current().signed.record
    assert before.active.generation_id in repinned.residence.resident_ids()
    assert world.answers() == "d3"
    assert repinned.bootstrap().activated
    receipt = repinned.audit.last_of("root")
    assert receipt is not None
    assert receipt.kind == "repin"


def test_row_43_a_repin_that_is_killed_at_any_step_is_finished_by_the_same_command(
    world: World, tmp_path: Path
) -> None:
    world.mark.write_bytes(b"damaged")

    def repin() -> None:
        repin_node(world.node.home, world.root, None)

    kept = tmp_path / "kept"
    shutil.copytree(world.node.home, kept)
    steps = count_steps(repin)
    assert steps > 10
    for step in range(0, steps, 3):
        shutil.rmtree(world.node.home)
        shutil.copytree(kept, world.node.home)
        assert killed_at(step, repin)
        assert world.answers() == "d3"
        repin()
        assert NodeHome(world.node.home).trust().state()["trust"] == "ok"
    assert not NodeHome(world.node.home).bootstrap().activated
    assert not list(world.node.home.glob(".tmp-*"))


def test_row_20_a_new_node_is_told_where_to_start_and_keeps_that(
    world: World, console: Console
) -> None:
    given = ("--store", "store", "--root", "writer/root.json", "--minimum-version")
    console("node", "bootstrap", "new", *given, 4).refused(
        6, "BelowMinimumVersion", "record version 3"
    )
    assert json.loads((console.folder / "new/node.json").read_bytes())["minimum_version"] == 4
    console("node", "bootstrap", "new").refused(6, "BelowMinimumVersion")
    console("node", "bootstrap", "new", *given, 3).ok()
    assert console("node", "status", "new", "--json").ok().json["record_version"] == 3
    console("node", "bootstrap", "new", *given, 0).refused(2, "--minimum-version")


def test_a_root_that_led_to_no_record_may_be_corrected_and_one_that_did_only_by_a_repin(
    world: World, tmp_path: Path
) -> None:
    stranger = make_writer(tmp_path / "stranger")
    home = world.writer.home.parent / "new"
    stores = world.writer.settings.stores
    with pytest.raises(UnsignedRecord):
        open_node(home, stores, stranger.home / "root.json").bootstrap()
    open_node(home, stores, world.root).bootstrap()
    with pytest.raises(BadSetting, match="repin"):
        open_node(home, stores, stranger.home / "root.json")


def test_row_14_the_same_bootstrap_again_keeps_what_a_new_node_has_seen(world: World) -> None:
    home = world.writer.home.parent / "new"
    store = Path(world.writer.settings.stores[0])
    old = world.writer.home.parent / "old-store"
    shutil.copytree(store, old)
    add(world.writer, upserts(range(5, 9)))
    signed = world.writer.current().signed
    (store / f"metadata/{signed.snapshot.version}.snapshot.json").unlink()
    with pytest.raises(ObjectMissing):
        open_node(home, [str(store)], world.root, minimum_version=2).bootstrap()
    seen = NodeHome(home).trust().known_version()
    assert seen == signed.timestamp.version
    shutil.rmtree(store)
    shutil.copytree(old, store)
    for _ in range(2):
        node = open_node(home, [str(store)], world.root)
        assert node.settings.minimum_version == 2
        with pytest.raises(MetadataRollback):
            node.bootstrap()
        assert node.trust().known_version() == seen


def test_stores_that_are_corrected_leave_no_mark_of_the_wrong_ones(
    world: World, tmp_path: Path
) -> None:
    home = world.writer.home.parent / "new"
    other = tmp_path / "other-store"
    shutil.copytree(world.writer.settings.stores[0], other)
    for path in (other / "metadata").glob("*.snapshot.json"):
        path.unlink()
    with pytest.raises(ObjectMissing):
        open_node(home, [str(other)], world.root).bootstrap()
    assert (home / "trust/high_water.json").exists()
    corrected = open_node(home, world.writer.settings.stores, world.root)
    assert corrected.trust().known_version() is None
    assert corrected.bootstrap().activated


def test_row_20_a_repin_keeps_the_minimum_version_unless_it_is_given_another(
    world: World,
) -> None:
    assert repin_node(world.node.home, world.root, 2).settings.minimum_version == 2
    assert repin_node(world.node.home, world.root).settings.minimum_version == 2
    open_node(world.node.home, (), None, minimum_version=4)
    world.mark.write_bytes(b"damaged")
    with pytest.raises(BelowMinimumVersion):
        repin_node(world.node.home, world.root)
    assert repin_node(world.node.home, world.root, 3).settings.minimum_version == 3


def test_a_lost_node_json_loses_no_mark(world: World) -> None:
    (world.node.home / "node.json").unlink()
    mark = world.mark.read_bytes()
    new_node(world.writer)
    assert world.mark.read_bytes() == mark


def test_row_19_a_fork_is_quarantined_and_shown(world: World) -> None:
    current = world.writer.current()
    other = world.writer.home.parent / "other-store"
    shutil.copytree(world.writer.settings.stores[0], other)
    taken = world.writer.home.parent / "taken"
    shutil.copytree(world.writer.home, taken)
    add(world.writer, upserts(range(5, 9)))
    world.node.bootstrap()
    served = world.node.pointer()
    # A thief of the keys goes on from the same record.
    stolen = TestableWriter(taken)
    stolen.settings = stolen.settings.model_copy(update={"stores": (str(other),)})
    for reason in ("one", "two"):
        current = stolen.current()
        record = current.signed.record.model_copy(update={"reason": reason})

        stolen.repository().commit(current, record, clock.now())
    shutil.rmtree(world.writer.settings.stores[0])
    shutil.copytree(other, world.writer.settings.stores[0])
    with pytest.raises(ForkDetected) as caught:
        world.node.bootstrap()
    assert world.node.pointer() == served
    assert world.answers() == "d3"
    (entry,) = NodeHome(world.node.home).quarantine.entries()
    assert (entry.error, entry.content_hash) == ("ForkDetected", caught.value.facts["content_hash"])
    status = status_of(NodeHome(world.node.home))
    assert str(status["trust"]).startswith("ForkDetected")


def test_row_22_a_record_that_goes_back_without_a_rollback_moves_nothing(world: World) -> None:
    older = world.node.pointer().active
    add(world.writer, upserts(range(5, 9)))
    world.node.bootstrap()
    served = world.node.pointer()
    current = world.writer.current()
    record = current.signed.record.model_copy(update={"active": older.generation_id})

    world.writer.repository().commit(current, record, clock.now())
    with pytest.raises(UnsignedRollback):
        world.node.bootstrap()
    assert world.node.pointer() == served
    assert NodeHome(world.node.home).record().active == served.active.generation_id
