"""Rebuilding a chunk of some symbols from the same chunk of others.

zfec answers a bad share set with wrong bytes, or (for a repeated share number) never answers. So
nothing reaches it before the set was checked: numbers in range and distinct, lengths exact, every
share equal to its hash in the table. The result is checked against the table as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from manifests.errors import BadSymbolSet
from symbols.geometry import Geometry
from symbols.table import check_chunk


def rebuild_chunks(
    geometry: Geometry,
    table: bytes,
    wanted: AbstractSet[int],
    chunk: int,
    shares: Mapping[int, bytes | memoryview],
) -> dict[int, memoryview]:
    """Chunk ``chunk`` of the symbols ``wanted``, source or repair, computed from ``shares``.

    ``shares`` maps symbol numbers to their chunk ``chunk``, exactly
    ``geometry.shares_needed(chunk)`` of them, none of those ``wanted``. ``table`` was compared
    with the manifest before (:func:`symbols.table.check_table`).

    Raises:
        BadSymbolSet: a share is missing, surplus, out of range, of the wrong length or not what the
            table says; or there is no such chunk; or a result is not what the table says.
    """
    lengths = {number: geometry.chunk_range(number, chunk).length for number in wanted}
    _check_shares(geometry, table, wanted, chunk, shares)
    blocks = _padded(geometry, chunk, shares)
    sources = _decode_sources(geometry, blocks)
    repairs = [number for number in wanted if not geometry.is_source(number)]
    rebuilt = {number: sources[number] for number in wanted if geometry.is_source(number)}
    rebuilt |= zip(repairs, _encode(geometry, sources, repairs), strict=True)
    results = {}
    for number, block in rebuilt.items():
        results[number] = memoryview(block)[: lengths[number]]
        if not check_chunk(geometry, table, number, chunk, results[number]):
            raise BadSymbolSet(
                f"chunk {chunk} of symbol {number} was rebuilt wrongly from good shares "
                f"{sorted(shares)}: the symbols were not encoded from one artifact",
                symbol=number,
                chunk=chunk,
            )
    return results


def _check_shares(
    geometry: Geometry,
    table: bytes,
    wanted: AbstractSet[int],
    chunk: int,
    shares: Mapping[int, bytes | memoryview],
) -> None:
    needed = geometry.shares_needed(chunk)
    if len(shares) != needed:
        raise BadSymbolSet(
            f"chunk {chunk} takes exactly {needed} shares to rebuild; {len(shares)} were given",
            chunk=chunk,
            needed=needed,
            given=len(shares),
        )
    if wanted & shares.keys():
        raise BadSymbolSet(
            f"symbols {sorted(wanted & shares.keys())} are among the shares they are to be rebuilt "
            "from"
        )
    for number, data in shares.items():
        if not check_chunk(geometry, table, number, chunk, data):
            raise BadSymbolSet(
                f"the share of symbol {number} is not its chunk {chunk}: {len(data)} bytes with "
                "another hash or length than the table gives",
                symbol=number,
                chunk=chunk,
            )


def _padded(
    geometry: Geometry, chunk: int, shares: Mapping[int, bytes | memoryview]
) -> dict[int, bytes | memoryview]:
    """The shares at the column's full width, with the one that is known to be zeros."""
    width_bytes = geometry.column_width_bytes(chunk)
    blocks: dict[int, bytes | memoryview] = {
        number: data if len(data) == width_bytes else bytes(data).ljust(width_bytes, b"\0")
        for number, data in shares.items()
    }
    if chunk >= geometry.chunk_count(geometry.k - 1):
        blocks[geometry.k - 1] = bytes(width_bytes)
    return blocks


def _decode_sources(
    geometry: Geometry, blocks: Mapping[int, bytes | memoryview]
) -> Sequence[bytes | memoryview]:
    """The ``k`` source blocks of a column, from any ``k`` of its blocks."""
    from zfec import Decoder  # noqa: PLC0415 - slow to import, and a healthy fetch decodes nothing

    repairs = sorted(number for number in blocks if not geometry.is_source(number))
    # The decoder wants each source block at its own index; repair blocks stand in for the lost.
    spare = iter(repairs)
    numbers = tuple(number if number in blocks else next(spare) for number in range(geometry.k))
    decoded: Sequence[bytes | memoryview] = Decoder(geometry.k, geometry.m).decode(
        tuple(blocks[number] for number in numbers), numbers
    )
    return decoded


def _encode(
    geometry: Geometry, sources: Sequence[bytes | memoryview], numbers: Sequence[int]
) -> Sequence[bytes]:
    """Repair blocks of a column from its ``k`` source blocks."""
    from zfec import Encoder  # noqa: PLC0415

    if not numbers:
        return ()
    blocks: Sequence[bytes] = Encoder(geometry.k, geometry.m).encode(tuple(sources), tuple(numbers))
    return blocks
