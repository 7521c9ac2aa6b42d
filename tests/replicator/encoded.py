"""One artifact and its symbols, cut as a test wants it, in a store in memory."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from index.verification import ReadFiles
from manifests.generation import ArtifactFile
from manifests.identifiers import content_id
from manifests.names import symbol_key
from replicator.download import Downloads
from replicator.fetch import Fetcher
from replicator.sources import Sources
from replicator.tables import Tables
from replicator.tally import FetchTally
from store.memory import MemoryStore
from store.port import Store
from symbols.encode import encode, object_parts
from symbols.geometry import Geometry, describe


@dataclass(frozen=True)
class EncodedArtifact:
    """What a manifest says of the artifact, its bytes, and the stored object of every symbol."""

    artifact: ArtifactFile
    geometry: Geometry
    data: bytes
    objects: tuple[bytes, ...]

    def store(self, changes: Mapping[int, bytes | None] | None = None) -> MemoryStore:
        """A store with every symbol, but for those that are changed or (``None``) lost."""
        store = MemoryStore()
        objects: dict[int, bytes | None] = {**dict(enumerate(self.objects)), **(changes or {})}
        for number, body in objects.items():
            if body is not None:
                store.put_if_absent(symbol_key(self.artifact.blake3, number), [body])
        return store

    def flipped(self, number: int, *chunks: int) -> bytes:
        """The object of a symbol with one byte changed in each of these chunks, or in all."""
        body = bytearray(self.objects[number])
        for chunk in chunks or range(self.geometry.chunk_count(number)):
            offset, length = self.geometry.chunk_range(number, chunk)
            body[offset + length // 2] ^= 0x01
        return bytes(body)

    def without_table(self, number: int) -> bytes:
        """The object of a symbol whose table has one byte changed."""
        body = bytearray(self.objects[number])
        body[self.geometry.table_range(number).offset + 5] ^= 0x01
        return bytes(body)


def encoded_artifact(
    folder: Path, size_bytes: int, k: int, m: int, *, seed: int = 1
) -> EncodedArtifact:
    """Random bytes, encoded with chunks of 4 KiB."""
    data = random.Random(seed).randbytes(size_bytes)
    geometry = Geometry(size_bytes, k, m, 4096)
    source = folder / f"source-{seed}"
    source.write_bytes(data)
    repair = folder / f"repair-{seed}"
    repair.mkdir()
    encoded = encode(source, geometry, repair)
    return EncodedArtifact(
        ArtifactFile(
            name=f"vectors/{seed}",
            size_bytes=size_bytes,
            blake3=content_id(data),
            symbols=describe(geometry, encoded.table),
        ),
        geometry,
        data,
        tuple(b"".join(object_parts(encoded, number)) for number in range(m)),
    )


def fetch_from(
    artifact: ArtifactFile,
    folder: Path,
    stores: Sequence[Store],
    peers: Sequence[Store] = (),
    *,
    progress: Callable[[int], None] = lambda _: None,
    deadline_s: float = 60.0,
    sources: Sources | None = None,
) -> FetchTally:
    """Fetch into ``folder/<id>`` with a transfer of its own; what it moved and mended."""
    incoming = folder / "incoming"
    for name in ("incoming", "tables"):
        (folder / name).mkdir(exist_ok=True)
    sources = sources or Sources(peers, stores, time.monotonic)
    deadline_s += time.monotonic()
    with Downloads(sources, 4, deadline_s, time.monotonic) as downloads:
        tables = Tables(folder / "tables", sources, downloads.counting, downloads)
        fetcher = Fetcher(downloads, tables, ReadFiles())
        fetcher.fetch(artifact, incoming, folder / artifact.blake3, progress)
    return downloads.counting.tally()
