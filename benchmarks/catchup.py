"""What moves when one percent of the documents changed: every byte that a node reads of its store.

Counted on the store port, signed metadata and the manifest included.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.corpus import DIMENSIONS, Corpus, make_corpus
from benchmarks.harness import Outcome, show
from benchmarks.served import columns
from controller.new_home import init_home
from controller.new_node import open_node
from controller.node import NodeHome
from controller.settings import WriterSettings
from controller.writer import WriterHome
from store.rate_limit import LimitedStore, RateLimit
from store.spread import SpreadStore

DOCUMENTS = 20_000
CHANGED = DOCUMENTS // 100
SEED = 20_247
MAX_RATIO = 1.1
FREE_BYTES = 64 << 10


class _Meter(RateLimit):
    """Lets everything through and counts it."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def take(self, size_bytes: int, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self.size_bytes += size_bytes


class _MeteredNode(NodeHome):
    """A node whose reads of its stores are counted."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.meter = _Meter()

    def stores(self) -> SpreadStore:
        behind = super().stores().stores
        return SpreadStore([LimitedStore(store, self.meter) for store in behind])


def _release(writer: WriterHome, corpus: Corpus, source: Path) -> None:
    corpus.write(source)
    writer.ingest([source], format_name="msgpack", commit_size=CHANGED)
    newest = writer.build().manifest.generation_id
    writer.publish(newest)
    writer.activate(newest)


def run() -> Outcome:
    """Release, change one percent of the documents, release again, and let a node follow."""
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as name:
        folder = Path(name)
        settings = WriterSettings(
            shard="main",
            stores=(str(folder / "store"),),
            embedder="precomputed",
            dimensions=DIMENSIONS,
        )
        init_home(folder / "writer", settings)
        writer = WriterHome(folder / "writer")
        corpus = make_corpus(DOCUMENTS, 0, SEED)
        _release(writer, corpus, folder / "all.msgpack")
        open_node(folder / "node", settings.stores, folder / "writer" / "root.json").bootstrap()
        newer = make_corpus(DOCUMENTS, 0, SEED + 1)
        changed = Corpus(newer.documents[:CHANGED], newer.vectors[:CHANGED], [])
        _release(writer, changed, folder / "changed.msgpack")
        old, new = writer.built()
        known = {artifact.blake3 for artifact in old.artifacts}
        new_bytes = sum(a.size_bytes for a in new.artifacts if a.blake3 not in known)
        node = _MeteredNode(folder / "node")
        tally = node.bootstrap().brought.tally
        moved_bytes = node.meter.size_bytes
    allowed_bytes = int(MAX_RATIO * new_bytes) + FREE_BYTES
    figures = {
        "documents": DOCUMENTS,
        "changed": CHANGED,
        "generation_bytes": new.size_bytes,
        "new_artifact_bytes": new_bytes,
        "moved_bytes": moved_bytes,
        "artifact_and_table_bytes": tally.fetched_bytes,
        "allowed_bytes": allowed_bytes,
    }
    show(
        f"Catching up after {CHANGED:,} of {DOCUMENTS:,} documents changed",
        columns("bytes", "what"),
        [
            [f"{new.size_bytes:,}", "the whole generation"],
            [f"{new_bytes:,}", "artifacts that are new in it"],
            [f"{tally.fetched_bytes:,}", "moved: artifacts and their tables"],
            [f"{moved_bytes:,}", "moved: all of it, signed metadata and manifest too"],
        ],
        [
            (
                f"holds when all of it is at most {MAX_RATIO} of what is new and 64 KiB, "
                f"{allowed_bytes:,} bytes"
            )
        ],
    )
    return Outcome("catchup", figures, moved_bytes <= allowed_bytes)
