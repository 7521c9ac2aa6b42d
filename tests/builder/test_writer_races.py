"""Rows 44 and 45: writers that race for the record, by the hundred here, by ``make races`` at will.

What must hold stands in :func:`tests.builder.races.violations`: no version has two commits, each
acknowledged commit is in the history that follows, with its manifest, nothing else is, and versions
never go back.
"""

from __future__ import annotations

import itertools
import random
import threading
from pathlib import Path

import pytest

from store.memory import MemoryStore
from store.port import Store
from tests.builder.race_rounds import (
    FIRST_SEED,
    Processes,
    bucket_in_threads,
    folder_in_processes,
    folder_in_threads,
    folder_in_turns,
    in_turns,
    memory_in_threads,
    memory_in_turns,
    temporary_folder,
    until,
)
from tests.builder.raced_store import Swap, Turns, losing_answers, overwriting
from tests.builder.races import Shard, tally, violations


@pytest.fixture(scope="module")
def shard() -> Shard:
    return Shard()


def test_row_44_races_in_turns_on_a_memory_store(shard: Shard) -> None:
    total = until(200, memory_in_turns(shard, FIRST_SEED))
    assert total.ends.keys() == {"acknowledged", "fenced"}
    assert total.ends["fenced"] >= 200


def test_row_45_races_in_turns_in_which_answers_are_lost(shard: Shard) -> None:
    total = until(200, memory_in_turns(shard, FIRST_SEED, losing_answers))
    assert total.ends.keys() == {"acknowledged", "fenced", "fenced, unknown", "failed"}


def test_row_44_races_in_turns_on_a_folder_store(shard: Shard) -> None:
    with temporary_folder() as folder:
        assert until(80, folder_in_turns(shard, folder, FIRST_SEED)).ends["fenced"] >= 80


def test_row_44_races_of_threads_on_a_memory_store(shard: Shard) -> None:
    assert until(60, memory_in_threads(shard)).ends["fenced"] >= 60


def test_row_44_races_of_threads_on_a_folder_store(shard: Shard) -> None:
    with temporary_folder() as folder:
        assert until(60, folder_in_threads(shard, folder)).ends["fenced"] >= 60


def test_row_44_races_of_processes_on_a_folder_store(shard: Shard) -> None:
    with temporary_folder() as folder, Processes(shard) as processes:
        total = until(150, folder_in_processes(shard, folder, processes))
    assert total.ends["fenced"] >= 150


def test_row_44_races_of_threads_on_an_s3_store(shard: Shard, s3_url: str) -> None:
    assert until(8, bucket_in_threads(shard, s3_url)).ends["fenced"] >= 8


def test_the_same_seed_has_the_same_race_again(shard: Shard) -> None:
    first, again = (in_turns(shard, MemoryStore(), 7) for _ in range(2))
    assert first == again
    assert any(in_turns(shard, MemoryStore(), seed) != first for seed in range(8, 12))


def never_comparing(store: Store, _: random.Random) -> Swap:
    return overwriting(store)


def test_without_the_comparison_the_races_lose_commits(shard: Shard) -> None:
    """What the races check can fail: a store that overwrites is found out in every round."""
    for seed in range(5):
        store = MemoryStore()
        logs = in_turns(shard, store, seed, never_comparing)
        assert tally(logs).ends.keys() == {"acknowledged"}
        found = violations(shard, store, logs)
        assert any("two commits were acknowledged" in each for each in found)
        assert any("is not in the history" in each for each in found)


def test_a_manifest_that_is_lost_is_found_out(shard: Shard) -> None:
    store = MemoryStore()
    logs = in_turns(shard, store, 1)
    assert violations(shard, store, logs) == []
    acknowledged = next(
        attempt.generation_id
        for log in logs
        for attempt in log
        if attempt.end == "acknowledged" and attempt.generation_id is not None
    )
    (key,) = [i.key for i in store.list("targets/manifests/") if acknowledged in i.key]
    store.delete(key)
    assert violations(shard, store, logs) == [f"the manifest of {acknowledged} is not in the store"]


def test_turns_run_one_thread_at_a_time_in_an_order_of_the_seed() -> None:
    def order(seed: int) -> list[int]:
        turns = Turns(random.Random(seed), [1, 1, 1])
        alone = threading.Lock()
        steps: list[int] = []

        def work(number: int) -> None:
            for _ in range(5):
                assert alone.acquire(blocking=False)
                steps.append(number)
                alone.release()
                turns.pause(number)

        turns.run([lambda number=number: work(number) for number in range(3)])  # type: ignore[misc]
        return steps

    assert order(3) == order(3)
    assert sorted(order(3)) == [0] * 5 + [1] * 5 + [2] * 5
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


def test_an_error_in_a_turn_ends_the_round(tmp_path: Path) -> None:
    turns = Turns(random.Random(1), [1, 1])

    def fail() -> None:
        raise ValueError("as told")

    done = itertools.count()

    def work() -> None:
        turns.pause(1)
        next(done)

    with pytest.raises(ValueError, match="as told"):
        turns.run([fail, work])
    assert next(done) == 1
