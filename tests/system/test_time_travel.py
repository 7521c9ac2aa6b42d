"""Reading the past: three generations, at commits 10, 20 and 30."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from controller import clock
from controller.writer import WriterHome
from manifests.record import utc_text
from tests.support.process import Genctl
from tests.system.world import ask, bootstrap, documents, ids, ingest, release, write, writer_home

SECOND = timedelta(seconds=1)


class Past(NamedTuple):
    genctl: Genctl
    generation_ids: list[str]


@pytest.fixture(scope="module")
def past(in_folder: Callable[[Path], Genctl], tmp_path_factory: pytest.TempPathFactory) -> Past:
    """A writer with three generations and the nodes ``all`` (saw all) and ``only20``."""
    genctl = in_folder(tmp_path_factory.mktemp("past"))
    writer_home(genctl)
    generation_ids = []
    for last in (10, 20, 30):
        # Twenty operations, two to a commit; each generation replaces ten documents.
        operations = [
            *documents(1, 10, f"until{last}"),
            *documents(last + 1, last + 10, f"until{last}"),
        ]
        assert ingest(genctl, operations, 2) == last
        generation_ids.append(release(genctl))
        bootstrap(genctl, "all")
        if last == 20:
            bootstrap(genctl, "only20")
    return Past(genctl, generation_ids)


def answer_of(past: Past, node: str, *more: object) -> list[dict[str, Any]]:
    """What a node answers to several queries in all modes."""
    return [
        ask(past.genctl, node, text, "--mode", mode, *more)
        for text in ("common", "until20 own7", "until30 own25", "until10")
        for mode in ("lexical", "vector", "hybrid")
    ]


def without_times(answers: list[dict[str, Any]]) -> str:
    return json.dumps([{k: v for k, v in answer.items() if k != "took_ms"} for answer in answers])


def test_as_of_25_is_what_a_node_answered_that_never_saw_more_than_20(past: Past) -> None:
    now = answer_of(past, "only20")
    then = answer_of(past, "all", "--as-of-commit-seq", 25)
    assert without_times(then) == without_times(now)
    assert {answer["commit_seq"] for answer in then} == {20}
    assert {answer["generation_id"] for answer in then} == {past.generation_ids[1]}
    assert without_times(answer_of(past, "all")) != without_times(now)


@pytest.mark.parametrize(
    ("asked", "read"),
    [(10, 10), (11, 10), (19, 10), (20, 20), (29, 20), (30, 30), (31, 30), (10**9, 30)],
)
def test_as_of_is_the_greatest_generation_not_newer_than_asked(
    past: Past, asked: int, read: int
) -> None:
    answer = ask(past.genctl, "all", "common", "--as-of-commit-seq", asked)
    assert answer["commit_seq"] == read <= asked
    assert len(ids(answer)) == read + 10


@pytest.mark.parametrize("asked", [0, 5, 9])
def test_row_58_a_past_that_is_not_retained_names_the_range_that_is(past: Past, asked: int) -> None:
    line = ["query", "all", "common", "--as-of-commit-seq", asked]
    past.genctl(*line).refused(3, "GenerationCollected", "10", "30")
    facts = past.genctl(*line, "--json").refused(3).error["facts"]
    assert 10 in facts.values()
    assert 30 in facts.values()


@pytest.mark.parametrize("asked", [-1, 2**63])
def test_as_of_a_number_that_no_commit_has_is_refused(past: Past, asked: int) -> None:
    past.genctl("query", "all", "x", "--as-of-commit-seq", asked).refused(3, "BadQuery")


def test_a_fresh_node_fetches_the_past_it_is_asked_for(past: Past) -> None:
    report = bootstrap(past.genctl, "fresh")
    assert report["commit_seq"] == 30
    status = past.genctl("node", "status", "fresh", "--json").ok().json
    assert status["resident"] == past.generation_ids[2:]
    then = answer_of(past, "fresh", "--as-of-commit-seq", 25)
    assert without_times(then) == without_times(answer_of(past, "only20"))
    status = past.genctl("node", "status", "fresh", "--json").ok().json
    assert status["resident"] == past.generation_ids[1:]
    assert status["active"] == past.generation_ids[2], "reading the past activates nothing"
    assert ask(past.genctl, "fresh", "common")["commit_seq"] == 30


def test_the_past_that_is_here_answers_without_the_store(past: Past) -> None:
    bootstrap(past.genctl, "alone")
    ask(past.genctl, "alone", "common", "--as-of-commit-seq", 25)
    folder = past.genctl.folder
    shutil.move(folder / "s", folder / "away")
    try:
        assert ask(past.genctl, "alone", "common")["commit_seq"] == 30
        assert ask(past.genctl, "alone", "x", "--as-of-commit-seq", 25)["commit_seq"] == 20
        past.genctl("query", "alone", "x", "--as-of-commit-seq", 15).refused(5, "StoreUnavailable")
    finally:
        shutil.move(folder / "away", folder / "s")
    assert ask(past.genctl, "alone", "x", "--as-of-commit-seq", 15)["commit_seq"] == 10


def test_as_of_with_a_minimum_that_it_can_never_meet_is_refused(past: Past) -> None:
    line = ["query", "all", "x", "--as-of-commit-seq", 25, "--min-commit-seq"]
    past.genctl(*line, 21).refused(3, "BadQuery", "21")
    assert past.genctl(*line, 20, "--json").ok().json["commit_seq"] == 20


def test_a_rollback_does_not_hide_the_newer_past(
    in_folder: Callable[[Path], Genctl], tmp_path: Path
) -> None:
    genctl = in_folder(tmp_path)
    writer_home(genctl)
    for number in (1, 2):
        ingest(genctl, documents(number, number), 1)
        release(genctl)
    genctl("rollback", "w", "--reason", "x").ok()
    bootstrap(genctl)
    assert ask(genctl, "n", "common")["commit_seq"] == 1
    assert ask(genctl, "n", "common", "--as-of-commit-seq", 2)["commit_seq"] == 2


class Dated(NamedTuple):
    genctl: Genctl
    published: list[datetime]


@pytest.fixture(scope="module")
def dated(in_folder: Callable[[Path], Genctl], tmp_path_factory: pytest.TempPathFactory) -> Dated:
    """Commits 1, 2 and 3 published three, two and one hours ago; ``n`` has seen the first two."""
    genctl = in_folder(tmp_path_factory.mktemp("dated"))
    writer_home(genctl)
    writer = WriterHome(genctl.folder / "w")
    published = [clock.now() - timedelta(hours=hours) for hours in (3, 2, 1)]
    with pytest.MonkeyPatch.context() as patch:
        for number, time in enumerate(published, 1):
            ingest(genctl, documents(number, number), 1)
            generation_id = genctl("build", "w", "--json").ok().json["generation_id"]
            patch.setattr(clock, "now", lambda time=time: time)
            writer.publish(generation_id)
            writer.activate(generation_id)
            if number < 3:
                bootstrap(genctl)
    return Dated(genctl, published)


def test_as_of_a_time_is_the_newest_that_was_published_by_then(dated: Dated) -> None:
    genctl, published = dated
    for number, time in enumerate(published, 1):
        east = time.astimezone(timezone(timedelta(hours=5, minutes=30)))
        for asked in (time, time + 59 * 60 * SECOND, east):
            answer = ask(genctl, "n", "common", "--as-of", asked.isoformat())
            assert answer["commit_seq"] == len(ids(answer)) == number
            assert answer["published_at"] == utc_text(time)
            by_commit = ask(genctl, "n", "common", "--as-of-commit-seq", number)
            assert answer["hits"] == by_commit["hits"]
            assert answer["generation_id"] == by_commit["generation_id"]
            assert "published_at" not in by_commit
    assert ask(genctl, "n", "common", "--as-of", "9999-12-31T23:59:59Z")["commit_seq"] == 3
    assert ask(genctl, "n", "common")["commit_seq"] == 2, "reading the past activates nothing"


def test_as_of_a_time_is_said_to_people_and_with_queries_and_documents_too(dated: Dated) -> None:
    genctl, published = dated
    time = utc_text(published[0])
    told = genctl("query", "n", "common", "--as-of", time).ok().out
    assert f"commit_seq 1 · published {time}" in told
    file = write(genctl.folder / "questions.jsonl", [{"id": "q", "text": "common"}])
    (line,) = genctl("query", "n", "--queries", file, "--as-of", time).ok().lines
    assert (line["query_id"], line["commit_seq"], line["published_at"]) == ("q", 1, time)
    genctl("query", "n", "--id", "d1", "--as-of", time).ok()
    genctl("query", "n", "--id", "d2", "--as-of", time).refused(3, "BadQuery", "d2")


def test_row_58_a_time_before_all_that_is_retained_names_the_range_in_commits_and_times(
    dated: Dated,
) -> None:
    genctl, published = dated
    ask(genctl, "n", "common", "--as-of", utc_text(published[2]))  # now the record knows the third
    line = ["query", "n", "common", "--as-of", utc_text(published[0] - SECOND)]
    times = [utc_text(published[0]), utc_text(published[2])]
    genctl(*line).refused(3, "GenerationCollected", "as of 1 to 3", " to ".join(times))
    facts = genctl(*line, "--json").refused(3).error["facts"]
    assert [facts["retained_low_seq"], facts["retained_high_seq"]] == [1, 3]
    assert [facts["retained_low_time"], facts["retained_high_time"]] == times


def test_row_59_a_revoked_generation_is_refused_by_name(
    in_folder: Callable[[Path], Genctl], dated: Dated, tmp_path: Path
) -> None:
    genctl, published = dated
    folder = genctl.folder
    shutil.copytree(folder, tmp_path / "copy")
    for path in tmp_path.joinpath("copy").glob("*/*.json"):
        if path.name in {"settings.json", "node.json"}:
            path.write_text(path.read_text().replace(str(folder), str(tmp_path / "copy")))
    genctl = in_folder(tmp_path / "copy")
    middle = genctl("query", "n", "x", "--as-of-commit-seq", 2, "--json").ok().json["generation_id"]
    genctl("revoke", "w", middle, "--reason", "wrong").ok()
    bootstrap(genctl)
    line = ["query", "n", "x", "--as-of", utc_text(published[1])]
    genctl(*line).refused(3, "GenerationRevoked", middle, "as of 1")
    assert ask(genctl, "n", "common", "--as-of", utc_text(published[0]))["commit_seq"] == 1


@pytest.mark.parametrize(
    "asked",
    ["", "yesterday", "2026-11-20", "2026-11-20T12:00:00", "0001-01-01T00:00:00+14:00", "\udcff"],
)
def test_as_of_what_is_no_time_is_refused_and_says_what_to_write(dated: Dated, asked: str) -> None:
    line = ["query", "n", "x", "--as-of", asked]
    dated.genctl(*line).refused(3, "BadQuery", "2026-11-20T12:00:00Z")
    dated.genctl(*line, "--json").refused(3, "BadQuery")


def test_as_of_a_time_and_a_commit_at_once_is_refused(dated: Dated) -> None:
    line = ["query", "n", "x", "--as-of", "2026-11-20T12:00:00Z", "--as-of-commit-seq", 1]
    dated.genctl(*line).refused(3, "BadQuery", "not both")
