"""How an artifact is cut into symbols and chunks: arithmetic only, no I/O.

An artifact of ``S`` bytes becomes ``m`` symbols. Symbols ``0 … k-1`` are its *source* symbols,
contiguous ranges of ``L = ceil(S / k)`` bytes (the last may be shorter); ``k … m-1`` are its
*repair* symbols, ``L`` bytes each. Every symbol is cut into chunks of ``C`` bytes (its last may be
shorter), the unit that is checked, fetched again and rebuilt. Chunk ``c`` of all symbols together
is *column* ``c``: any ``k`` chunks of a column determine the others.

The *table* is the BLAKE3-256 of every chunk, symbol after symbol. It stands at the end of every
stored symbol, so that whichever symbols survive bring it along and the manifest only pins its hash.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from manifests.errors import BadSymbolSet, ManifestMalformed
from manifests.generation import SymbolSet
from manifests.identifiers import HASH_SIZE_BYTES, content_id

CHUNK_SIZE_BYTES = 1 << 20
"""The chunks of what is encoded now, which the figures of ADR 0015 are for. The arithmetic goes
through them in slices (:data:`symbols.combinations.SLICE_SIZE_BYTES`)."""

MIN_CHUNK_SIZE_BYTES = 4 << 10
MAX_CHUNK_SIZE_BYTES = 16 << 20
MAX_COLUMN_SIZE_BYTES = 64 << 20
"""Whoever mends holds ``k`` chunks of a column in memory, in each of its threads; a transfer mends
one artifact at a time (:mod:`replicator.mend`). What need not be mended is read in runs."""

MAX_SYMBOLS = 256
"""The code works over GF(2^8) (Rizzo, 1997): there are no more share numbers than that."""

SMALL_SIZE_BYTES = 64 << 10
MEDIUM_SIZE_BYTES = 1 << 20


class ByteRange(NamedTuple):
    """``length`` bytes from ``offset`` on, in the terms of ``Store.get``."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """The cut of one artifact. Symbol numbers run from 0 to m-1, chunk numbers from 0.

    Raises:
        BadSymbolSet: the four numbers do not describe a cut with ``k`` non-empty source symbols
            and at least one repair symbol; from the methods: no such symbol or chunk.
    """

    size_bytes: int
    k: int
    m: int
    chunk_size_bytes: int

    def __post_init__(self) -> None:
        if self.size_bytes < 1 or self.chunk_size_bytes < 1:
            raise BadSymbolSet(
                f"an artifact of {self.size_bytes} bytes cannot be cut into chunks of "
                f"{self.chunk_size_bytes} bytes",
                size_bytes=self.size_bytes,
            )
        if not 1 <= self.k < self.m <= MAX_SYMBOLS:
            raise BadSymbolSet(f"k={self.k}, m={self.m} is no erasure code", k=self.k, m=self.m)
        if (self.k - 1) * self.symbol_size_bytes >= self.size_bytes:
            raise BadSymbolSet(
                f"{self.size_bytes} bytes do not fill {self.k} source symbols",
                size_bytes=self.size_bytes,
                k=self.k,
            )

    @property
    def symbol_size_bytes(self) -> int:
        """The size of every symbol's data but perhaps the last source symbol's."""
        return -(-self.size_bytes // self.k)

    @property
    def column_count(self) -> int:
        """How many chunks a full symbol has."""
        return -(-self.symbol_size_bytes // self.chunk_size_bytes)

    @property
    def table_size_bytes(self) -> int:
        """The size of the table: one hash for every chunk of every symbol."""
        return HASH_SIZE_BYTES * ((self.m - 1) * self.column_count + self.chunk_count(self.k - 1))

    @property
    def stored_size_bytes(self) -> int:
        """What all the artifact's symbol objects take in a store, tables included."""
        return (
            self.size_bytes
            + (self.m - self.k) * self.symbol_size_bytes
            + self.m * self.table_size_bytes
        )

    @property
    def overhead_percent(self) -> int:
        """Repair data per source data, rounded up; tables (below 0.05 % from 1 GiB on) left out."""
        return -(-100 * (self.m - self.k) // self.k)

    @property
    def survives(self) -> str:
        """What loss the artifact survives, in words: "any 2 of 12 symbols"."""
        return f"any {self.m - self.k} of {self.m} symbols"

    def stores_survived(self, store_count: int) -> int:
        """How many stores may be lost whole, whichever they are, so that the artifact remains.

        That is for symbols that are dealt to ``store_count`` stores in turn, from whichever store
        on: some stores then have ``ceil(m / store_count)`` symbols, the others one less.
        """
        fewest, fuller = divmod(self.m, store_count)
        return max(
            stores
            for stores in range(store_count)
            if stores * fewest + min(stores, fuller) <= self.m - self.k
        )

    def is_source(self, number: int) -> bool:
        """Whether symbol ``number`` is a part of the artifact itself."""
        self._check_symbol(number)
        return number < self.k

    def source_range(self, number: int) -> ByteRange:
        """The artifact's bytes that source symbol ``number`` is."""
        if not self.is_source(number):
            raise BadSymbolSet(f"symbol {number} is a repair symbol", symbol=number)
        return ByteRange(number * self.symbol_size_bytes, self.data_size_bytes(number))

    def data_size_bytes(self, number: int) -> int:
        """The size of symbol ``number`` without the table."""
        self._check_symbol(number)
        if number == self.k - 1:
            return self.size_bytes - (self.k - 1) * self.symbol_size_bytes
        return self.symbol_size_bytes

    def object_size_bytes(self, number: int) -> int:
        """The size of symbol ``number`` as it is stored: its data, then the table."""
        return self.data_size_bytes(number) + self.table_size_bytes

    def table_range(self, number: int) -> ByteRange:
        """Where the table stands in the stored object of symbol ``number``."""
        return ByteRange(self.data_size_bytes(number), self.table_size_bytes)

    def chunk_count(self, number: int) -> int:
        """How many chunks symbol ``number`` has; only the last source symbol may have fewer."""
        return -(-self.data_size_bytes(number) // self.chunk_size_bytes)

    def chunk_range(self, number: int, chunk: int) -> ByteRange:
        """Where chunk ``chunk`` stands in symbol ``number``, and so in its stored object."""
        if not 0 <= chunk < self.chunk_count(number):
            raise BadSymbolSet(f"symbol {number} has no chunk {chunk}", symbol=number, chunk=chunk)
        offset = chunk * self.chunk_size_bytes
        return ByteRange(offset, min(self.chunk_size_bytes, self.data_size_bytes(number) - offset))

    def chunk_source_range(self, number: int, chunk: int) -> ByteRange:
        """Where chunk ``chunk`` of source symbol ``number`` stands in the artifact."""
        offset, length = self.chunk_range(number, chunk)
        return ByteRange(self.source_range(number).offset + offset, length)

    def column_width_bytes(self, chunk: int) -> int:
        """The length that all chunks of column ``chunk`` have for the code, zeros added."""
        # Symbol m-1 is a repair symbol, and those are never short.
        return self.chunk_range(self.m - 1, chunk).length

    def symbols_with_chunk(self, chunk: int) -> tuple[int, ...]:
        """The symbols that have a chunk ``chunk``: all, or all but a short last source symbol."""
        if not 0 <= chunk < self.column_count:
            raise BadSymbolSet(f"no symbol has a chunk {chunk}", chunk=chunk)
        return tuple(number for number in range(self.m) if chunk < self.chunk_count(number))

    def shares_needed(self, chunk: int) -> int:
        """How many chunks of column ``chunk`` rebuild another.

        It is ``k``, or ``k - 1`` beyond the end of a short last source symbol: that symbol's share
        is then known to be zeros, and nobody need fetch it.
        """
        return self.k - (self.m - len(self.symbols_with_chunk(chunk)))

    def table_offset(self, number: int, chunk: int) -> int:
        """Where the hash of chunk ``chunk`` of symbol ``number`` stands in the table."""
        self.chunk_range(number, chunk)
        missing = self.column_count - self.chunk_count(self.k - 1) if number >= self.k else 0
        return HASH_SIZE_BYTES * (number * self.column_count - missing + chunk)

    def _check_symbol(self, number: int) -> None:
        if not 0 <= number < self.m:
            raise BadSymbolSet(
                f"there is no symbol {number} among {self.m}", symbol=number, m=self.m
            )


def choose(size_bytes: int, store_count: int = 1) -> Geometry:
    """The cut genctl gives an artifact of ``size_bytes`` ≥ 1 bytes; the same everywhere.

    Small artifacts get fewer symbols, because every symbol costs a request to write and to read.
    Several stores get as many repair symbols more as it takes for any one of them to be lost.
    """
    if size_bytes <= SMALL_SIZE_BYTES:
        k, m = 1, 2
    elif size_bytes <= MEDIUM_SIZE_BYTES:
        k, m = 5, 6
    else:
        k, m = 10, 12
    cut = Geometry(size_bytes, k, m, CHUNK_SIZE_BYTES)
    while store_count > 1 and cut.stores_survived(store_count) == 0:
        cut = replace(cut, m=cut.m + 1)
    return cut


def describe(geometry: Geometry, table: bytes) -> SymbolSet:
    """What the manifest says of an artifact's symbols.

    Raises:
        BadSymbolSet: ``table`` has not the size of this geometry's table.
    """
    if len(table) != geometry.table_size_bytes:
        raise BadSymbolSet(
            f"the table has {len(table)} bytes instead of {geometry.table_size_bytes}"
        )
    return SymbolSet(
        k=geometry.k,
        m=geometry.m,
        symbol_size_bytes=geometry.symbol_size_bytes,
        chunk_size_bytes=geometry.chunk_size_bytes,
        table_blake3=content_id(table),
        overhead_percent=geometry.overhead_percent,
        survives=geometry.survives,
    )


def from_manifest(size_bytes: int, symbols: SymbolSet) -> Geometry:
    """The cut of an artifact of ``size_bytes`` as its manifest states it.

    The words of ``survives`` are for people and may change; the numbers must agree.

    Raises:
        ManifestMalformed: the numbers contradict one another or are out of bounds.
    """
    if not MIN_CHUNK_SIZE_BYTES <= symbols.chunk_size_bytes <= MAX_CHUNK_SIZE_BYTES:
        raise ManifestMalformed(
            f"a chunk size of {symbols.chunk_size_bytes} bytes is not between "
            f"{MIN_CHUNK_SIZE_BYTES} and {MAX_CHUNK_SIZE_BYTES}",
            chunk_size_bytes=symbols.chunk_size_bytes,
        )
    if symbols.k * symbols.chunk_size_bytes > MAX_COLUMN_SIZE_BYTES:
        raise ManifestMalformed(
            f"columns of {symbols.k} chunks of {symbols.chunk_size_bytes} bytes are more than "
            f"{MAX_COLUMN_SIZE_BYTES} bytes",
            k=symbols.k,
            chunk_size_bytes=symbols.chunk_size_bytes,
        )
    try:
        geometry = Geometry(size_bytes, symbols.k, symbols.m, symbols.chunk_size_bytes)
    except BadSymbolSet as error:
        raise ManifestMalformed(
            f"the manifest describes impossible symbols: {error.message}", **error.facts
        ) from error
    stated = (symbols.symbol_size_bytes, symbols.overhead_percent)
    computed = (geometry.symbol_size_bytes, geometry.overhead_percent)
    if stated != computed:
        raise ManifestMalformed(
            f"symbols of {stated[0]} bytes with {stated[1]} % overhead are not what {size_bytes} "
            f"bytes at k={symbols.k}, m={symbols.m} give: {computed[0]} bytes, {computed[1]} %",
            size_bytes=size_bytes,
            symbol_size_bytes=symbols.symbol_size_bytes,
        )
    return geometry
