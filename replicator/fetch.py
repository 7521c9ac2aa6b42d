"""Fetch one artifact: what is on the disk already, then what sources have, then what codes give.

Source symbols are ranges of the artifact, so a healthy fetch writes each run to its offset and
decodes nothing. Every chunk is checked against the signed table before it is written, and again
when an earlier attempt left it on the disk; what is missing after that is rebuilt
(:mod:`replicator.mend`). The same code mends an artifact that rotted where it lies.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from durable import files
from durable.bulk_file import DIRECT_FROM_BYTES, AlignedBuffer, BulkFile
from index.verification import ReadFiles, StreamedArtifact
from manifests.errors import ArtifactHashMismatch, BadSymbolSet, DiskError, DiskFull
from manifests.generation import ArtifactFile
from replicator.download import Arrived, Downloads, Pending
from replicator.mend import Losses, mend
from replicator.runs import Run, source_runs
from replicator.signed_chunks import SignedChunks
from replicator.tables import Tables
from symbols.table import check_chunk

READ_BACK_BYTES = 4 << 20

Progress = Callable[[int], None]
"""Called with the number of artifact bytes that are now in place."""


class Fetcher:
    """Fetches artifacts with the reads of one transfer. Safe to use from several threads.

    Args:
        downloads: the transfer's reads.
        tables: where tables are kept and asked for.
        seen: told of every file that was verified.
    """

    def __init__(self, downloads: Downloads, tables: Tables, seen: ReadFiles) -> None:
        self._downloads = downloads
        self._tables = tables
        self._seen = seen

    def fetch(
        self, artifact: ArtifactFile, incoming: Path, target: Path, progress: Progress
    ) -> None:
        """Bring ``artifact`` to ``target``, by way of a file in the folder ``incoming``.

        ``target`` appears only when all its bytes are durable and have the signed hash; its name is
        durable after the next fsync of its folder. What arrived before an error stays in
        ``incoming``, and the next fetch goes on from there.

        Raises:
            Unrepairable: more is lost or damaged than the symbols can make up for.
            ArtifactHashMismatch, BadSymbolSet: every symbol is as signed, the artifact is not, or
                they contradict one another: the fact ``content_hash``, the artifact's id, says so.
                Without that fact it is the disk.
            ManifestMalformed: the manifest describes impossible symbols.
            StoreUnavailable, BodyMismatch, TransferDeadline, LengthExceeded, ExpansionExceeded: a
                source did not answer as it should.
            DiskFull, DiskError: the disk refuses; what arrived is removed.
        """
        arrived = incoming / artifact.blake3
        if os.path.lexists(arrived) and files.plain_size_bytes(arrived) is None:
            files.clear(arrived)  # a link would have something else overwritten
        try:
            self._complete(artifact, arrived, progress, direct=True)
        except (ArtifactHashMismatch, BadSymbolSet, DiskFull, DiskError):
            files.remove_file(arrived)
            raise
        files.rename_file(arrived, target)

    def mend_in_place(self, artifact: ArtifactFile, path: Path, progress: Progress) -> None:
        """Replace what is rotten in the file at ``path``, which may be open elsewhere.

        Only damaged ranges are asked for and written. Raises what :meth:`fetch` does; the file
        keeps what is good in it.
        """
        self._complete(artifact, path, progress, direct=False)

    def _complete(
        self, artifact: ArtifactFile, path: Path, progress: Progress, *, direct: bool
    ) -> None:
        chunks = SignedChunks(artifact, self._tables.find)
        streamed = StreamedArtifact(artifact)
        direct = direct and artifact.size_bytes >= DIRECT_FROM_BYTES
        with contextlib.closing(BulkFile(path, direct=direct)) as file:
            work = _Work(self._downloads, chunks, file, streamed, progress)
            missing = work.scan() if file.size_bytes else source_runs(chunks.geometry)
            if not chunks.is_single:
                # Before any read, so that no source of data is blamed for one of tables.
                chunks.table  # noqa: B018
            losses = work.download(missing)
            try:
                if losses:
                    mend(self._downloads, chunks, file, losses, progress)
                file.finish(artifact.size_bytes)
                if losses:
                    streamed = _read_back(artifact, file)
                streamed.confirm(path, self._seen)
            except (ArtifactHashMismatch, BadSymbolSet) as error:
                # A single chunk that nothing was rebuilt for was compared with the id itself.
                could_be = losses or not chunks.is_single
                unmended = losses if isinstance(error, BadSymbolSet) else {}
                if could_be and work.is_divergent(but=unmended):
                    raise self._divergent(artifact, error) from error
                raise
        self._tables.keep(chunks)

    def _divergent(
        self, artifact: ArtifactFile, error: ArtifactHashMismatch | BadSymbolSet
    ) -> ArtifactHashMismatch | BadSymbolSet:
        """The same error, which says that no disk and no source is to blame for it."""
        return type(error)(
            f"{error.message}; every chunk of it is as the signed table says, so the writer's key "
            "has signed what cannot be. Nothing of it was kept",
            content_hash=artifact.blake3,
            artifact=artifact.name,
            artifact_id=artifact.blake3,
            table_blake3=artifact.symbols.table_blake3,
            sources=", ".join(self._downloads.counting.tally().sources),
        )


def _read_back(artifact: ArtifactFile, file: BulkFile) -> StreamedArtifact:
    """Hash a file that was not written in order, past the page cache as it was written."""
    streamed = StreamedArtifact(artifact)
    buffer = AlignedBuffer(READ_BACK_BYTES)
    for offset in range(0, artifact.size_bytes, READ_BACK_BYTES):
        length = min(READ_BACK_BYTES, artifact.size_bytes - offset)
        streamed.update(offset, file.read(offset, buffer, length))
    return streamed


class _Work:
    """One artifact between its sources and its file."""

    def __init__(
        self,
        downloads: Downloads,
        chunks: SignedChunks,
        file: BulkFile,
        streamed: StreamedArtifact,
        progress: Progress,
    ) -> None:
        self._downloads = downloads
        self._chunks = chunks
        self._file = file
        self._streamed = streamed
        self._progress = progress

    def scan(self) -> Iterator[Run]:
        """Check what the file holds, chunk by chunk; give the runs that are not good."""
        buffer = AlignedBuffer(self._chunks.geometry.chunk_size_bytes)
        missing = []
        for run in source_runs(self._chunks.geometry):
            bad = [chunk for chunk in run.chunks if not self._is_good(run, chunk, buffer)]
            missing += run.parts(bad)
        return iter(missing)

    def _is_good(self, run: Run, chunk: int, buffer: AlignedBuffer) -> bool:
        offset, length = run.geometry.chunk_source_range(run.number, chunk)
        try:
            data = self._file.read(offset, buffer, length)
        except DiskError:
            return False  # a bad sector; writing to it may have the disk replace it
        if not self._chunks.good(run.number, chunk, data):
            return False
        self._streamed.update(offset, data)
        self._downloads.counting.resumed(length)
        self._progress(length)
        return True

    def is_divergent(self, but: Losses) -> bool:
        """Whether the file is all that the signed table says, ``but`` these, and not the artifact.

        Read once more from the disk: a fault of this machine must not be taken for the writer's.
        """
        chunks = self._chunks
        hasher = blake3()
        buffer = AlignedBuffer(chunks.geometry.chunk_size_bytes)
        for run in source_runs(chunks.geometry):
            for chunk in run.chunks:
                if run.number in but.get(chunk, ()):
                    continue
                offset, length = chunks.geometry.chunk_source_range(run.number, chunk)
                try:
                    data = self._file.read(offset, buffer, length)
                except DiskError:
                    return False
                if not check_chunk(chunks.geometry, chunks.table, run.number, chunk, data):
                    return False
                hasher.update(data)
        return bool(but) or hasher.hexdigest() != chunks.artifact_id

    def download(self, missing: Iterable[Run]) -> Losses:
        """Read runs and write them in their order; what no source has is given back."""
        under_way: deque[Pending] = deque()
        try:
            return self._download(missing, under_way)
        finally:
            for pending in under_way:
                self._downloads.abandon(pending)

    def _download(self, missing: Iterable[Run], under_way: deque[Pending]) -> Losses:
        losses: Losses = {}
        runs = iter(missing)
        run = next(runs, None)
        while run is not None or under_way:
            if run is not None and len(under_way) < self._downloads.reads_at_once:
                wait = not under_way
                pending = self._downloads.start(self._chunks, run, wait_for_memory=wait)
                if pending is not None:
                    under_way.append(pending)
                    run = next(runs, None)
                    continue
            arrived = self._downloads.result(under_way.popleft())
            try:
                self._take(arrived)
            finally:
                self._downloads.release(arrived)
            for chunk in arrived.missing:
                losses.setdefault(chunk, set()).add(arrived.run.number)
        return losses

    def _take(self, arrived: Arrived) -> None:
        """Write the good chunks of a run: all at once, if all of them are."""
        run = arrived.run
        parts = [run] if not arrived.missing else run.parts(set(run.chunks) - arrived.missing)
        for part in parts:
            offset, length = part.in_artifact
            start = offset - run.in_artifact.offset
            if part is run:
                self._streamed.update(offset, arrived.memory)
                self._file.write(offset, arrived.buffer, length)
            else:
                self._file.patch(offset, arrived.memory[start : start + length])
            self._progress(length)
