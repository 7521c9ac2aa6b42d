"""The costly steps of a build, embedding and shard building, on any executor.

How the work is cut into tasks follows from the documents alone, and each task is a function of what
it is given, so the executor decides how long a build takes and nothing else (ADR 0021). A task
carries texts or vectors and the name of an embedder: no home, no keys, no settings.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from durable import files
from index.embedding import Embedder, make_embedder
from index.vector_shard import write_shard
from manifests.errors import BuildWorkersLost, EmbedderMismatch, GenctlError
from manifests.generation import Quantization

T = TypeVar("T")
R = TypeVar("R")

BATCH_TEXTS = 4_096
BATCH_CHARACTERS = 4 << 20
"""A batch of texts ends at whichever of these two it reaches first."""

Reach = Literal["process", "machine", "network"]

THREADS = 2
TASK_DEADLINE_S = 3_600


class NamedEmbedder(NamedTuple):
    """An embedder as it travels: whoever is to use it makes it, and must get the same."""

    name: str
    dimensions: int
    revision: str


@dataclass(frozen=True, slots=True)
class EmbedTask:
    """Texts to embed. Pickled, it carries the embedder's name, not its weights."""

    embedder: Embedder | NamedEmbedder
    texts: tuple[str, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        one = self.embedder
        return EmbedTask, (NamedEmbedder(one.name, one.dimensions, one.revision), self.texts)


@dataclass(frozen=True, slots=True)
class ShardTask:
    """Vectors, shape ``(n, D)``, to be made a shard keyed by ``rows``, shape ``(n,)``.

    ``path`` is where its file is to be; without one, its bytes are the answer.
    """

    rows: NDArray[np.uint64]
    vectors: NDArray[Any]
    quantization: Quantization
    path: Path | None


def embed(task: EmbedTask) -> NDArray[np.float32]:
    """The vectors of the task's texts, shape ``(texts, D)``.

    Raises:
        EmbedderMismatch: this worker's genctl makes another embedder of that name.
    """
    embedder = task.embedder
    return (_made(embedder) if isinstance(embedder, NamedEmbedder) else embedder).embed(task.texts)


@lru_cache(maxsize=1)
def _made(wanted: NamedEmbedder) -> Embedder:
    embedder = make_embedder(wanted.name, wanted.dimensions)
    if embedder.revision != wanted.revision:
        raise EmbedderMismatch(
            f"a build worker's {wanted.name} embedder has revision {embedder.revision}, the "
            f"writer's {wanted.revision}; install the writer's genctl on every worker",
            field="revision",
        )
    return embedder


def build_shard(task: ShardTask) -> bytes:
    """Write the shard's file, or give its bytes; see :func:`index.vector_shard.write_shard`.

    Raises:
        DiskFull, DiskError: the worker's disk refuses.
    """
    if task.path is not None:
        write_shard(task.path, task.rows, task.vectors, task.quantization)
        return b""
    with tempfile.TemporaryDirectory(prefix="genctl-shard-") as folder:
        path = Path(folder) / "shard"
        write_shard(path, task.rows, task.vectors, task.quantization)
        with files.translated(path):
            return path.read_bytes()


class Workforce:
    """An executor, and within what bounds it is used.

    Args:
        executor: where tasks run. Who made it ends it.
        in_flight: how many tasks it is given at a time.
        task_deadline_s: how long to wait for the oldest of them.
        reach: how far away its workers are. Those of the same process share the interpreter, so
            that embedding in several at once is no faster; those of the same machine share the
            writer's folders.
        lost: exceptions that mean that workers are lost, and not that a task has failed.
        name: how people know it.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        in_flight: int,
        task_deadline_s: float = TASK_DEADLINE_S,
        reach: Reach = "process",
        lost: tuple[type[Exception], ...] = (BrokenExecutor,),
        name: str = "threads",
    ) -> None:
        self._executor = executor
        self._in_flight = in_flight
        self._task_deadline_s = task_deadline_s
        self._reach = reach
        self._lost = lost
        self._name = name

    def embed(self, texts: Sequence[str], embedder: Embedder) -> NDArray[np.float32]:
        """The vectors of ``texts``, shape ``(len(texts), D)``, in batches, in order.

        Raises:
            BuildWorkersLost: see :meth:`run`.
            EmbedderMismatch: a worker's genctl is another one.
        """
        vectors = np.empty((len(texts), embedder.dimensions), np.float32)
        done = 0
        tasks = (EmbedTask(embedder, each) for each in batches(texts))
        for batch in map(embed, tasks) if self._reach == "process" else self.run(embed, tasks):
            vectors[done : done + len(batch)] = batch
            done += len(batch)
        return vectors

    def write_shards(
        self,
        shards: Sequence[tuple[Path, NDArray[np.uint64], NDArray[Any]]],
        quantization: Quantization,
    ) -> None:
        """Build the shards ``(path, rows, vectors)``, each by one task, each into its file.

        Raises:
            BuildWorkersLost: see :meth:`run`.
            DiskFull, DiskError: the disk refuses, here or at a worker.
        """
        is_remote = self._reach == "network"
        tasks = (
            ShardTask(rows, vectors, quantization, None if is_remote else path)
            for path, rows, vectors in shards
        )
        for (path, _, _), data in zip(shards, self.run(build_shard, tasks), strict=True):
            if is_remote:
                files.replace_file(path, [data])

    def run(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """``function`` of each task, in order; no more than ``in_flight`` are started ahead.

        Raises:
            BuildWorkersLost: workers died, or a task took longer than the deadline.
            GenctlError: what the function raises itself.
        """
        waiting: deque[Future[R]] = deque()
        try:
            for task in tasks:
                waiting.append(self._submit(function, task))
                if len(waiting) >= self._in_flight:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for each in waiting:
                each.cancel()

    def _submit(self, function: Callable[[T], R], task: T) -> Future[R]:
        try:
            return self._executor.submit(function, task)
        except self._lost as error:
            raise self._are_lost(error) from error

    def _result(self, future: Future[R]) -> R:
        try:
            return future.result(timeout=self._task_deadline_s)
        except GenctlError:
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and not future.done():
                future.cancel()
                raise BuildWorkersLost(
                    f"the build workers ({self._name}) did not finish a task in "
                    f"{self._task_deadline_s:g} s. See whether they hang; if the task is that "
                    "large, raise build_task_deadline_s in the home's settings.json",
                    executor=self._name,
                    task_deadline_s=self._task_deadline_s,
                ) from error
            if isinstance(error, self._lost):
                raise self._are_lost(error) from error
            raise

    def _are_lost(self, error: Exception) -> BuildWorkersLost:
        return BuildWorkersLost(
            f"the build workers ({self._name}) are lost ({type(error).__name__}"
            f"{': ' if str(error) else ''}{error}). See whether they have the memory and the same "
            "genctl, then run the command again",
            executor=self._name,
        )


def batches(texts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Cut texts into batches, by their number and length alone."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_TEXTS or characters >= BATCH_CHARACTERS:
            yield tuple(batch)
            batch, characters = [], 0
    if batch:
        yield tuple(batch)


def in_threads() -> Workforce:
    """Threads of this process; they end when nobody holds the workforce any more."""
    return Workforce(ThreadPoolExecutor(THREADS), in_flight=THREADS)
