"""Reading the past, and one generation a query (rows 56 to 58)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.node import NodeHome
from index.snapshot import Hit, Mode
from manifests.errors import GenerationCollected, NotYetActivated
from query.request import Answer, Request
from tests.support.corpus import VOCABULARY, delete, upserts
from tests.support.homes import TestableWriter, add, make_node, make_writer, new_node

MODES: tuple[Mode, ...] = ("lexical", "vector", "hybrid")
QUESTIONS = [
    *VOCABULARY,
    *(f"unique{number}" for number in range(0, 60, 5)),
    "glacier river summit",
    "unique3v1",
    "nothing of the kind",
]


@dataclass
class World:
    """A writer whose generations end at commits 10, 20 and 30; nodes that follow it."""

    writer: TestableWriter
    follower: NodeHome
    at_20: NodeHome


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    writer = make_writer(tmp_path_factory.mktemp("as-of"))
    add(writer, upserts(range(30)), commits=10)
    follower = make_node(writer, "follower")
    add(writer, [*upserts(range(10), 1), *(delete(n) for n in range(20, 30))], commits=10)
    follower.bootstrap()
    at_20 = make_node(writer, "only-20")
    add(writer, [*upserts(range(5, 15), 2), *upserts(range(40, 50))], commits=10)
    follower.bootstrap()
    return World(writer, follower, at_20)


def ask(node: NodeHome, as_of: int | None = None) -> dict[tuple[str, str], list[Hit]]:
    reader = node.reader()
    answers: dict[tuple[str, str], list[Hit]] = {}
    for text in QUESTIONS:
        for mode in MODES:
            request = Request(text=text, mode=mode, limit=25)
            answer = node.query(reader, request, as_of_commit_seq=as_of)
            answers[text, mode] = answer.hits
            expected = 30 if as_of is None else min(as_of // 10 * 10, 30)
            assert answer.commit_seq == expected or node.home.name == "only-20"
    return answers


def test_a_read_as_of_25_is_exactly_what_a_node_at_20_answers(world: World) -> None:
    past = ask(world.follower, 25)
    assert past == ask(world.at_20)
    assert past == ask(world.follower, 20)
    assert past != ask(world.follower)
    assert past != ask(world.follower, 19)
    assert any(past.values())


def test_a_read_as_of_now_or_later_is_the_latest(world: World) -> None:
    latest = ask(world.follower)
    assert ask(world.follower, 30) == latest
    assert ask(world.follower, 99) == latest


def test_what_is_asked_by_word_is_right_at_each_time(world: World) -> None:
    reader = world.follower.reader()

    def found(text: str, as_of: int | None) -> list[str]:
        request = Request(text=text, mode="lexical")
        answer = world.follower.query(reader, request, as_of_commit_seq=as_of)
        return [hit.id for hit in answer.hits]

    assert [found("unique25", at) for at in (10, 20, 30)] == [["d25"], [], []]
    assert [found("unique7v1", at) for at in (10, 20, 30)] == [[], ["d7"], []]
    assert [found("unique7v2", at) for at in (19, 29, None)] == [[], [], ["d7"]]
    assert [found("unique45", at) for at in (10, 25, 31)] == [[], [], ["d45"]]


def test_a_retained_generation_that_is_not_here_is_fetched_and_not_activated(
    world: World,
) -> None:
    node = new_node(world.writer, "late")
    node.bootstrap()
    before = node.pointer()
    assert ask(node, 25) == ask(world.at_20)
    assert node.pointer() == before
    assert len(node.residence.resident_ids()) == 2


def test_row_58_a_read_before_the_first_generation_names_the_range(world: World) -> None:
    with pytest.raises(GenerationCollected) as caught:
        world.follower.query(world.follower.reader(), Request(text="anchor"), as_of_commit_seq=5)
    assert caught.value.facts["retained_low_seq"] == 10
    assert caught.value.facts["retained_high_seq"] == 30


def test_a_minimum_that_never_comes_ends_at_the_deadline(world: World) -> None:
    with pytest.raises(NotYetActivated):
        world.follower.query(
            world.follower.reader(), Request(text="anchor"), min_commit_seq=31, deadline_ms=1
        )


def test_a_minimum_is_answered_once_another_thread_has_caught_up(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(3)))
    node = make_node(writer)
    add(writer, upserts(range(3, 6)))
    answers: list[Answer] = []

    def wait() -> None:
        asking = NodeHome(node.home)
        answers.append(
            asking.query(
                asking.reader(),
                Request(text="unique4", mode="lexical"),
                min_commit_seq=2,
                deadline_ms=60_000,
            )
        )

    thread = threading.Thread(target=wait)
    thread.start()
    node.bootstrap()
    thread.join(60)
    assert [(answer.commit_seq, answer.hits[0].id) for answer in answers] == [(2, "d4")]


def test_row_56_a_snapshot_answers_the_same_while_generations_are_swapped(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(20)))
    node = make_node(writer)
    reader = node.reader()
    snapshot = reader.snapshot(node.pointer().active)

    def everything() -> list[list[Hit]]:
        return [
            snapshot.search(text=word, vector=None, mode="lexical", limit=50) for word in VOCABULARY
        ]

    before = everything()
    seen: list[bool] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            seen.append(everything() == before)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    for serial in range(1, 4):
        add(writer, [*upserts(range(10), serial), delete(10 + serial)])
        assert node.bootstrap().activated
    stop.set()
    thread.join(60)
    assert seen
    assert all(seen)
    assert everything() == before


def test_row_56_every_answer_during_swaps_is_of_one_generation(tmp_path: Path) -> None:
    # Each generation replaces all documents of the one before, so a mixed answer would show.
    writer = make_writer(tmp_path)
    expected: dict[str, set[str]] = {}
    for first in (0, 10, 20):
        gone = [delete(number) for number in range(first - 10, first) if number >= 0]
        entry = add(writer, [*gone, *upserts(range(first, first + 10))])
        expected[entry.generation_id] = {f"d{number}" for number in range(first, first + 10)}
        make_node(writer).bootstrap()
    node = make_node(writer)
    answers: list[tuple[str, set[str]]] = []
    asked, stop = threading.Event(), threading.Event()

    def keep_asking() -> None:
        asking = NodeHome(node.home)
        reader = asking.reader()
        request = Request(text=" ".join(VOCABULARY), limit=100)
        while not stop.is_set():
            answer = asking.query(reader, request)
            answers.append((answer.generation_id, {hit.id for hit in answer.hits}))
            asked.set()

    thread = threading.Thread(target=keep_asking)
    thread.start()
    assert asked.wait(60)
    newest = node.pointer().active.generation_id
    for _ in range(5):
        writer.rollback(None, "to and fro")
        assert node.bootstrap().activated
        writer.activate(newest)
        assert node.bootstrap().activated
    stop.set()
    thread.join(60)
    assert all(ids == expected[generation_id] for generation_id, ids in answers)
    assert len({generation_id for generation_id, _ in answers}) == 2
