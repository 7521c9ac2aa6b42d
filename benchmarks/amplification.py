"""What 200 generations of random updates cost, and whether search suffers from them.

A corpus is built, then 199 times one percent of its documents is replaced, chosen at random, some
of them by a delete and a later return; ``compact`` runs after every build. In the end the corpus is
what it was, so the last generation is compared with one that is built from scratch. SciFact where
it is present, else documents and queries from a seed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import make_corpus
from benchmarks.harness import Outcome, seconds, show
from benchmarks.quality import (
    DEFAULT_SCIFACT,
    EMBEDDINGS,
    SCIFACT_VARIABLE,
    Judgements,
    mean_ndcg,
    read_judgements,
)
from controller.compaction import compact
from controller.new_home import init_home
from controller.settings import WriterSettings
from controller.writer import WriterHome
from index.snapshot import Snapshot
from index.verification import ReadFiles
from manifests.generation import GenerationManifest, LexicalArtifact, VectorArtifact

GENERATIONS = 200
CHANGED_PERCENT = 1
ABSENT_PERCENT = 10
"""So many of the changed documents are deleted first, and come back two generations later."""
DEPTH = 10
SEED = 20_11
MAX_AMPLIFICATION = 4.0
"""With and without the first generation, which nobody merges and which flatters the figure."""
MAX_PARTS = 12
MAX_LOSS = 0.005

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Data:
    """Documents with vectors, queries ``(id, text, vector)`` and what is relevant to them.

    Without judgements, the answers of the generation built from scratch are taken for relevant.
    """

    name: str
    documents: list[Document]
    vectors: NDArray[np.float32]
    queries: list[tuple[str, str, NDArray[np.float32]]]
    judgements: Judgements | None


def scifact(place: Path) -> Data:
    """The 5,183 documents and 300 test queries of SciFact, embedded with all-MiniLM-L6-v2."""
    embeddings = np.load(place / EMBEDDINGS)
    lines = (place / "corpus.jsonl").read_bytes().splitlines()
    queries = (place / "queries.test.jsonl").read_bytes().splitlines()
    asked = [msgspec.json.decode(line) for line in queries]
    return Data(
        "SciFact",
        [msgspec.json.decode(line) for line in lines],
        embeddings["X"].astype(np.float32),
        [(q["id"], q["text"], v) for q, v in zip(asked, embeddings["Q"], strict=True)],
        read_judgements(place / "qrels.test.tsv"),
    )


def synthetic() -> Data:
    """5,000 documents and 300 queries from a seed."""
    corpus = make_corpus(5_000, 300, SEED)
    return Data(
        "synthetic",
        [{"id": each.id, "title": each.title, "text": each.text} for each in corpus.documents],
        corpus.vectors,
        [(str(n), query.text, query.vector) for n, query in enumerate(corpus.queries)],
        None,
    )


def changes(documents: int) -> Iterator[list[tuple[int, bool]]]:
    """For every generation after the first, which documents change, and whether they stay away."""
    chance = np.random.default_rng(SEED)
    returning: list[list[int]] = [[], []]
    for number in range(1, GENERATIONS):
        back = returning.pop(0)
        present = np.setdiff1d(np.arange(documents), [*back, *returning[0]])
        count = documents * CHANGED_PERCENT // 100
        changed: list[int] = chance.choice(present, count, replace=False).tolist()
        leaving = len(changed) * ABSENT_PERCENT // 100 if number < GENERATIONS - 2 else 0
        returning.append(changed[:leaving])
        yield [
            *((each, True) for each in changed[:leaving]),
            *((each, False) for each in (*changed[leaving:], *back)),
        ]


class History:
    """A home in which the generations are built one after the other, and what was written."""

    def __init__(self, folder: Path, data: Data) -> None:
        settings = WriterSettings(
            shard="main", stores=(str(folder / "store"),), embedder="precomputed", dimensions=384
        )
        init_home(folder / "home", settings)
        self.writer = WriterHome(folder / "home")
        self._data = data
        self._input = folder / "input.msgpack"
        self.document_bytes: list[int] = []
        self.shards: list[int] = []
        self.segments: list[int] = []
        self.build_s: list[float] = []
        self.compact_s: list[float] = []

    def build(self, operations: Sequence[tuple[int, bool]], version: int) -> GenerationManifest:
        """Commit and build; a document that stays away is deleted."""
        encode = msgspec.msgpack.Encoder().encode
        with self._input.open("wb") as file:
            for number, deleted in operations:
                document = self._data.documents[number]
                fields = {"vector": self._data.vectors[number].tolist()}
                whole = document | fields | {"fields": {"version": version}}
                file.write(encode({"id": document["id"], "op": "delete"} if deleted else whole))
        self.writer.ingest([self._input], format_name="msgpack", commit_size=100_000)
        before = set(self.writer.residence.artifacts.iterdir())
        started_s = time.perf_counter()
        manifest = self.writer.build().manifest
        self.build_s.append(time.perf_counter() - started_s)
        first_row = manifest.counts.rows - sum(not deleted for _, deleted in operations)
        self.document_bytes.append(self._document_bytes(manifest, first_row, before))
        self.shards.append(len(manifest.of_kind(VectorArtifact)))
        self.segments.append(
            sum(each.name.endswith(".store") for each in manifest.of_kind(LexicalArtifact))
        )
        return manifest

    def _document_bytes(
        self, manifest: GenerationManifest, first_row: int, before: set[Path]
    ) -> int:
        """The bytes of those new artifacts that hold the new documents, and nothing else."""
        artifacts = self.writer.residence
        newest = max(
            (each for each in manifest.of_kind(LexicalArtifact) if each.name.endswith(".store")),
            key=lambda each: artifacts.artifact_path(each.blake3).stat().st_mtime_ns,
        ).name.removesuffix(".store")
        fresh = [
            each
            for each in manifest.artifacts
            if artifacts.artifact_path(each.blake3) not in before
        ]
        return sum(
            each.size_bytes
            for each in fresh
            if getattr(each, "first_row", -1) >= first_row
            or (each.name.startswith(newest) and not each.name.endswith(".del"))
        )

    def compact(self) -> None:
        """Merge what is due."""

        def unwatched(_: int) -> None:
            pass

        self.compact_s.append(
            seconds(lambda: compact(self.writer, None, send=False, on_start=lambda _: unwatched))
        )

    @property
    def written_bytes(self) -> int:
        """All that builds and merges ever wrote: a home keeps each artifact."""
        return sum(path.stat().st_size for path in self.writer.residence.artifacts.iterdir())

    def opened(self, manifest: GenerationManifest) -> Snapshot:
        """A generation, to ask it."""
        return self.writer.opened(manifest, ReadFiles())


def answers(snapshot: Snapshot, data: Data, mode: Any) -> dict[str, list[str]]:
    """The first ten ids for every query."""
    return {
        identity: [
            hit.id for hit in snapshot.search(text=text, vector=vector, mode=mode, limit=DEPTH)
        ]
        for identity, text, vector in data.queries
    }


def recall(found: dict[str, list[str]], data: Data) -> float:
    """The share of the ten nearest by exact cosine similarity that were found."""
    ids = [document["id"] for document in data.documents]
    unit = data.vectors / np.linalg.norm(data.vectors, axis=1, keepdims=True)
    return mean(
        len({ids[place] for place in np.argsort(-(unit @ vector))[:DEPTH]} & set(found[identity]))
        / DEPTH
        for identity, _, vector in data.queries
    )


def run() -> Outcome:
    """Build the history, then compare its end with a build from scratch."""
    place = Path(os.environ.get(SCIFACT_VARIABLE) or DEFAULT_SCIFACT)
    data = scifact(place) if (place / EMBEDDINGS).exists() else synthetic()
    everything = [(number, False) for number in range(len(data.documents))]
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as name:
        (Path(name) / "long").mkdir()
        (Path(name) / "scratch").mkdir()
        history = History(Path(name) / "long", data)
        manifest = history.build(everything, 0)
        base_bytes = history.written_bytes
        for version, operations in enumerate(changes(len(data.documents)), 1):
            manifest = history.build(operations, version)
            history.compact()
        fresh = History(Path(name) / "scratch", data)
        scratch = fresh.opened(fresh.build(everything, 0))
        last = history.opened(manifest)
        judgements = data.judgements or {
            identity: dict.fromkeys(ids, 1)
            for identity, ids in answers(scratch, data, "hybrid").items()
        }
        quality = {
            key: {
                "ndcg": mean_ndcg(answers(snapshot, data, "hybrid"), judgements)[0],
                "recall": recall(answers(snapshot, data, "vector"), data),
            }
            for key, snapshot in (("long", last), ("scratch", scratch))
        }
        written_bytes = history.written_bytes
    updates_bytes = sum(history.document_bytes[1:])
    amplification = written_bytes / (updates_bytes + base_bytes)
    of_updates = (written_bytes - base_bytes) / updates_bytes
    loss = {key: 1 - quality["long"][key] / quality["scratch"][key] for key in ("ndcg", "recall")}
    holds = (
        max(amplification, of_updates) <= MAX_AMPLIFICATION
        and max(*history.shards, *history.segments) <= MAX_PARTS
        and max(loss.values()) <= MAX_LOSS
    )
    show(
        f"{GENERATIONS} generations of {data.name}, {len(data.documents):,} documents, "
        f"{CHANGED_PERCENT} % replaced in each",
        [("", "left"), ("measured", "right"), ("bound", "left")],
        [
            ["written for each byte of documents", f"{amplification:.2f}", "4"],
            ["the same without the first generation", f"{of_updates:.2f}", "4"],
            ["vector shards at most", str(max(history.shards)), "12"],
            ["text segments at most", str(max(history.segments)), "12"],
            ["hybrid nDCG@10, scratch", f"{quality['scratch']['ndcg']:.4f}", "none"],
            ["hybrid nDCG@10, last", f"{quality['long']['ndcg']:.4f}", "0.5 % less"],
            ["vector recall@10, scratch", f"{quality['scratch']['recall']:.4f}", "none"],
            ["vector recall@10, last", f"{quality['long']['recall']:.4f}", "0.5 % less"],
            ["a build, median s", f"{sorted(history.build_s)[GENERATIONS // 2]:.2f}", "none"],
            ["all compactions, s", f"{sum(history.compact_s):.1f}", "none"],
        ],
        ["written: every artifact of every build and merge, tombstones and lists included;"],
    )
    return Outcome(
        "amplification",
        {
            "corpus": data.name,
            "generations": GENERATIONS,
            "amplification": round(amplification, 3),
            "amplification_of_updates": round(of_updates, 3),
            "max_shards": max(history.shards),
            "max_segments": max(history.segments),
            "ndcg10": round(quality["long"]["ndcg"], 4),
            "ndcg10_scratch": round(quality["scratch"]["ndcg"], 4),
            "recall10": round(quality["long"]["recall"], 4),
            "recall10_scratch": round(quality["scratch"]["recall"], 4),
            "final_documents": manifest.counts.documents,
            "final_bytes": manifest.size_bytes,
        },
        holds,
    )
