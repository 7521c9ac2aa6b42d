"""Several processes at once: one home, one store, one node."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import Console, Finished, Genctl, Warm, environment
from tests.system.world import (
    ask,
    bootstrap,
    copy,
    documents,
    files_of,
    ids,
    ingest,
    release,
    write,
    writer_home,
)

SWAPS = 20
ROUNDS = 15


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a home's lock, as a command at work in it does."""
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@pytest.fixture
def two(genctl: Genctl) -> list[str]:
    """Two generations; the node n serves the second."""
    writer_home(genctl)
    generation_ids = []
    for number in (1, 2):
        ingest(genctl, documents(number * 10, number * 10 + 9), 10)
        generation_ids.append(release(genctl))
        bootstrap(genctl)
    return generation_ids


@pytest.fixture
def second_warm(mark: str) -> Iterator[Warm]:
    with Warm(environment(mark)) as process:
        yield process


def test_a_home_in_use_is_locked_for_every_command_that_changes_it(
    genctl: Genctl, two: list[str]
) -> None:
    write(genctl.folder / "more.jsonl", documents(50, 51))
    before = files_of(genctl.folder / "w"), files_of(genctl.folder / "s")
    with held(genctl.folder / "w" / "lock"):
        for command in (
            ["init", "w", "--store", "s", "--dimensions", "256"],
            ["ingest", "w", "more.jsonl"],
            ["build", "w"],
            ["publish", "w"],
            ["activate", "w", two[1]],
            ["release", "w"],
            ["rollback", "w", "--reason", "x"],
        ):
            genctl(*command).refused(4, "HomeLocked", "w")
        for command in (["status", "w"], ["generations", "w"], ["show", "w", two[1]]):
            genctl(*command).ok()
    assert (files_of(genctl.folder / "w"), files_of(genctl.folder / "s")) == before
    genctl("ingest", "w", "more.jsonl").ok()


def test_a_node_in_use_is_locked_for_changes_and_not_for_queries(
    genctl: Genctl, two: list[str]
) -> None:
    with held(genctl.folder / "n" / "lock"):
        for command in (["bootstrap", "n"], ["rollback", "n"]):
            genctl("node", *command).refused(4, "HomeLocked", "n")
        assert len(ids(ask(genctl, "n", "common"))) == 20
        assert ask(genctl, "n", "common", "--as-of-commit-seq", 1)["commit_seq"] == 1
        genctl("node", "status", "n").ok()
    bootstrap(genctl)


def test_two_releases_at_once_do_the_work_once(console: Console, genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 30), 5)
    with console.start("release", "w") as one, console.start("release", "w") as other:
        results = [(p.communicate(timeout=60)[1].decode(), p.returncode) for p in (one, other)]
    for err, code in results:
        assert code in {0, 4}, results
        assert code == 0 or "HomeLocked" in err
    assert 0 in {code for _, code in results}
    status = genctl("status", "w", "--json").ok().json
    assert status["active"] == status["built"] == status["published"]
    assert len(genctl("generations", "w", "--json").ok().json) == 1


def test_row_44_of_two_writers_at_once_one_commits_and_the_other_is_fenced(
    genctl: Genctl, two: list[str], second_warm: Warm
) -> None:
    """Copied homes share keys and store, so that only the store can tell them apart."""
    copy(genctl.folder / "w", genctl.folder / "w2")
    version = genctl("status", "w", "--json").ok().json["record_version"]

    def to_and_fro(warm: Warm, home: str) -> list[Finished]:
        finished = []
        for number in range(ROUNDS):
            back = ["rollback", home, "--to", two[0], "--reason", str(number), "--json"]
            forth = ["activate", home, two[1], "--json"]
            finished += [warm.fork(genctl.folder, [line]).finished[0] for line in (back, forth)]
        return finished

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(to_and_fro, (genctl.warm, second_warm), ("w", "w2")))
    for each in [*both[0], *both[1]]:
        if each.code != 0:
            each.refused(5, "WriterFenced")
            assert each.error["error"] == "WriterFenced"
    after = genctl("status", "w", "--json").ok().json
    done = sum(each.code == 0 for finished in both for each in finished)
    assert version < after["record_version"] <= version + done
    report = bootstrap(genctl)
    assert report["generation_id"] == after["active"]


def test_row_44_a_copied_home_that_fell_behind_cannot_publish_its_own_past(
    genctl: Genctl, two: list[str]
) -> None:
    copy(genctl.folder / "w", genctl.folder / "w2")
    ingest(genctl, documents(40, 44), 10)
    third = release(genctl)
    ingest(genctl, documents(60, 64), 10, home="w2")
    genctl("build", "w2").ok()
    for command in ("release", "publish"):
        genctl(command, "w2").refused(5, "WriterFenced")
    assert bootstrap(genctl)["generation_id"] == third
    assert ids(ask(genctl, "n", "own40", "--mode", "lexical")) == ["d40"]
    ingest(genctl, documents(45, 46), 10)
    release(genctl)


def test_row_56_every_answer_during_swaps_comes_from_one_generation(
    genctl: Genctl, two: list[str], second_warm: Warm
) -> None:
    wanted = {}
    for generation_id, node in zip(two, ("n1", "n2"), strict=True):
        if node == "n1":
            genctl("rollback", "w", "--reason", "for n1").ok()
        bootstrap(genctl, node)
        wanted[generation_id] = ask(genctl, node, "common", "--mode", "hybrid")["hits"]
        genctl("activate", "w", two[1]).ok()
    path = write(genctl.folder / "q.jsonl", [{"id": str(n), "text": "common"} for n in range(100)])
    asking = ["query", "n", "--queries", path, "-k", 1000, "--mode", "hybrid"]
    one = ["query", "n", "common", "-k", 1000, "--mode", "hybrid", "--json"]
    over = False
    asked_rounds = 0

    def ask_on() -> list[Any]:
        nonlocal asked_rounds
        answers: list[Any] = []
        while not over:
            forked = second_warm.fork(genctl.folder, [asking, one, one, one])
            for finished in forked.finished:
                answers += finished.ok().lines
            asked_rounds += 1
        return answers

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_on)
        try:
            for number in range(10 * SWAPS):
                if number % 2:
                    genctl("activate", "w", two[1]).ok()
                else:
                    genctl("rollback", "w", "--to", two[0], "--reason", str(number)).ok()
                bootstrap(genctl)
                if number >= SWAPS and (asked_rounds >= 10 or asked.done()):
                    break
        finally:
            over = True
        answers = asked.result()
    assert {answer["generation_id"] for answer in answers} == set(two)
    for answer in answers:
        hits = json.dumps(answer["hits"])
        assert hits == json.dumps(wanted[answer["generation_id"]])
        assert answer["commit_seq"] == two.index(answer["generation_id"]) + 1


def test_nodes_bootstrap_from_one_store_while_the_writer_releases(
    console: Console, genctl: Genctl
) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 5), 10)
    release(genctl)
    line = ["--store", "s", "--root", "w/root.json", "--json"]
    with (
        console.start("node", "bootstrap", "a", *line) as a,
        console.start("node", "bootstrap", "b", *line) as b,
    ):
        for number in range(2, 7):
            ingest(genctl, documents(number * 5, number * 5 + 1), 10)
            release(genctl)
        for process in (a, b):
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert 1 <= json.loads(out)["commit_seq"] <= 6
    for node in ("a", "b"):
        assert bootstrap(genctl, node)["commit_seq"] == 6
