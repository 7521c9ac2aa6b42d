"""Transfers of several artifacts at once, with a guard against those that never end."""

from __future__ import annotations

import contextlib
import faulthandler
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from index.verification import ReadFiles
from manifests.errors import GenctlError
from manifests.names import artifact_key, symbol_key, table_key
from replicator.download import HEDGES_AT_ONCE, Downloads
from replicator.fetch import Fetcher
from replicator.sources import Sources
from replicator.tables import Tables
from replicator.tally import FetchTally
from store.memory import MemoryStore
from store.port import Store
from tests.replicator.encoded import EncodedArtifact

GUARD_S = 90.0


@dataclass
class Clock:
    """A clock that goes when a test says so, in seconds."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Outcome:
    """What a transfer moved, and the errors of the artifacts that it could not bring."""

    tally: FetchTally
    errors: dict[str, GenctlError]


def peer_with(*artifacts: EncodedArtifact, name: str = "peer") -> MemoryStore:
    """What a node that has these artifacts serves."""
    peer = MemoryStore(name)
    for each in artifacts:
        table = each.objects[0][each.geometry.table_range(0).offset :]
        peer.put_if_absent(artifact_key(each.artifact.blake3), [each.data])
        peer.put_if_absent(table_key(each.artifact.blake3), [table])
    return peer


def store_with(*artifacts: EncodedArtifact, name: str = "store") -> MemoryStore:
    """A store with every symbol of these artifacts."""
    store = MemoryStore(name)
    for each in artifacts:
        for number, body in enumerate(each.objects):
            store.put_if_absent(symbol_key(each.artifact.blake3, number), [body])
    return store


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """End everything, with the stacks of all threads, if the block takes too long."""
    faulthandler.dump_traceback_later(GUARD_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def transferring(
    folder: Path,
    sources: Sources,
    *,
    reads_at_once: int = 4,
    deadline_s: float = 60.0,
    now_s: Callable[[], float] = time.monotonic,
    hedge_after_s: float = 0.0,
) -> Iterator[tuple[Fetcher, Downloads]]:
    """A fetcher into ``folder``; when its block ends, every buffer must have come back."""
    for name in ("incoming", "tables"):
        (folder / name).mkdir(exist_ok=True)
    with guarded():
        with Downloads(
            sources, reads_at_once, now_s() + deadline_s, now_s, hedge_after_s=hedge_after_s
        ) as downloads:
            tables = Tables(folder / "tables", sources, downloads.counting, downloads)
            yield Fetcher(downloads, tables, ReadFiles()), downloads
        assert downloads._free.qsize() == reads_at_once
        assert downloads._spare.qsize() == HEDGES_AT_ONCE
        assert not downloads._reads


def fetch_together(
    artifacts: Sequence[EncodedArtifact],
    folder: Path,
    stores: Sequence[Store],
    peers: Sequence[Store] = (),
    *,
    reads_at_once: int = 4,
    deadline_s: float = 60.0,
    now_s: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Fetch all of them at once; what arrives is right, what does not leaves no file."""
    errors: dict[str, GenctlError] = {}
    sources = Sources(peers, stores, now_s)
    transfer = transferring(
        folder, sources, reads_at_once=reads_at_once, deadline_s=deadline_s, now_s=now_s
    )
    with transfer as (fetcher, downloads), ThreadPoolExecutor(len(artifacts)) as pool:

        def fetch(encoded: EncodedArtifact) -> None:
            target = folder / encoded.artifact.blake3
            try:
                fetcher.fetch(encoded.artifact, folder / "incoming", target, lambda _: None)
            except GenctlError as error:
                errors[encoded.artifact.blake3] = error
                assert not target.exists()
            else:
                assert target.read_bytes() == encoded.data

        for each in [pool.submit(fetch, encoded) for encoded in artifacts]:
            each.result()
    return Outcome(downloads.counting.tally(), errors)
