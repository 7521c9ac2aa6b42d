"""Scrub: the artifacts on a node's disk, read and checked chunk by chunk; what rotted, mended.

Reads go past the page cache where the file system allows it: what is in memory says nothing about
the disk under it. In memory is one chunk at a time, whatever the artifact's size.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from durable import files
from durable.bulk_file import BLOCK_SIZE_BYTES, AlignedBuffer
from index.residence import Residence
from index.verification import ReadFiles
from manifests.errors import DiskError
from manifests.generation import ArtifactFile
from replicator.bring import transfer
from replicator.repair_events import record_ratio, told
from replicator.runs import Run, source_runs
from replicator.signed_chunks import SignedChunks
from replicator.sources import Supply
from replicator.tables import kept_table
from replicator.tally import FetchTally

Take = Callable[[int], None]
"""Waits until so many bytes may be read; may raise to end the reading."""


class ChunkReader:
    """The source chunks of one artifact as its file on the disk has them."""

    def __init__(self, chunks: SignedChunks, path: Path) -> None:
        """Open ``path``.

        Raises:
            DiskError: it cannot be opened.
        """
        self._chunks = chunks
        self._buffer = AlignedBuffer(chunks.geometry.chunk_size_bytes + BLOCK_SIZE_BYTES)
        with files.translated(path):
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
            except OSError:  # not every file system knows O_DIRECT
                self._descriptor = os.open(path, os.O_RDONLY)

    def is_good(self, number: int, chunk: int) -> bool:
        """Whether this chunk is as it was signed; one that cannot be read is not."""
        offset, length = self._chunks.geometry.chunk_source_range(number, chunk)
        try:
            data = self._read(offset, length)
        except OSError:
            return False
        return self._chunks.good(number, chunk, data)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _read(self, offset: int, length: int) -> memoryview:
        head = offset % BLOCK_SIZE_BYTES
        wanted = head + length
        blocks = self._buffer.blocks(-(-wanted // BLOCK_SIZE_BYTES) * BLOCK_SIZE_BYTES)
        done = 0
        while done < wanted:
            count = os.preadv(self._descriptor, [blocks[done:]], offset - head + done)
            done += count
            if count == 0 or count % BLOCK_SIZE_BYTES:
                break  # the file's end
        return blocks[head : max(head, min(done, wanted))]


def missing_runs(chunks: SignedChunks, path: Path) -> Iterator[Run]:
    """The runs of the artifact that the file at ``path`` does not hold as they were signed.

    Raises:
        DiskError: it cannot be opened.
        Unrepairable, StoreUnavailable …: what looking for the table raises.
    """
    with contextlib.closing(ChunkReader(chunks, path)) as reader:
        for run in source_runs(chunks.geometry):
            yield from run.parts([c for c in run.chunks if not reader.is_good(run.number, c)])


def is_intact(
    residence: Residence,
    artifact: ArtifactFile,
    start_bytes: int,
    take: Take,
    on_checked: Callable[[int], None],
) -> bool:
    """Whether the artifact here, from ``start_bytes`` on, and its table are as they were signed.

    Reading ends at the first damage. Nothing is changed and no lock is needed.

    Args:
        residence: where the artifact is.
        artifact: which one.
        start_bytes: up to where it was checked before.
        take: asked before each chunk is read.
        on_checked: told after each good chunk up to where the artifact was checked.
    """
    path = residence.artifact_path(artifact.blake3)
    chunks = SignedChunks(artifact, lambda found: kept_table(found, residence.tables) or b"")
    if not residence.has_its_size(artifact):
        return False
    if not chunks.is_single and kept_table(chunks, residence.tables) is None:
        return False
    try:
        reader = ChunkReader(chunks, path)
    except DiskError:
        return False
    with contextlib.closing(reader):
        for run in source_runs(chunks.geometry):
            for chunk in run.chunks:
                offset, length = chunks.geometry.chunk_source_range(run.number, chunk)
                if offset < start_bytes:
                    continue
                take(length)
                if not reader.is_good(run.number, chunk):
                    return False
                on_checked(offset + length)
    return True


def mend_artifact(
    residence: Residence,
    artifact: ArtifactFile,
    supply: Supply,
    incoming: Path,
    on_progress: Callable[[int], None],
) -> FetchTally:
    """Make the artifact whole where it lies, or fetch it if there is no file of its size.

    The caller holds the home's lock. Only damaged ranges are asked for and written.

    Raises:
        Unrepairable, StoreUnavailable, DiskError …: see :meth:`replicator.fetch.Fetcher.fetch`;
            the file is no worse than before.
    """
    residence.prepare()
    files.make_folder(incoming)
    path = residence.artifact_path(artifact.blake3)
    chunks = SignedChunks(artifact, lambda _: b"")
    if kept_table(chunks, residence.tables) is None:
        files.remove_file(residence.tables / artifact.blake3)  # one that fits is kept instead
    with (
        told(artifact),
        transfer(supply, residence, artifact.size_bytes, ReadFiles()) as (fetcher, downloads),
    ):
        if residence.has_its_size(artifact):
            fetcher.mend_in_place(artifact, path, on_progress)
        else:
            fetcher.fetch(artifact, incoming, path, on_progress)
    residence.mend_links()
    tally = downloads.counting.tally()
    if tally.repaired_chunks:
        record_ratio(tally)
    return tally
