"""A node's home in which files were removed, or something else stands in their place.

Row 16 of the fault table, and what leads to the same: a folder or a named pipe where a file was.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from activator.pointer import POINTER_FILE
from controller import clock
from controller.new_node import open_node, repin_node
from controller.node import NodeHome
from controller.node_status import UNKNOWN, status_of
from manifests.errors import ClockSuspect, TrustStateCorrupt
from query.request import Request
from replicator import high_water
from tests.support.corpus import upserts
from tests.support.homes import TestableWriter, add, copy_with_node, make_node, make_writer
from tests.support.process import Console, environment, left_running

MARK = f"obstructed-{os.getpid()}"
RUNBOOKS = Path(__file__).parents[2] / "runbooks"
DEADLINE_S = 60.0
STATE_FILES = (
    "node.json",
    "root.json",
    "active.json",
    "audit.jsonl",
    "state.json",
    "quarantine.json",
    "throughput.json",
    "trust/high_water.json",
    "trust/timestamp.json",
    "trust/snapshot.json",
    "trust/targets.json",
    "trust/refusal.json",
    "trust/root_history/1.root.json",
    "trust/root_history/2.root.json",
    "lock",
)
TRUST_FILES = [name for name in STATE_FILES if name.startswith("trust/")]


@dataclass
class World:
    writer: TestableWriter
    node: NodeHome

    @property
    def home(self) -> Path:
        return self.node.home

    @property
    def root(self) -> Path:
        return self.writer.home / "root.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    writer = make_writer(folder)
    add(writer, upserts(range(5)))
    make_node(writer)
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> World:
    """A writer and a node that serves what it released, in a folder of the test's own."""
    return World(*copy_with_node(made, tmp_path / "world"))


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    yield Console(tmp_path / "world", environment(MARK))
    assert left_running(MARK) == []


Put = Callable[[Path], None]


def put_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "in it").touch()


def put_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def put_link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.parent)


def answers(world: World) -> str:
    node = NodeHome(world.home)
    return node.query(node.reader(), Request(text="unique3", mode="lexical")).hits[0].id


def test_row_14_a_node_that_serves_and_has_no_mark_believes_no_old_record(world: World) -> None:
    """The names of the pointer are one."""
    assert high_water._POINTER == POINTER_FILE
    store = Path(world.writer.settings.stores[0])
    old = (store / "metadata/timestamp.json").read_bytes()
    add(world.writer, upserts(range(5, 9)))
    world.node.bootstrap()
    served = world.node.pointer()
    shutil.rmtree(world.home / "trust")
    (store / "metadata/timestamp.json").write_bytes(old)
    for _ in range(2):
        with pytest.raises(TrustStateCorrupt, match="repin"):
            open_node(world.home, world.writer.settings.stores, world.root).bootstrap()
    assert str(status_of(NodeHome(world.home))["trust"]).startswith("TrustStateCorrupt")
    assert NodeHome(world.home).pointer() == served


def test_row_16_a_node_whose_trust_folder_is_gone_is_mended_by_a_repin(world: World) -> None:
    shutil.rmtree(world.home / "trust")
    repinned = repin_node(world.home, world.root)
    assert not list(world.home.glob(".tmp-*"))
    assert status_of(repinned)["trust"] == "ok"
    assert not repinned.bootstrap().activated
    assert answers(world) == "d3"


@pytest.mark.parametrize("put", [put_folder, put_pipe, put_link])
@pytest.mark.parametrize("name", [*TRUST_FILES, "trust"])
def test_row_16_whatever_stands_in_the_trust_state_is_replaced_by_a_repin(
    world: World, name: str, put: Put
) -> None:
    if name == "trust":
        shutil.rmtree(world.home / "trust")
    put(world.home / name)
    if name != "trust":
        with pytest.raises(TrustStateCorrupt, match="repin"):
            NodeHome(world.home).bootstrap()
    repinned = repin_node(world.home, world.root, 2)
    assert status_of(repinned)["trust"] == "ok"
    assert not repinned.bootstrap().activated
    assert answers(world) == "d3"


@pytest.mark.parametrize("name", STATE_FILES)
def test_a_pipe_in_the_place_of_a_file_keeps_no_command_waiting(
    world: World, console: Console, name: str
) -> None:
    (world.home / name).unlink(missing_ok=True)
    os.mkfifo(world.home / name)
    commands = ["node status node", "node bootstrap node"]
    if name in {"active.json", "audit.jsonl"}:
        commands.append("audit node")
    for command in commands:
        process = console.start(*command.split())
        try:
            _, said = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
            process.communicate()
        assert b"Traceback" not in said


def test_row_33_pipes_in_the_place_of_tables_keep_no_command_waiting(
    world: World, console: Console
) -> None:
    (world.home / "tables").mkdir(exist_ok=True)
    for artifact in (world.home / "artifacts").iterdir():
        put_pipe(world.home / "tables" / artifact.name)
    for command in ("scrub", "repair", "plan", "bootstrap"):
        if command == "plan":
            next((world.home / "artifacts").iterdir()).unlink()
        process = console.start("node", command, "node")
        try:
            _, said = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
            process.communicate()
        assert (process.returncode, said) == (0, b"")


def test_a_state_that_cannot_be_read_is_not_shown_as_healthy(world: World) -> None:
    assert status_of(world.node)["state"] == "healthy"
    (world.home / "state.json").write_bytes(b"{")
    status = status_of(world.node)
    assert status["state"] == UNKNOWN
    assert "state.json cannot be read" in str(status["damage"])
    (world.home / "state.json").unlink()
    assert status_of(world.node)["state"] == "healthy"


def test_row_23_the_runbook_has_the_way_back_from_clocks_that_were_ahead_together(
    world: World, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = clock.now

    def ahead() -> datetime:
        return present() + timedelta(days=30)

    with monkeypatch.context() as patched:
        patched.setattr(clock, "now", ahead)
        world.writer.refresh()
        world.node.bootstrap()
    with pytest.raises(ClockSuspect):
        world.node.bootstrap()
    page = (RUNBOOKS / "clock.md").read_text("utf-8")
    commands = [line.split() for line in page.splitlines() if line.startswith("       genctl ")]
    assert [command[1:3] for command in commands] == [
        ["keys", "refresh"],
        ["node", "repin"],
        ["node", "bootstrap"],
    ]
    shutil.copyfile(world.root, console.folder / "root.json")
    given = {"HOME": "writer", "NODE": "node"}
    for command in commands:
        console(*[given.get(word, word) for word in command[1:]]).ok()
        version = world.writer.current().signed.timestamp.version
        given["N"] = str(version)
    assert status_of(NodeHome(world.home))["trust"] == "ok"
