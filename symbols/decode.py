"""Rebuilding a chunk of some symbols from the same chunk of others.

A bad share set gives wrong bytes, and zfec, given a repeated share number, never answers. So
nothing is decoded before the set was checked: numbers in range and distinct, lengths exact, every
share equal to its hash in the table. The result is checked against the table as well.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    results = {}
    for number, block in _rebuilt(geometry, _padded(geometry, chunk, shares), wanted).items():
        results[number] = block[: lengths[number]]
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


def _rebuilt(
    geometry: Geometry, blocks: Mapping[int, bytes | memoryview], wanted: AbstractSet[int]
) -> dict[int, memoryview]:
    """The ``wanted`` blocks of a column, from any ``k`` of its blocks."""
    # numpy is slow to import, and a healthy fetch rebuilds nothing.
    from symbols.combinations import lost_blocks, repair_blocks  # noqa: PLC0415

    k, m = geometry.k, geometry.m
    known: dict[int, bytes | memoryview] = {**blocks}
    known |= {number: block.data for number, block in lost_blocks(k, m, blocks).items()}
    if any(not geometry.is_source(number) for number in wanted):
        repairs = repair_blocks(k, m, [known[number] for number in range(k)])
        known |= {k + index: block.data for index, block in enumerate(repairs)}
    return {number: memoryview(known[number]) for number in wanted}
