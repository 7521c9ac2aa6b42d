"""Fetch one artifact from its symbols: every chunk checked, lost and damaged ones rebuilt.

Source symbols are ranges of the artifact, so a healthy fetch copies chunks to their offsets and
decodes nothing. A chunk that is absent or does not match the signed table is an erasure at a known
place; it is rebuilt from the same column of the other symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from durable import files
from index.verification import check_artifact
from manifests.errors import ArtifactHashMismatch, DiskError, ObjectMissing, Unrepairable
from manifests.generation import ArtifactFile
from manifests.names import symbol_key
from store.port import Store
from symbols.decode import rebuild_chunk
from symbols.geometry import from_manifest
from symbols.table import check_chunk, check_table

Progress = Callable[[int], None]
"""Called with the number of artifact bytes that were just written."""


@dataclass(frozen=True, slots=True)
class FetchTally:
    """What one or several fetches moved and mended."""

    fetched_bytes: int = 0
    damaged_symbols: int = 0
    repaired_artifacts: int = 0
    repaired_chunks: int = 0
    repaired_bytes: int = 0

    def __add__(self, other: FetchTally) -> FetchTally:
        return FetchTally(
            self.fetched_bytes + other.fetched_bytes,
            self.damaged_symbols + other.damaged_symbols,
            self.repaired_artifacts + other.repaired_artifacts,
            self.repaired_chunks + other.repaired_chunks,
            self.repaired_bytes + other.repaired_bytes,
        )


def fetch_artifact(
    store: Store, artifact: ArtifactFile, incoming: Path, target: Path, progress: Progress
) -> FetchTally:
    """Bring ``artifact`` to ``target``, by way of a file in the folder ``incoming``.

    ``target`` appears only when all its bytes have the signed hash.

    Raises:
        Unrepairable: more is lost or damaged than the symbols can make up for.
        ArtifactHashMismatch: every symbol is as signed, the artifact is not.
        ManifestMalformed: the manifest describes impossible symbols.
        StoreUnavailable, DiskFull, DiskError: the store or the disk failed.
    """
    source = _SymbolSource(store, artifact)
    arrived = incoming / artifact.blake3
    with files.new_file(arrived) as output:
        for column in range(source.geometry.column_count):
            _fetch_column(source, column, output, progress)
    try:
        check_artifact(arrived, artifact)
    except ArtifactHashMismatch:
        files.remove_file(arrived)
        raise
    files.move(arrived, target)
    return source.tally()


def _fetch_column(source: _SymbolSource, column: int, output: BinaryIO, progress: Progress) -> None:
    geometry = source.geometry
    present: dict[int, bytes] = {}
    lost: list[int] = []
    for number in range(geometry.k):
        if column >= geometry.chunk_count(number):
            continue
        chunk = source.chunk(number, column)
        if chunk is None:
            lost.append(number)
        else:
            present[number] = chunk
    if lost:
        shares = _enough_shares(source, column, present)
        for number in lost:
            present[number] = rebuild_chunk(geometry, source.table, number, column, shares)
            source.count_repair(len(present[number]))
    for number, chunk in present.items():
        if geometry.is_source(number):
            output.seek(geometry.chunk_source_range(number, column).offset)
            output.write(chunk)
            progress(len(chunk))


def _enough_shares(
    source: _SymbolSource, column: int, present: dict[int, bytes]
) -> dict[int, bytes]:
    """The column's good source chunks and as many repair chunks as rebuilding takes."""
    geometry = source.geometry
    shares = dict(present)
    needed = geometry.shares_needed(column)
    for number in range(geometry.k, geometry.m):
        if len(shares) == needed:
            break
        chunk = source.chunk(number, column)
        if chunk is not None:
            shares[number] = chunk
    if len(shares) < needed:
        raise source.unrepairable(f"only {len(shares)} of {needed} shares are intact", column)
    return shares


class _SymbolSource:
    """The symbols of one artifact in one store; gives out only what matches the signed table."""

    def __init__(self, store: Store, artifact: ArtifactFile) -> None:
        self._store = store
        self._artifact = artifact
        self.geometry = from_manifest(artifact.size_bytes, artifact.symbols)
        self._absent: set[int] = set()
        self._damaged: set[int] = set()
        self._fetched_bytes = 0
        self._repaired_chunks = 0
        self._repaired_bytes = 0
        self.table = self._find_table()

    def chunk(self, number: int, column: int) -> bytes | None:
        """A chunk that is what the table says, or ``None``."""
        offset, length = self.geometry.chunk_range(number, column)
        data = self._read(number, offset, length)
        if data is not None and check_chunk(self.geometry, self.table, number, column, data):
            return data
        self._damaged.add(number)
        return None

    def count_repair(self, size_bytes: int) -> None:
        """Note that a chunk of this size was rebuilt."""
        self._repaired_chunks += 1
        self._repaired_bytes += size_bytes

    def tally(self) -> FetchTally:
        """What was moved and mended so far."""
        return FetchTally(
            fetched_bytes=self._fetched_bytes,
            damaged_symbols=len(self._damaged),
            repaired_artifacts=1 if self._repaired_chunks else 0,
            repaired_chunks=self._repaired_chunks,
            repaired_bytes=self._repaired_bytes,
        )

    def unrepairable(self, why: str, column: int | None = None) -> Unrepairable:
        """The error that gives this artifact up, with what is known of its symbols."""
        return Unrepairable(
            f"{self._artifact.name} ({self._artifact.blake3[:12]}…) cannot be rebuilt from "
            f"{self._store.url}: {why}; symbols lost or damaged: {sorted(self._damaged)}, it "
            f"survives {self._artifact.symbols.survives}. Publish it again from the writer's home, "
            "or restore the store",
            artifact=self._artifact.name,
            artifact_id=self._artifact.blake3,
            damaged_symbols=sorted(self._damaged),
            column=column,
        )

    def _find_table(self) -> bytes:
        for number in range(self.geometry.m):
            table = self._read(number, *self.geometry.table_range(number))
            if table is not None and check_table(self.geometry, self._artifact.symbols, table):
                return table
            self._damaged.add(number)
        raise self.unrepairable("no symbol has an intact table")

    def _read(self, number: int, offset: int, length: int) -> bytes | None:
        if number in self._absent:
            return None
        key = symbol_key(self._artifact.blake3, number)
        try:
            data = self._store.get(key, offset=offset, length=length)
        except (ObjectMissing, DiskError):
            # Gone, or on a bad sector: either way this symbol is lost and others stand in for it.
            self._absent.add(number)
            return None
        self._fetched_bytes += len(data)
        return data
