"""Rot on a node's disk: found, mended, or named and not served."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from activator.state import StateFile, move
from controller import scrub_pass
from controller.node import NodeHome
from controller.node_scrub import background, repair, scrub
from controller.node_status import status_of
from controller.scrub_pass import ScrubReport
from controller.scrub_progress import ScrubProgress, last_progress
from controller.writer import WriterHome
from durable import files
from manifests.errors import (
    ArtifactHashMismatch,
    DiskFull,
    HomeLocked,
    StoreUnavailable,
    Unrepairable,
)
from manifests.generation import ArtifactFile
from query.request import Request
from tests.support.corpus import upserts
from tests.support.homes import (
    add,
    artifacts_of,
    copy_with_store,
    flip,
    largest,
    make_node,
    make_writer,
    only_of,
    symbols_of,
)
from tests.support.process import Console, Genctl
from tests.support.watching import Events, asking, hearing
from tests.system.world import copy

DIMENSIONS = 256
DEADLINE_S = 60
NEVER = threading.Event()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> WriterHome:
    """Two generations; most of the first is in the second."""
    home = make_writer(tmp_path_factory.mktemp("scrub"), dimensions=DIMENSIONS)
    add(home, upserts(range(2000)))
    make_node(home)
    add(home, upserts([5000]))
    NodeHome(home.home.parent / "node").bootstrap()
    return home


@pytest.fixture
def writer(made: WriterHome, tmp_path: Path) -> WriterHome:
    return copy_with_store(made, tmp_path)


@pytest.fixture
def node(made: WriterHome, writer: WriterHome, tmp_path: Path) -> NodeHome:
    """A node that has both generations, and follows the store of this test alone."""
    home = tmp_path / "node"
    copy(made.home.parent / "node", home)
    path = home / "node.json"
    changed = {"stores": list(writer.settings.stores), "limits": {"scrub_bytes_per_s": 1 << 40}}
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return NodeHome(home)


@pytest.fixture
def events() -> Iterator[Events]:
    with hearing() as told:
        yield told


def rot(node: NodeHome, artifact: ArtifactFile, *offsets: int) -> Path:
    path = node.residence.artifact_path(artifact.blake3)
    for offset in offsets or (artifact.size_bytes // 2,):
        flip(path, offset)
    return path


def ask(node: NodeHome, text: str = "unique7", **more: Any) -> str:
    answer = node.query(node.reader(), Request(text=text, mode="lexical"), **more)
    return answer.hits[0].id


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < end
        pause.wait(0.01)


def test_a_whole_node_is_read_once_and_nothing_is_fetched(
    node: NodeHome, writer: WriterHome
) -> None:
    report = scrub(node, ending=NEVER)
    held = {a.blake3: a.size_bytes for place in (0, 1) for a in artifacts_of(writer, place)}
    assert report.found.artifacts == len(held)
    assert report.found.read_bytes == sum(held.values())
    assert (report.found.damaged_artifacts, report.found.fetched_bytes) == (0, 0)
    assert report.failures == ()
    progress = last_progress(node.home)
    assert progress.position is None
    assert progress.ended_at is not None
    assert progress.last == report.found


def test_row_40_what_was_mended_is_told_though_the_disk_has_no_room_for_where_the_scrub_is(
    node: NodeHome, writer: WriterHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    rot(node, artifacts_of(writer, 0)[0], 5)

    def full(*_: object) -> None:
        raise DiskFull("no space left to write progress.json")

    monkeypatch.setattr(scrub_pass, "save_progress", full)
    report = scrub(node, ending=NEVER)
    assert report.found.damaged_artifacts == 1
    assert report.found.mended_artifacts == 1
    assert [type(failure) for failure in report.failures] == [DiskFull]


def test_row_33_rot_in_every_artifact_is_mended_while_queries_go_on(
    node: NodeHome, writer: WriterHome
) -> None:
    held = {a.blake3: a for place in (0, 1) for a in artifacts_of(writer, place)}
    whole = {name: node.residence.artifact_path(name).read_bytes() for name in held}
    with asking(node) as answers:
        # Not what is open: queries before the scrub would read it.
        for artifact in only_of(writer, 0) or list(held.values()):
            rot(node, artifact)
        report = scrub(node, ending=NEVER)
    assert set(answers) == {"d7"}
    assert report.found.mended_artifacts == report.found.damaged_artifacts > 0
    assert report.found.read_bytes >= sum(a.size_bytes for a in held.values()), "up to it and after"
    assert {n: node.residence.artifact_path(n).read_bytes() for n in held} == whole
    assert node.state().state == "healthy"
    for place in (0, 1):
        entry = node.record().published[place]
        node.residence.reopen(entry, node.pointer().shard)


def test_row_33_a_missing_file_and_one_of_another_length_come_back_in_all_generations(
    node: NodeHome, writer: WriterHome
) -> None:
    first, second = artifacts_of(writer, 1)[:2]
    node.residence.artifact_path(first.blake3).unlink()
    path = node.residence.artifact_path(second.blake3)
    os.truncate(path, second.size_bytes - 1)
    assert scrub(node, ending=NEVER).found.mended_artifacts == 2
    for entry in node.record().published:
        node.residence.reopen(entry, node.pointer().shard)
        for artifact in writer.manifest(entry.generation_id).artifacts:
            linked = node.residence.folder(entry.generation_id) / artifact.name
            assert linked.samefile(node.residence.artifact_path(artifact.blake3))


@pytest.mark.parametrize("act", [scrub, repair])
def test_row_33_a_file_that_a_generation_has_lost_is_linked_anew_and_told(
    node: NodeHome, act: Callable[..., ScrubReport]
) -> None:
    ids = node.residence.resident_ids()
    for generation_id in ids:
        next(node.residence.folder(generation_id).rglob("*.heads")).unlink()
    report = act(node, ending=NEVER)
    assert (report.found.relinked_files, report.found.damaged_artifacts) == (len(ids), 0)
    assert report.found.fetched_bytes == 0
    for entry in node.record().published:
        node.residence.reopen(entry, "main")
    again = act(node, ending=NEVER)
    assert again.found.relinked_files == 0


def test_the_command_tells_what_it_has_linked_anew(
    node: NodeHome, in_folder: Callable[[Path], Genctl]
) -> None:
    genctl = in_folder(node.home.parent)
    folder = node.residence.folder(node.pointer().active.generation_id)
    next(folder.rglob("*.heads")).unlink()
    told = genctl("node", "scrub", "node").ok().out
    assert told.startswith("1 file of generations lost or replaced, linked anew.\nAll else is")
    assert genctl("node", "scrub", "node").ok().out.startswith("All is intact: ")


def test_a_damaged_manifest_is_brought_anew(node: NodeHome) -> None:
    path = node.residence.generations / node.pointer().active.generation_id / "manifest.json"
    whole = path.read_bytes()
    flip(path, 30)
    assert scrub(node, ending=NEVER).found.mended_artifacts == 1
    assert path.read_bytes() == whole


def test_row_33_what_cannot_be_mended_demotes_the_node_and_a_later_repair_takes_it_back(
    node: NodeHome, writer: WriterHome, events: Events
) -> None:
    newest, older = node.pointer().active.generation_id, node.record().published[0].generation_id
    artifact = largest(only_of(writer, 1))
    away = symbols_of(writer, artifact).rename(writer.home.parent / "away")
    with asking(node) as answers:
        rot(node, artifact)
        report = scrub(node, ending=NEVER)
        assert isinstance(report.failures[0], Unrepairable)
        until(lambda: node.pointer().active.generation_id == older)
        assert set(answers) == {"d7"}
    assert ask(NodeHome(node.home)) == "d7"
    status = status_of(node)
    assert (status["state"], status["demoted_from"]) == ("read-degraded", newest)
    assert artifact.name in str(status["damage"])
    assert "Unrepairable" in str(status["damage"])
    with pytest.raises(ArtifactHashMismatch, match="repair") as caught:
        ask(node, as_of_commit_seq=node.record().published[1].high_seq)
    assert caught.value.runbook == "degraded"
    assert "runbooks/" not in caught.value.message, "or it is named twice"
    assert scrub(node, ending=NEVER).failures, "it stays so, and says so again"
    assert events.names.count("read_degraded_mode_entered") == 1

    away.rename(symbols_of(writer, artifact))
    assert repair(node, ending=NEVER).failures == ()
    assert node.pointer().active.generation_id == newest
    assert node.pointer().held_back is None
    assert node.state().state == "healthy"
    assert events.names.count("read_degraded_mode_exited") == 1
    assert ask(node, "unique5000") == "d5000"


def test_row_33_a_bootstrap_takes_a_demoted_node_back_too(
    node: NodeHome, writer: WriterHome, events: Events
) -> None:
    newest = node.pointer().active.generation_id
    artifact = largest(only_of(writer, 1))
    away = symbols_of(writer, artifact).rename(writer.home.parent / "away")
    rot(node, artifact)
    scrub(node, ending=NEVER)
    with pytest.raises(Unrepairable):
        node.bootstrap()
    assert node.state().demoted_from == newest
    away.rename(symbols_of(writer, artifact))
    assert node.bootstrap().activated
    assert node.pointer().active.generation_id == newest
    assert node.state().state == "healthy"
    assert events.names[-1] == "read_degraded_mode_exited"


def test_row_33_with_no_older_generation_queries_fail_by_name_and_read_no_rot(
    node: NodeHome, writer: WriterHome, events: Events
) -> None:
    shared = [a for a in artifacts_of(writer, 1) if a not in only_of(writer, 1)]
    artifact = largest(shared)
    away = symbols_of(writer, artifact).rename(writer.home.parent / "away")
    active = node.pointer().active
    reader = node.reader()
    request = Request(text="unique7", mode="lexical")
    assert node.query(reader, request).hits[0].id == "d7"
    rot(node, artifact)
    assert scrub(node, ending=NEVER).failures
    with pytest.raises(ArtifactHashMismatch) as caught:
        node.query(reader, request)  # although its snapshot has been open since before
    assert caught.value.facts["artifact"] == artifact.name
    assert node.pointer().active == active
    ((_, facts),) = [each for each in events.told if each[0] == "read_degraded_mode_entered"]
    assert facts["artifact_id"] == artifact.blake3
    away.rename(symbols_of(writer, artifact))
    assert scrub(node, ending=NEVER).failures == ()
    assert node.query(reader, request).hits[0].id == "d7"
    assert node.state().state == "healthy"


def test_rot_with_the_store_away_is_damage_until_it_is_back(
    node: NodeHome, writer: WriterHome
) -> None:
    artifact = largest(only_of(writer, 1))
    rot(node, artifact)
    store = Path(writer.settings.stores[0])
    store.rename(store.with_name("away"))
    (failure,) = repair(node, ending=NEVER).failures
    assert isinstance(failure, StoreUnavailable)
    assert node.state().state == "read-degraded"
    store.with_name("away").rename(store)
    assert repair(node, ending=NEVER).failures == ()
    assert node.state().state == "healthy"


def test_a_lost_table_with_the_store_away_does_not_degrade_the_node(
    node: NodeHome, writer: WriterHome
) -> None:
    table = node.residence.tables / largest(artifacts_of(writer)).blake3
    table.unlink()
    store = Path(writer.settings.stores[0])
    store.rename(store.with_name("away"))
    assert scrub(node, ending=NEVER).failures
    assert node.state().state == "healthy"


def test_an_operator_who_rolls_a_demoted_node_back_is_not_undone_by_a_repair(
    node: NodeHome, writer: WriterHome
) -> None:
    """The generation held back is the one that was demoted, and stays so."""
    add(writer, upserts([6000]))
    node.bootstrap()
    third = node.pointer().active.generation_id
    known = {a.blake3 for place in (0, 1) for a in artifacts_of(writer, place)}
    artifact = next(a for a in artifacts_of(writer, 2) if a.blake3 not in known)
    away = symbols_of(writer, artifact).rename(writer.home.parent / "away")
    rot(node, artifact)
    assert repair(node, ending=NEVER).failures
    assert node.rollback().held_back == third
    rolled_back = node.pointer()
    away.rename(symbols_of(writer, artifact))
    assert scrub(node, ending=NEVER).failures == ()
    assert node.pointer() == rolled_back
    assert node.state().state == "healthy"


def test_a_scrub_that_was_stopped_goes_on_where_it_was(
    node: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub_pass, "SAVED_EVERY_BYTES", 1)
    whole = scrub(node, ending=NEVER).found
    ending = threading.Event()
    really = files.replace_file

    def stopping(path: Path, parts: Any, **more: int) -> None:
        really(path, parts, **more)
        if last_progress(node.home).found.read_bytes > whole.read_bytes // 2:
            ending.set()

    with monkeypatch.context() as patched:
        patched.setattr(files, "replace_file", stopping)
        with pytest.raises(scrub_pass.Stopped):
            scrub(node, ending=ending)
    position = last_progress(node.home).position
    assert position is not None
    read_bytes = last_progress(node.home).found.read_bytes
    assert whole.read_bytes // 2 < read_bytes < whole.read_bytes
    report = scrub(node, ending=NEVER)
    assert report.resumed
    assert report.found == whole, "nothing twice, nothing left out"
    assert not scrub(node, ending=NEVER).resumed


def test_from_start_forgets_where_a_pass_was(node: NodeHome) -> None:
    whole = scrub(node, ending=NEVER).found
    ending = threading.Event()
    ending.set()
    with pytest.raises(scrub_pass.Stopped):
        scrub(node, ending=ending)
    report = scrub(node, ending=NEVER, from_start=True)
    assert (report.resumed, report.found) == (False, whole)


def test_a_damaged_resume_point_begins_anew(node: NodeHome) -> None:
    scrub(node, ending=NEVER)
    (node.home / "scrub/progress.json").write_bytes(b"\0")
    assert last_progress(node.home) == ScrubProgress()
    assert scrub(node, ending=NEVER).found.artifacts > 0


def test_reading_needs_no_lock_and_two_scrubs_are_one_too_many(node: NodeHome) -> None:
    with files.locked(node.home / "lock", "test"):
        assert scrub(node, ending=NEVER).failures == ()
    with files.locked(node.home / "scrub.lock", "test"), pytest.raises(HomeLocked):
        scrub(node, ending=NEVER)


def test_the_background_scrub_mends_and_ends_when_told(node: NodeHome, writer: WriterHome) -> None:
    artifact = largest(artifacts_of(writer))
    path = node.residence.artifact_path(artifact.blake3)
    whole = path.read_bytes()
    rot(node, artifact)
    ending = threading.Event()
    thread = threading.Thread(target=background(node), args=[ending])
    thread.start()
    until(lambda: last_progress(node.home).ended_at is not None)
    ending.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert path.read_bytes() == whole


def test_the_background_scrub_ends_at_once_while_it_waits_for_its_rate(
    node: NodeHome,
) -> None:
    path = node.home / "node.json"
    limits = {"limits": {"scrub_bytes_per_s": 1 << 10}}
    path.write_text(json.dumps(json.loads(path.read_text()) | limits))
    ending = threading.Event()
    thread = threading.Thread(target=background(NodeHome(node.home)), args=[ending])
    thread.start()
    until(lambda: not _can_lock(node.home / "scrub.lock"))
    ending.set()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert last_progress(node.home).position is not None


def _can_lock(path: Path) -> bool:
    try:
        with files.locked(path, "test"):
            return True
    except HomeLocked:
        return False


def test_row_43_a_repair_killed_at_any_step_leaves_nothing_worse_and_the_next_finishes(
    node: NodeHome, writer: WriterHome, in_folder: Callable[[Path], Genctl]
) -> None:
    genctl = in_folder(node.home.parent)
    artifact = largest(artifacts_of(writer))
    (symbols_of(writer, artifact) / "00").unlink()
    path = node.residence.artifact_path(artifact.blake3)
    whole = path.read_bytes()
    step = 0
    while True:
        rot(node, artifact, 0, artifact.size_bytes - 1)
        killed = genctl.killed_at(step, "node", "repair", "node", "--json").killed
        assert path.read_bytes()[1:-1] == whole[1:-1]
        genctl("node", "repair", "node", "--json").ok()
        assert path.read_bytes() == whole
        if not killed:
            break
        step += 1
    assert step > 3
    assert ask(NodeHome(node.home), "unique5000") == "d5000"


def test_row_43_a_scrub_killed_by_the_clock_goes_on(
    node: NodeHome, writer: WriterHome, console: Console
) -> None:
    path = node.home / "node.json"
    limits = {"limits": {"scrub_bytes_per_s": 1 << 20}}
    path.write_text(json.dumps(json.loads(path.read_text()) | limits))
    artifact = largest(artifacts_of(writer))
    whole = node.residence.artifact_path(artifact.blake3).read_bytes()
    rot(node, artifact)
    with console.start("node", "scrub", "node") as process:
        until(lambda: process.poll() is not None or (node.home / "scrub.lock").exists())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    limits = {"limits": {"scrub_bytes_per_s": 1 << 40}}
    path.write_text(json.dumps(json.loads(path.read_text()) | limits))
    assert console("node", "scrub", "node", "--json").ok().json["state"] == "healthy"
    assert node.residence.artifact_path(artifact.blake3).read_bytes() == whole


def test_the_command_says_what_is_lost_and_fails_by_name(
    node: NodeHome, writer: WriterHome, in_folder: Callable[[Path], Genctl]
) -> None:
    genctl = in_folder(node.home.parent)
    assert "All is intact" in genctl("node", "scrub", "node").ok().out
    artifact = largest(only_of(writer, 1))
    away = symbols_of(writer, artifact).rename(writer.home.parent / "away")
    rot(node, artifact)
    genctl("node", "repair", "node").refused(6, "Unrepairable", artifact.name)
    told = genctl("node", "status", "node").ok().out
    assert "read-degraded" in told
    assert artifact.name in told
    away.rename(symbols_of(writer, artifact))
    assert "1 mended" in genctl("node", "repair", "node").ok().out
    assert "read-degraded" not in genctl("node", "status", "node").ok().out


def test_a_node_in_an_impossible_transition_is_a_defect(tmp_path: Path) -> None:
    assert StateFile(tmp_path).read().state == "healthy"
    before, after = move(tmp_path, (), None)
    assert before == after
    assert not (tmp_path / "state.json").exists(), "healthy is nothing to write"
