"""The pointer: whole or refused, old or new, and the generation before it kept (rows 38, 42)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from activator.pointer import POINTER_FILE, Occasion, Pointer, PointerFile, swap
from controller.node import NodeHome
from index.verification import VerifiedGeneration
from manifests.canonical import to_canonical
from manifests.errors import NothingPublished, PointerCorrupt
from manifests.identifiers import content_id
from manifests.record import GenerationEntry, entry_of
from query.request import Request
from tests.support.corpus import upserts
from tests.support.crashes import killed_at
from tests.support.homes import TestableWriter, add, built, make_node, make_writer

Verified = tuple[VerifiedGeneration, GenerationEntry]
NOW = Occasion("activate", "2024-05-06T07:08:09+00:00", record_version=1)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Verified]:
    writer = make_writer(tmp_path_factory.mktemp("three"))
    found = []
    for number in range(3):
        manifest = built(writer, upserts([number]))
        data = to_canonical(manifest)
        found.append((writer.residence.assemble(manifest, data), entry_of(manifest, data)))
    return found


@pytest.fixture
def served(tmp_path: Path) -> tuple[TestableWriter, NodeHome]:
    """A node that served two generations, one after the other."""
    writer = make_writer(tmp_path)
    add(writer, upserts(range(3)))
    node = make_node(writer)
    add(writer, upserts(range(3, 6)))
    node.bootstrap()
    return writer, node


def read(home: Path) -> Pointer | None:
    return PointerFile(home).read()


def damages(whole: bytes) -> list[bytes]:
    cut = [whole[:length] for length in range(len(whole) - 1)]
    flipped = [
        whole[:offset] + bytes([whole[offset] ^ 0x20]) + whole[offset + 1 :]
        for offset in range(len(whole) - 1)
    ]
    body = b'{"schema_version":1}'
    sealed = [body + b"\n" + content_id(body).encode(), b"\n" + content_id(b"").encode()]
    return [*cut, *flipped, *sealed, b"\0" * len(whole), whole * 2]


def test_a_home_without_a_pointer_serves_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) is None


def test_a_swap_keeps_the_generation_before(tmp_path: Path, three: list[Verified]) -> None:
    (one, first), (two, second), (_, _) = three
    assert swap(tmp_path, one, first, NOW).pointer == Pointer(shard="main", active=first)
    active = swap(tmp_path, two, second, NOW)
    assert active.pointer == Pointer(shard="main", active=second, previous=first)
    assert active.verified is two
    assert read(tmp_path) == active.pointer


def test_swapping_to_what_is_active_keeps_the_generation_before(
    tmp_path: Path, three: list[Verified]
) -> None:
    (one, first), (two, second), _ = three
    swap(tmp_path, one, first, NOW)
    swap(tmp_path, two, second, NOW)
    assert swap(tmp_path, two, second, NOW).pointer.previous == first


def test_an_open_pointer_file_sees_every_swap(tmp_path: Path, three: list[Verified]) -> None:
    pointers = PointerFile(tmp_path)
    assert pointers.read() is None
    for verified, entry in [*three, *reversed(three)]:
        swap(tmp_path, verified, entry, NOW)
        seen = pointers.read()
        assert seen is not None
        assert seen.active == entry
        assert pointers.read() is seen


def test_row_42_every_torn_empty_or_changed_pointer_is_corrupt(
    tmp_path: Path, three: list[Verified]
) -> None:
    swap(tmp_path, *three[0], NOW)
    path = tmp_path / POINTER_FILE
    whole = path.read_bytes()
    for damaged in damages(whole):
        path.write_bytes(damaged)
        with pytest.raises(PointerCorrupt) as caught:
            read(tmp_path)
        assert caught.value.runbook == "pointer-corrupt"
    path.write_bytes(whole)
    assert read(tmp_path) is not None


def test_row_42_a_newer_pointer_is_not_guessed_at(tmp_path: Path) -> None:
    body = b'{"schema_version":2}'
    (tmp_path / POINTER_FILE).write_bytes(body + b"\n" + content_id(body).encode() + b"\n")
    with pytest.raises(PointerCorrupt, match="schema version 2"):
        read(tmp_path)


@pytest.mark.parametrize("number", range(5))
def test_row_42_a_bootstrap_sets_a_corrupt_pointer_anew_from_the_record(
    served: tuple[TestableWriter, NodeHome], number: int
) -> None:
    _, node = served
    before = node.pointer()
    path = node.home / POINTER_FILE
    whole = path.read_bytes()
    path.write_bytes([b"", whole[:-10], whole[:50], b"\0" * len(whole), whole[1:]][number])
    with pytest.raises(PointerCorrupt):
        NodeHome(node.home).pointer()
    report = NodeHome(node.home).bootstrap()
    assert report.activated
    assert report.brought.plan.fetch == ()
    assert NodeHome(node.home).pointer().active == before.active
    answer = NodeHome(node.home).query(node.reader(), Request(text="unique4", mode="lexical"))
    assert answer.hits[0].id == "d4"


def test_row_38_a_swap_killed_at_any_step_leaves_the_old_or_the_new_pointer(
    tmp_path: Path, three: list[Verified]
) -> None:
    (one, first), (two, second), _ = three
    outcomes = []
    for step in range(10):
        home = tmp_path / str(step)
        home.mkdir()
        swap(home, one, first, NOW)
        killed = killed_at(step, lambda: swap(home, two, second, NOW))  # noqa: B023
        pointer = read(home)
        assert pointer is not None
        assert (pointer.active, pointer.previous) in [(first, None), (second, first)]
        outcomes.append(pointer.active == second)
        assert swap(home, two, second, NOW).pointer == Pointer(
            shard="main", active=second, previous=first
        )
        if not killed:
            break
    assert outcomes == [False, False, False, False, True, True]


def test_a_rollback_on_the_node_serves_the_previous_and_holds_the_other_back(
    served: tuple[TestableWriter, NodeHome],
) -> None:
    writer, node = served
    newer = node.pointer().active
    pointer = node.rollback()
    assert pointer.active.high_seq == 1
    assert pointer.previous == newer
    assert pointer.held_back == newer.generation_id
    answer = node.query(node.reader(), Request(text="unique4", mode="lexical"))
    assert (answer.commit_seq, answer.hits) == (1, [])
    report = node.bootstrap()
    assert (report.activated, report.held_back) == (False, True)
    assert node.pointer() == pointer
    newest = add(writer, upserts([9]))
    report = node.bootstrap()
    assert (report.activated, report.held_back) == (True, False)
    assert node.pointer() == Pointer(
        shard="main",
        active=newest,
        previous=pointer.active,
        passed_over=(newer.generation_id,),
    )


def test_a_node_that_served_one_generation_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(3)))
    node = make_node(writer)
    before = node.pointer()
    with pytest.raises(NothingPublished):
        node.rollback()
    assert node.pointer() == before


def test_row_61_a_rollback_target_that_is_gone_locally_is_fetched_when_the_record_says_so(
    served: tuple[TestableWriter, NodeHome],
) -> None:
    writer, node = served
    older = node.pointer().previous
    assert older is not None
    shutil.rmtree(node.residence.generations / older.generation_id)
    for path in node.residence.artifacts.iterdir():
        if path.stat().st_nlink == 1:
            path.unlink()
    writer.rollback(None, "wrong answers")
    assert node.bootstrap().pointer.active == older
    assert node.query(node.reader(), Request(text="unique1", mode="lexical")).hits[0].id == "d1"


def test_the_generation_before_stays_resident_and_whole(
    served: tuple[TestableWriter, NodeHome],
) -> None:
    _, node = served
    previous = node.pointer().previous
    assert previous is not None
    node.residence.reopen(previous, "main")
