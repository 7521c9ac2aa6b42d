"""Where a node goes back to, and that it is there still when it is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from activator.pointer import Pointer, pointer_id
from activator.state import Damage
from controller import degraded, node_space, retaining, settings
from controller.node import NodeHome
from controller.node_scrub import scrub
from controller.node_status import status_of
from durable import files
from manifests.canonical import to_canonical
from manifests.errors import GenctlError, NothingPublished
from manifests.record import GenerationEntry
from query.request import Request
from tests.support.corpus import upserts
from tests.support.homes import TestableWriter, add, copy_with_node, flip, make_node, make_writer
from tests.support.signed_away import sign_away

WORD = Request(text="unique1", mode="lexical")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer with the generations 1 to 3, and a node that has served them all."""
    folder = tmp_path_factory.mktemp("back") / "made"
    writer = make_writer(folder)
    add(writer, upserts(range(1, 4)))
    make_node(writer)
    for number in (2, 3):
        add(writer, upserts([number * 10]))
        NodeHome(folder / "node").bootstrap()
    return folder


@pytest.fixture
def both(made: Path, tmp_path: Path) -> tuple[TestableWriter, NodeHome]:
    return copy_with_node(made, tmp_path / "copy")


@pytest.fixture
def writer(both: tuple[TestableWriter, NodeHome]) -> TestableWriter:
    return both[0]


@pytest.fixture
def node(both: tuple[TestableWriter, NodeHome]) -> NodeHome:
    return both[1]


def release(writer: TestableWriter, number: int) -> GenerationEntry:
    return add(writer, upserts([100 + number]))


def take_away_store(writer: TestableWriter) -> None:
    store = Path(writer.settings.stores[0])
    store.rename(store.with_name("away"))


def without_room_for_old_ones(node: NodeHome) -> NodeHome:
    path = node.home / settings.NODE_FILE
    settings.save(path, node.settings.model_copy(update={"old_generations_max_bytes": 0}))
    return NodeHome(node.home)


def resident(node: NodeHome) -> list[int]:
    return [int(each[1:13]) for each in node.residence.resident_ids()]


def test_row_61_what_a_node_was_rolled_back_from_is_no_target_of_a_later_rollback(
    writer: TestableWriter, node: NodeHome
) -> None:
    assert node.rollback().active.high_seq == 2
    release(writer, 4)
    node.bootstrap()
    node_space.gc(without_room_for_old_ones(node))
    assert resident(node) == [2, 4], "what was gone back from is not kept in the place of 2"
    take_away_store(writer)
    assert node.rollback().active.high_seq == 2
    assert status_of(node)["previous"] == node.residence.resident_ids()[-1]


def test_what_was_served_before_and_was_revoked_is_gone_behind_and_so_is_what_was_held_back(
    writer: TestableWriter, node: NodeHome
) -> None:
    node.rollback()
    release(writer, 4)
    node.bootstrap()
    retaining.revoke(writer, node.pointer().previous.generation_id, "it leaks")  # type: ignore[union-attr]
    node.bootstrap()
    assert 2 in resident(node), "nothing was activated, so nothing went yet"
    assert node.rollback().active.high_seq == 1


def test_a_generation_that_the_record_went_behind_is_no_target_on_a_node_that_was_away(
    writer: TestableWriter, node: NodeHome
) -> None:
    writer.rollback(None, "3 is bad")
    release(writer, 4)
    node.bootstrap()
    assert node.pointer().previous.high_seq == 3  # type: ignore[union-attr]
    assert node.rollback().active.high_seq == 2


def test_a_read_of_the_past_does_not_change_where_a_rollback_goes(
    writer: TestableWriter, node: NodeHome
) -> None:
    for number in (4, 5, 6):
        release(writer, number)
    node.bootstrap()
    assert node.query(node.reader(), WORD, as_of_commit_seq=5).commit_seq == 5
    assert node.rollback().active.high_seq == 3


@pytest.mark.parametrize("read", [1, 2])
def test_nor_does_it_on_a_node_that_has_served_one_generation_only(
    writer: TestableWriter, node: NodeHome, read: int
) -> None:
    fresh = make_node(writer, "fresh")
    assert fresh.query(fresh.reader(), WORD, as_of_commit_seq=read).commit_seq == read
    assert fresh.rollback().active.high_seq == 2


def test_row_61_what_was_served_before_stays_though_it_is_collected(
    writer: TestableWriter, node: NodeHome
) -> None:
    for number in (4, 5, 6):
        release(writer, number)
    generation_ids = [each.generation_id for each in writer.current().signed.record.published]
    for each in generation_ids[:4]:
        sign_away(writer, each)
    node = without_room_for_old_ones(node)
    report = node.bootstrap()
    assert report.space is not None
    assert resident(node) == [3, 6]
    node_space.gc(node)
    status = status_of(node)
    assert (status["previous"], status["previous_is_here"]) == (generation_ids[2], True)
    assert status["rollback_target"] == generation_ids[2]
    take_away_store(writer)
    pointer = node.rollback()
    assert (pointer.active.high_seq, pointer.held_back) == (3, generation_ids[5])
    assert node.query(NodeHome(node.home).reader(), WORD).commit_seq == 3
    node_space.gc(node)
    assert resident(node) == [3, 6], "what is held back stays beside what is served"


def test_what_is_collected_and_not_here_any_more_is_no_target_and_the_status_says_so(
    writer: TestableWriter, node: NodeHome
) -> None:
    for number in (4, 5, 6):
        release(writer, number)
    generation_ids = [each.generation_id for each in writer.current().signed.record.published]
    sign_away(writer, generation_ids[2])
    node.bootstrap()
    files.remove_tree(node.residence.set_aside(generation_ids[2]))
    status = status_of(node)
    assert (status["previous"], status["previous_is_here"]) == (generation_ids[2], False)
    assert status["rollback_target"] == generation_ids[4]
    assert node.rollback().active.high_seq == 5


def test_off_damage_a_node_goes_to_what_it_served_before_not_to_what_it_was_rolled_back_from(
    writer: TestableWriter, node: NodeHome
) -> None:
    node.rollback()
    newest = release(writer, 4)
    node.bootstrap()
    damage = Damage(
        artifact="x",
        artifact_id=newest.manifest_id,
        generation_ids=(newest.generation_id,),
        error="Unrepairable",
        message="gone",
    )
    with files.locked(node.home / "lock", "demote"):
        degraded.demote(node, damage)
    assert node.pointer().active.high_seq == 2


def test_a_rollback_that_has_nowhere_to_go_but_where_it_came_from_is_refused(
    writer: TestableWriter, node: NodeHome
) -> None:
    for each in writer.current().signed.record.published[:1]:
        sign_away(writer, each.generation_id)
    node.rollback()
    release(writer, 4)
    node.bootstrap()
    sign_away(writer, node.pointer().previous.generation_id)  # type: ignore[union-attr]
    node.bootstrap()
    files.remove_tree(node.residence.set_aside(node.pointer().previous.generation_id))  # type: ignore[union-attr]
    with pytest.raises(NothingPublished, match="gone back from"):
        node.rollback()


def test_a_generation_that_is_served_again_is_passed_over_no_more(
    writer: TestableWriter, node: NodeHome
) -> None:
    third = node.pointer().active.generation_id
    assert node.rollback().passed_over == (third,)
    writer.rollback(None, "here too")
    node.bootstrap()
    assert node.pointer().passed_over == (third,)
    writer.activate(third)
    node.bootstrap()
    assert node.pointer().active.generation_id == third
    assert node.pointer().passed_over == ()


def test_a_pointer_that_passes_nothing_over_has_the_bytes_that_it_always_had(
    node: NodeHome,
) -> None:
    pointer = node.pointer()
    assert b"passed_over" not in to_canonical(pointer)
    other = Pointer(**(dict(pointer) | {"passed_over": (pointer.active.generation_id,)}))
    assert b"passed_over" in to_canonical(other)
    assert pointer_id(other) != pointer_id(pointer)


def lose(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [lose, flip])
def test_rot_in_what_was_served_before_is_found_though_it_is_collected(
    writer: TestableWriter, node: NodeHome, harm: Callable[[Path], None]
) -> None:
    before = release(writer, 4)
    node.bootstrap()
    release(writer, 5)
    node.bootstrap()
    assert node.pointer().previous == before
    release(writer, 6)
    sign_away(writer, before.generation_id)
    node = NodeHome(node.home)
    with files.locked(node.home / "lock", "refresh"):
        node.trust().refresh(node.stores())
    harm(node.residence.folder(before.generation_id).parent / "manifest.json")
    report = scrub(node, ending=threading.Event())
    assert isinstance(report.failures[0], GenctlError)
    (damage,) = node.state().damage
    assert (damage.artifact, damage.generation_ids) == ("manifest.json", (before.generation_id,))
