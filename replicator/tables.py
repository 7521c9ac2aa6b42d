"""Tables of chunk hashes: kept beside the artifacts they belong to, or asked for."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Protocol

from durable import files
from manifests.errors import DiskError, ObjectMissing, Unrepairable
from replicator.reads import FAILURES
from replicator.signed_chunks import SignedChunks
from replicator.sources import Place, Sources, corrupt
from replicator.tally import Counting
from symbols.table import check_table

HOW_TO_MEND = (
    "Mend the stores with `genctl scrub HOME` at the writer; what is lost there too, take from a "
    "node"
)
"""What to do about an artifact of which more is lost than it survives."""


class Reader(Protocol):
    """How tables are read."""

    def get(self, place: Place, length: int) -> bytes:
        """Up to ``length`` bytes that stand there; raises what reading raises."""

    def check_deadline(self) -> None:
        """Raise ``TransferDeadline`` if there is no more time to read anything."""


class Tables:
    """The tables in a node's folder, and those that its sources have.

    Args:
        folder: where they are kept.
        sources: whom to ask.
        counting: told what was read, and what was wrong.
        reader: reads them.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sources,
        counting: Counting,
        reader: Reader,
    ) -> None:
        self._folder = folder
        self._sources = sources
        self._counting = counting
        self._reader = reader

    def find(self, chunks: SignedChunks) -> bytes:
        """The table that the manifest pins.

        Raises:
            Unrepairable: nobody has it.
            StoreUnavailable, BodyMismatch, TransferDeadline, LengthExceeded, ExpansionExceeded:
                somebody who may have it cannot be asked.
        """
        kept = kept_table(chunks, self._folder)
        if kept is not None:
            return kept
        lost: set[int] = set()
        unanswered: set[int | None] = set()
        for place, number in self._sources.of_table(chunks.artifact_id, chunks.geometry):
            table = self._read(chunks, place)
            if table is None:
                unanswered.add(number)
                continue
            if _fits(chunks, table):
                self._count(chunks, lost - unanswered - {number})
                return table
            if number is not None:
                lost.add(number)
            elif table:
                self._counting.lied(place.source.url)
                self._sources.lied(place, corrupt(place))
        self._count(chunks, lost - unanswered)
        unavailable = chunks.unavailable or self._sources.unavailable()
        if unavailable is not None:
            raise unavailable
        damaged = self._counting.damaged_of(chunks.artifact_id)
        raise Unrepairable(
            f"{chunks.artifact.name} ({chunks.artifact_id[:12]}…) cannot be fetched: no symbol has "
            f"an intact table; symbols lost or damaged: {damaged}, it survives "
            f"{chunks.artifact.symbols.survives}. {HOW_TO_MEND}",
            artifact=chunks.artifact.name,
            artifact_id=chunks.artifact_id,
            damaged_symbols=damaged,
        )

    def keep(self, chunks: SignedChunks) -> None:
        """Keep the table of an artifact that is here, for the next repair and for peers."""
        if not chunks.is_single and kept_table(chunks, self._folder) != chunks.table:
            files.cache_file(self._folder / chunks.artifact_id, chunks.table)

    def _count(self, chunks: SignedChunks, lost: AbstractSet[int | None]) -> None:
        for number in lost:
            if number is not None:
                self._counting.damaged(chunks.artifact_id, number)

    def _read(self, chunks: SignedChunks, place: Place) -> bytes | None:
        """What stands there, nothing if that is lost, ``None`` if it cannot be asked."""
        if self._sources.is_absent(place):
            return b"" if place.source.kind == "store" else None
        if not self._sources.may_ask(place.source):
            return None
        length = chunks.geometry.table_size_bytes
        source = place.source
        table = b""
        try:
            table = self._reader.get(place, length)
        except ObjectMissing:
            self._sources.absent(place)
        except FAILURES as error:
            # That a transfer is over says nothing of those whom it asked.
            self._reader.check_deadline()
            self._sources.failed(place, error)
            if source.kind == "store":
                chunks.unavailable = error
            return None
        except DiskError:
            pass  # a bad sector: another symbol brings its own
        self._counting.moved(source.kind, source.url, len(table))
        return table


def kept_table(chunks: SignedChunks, folder: Path) -> bytes | None:
    """The artifact's table as ``folder`` keeps it, if it is there and the one signed."""
    try:
        table = files.read_file(folder / chunks.artifact_id)
    except OSError:
        return None
    return table if _fits(chunks, table) else None


def _fits(chunks: SignedChunks, table: bytes) -> bool:
    return check_table(chunks.geometry, chunks.artifact.symbols, table)
