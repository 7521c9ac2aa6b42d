"""Combinations of blocks: the bytes that zfec gives, by additions and doublings of whole blocks.

A repair block is a sum of source blocks, each multiplied by a constant of GF(2^8), and a lost
source block is such a sum of any others. zfec looks every
product up, one byte at a time. Here the constants are taken apart into bits: the blocks whose
constant has the highest bit are added up, the sum is doubled, those with the next bit are added,
and so on (Horner's rule). Adding is XOR, and doubling a block takes four operations (Anvin, "The
mathematics of RAID-6", 2004), all of them on vectors: half the processor time, the same bytes
(ADR 0015).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FIELD_BITS = 8
SLICE_SIZE_BYTES = 512 << 10
"""So much of each block at a time: less, and threads wait for the interpreter; more, for memory."""

REDUCTION = 0x1D
"""What x^8 is in zfec's field: its polynomial is x^8 + x^4 + x^3 + x^2 + 1."""

Row = tuple[tuple[int, ...], ...]
"""Of one sum: which blocks have each bit in their constant, highest bit first."""

Block = NDArray[np.uint8]


def repair_blocks(k: int, m: int, sources: Sequence[bytes | memoryview]) -> list[Block]:
    """Blocks ``k … m-1`` of a column, from its ``k`` source blocks, all of one length."""
    return _sums(_encoding(k, m), sources)


def lost_blocks(k: int, m: int, blocks: Mapping[int, bytes | memoryview]) -> dict[int, Block]:
    """The source blocks of a column that are not among ``blocks``, any ``k`` of one length."""
    repairs = iter(sorted(number for number in blocks if number >= k))
    # zfec wants each source block at its own index; repair blocks stand in for the lost.
    numbers = tuple(number if number in blocks else next(repairs) for number in range(k))
    lost = [number for number in range(k) if numbers[number] >= k]
    rebuilt = _sums(_decoding(k, m, numbers), [blocks[number] for number in numbers])
    return dict(zip(lost, rebuilt, strict=True))


def _sums(rows: Sequence[Row], blocks: Sequence[bytes | memoryview]) -> list[Block]:
    arrays = [np.frombuffer(block, np.uint8) for block in blocks]
    width_bytes = len(arrays[0])
    totals = [np.zeros(width_bytes, np.uint8) for _ in rows]
    scratch = np.empty(min(width_bytes, SLICE_SIZE_BYTES), np.bool_)
    for start in range(0, width_bytes, SLICE_SIZE_BYTES):
        part = slice(start, start + SLICE_SIZE_BYTES)
        parts = [array[part] for array in arrays]
        for row, total in zip(rows, totals, strict=True):
            _add_up(row, parts, total[part], scratch[: len(parts[0])])
    return totals


def _add_up(row: Row, blocks: Sequence[Block], total: Block, scratch: NDArray[np.bool_]) -> None:
    overflow = scratch.view(np.uint8)
    for bit, numbers in enumerate(row):
        if bit:
            # A byte overflows in the doubling if, as a signed one, it is below zero. numpy has no
            # vector instruction for shifting bytes; comparing and multiplying take a third less.
            np.less(total.view(np.int8), 0, out=scratch)
            np.multiply(overflow, REDUCTION, out=overflow)
            np.add(total, total, out=total)
            np.bitwise_xor(total, overflow, out=total)
        for number in numbers:
            np.bitwise_xor(total, blocks[number], out=total)


@functools.cache
def _encoding(k: int, m: int) -> tuple[Row, ...]:
    """Of the repair blocks, by zfec's own constants: what it makes of the unit vectors."""
    from zfec import Encoder  # noqa: PLC0415 - slow to import, and most commands encode nothing

    repairs: Sequence[bytes] = Encoder(k, m).encode(_units(k), tuple(range(k, m)))
    return tuple(_row(constants) for constants in repairs)


@functools.lru_cache(maxsize=1024)
def _decoding(k: int, m: int, numbers: tuple[int, ...]) -> tuple[Row, ...]:
    """Of the source blocks that are lost where the blocks ``numbers`` are left, likewise."""
    from zfec import Decoder  # noqa: PLC0415

    sources: Sequence[bytes] = Decoder(k, m).decode(_units(k), numbers)
    return tuple(_row(sources[number]) for number in range(k) if numbers[number] >= k)


def _units(k: int) -> tuple[bytes, ...]:
    return tuple(bytes(number == other for other in range(k)) for number in range(k))


def _row(constants: bytes) -> Row:
    return tuple(
        tuple(number for number, constant in enumerate(constants) if constant >> bit & 1)
        for bit in reversed(range(FIELD_BITS))
    )
