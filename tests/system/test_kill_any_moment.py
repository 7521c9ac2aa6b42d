"""Rows 34–38 and 43: SIGKILL at moments nobody chose, in commands that run at full speed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import Console, Genctl, Warm
from tests.system.world import (
    ask,
    bootstrap,
    documents,
    ids,
    ingest,
    release,
    seeded,
    write,
    writer_home,
)

ROUNDS = 10
WARM_ROUNDS = 15


def killed(console: Console, after_s: float, *command: object) -> bool:
    """Run the console script and kill it when ``after_s`` have passed; whether it came to that."""
    with console.start(*command) as process:
        try:
            _, err = process.communicate(timeout=after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return True
        assert process.returncode == 0, err
        return False


def found(genctl: Genctl, node: str) -> tuple[int, set[str]]:
    answer = ask(genctl, node, "common", "--mode", "lexical")
    return answer["commit_seq"], set(ids(answer))


def all_ids(count: int) -> set[str]:
    return {document["id"] for document in documents(1, count)}


def test_row_43_a_release_killed_at_any_moment_is_finished_by_running_it_again(
    console: Console, genctl: Genctl
) -> None:
    chance = seeded(43)
    writer_home(genctl)
    for number in range(1, ROUNDS + 1):
        ingest(genctl, documents(number, number), 1)
        killed(console, chance.uniform(0.3, 1.4), "release", "w")
        report = genctl("release", "w", "--json").ok().json
        assert (report["high_seq"], report["documents"]) == (number, number)
        assert bootstrap(genctl)["commit_seq"] == number
        assert found(genctl, "n") == (number, all_ids(number))
    status = genctl("status", "w", "--json").ok().json
    assert status["log_commit_seq"] == ROUNDS


def test_row_43_a_bootstrap_killed_at_any_moment_is_finished_by_running_it_again(
    console: Console, genctl: Genctl
) -> None:
    chance = seeded(44)
    writer_home(genctl)
    for number in range(1, ROUNDS + 1):
        ingest(genctl, documents(number, number), 1)
        release(genctl)
        line = ["node", "bootstrap", "n", "--store", "s", "--root", "w/root.json"]
        killed(console, chance.uniform(0.3, 1.4), *line)
        if number > 1:
            seen = found(genctl, "n")
            assert seen in ((number - 1, all_ids(number - 1)), (number, all_ids(number)))
        assert bootstrap(genctl)["commit_seq"] == number
        assert found(genctl, "n") == (number, all_ids(number))


@pytest.fixture
def in_memory(warm: Warm, memory_folder: Path) -> Genctl:
    return Genctl(warm, memory_folder)


def test_row_43_everything_killed_again_and_again_loses_nothing_acknowledged(
    in_memory: Genctl,
) -> None:
    genctl, chance = in_memory, seeded(45)
    writer_home(genctl)
    bootstrapped = 0
    node: list[Any] = ["node", "bootstrap", "n", "--store", "s", "--root", "w/root.json"]
    for number in range(1, WARM_ROUNDS + 1):
        path = write(genctl.folder / "one.jsonl", documents(number, number))
        for line, longest_s in (
            (["ingest", "w", path], 0.02),
            (["build", "w"], 0.1),
            (["publish", "w"], 0.08),
            (["release", "w"], 0.08),
            (node, 0.1),
            (["rollback", "w", "--reason", f"round {number}"], 0.02),
        ):
            if line[0] == "rollback" and number < 3:
                continue
            for _ in range(chance.randrange(3)):
                genctl.killed_after(chance.uniform(0, longest_s), *line)
                if bootstrapped:
                    assert found(genctl, "n")[0] >= bootstrapped - 1
            genctl(*line).ok()
        # The newest generation was rolled back from, like those between; the node follows.
        if number >= 3:
            assert bootstrap(genctl)["commit_seq"] == 2
            assert found(genctl, "n") == (2, all_ids(2))
            status = genctl("status", "w", "--json").ok().json
            assert (status["log_commit_seq"], status["record_kind"]) == (number, "rollback")
        bootstrapped = found(genctl, "n")[0]
