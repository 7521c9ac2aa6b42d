"""How a build's work is cut into tasks, and how many of them are under way."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from builder.scale_out import BATCH_CHARACTERS, BATCH_TEXTS, EmbedTask, Workforce, batches, embed
from index.embedding import HashingEmbedder
from manifests.errors import EmbedderMismatch
from tests.support.corpus import upserts


class CountingExecutor(Executor):
    """Runs at once, and knows how many results nobody has asked for yet."""

    def __init__(self) -> None:
        self.started = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.started += 1
        future: Future[Any] = Future()
        future.set_result(function(*args, **kwargs))
        return future


def test_no_more_is_in_flight_than_allowed() -> None:
    executor = CountingExecutor()
    ahead = []
    workers = Workforce(executor, in_flight=3)
    for done, _ in enumerate(workers.run(lambda number: number, iter(range(20))), 1):
        ahead.append(executor.started - done)
    assert max(ahead) == 2
    assert executor.started == 20


def test_results_come_in_the_order_of_the_tasks() -> None:
    with ThreadPoolExecutor(3) as threads:
        workers = Workforce(threads, in_flight=5)
        assert list(workers.run(abs, range(-50, 0))) == list(range(50, 0, -1))


def test_batches_are_bounded_in_number_and_length() -> None:
    short = ["word"] * (2 * BATCH_TEXTS + 1)
    assert [len(batch) for batch in batches(short)] == [BATCH_TEXTS, BATCH_TEXTS, 1]
    long = ["x" * (BATCH_CHARACTERS // 2)] * 5
    assert [len(batch) for batch in batches(long)] == [2, 2, 1]
    assert list(batches([])) == []


def test_vectors_do_not_depend_on_how_texts_are_cut_into_batches() -> None:
    embedder = HashingEmbedder(32)
    texts = [each["text"] for each in upserts(range(50))]
    whole = embedder.embed(texts)
    parts = np.concatenate([embedder.embed(texts[:7]), embedder.embed(texts[7:])])
    assert whole.tobytes() == parts.tobytes()


def test_a_worker_with_another_embedder_is_refused() -> None:
    embedder = HashingEmbedder(32)
    assert embed(pickle.loads(pickle.dumps(EmbedTask(embedder, ("a",))))).shape == (1, 32)  # noqa: S301
    embedder.revision = "0" * 64
    task = pickle.loads(pickle.dumps(EmbedTask(embedder, ("a",))))  # noqa: S301
    with pytest.raises(EmbedderMismatch, match="install the writer's genctl"):
        embed(task)


def test_what_is_sent_to_a_worker_is_hardly_more_than_its_texts() -> None:
    texts = tuple(each["text"] for each in upserts(range(1000)))
    sent = len(pickle.dumps(EmbedTask(HashingEmbedder(32), texts)))
    assert sent < 1.1 * sum(map(len, texts)) + 1000
