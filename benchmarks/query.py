"""What a query costs in process, over calling tantivy and usearch directly on the same files.

Ours is ``NodeHome.query``: look at the pointer, check the query, search, fuse, read ids and titles,
make an answer that names its generation. The other side is what a careful engineer writes for one
index that never changes: both libraries opened on the very files of the node's generation, fusion
in a few plain lines, ids and titles in a list in memory. Both give the same hits or it is an error.
"""

from __future__ import annotations

import gc
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tantivy
from numpy.typing import NDArray
from usearch.index import Index

from benchmarks.corpus import DIMENSIONS, Corpus, Document, Query, make_corpus
from benchmarks.harness import Disagreement, Outcome, Pairs, run_pairs, seconds, show
from controller.new_home import init_home
from controller.new_node import open_node
from controller.node import NodeHome
from controller.settings import WriterSettings
from controller.writer import WriterHome
from index.snapshot import Mode
from manifests.generation import VectorArtifact
from query.request import Request

DOCUMENTS = 20_000
SEED = 20_240
QUERIES_A_BLOCK = 25
BLOCKS = 21  # odd, so that the side that goes first changes from repetition to repetition
REPETITIONS = 8
REPETITIONS_WITHOUT_GC = 2
MAX_RATIO = 1.15
HITS = 10
DEPTH = 100
RRF_K = 60

Found = list[tuple[str, float, str]]
Ask = Callable[[Query], Found]


class Direct:
    """The libraries alone, over one generation's files."""

    def __init__(self, folder: Path, shards: list[str], documents: list[Document]) -> None:
        self._text = tantivy.Index.open(str(folder / "lexical"))
        self._searcher = self._text.searcher()
        self._shards: list[Any] = [Index.restore(str(folder / s), view=True) for s in shards]
        self._heads = [(document.id, document.title) for document in documents]
        self._find_words = re.compile(r"[^\W_]+").findall

    def lexical(self, query: Query) -> Found:
        return self._found(zip(*self._match(query.text, HITS), strict=True))

    def vector(self, query: Query) -> Found:
        keys, distances = self._nearest(query.vector, HITS)
        return self._found(zip(keys.tolist(), (1.0 - distances).tolist(), strict=True))

    def hybrid(self, query: Query) -> Found:
        matched, _ = self._match(query.text, DEPTH)
        nearest = self._nearest(query.vector, DEPTH)[0].tolist()
        scores: dict[int, float] = {}
        for ranking in (matched, nearest):
            for rank, row in enumerate(ranking, RRF_K + 1):
                scores[row] = scores.get(row, 0.0) + 1.0 / rank
        # Equal scores in order of rows: the second sort keeps the order of the first.
        best = sorted(sorted(scores), key=scores.__getitem__, reverse=True)[:HITS]
        return self._found((row, scores[row]) for row in best)

    def _nearest(self, vector: Any, limit: int) -> tuple[Any, Any]:
        found = [shard.search(vector, limit) for shard in self._shards]
        distances = np.concatenate([matches.distances for matches in found])
        best = np.argsort(distances, kind="stable")[:limit]
        return np.concatenate([matches.keys for matches in found])[best], distances[best]

    def _match(self, text: str, limit: int) -> tuple[list[int], list[float]]:
        parsed = self._text.parse_query(" ".join(self._find_words(text.lower())), ["body"])
        hits = self._searcher.search(parsed, limit, count=False).hits
        rows: Any = self._searcher.fast_field_values("row", [address for _, address in hits])
        return rows, [score for score, _ in hits]

    def _found(self, scored: Any) -> Found:
        heads = self._heads
        return [(heads[row][0], score, heads[row][1]) for row, score in scored]


def make_node(corpus: Corpus, folder: Path) -> NodeHome:
    """A node that serves ``corpus``, brought there the way any node is."""
    settings = WriterSettings(
        shard="main",
        stores=(str(folder / "store"),),
        embedder="precomputed",
        dimensions=DIMENSIONS,
    )
    init_home(folder / "writer", settings)
    writer = WriterHome(folder / "writer")
    corpus.write(folder / "corpus.msgpack")
    writer.ingest([folder / "corpus.msgpack"], format_name="msgpack", commit_size=1000)
    generation_id = writer.build().manifest.generation_id
    writer.publish(generation_id)
    writer.activate(generation_id)
    node = open_node(folder / "node", settings.stores, writer.home / "root.json")
    node.bootstrap()
    return node


def open_direct(node: NodeHome, documents: list[Document]) -> Direct:
    """The libraries opened on the files that ``node`` serves from."""
    generation_id = node.pointer().active.generation_id
    folder = node.residence.folder(generation_id)
    manifest = node.reader().snapshot(node.pointer().active).manifest
    return Direct(folder, [s.name for s in manifest.of_kind(VectorArtifact)], documents)


def check_same_hits(node: NodeHome, direct: Direct, queries: list[Query]) -> None:
    """Both sides must find the same documents in the same order, with the same scores and titles.

    Raises:
        Disagreement: they do not.
    """
    reader = node.reader()
    for mode in get_args(Mode):
        for query in queries:
            answer = node.query(reader, Request(text=query.text, vector=query.vector, mode=mode))
            ours = [(hit.id, hit.score, hit.title) for hit in answer.hits]
            if ours != getattr(direct, mode)(query) or len(ours) != HITS:
                raise Disagreement(f"{mode}: {query.text!r} is answered differently")


def measure(node: NodeHome, direct: Ask, mode: Mode, queries: list[Query], count: int) -> Pairs:
    """Time ``count`` repetitions of all blocks of queries, in pairs; seconds a query."""
    reader = node.reader()
    texts = [(query.text, query.vector) for query in queries]

    def ours(number: int) -> float:
        start = number % BLOCKS * QUERIES_A_BLOCK
        block = texts[start : start + QUERIES_A_BLOCK]
        return seconds(lambda: _ask(node, reader, mode, block)) / QUERIES_A_BLOCK

    def other(number: int) -> float:
        start = number % BLOCKS * QUERIES_A_BLOCK
        block = queries[start : start + QUERIES_A_BLOCK]
        return seconds(lambda: [direct(query) for query in block]) / QUERIES_A_BLOCK

    return run_pairs(count * BLOCKS, ours, other, warm=True)


def _ask(
    node: NodeHome, reader: Any, mode: Mode, block: list[tuple[str, NDArray[np.float32]]]
) -> None:
    for text, vector in block:
        node.query(reader, Request(text=text, vector=vector, mode=mode))


def run() -> Outcome:
    """Measure the three modes."""
    corpus = make_corpus(DOCUMENTS, BLOCKS * QUERIES_A_BLOCK, SEED)
    figures: dict[str, Any] = {"documents": DOCUMENTS}
    rows: list[list[str]] = []
    holds = True
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as folder:
        node = make_node(corpus, Path(folder))
        direct = open_direct(node, corpus.documents)
        check_same_hits(node, direct, corpus.queries)
        for mode in get_args(Mode):
            ask: Ask = getattr(direct, mode)
            pairs = measure(node, ask, mode, corpus.queries, REPETITIONS)
            gc.disable()
            try:
                quiet = measure(node, ask, mode, corpus.queries, REPETITIONS_WITHOUT_GC)
            finally:
                gc.enable()
            holds = holds and pairs.ratio <= MAX_RATIO
            figures |= {
                f"{mode}_ratio": round(pairs.ratio, 3),
                f"{mode}_ratio_without_gc": round(quiet.ratio, 3),
                f"{mode}_us": round(pairs.ours_median_s * 1e6, 1),
                f"{mode}_direct_us": round(pairs.other_median_s * 1e6, 1),
                f"{mode}_added_us": round(pairs.difference_s * 1e6, 1),
            }
            low, high = pairs.quartiles
            rows.append(
                [
                    f"{pairs.ours_median_s * 1e6:.0f}",
                    f"{pairs.other_median_s * 1e6:.0f}",
                    f"{pairs.difference_s * 1e6:+.0f}",
                    f"{pairs.ratio:.3f}",
                    f"{low:.3f}–{high:.3f}",
                    f"{quiet.ratio:.3f}",
                    mode,
                ]
            )
    show(
        f"A query over {DOCUMENTS:,} documents, {HITS} hits: genctl and the libraries alone",
        [
            ("genctl µs", "right"),
            ("direct µs", "right"),
            ("added µs", "right"),
            ("ratio", "right"),
            ("middle half", "right"),
            ("gc off", "right"),
            ("mode", "left"),
        ],
        rows,
        [
            f"holds when each ratio is at most {MAX_RATIO}; the same hits on both sides",
            f"medians of {BLOCKS * REPETITIONS} pairs of blocks of {QUERIES_A_BLOCK} queries",
            "the garbage collector runs as it does in production, but in the column `gc off`",
        ],
    )
    return Outcome("query", figures, holds)
