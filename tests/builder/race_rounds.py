"""Rounds of races: how the writers of one round are run, on which store, and what came of it.

``make races COUNT=…`` has COUNT races on a memory store and COUNT on a folder store, a tenth of
them in the ways that are rarer, and a hundredth on an S3 server; the tests have fewer. A round in
turns that finds something names its seed, and the same seed has the same turns again.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Self

from store.folder import FolderStore
from store.locate import open_store
from store.memory import MemoryStore
from store.port import Store
from tests.builder.raced_store import RacedStore, Swap, Turns, losing_answers
from tests.builder.races import Attempt, Shard, Tally, Writer, tally, violations
from tests.support.ceph import s3_server

ATTEMPTS = 12
"""In one round, of all writers together: the record stays small."""
WRITERS_AT_ONCE = 2
START_DEADLINE_S = 60
FIRST_SEED = 44

Swaps = Callable[[Store, random.Random], Swap]


def plain(store: Store, _: random.Random) -> Swap:
    """The store's own swap."""
    return store.compare_and_swap


def checked(shard: Shard, store: Store, logs: Sequence[Sequence[Attempt]], seed: int) -> Tally:
    """The tally of a round; everything that must hold, holds."""
    found = violations(shard, store, logs)
    assert not found, f"seed {seed}: {found}"
    return tally(logs)


def in_turns(shard: Shard, store: Store, seed: int, swaps: Swaps = plain) -> list[list[Attempt]]:
    """A round of two to four writers that change places at every step, as the seed has it."""
    chance = random.Random(seed)
    weights = [
        chance.choice([1, 1, 1, 1, 1, 0.1]) for _ in range(chance.choice([2, 2, 2, 2, 2, 3, 4]))
    ]
    turns = Turns(chance, weights)
    swap = swaps(store, chance)
    shard.create(store)
    writers = [
        Writer(number, shard.repository(RacedStore(store, partial(turns.pause, number), swap)))
        for number in range(len(weights))
    ]
    budget = iter(range(ATTEMPTS))
    turns.run([partial(writer.work, budget) for writer in writers])
    return [writer.attempts for writer in writers]


def in_threads(shard: Shard, stores: Sequence[Store]) -> list[list[Attempt]]:
    """A round of one writer a store object, each in a thread of its own, as fast as they can."""
    shard.create(stores[0])
    start = threading.Barrier(len(stores))
    budget = iter(range(ATTEMPTS))

    def run(number: int, store: Store) -> list[Attempt]:
        writer = Writer(number, shard.repository(store))
        start.wait(START_DEADLINE_S)
        writer.work(budget)
        return writer.attempts

    with ThreadPoolExecutor(len(stores)) as pool:
        return list(pool.map(run, itertools.count(), stores))


_start: Barrier
"""Of a process of :class:`Processes`, set when it begins."""


class Processes:
    """Processes that race in a folder, each with one writer a round."""

    def __init__(self, shard: Shard) -> None:
        context = multiprocessing.get_context("spawn")
        self._shard = shard
        self._pool = ProcessPoolExecutor(
            WRITERS_AT_ONCE,
            mp_context=context,
            initializer=_begin,
            initargs=(context.Barrier(WRITERS_AT_ONCE),),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def round(self, root: Path) -> list[list[Attempt]]:
        """A round in a new folder store."""
        self._shard.create(FolderStore.create(root))
        runs = [
            self._pool.submit(_run_in_process, self._shard, root, number)
            for number in range(WRITERS_AT_ONCE)
        ]
        return [run.result() for run in runs]


def _begin(start: Barrier) -> None:
    global _start  # noqa: PLW0603 - a barrier reaches a process only when that starts
    _start = start


def _run_in_process(shard: Shard, root: Path, number: int) -> list[Attempt]:
    writer = Writer(number, shard.repository(FolderStore(root)))
    _start.wait(START_DEADLINE_S)  # so that each process has one of the writers
    writer.work(iter(range(ATTEMPTS // WRITERS_AT_ONCE)))
    return writer.attempts


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in memory, where there is one: the lock and the renames are the same there."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def until(count: int, rounds: Iterator[Tally]) -> Tally:
    """Rounds until there were so many races."""
    total = Tally()
    while total.races < count:
        total += next(rounds)
    return total


def memory_in_turns(shard: Shard, first_seed: int, swaps: Swaps = plain) -> Iterator[Tally]:
    """Rounds in turns on a memory store."""
    for seed in itertools.count(first_seed):
        store = MemoryStore()
        yield checked(shard, store, in_turns(shard, store, seed, swaps), seed)


def memory_in_threads(shard: Shard) -> Iterator[Tally]:
    """Rounds of threads on a memory store."""
    while True:
        store = MemoryStore()
        yield checked(shard, store, in_threads(shard, [store] * WRITERS_AT_ONCE), 0)


def folder_in_turns(shard: Shard, folder: Path, first_seed: int) -> Iterator[Tally]:
    """Rounds in turns on a folder store."""
    for seed in itertools.count(first_seed):
        store = FolderStore.create(folder / str(seed))
        yield checked(shard, store, in_turns(shard, store, seed), seed)
        shutil.rmtree(folder / str(seed))


def folder_in_threads(shard: Shard, folder: Path) -> Iterator[Tally]:
    """Rounds of threads on a folder store, with a store object each."""
    for number in itertools.count():
        root = folder / f"threads-{number}"
        stores = [FolderStore.create(root) for _ in range(WRITERS_AT_ONCE)]
        yield checked(shard, stores[0], in_threads(shard, stores), 0)
        shutil.rmtree(root)


def folder_in_processes(shard: Shard, folder: Path, processes: Processes) -> Iterator[Tally]:
    """Rounds of processes on a folder store."""
    for number in itertools.count():
        root = folder / f"processes-{number}"
        yield checked(shard, FolderStore(root), processes.round(root), 0)
        shutil.rmtree(root)


def bucket_in_threads(shard: Shard, bucket_url: str) -> Iterator[Tally]:
    """Rounds of threads on an S3 store, with a store object each."""
    bucket, query = bucket_url.split("?")
    for number in itertools.count():
        url = f"{bucket}/round-{number}?{query}"
        stores = [open_store(url) for _ in range(WRITERS_AT_ONCE)]
        yield checked(shard, stores[0], in_threads(shard, stores), 0)


def _some_in_turns(shard: Shard, first_seed: int, count: int, *, on_disk: bool) -> Tally:
    if not on_disk:
        half = until(count // 2, memory_in_turns(shard, first_seed))
        lost = memory_in_turns(shard, first_seed, losing_answers)
        return half + until(count - count // 2, lost)
    with temporary_folder() as folder:
        return until(count, folder_in_turns(shard, folder, first_seed))


def main(count: int) -> None:
    """Print a line for each way to race."""
    shard = Shard()

    def told(name: str, run: Callable[[], Tally]) -> None:
        began_s = time.monotonic()
        total = run()
        ends = ", ".join(f"{number} {end}" for end, number in sorted(total.ends.items()))
        sys.stdout.write(
            f"{name:24}{total.races:8} races in {time.monotonic() - began_s:4.0f} s: "
            f"{total.attempts} attempts, {ends}\n"
        )
        sys.stdout.flush()

    parts = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")

    def in_parts(count: int, *, on_disk: bool) -> Tally:
        with ProcessPoolExecutor(parts, mp_context=context) as pool:
            runs = [
                pool.submit(
                    _some_in_turns,
                    shard,
                    FIRST_SEED + part * 1_000_000,
                    -(-count // parts),
                    on_disk=on_disk,
                )
                for part in range(parts)
            ]
            return sum((run.result() for run in runs), Tally())

    told("memory, seeded turns", lambda: in_parts(count, on_disk=False))
    told("memory, threads", lambda: until(count // 10, memory_in_threads(shard)))
    with temporary_folder() as folder, Processes(shard) as processes:
        told(
            "folder, processes", lambda: until(count, folder_in_processes(shard, folder, processes))
        )
        told("folder, threads", lambda: until(count // 10, folder_in_threads(shard, folder)))
    told("folder, seeded turns", lambda: in_parts(count // 10, on_disk=True))
    with temporary_folder() as folder, s3_server(folder) as server:
        os.environ.update(server.environment)
        bucket = server.bucket("races")
        told(
            f"{server.name}, threads", lambda: until(count // 100, bucket_in_threads(shard, bucket))
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
