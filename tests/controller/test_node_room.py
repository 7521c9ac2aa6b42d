"""A disk that old generations have filled makes room for the next one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from controller import compaction, node_space
from controller.node import NodeHome
from durable import files
from index import in_use
from manifests.errors import SizeRefused
from manifests.generation import GenerationManifest
from manifests.identifiers import content_id
from manifests.record import GenerationEntry
from query.request import Request
from replicator import bring
from tests.support.corpus import upserts
from tests.support.homes import TestableWriter, add, copy_with_node, make_node, make_writer

COUNT = 6
WORD = Request(text="unique11", mode="lexical")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer with the generations 1 to 6, and a node that has all of them."""
    folder = tmp_path_factory.mktemp("room") / "made"
    writer = make_writer(folder)
    replaced(writer, 1)
    make_node(writer)
    for number in range(2, COUNT + 1):
        replaced(writer, number)
        NodeHome(folder / "node").bootstrap()
    return folder


def replaced(writer: TestableWriter, number: int) -> GenerationEntry:
    """A generation in which every document is new, merged with what is left of those before."""
    entry = add(writer, upserts(range(30), number))
    compaction.compact(writer, None, send=False, on_start=lambda _: lambda _: None)
    return entry


@pytest.fixture
def both(made: Path, tmp_path: Path) -> tuple[TestableWriter, NodeHome]:
    writer, node = copy_with_node(made, tmp_path / "copy")
    for seq, generation_id in enumerate(node.residence.resident_ids(), 1):
        folder = node.residence.folder(generation_id).parent
        os.utime(folder, ns=(seq * 10**9, seq * 10**9))
    return writer, node


@pytest.fixture
def writer(both: tuple[TestableWriter, NodeHome]) -> TestableWriter:
    return both[0]


@pytest.fixture
def node(both: tuple[TestableWriter, NodeHome]) -> NodeHome:
    return both[1]


def resident(node: NodeHome) -> list[int]:
    return [int(each[1:13]) for each in node.residence.resident_ids()]


def occupied(node: NodeHome) -> int:
    """The bytes of all artifacts and manifests, which is what old generations have."""
    artifacts = sum(size_bytes for _, size_bytes in node.residence.kept_artifacts())
    manifests = node.residence.generations.glob("*/manifest.json")
    return artifacts + sum(path.stat().st_size for path in manifests)


@pytest.fixture
def small_disk(node: NodeHome, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have the disk of the node so many bytes free besides what is there now."""
    real = shutil.disk_usage

    def be_small(free_bytes: int) -> None:
        disk_bytes = occupied(node) + free_bytes

        def usage(path: Path) -> object:
            return real(path)._replace(free=max(0, disk_bytes - occupied(node)))

        monkeypatch.setattr(shutil, "disk_usage", usage)

    monkeypatch.setattr(bring, "SPARE_BYTES", 100)
    return be_small


def coming(writer: TestableWriter) -> GenerationManifest:
    return writer.manifest(replaced(writer, COUNT + 1).generation_id)


def test_row_26_a_node_whose_disk_is_full_of_old_generations_goes_on_following(
    writer: TestableWriter, node: NodeHome, small_disk: Callable[[int], None]
) -> None:
    small_disk(0)
    for number in range(COUNT + 1, COUNT + 7):
        entry = replaced(writer, number)
        report = NodeHome(node.home).bootstrap()
        assert report.pointer.active == entry
        assert report.space is not None
        assert report.space.evicted
        assert {number - 1, number} <= set(resident(node))
        answer = node.query(NodeHome(node.home).reader(), WORD)
        assert (answer.commit_seq, len(answer.hits)) == (number, 1)
    assert len(resident(node)) <= COUNT + 1


def test_no_more_goes_than_there_has_to_and_the_least_recently_used_first(
    writer: TestableWriter, node: NodeHome, small_disk: Callable[[int], None]
) -> None:
    coming(writer)
    small_disk(100)
    before = resident(node)
    report = node.bootstrap()
    assert report.space is not None
    gone = [int(each.generation_id[1:13]) for each in report.space.evicted]
    assert gone == before[: len(gone)]
    assert 0 < len(gone) < 4
    assert resident(node) == [*before[len(gone) :], 7]


def test_with_room_enough_nothing_goes(
    writer: TestableWriter, node: NodeHome, small_disk: Callable[[int], None]
) -> None:
    coming(writer)
    small_disk(10**9)
    assert node.bootstrap().space is None
    assert resident(node) == [1, 2, 3, 4, 5, 6, 7]


def test_what_has_no_room_even_so_is_refused_and_what_must_stay_is_there(
    writer: TestableWriter, node: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming(writer)
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=0))
    held = in_use.hold(node.residence.folder(node.residence.resident_ids()[1]).parent)
    with pytest.raises(SizeRefused, match="no old generation can go") as caught:
        node.bootstrap()
    held.close()
    assert caught.value.facts["free_bytes"] == 0
    assert resident(node) == [2, 5, 6]
    assert node.pointer().active.high_seq == 6


def test_a_fetch_of_the_past_makes_room_too(
    writer: TestableWriter, node: NodeHome, small_disk: Callable[[int], None]
) -> None:
    files.remove_tree(node.residence.set_aside(node.residence.resident_ids()[4]))
    node.bootstrap()
    node_space.gc(node)
    files.remove_tree(node.residence.set_aside(node.residence.resident_ids()[0]))
    node_space.gc(node)
    small_disk(0)
    assert node.query(node.reader(), WORD, as_of_commit_seq=5).commit_seq == 5
    assert {5, 6} <= set(resident(node))
    assert 2 not in resident(node)


def test_what_was_fetched_of_a_generation_before_does_not_go_to_make_room_for_the_rest(
    writer: TestableWriter, node: NodeHome
) -> None:
    manifest = coming(writer)
    for artifact in manifest.artifacts:
        path = node.residence.artifact_path(artifact.blake3)
        if not path.exists():
            shutil.copyfile(writer.residence.artifact_path(artifact.blake3), path)
    stray = content_id(b"stray")
    node.residence.artifact_path(stray).write_bytes(b"stray")
    report = node_space.make_room(node, manifest, 10**12)
    assert report is not None
    assert resident(node) == [5, 6]
    assert not node.residence.artifact_path(stray).exists()
    assert all(node.residence.holds(each) for each in manifest.artifacts)
    assert node.bootstrap().brought.tally.fetched_bytes == 0


def test_a_node_that_serves_nothing_yet_has_nothing_to_make_room_with(
    writer: TestableWriter, node: NodeHome, caplog: pytest.LogCaptureFixture
) -> None:
    (node.home / "active.json").unlink()
    before = resident(node)
    assert node_space.make_room(node, coming(writer), 10**12) is None
    assert caplog.records == [], "that is no failure"
    assert resident(node) == before


def test_what_went_one_time_after_the_other_is_told_together() -> None:
    first, second = (
        node_space.SpaceReport(
            (node_space.Evicted(f"g{number}", "x", number),), (), number * 10, number, 5
        )
        for number in (1, 2)
    )
    both = node_space.joined(first, None, second)
    assert both is not None
    assert (both.freed_bytes, both.old_bytes) == (33, 2)
    assert [each.generation_id for each in both.evicted] == ["g1", "g2"]
    assert node_space.joined(None, None) is None
