"""Repair blocks: the bytes that zfec gives, by additions and doublings of whole blocks.

A repair block is a sum of source blocks, each multiplied by a constant of GF(2^8). zfec looks every
product up, one byte at a time. Here the constants are taken apart into bits: the blocks whose
constant has the highest bit are added up, the sum is doubled, those with the next bit are added,
and so on (Horner's rule). Adding is XOR, and doubling a block takes four operations (Anvin, "The
mathematics of RAID-6", 2004), all of them on vectors: half the processor time, the same bytes
(ADR 0015).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FIELD_BITS = 8
REDUCTION = 0x1D
"""What x^8 is in zfec's field: its polynomial is x^8 + x^4 + x^3 + x^2 + 1."""

Row = tuple[tuple[int, ...], ...]
"""Of one repair block: which source blocks have each bit in their constant, highest bit first."""


def repair_blocks(k: int, m: int, sources: Sequence[bytes | memoryview]) -> list[NDArray[np.uint8]]:
    """Blocks ``k … m-1`` of a column, from its ``k`` source blocks, all of one length."""
    arrays = [np.frombuffer(source, np.uint8) for source in sources]
    scratch = np.empty(len(arrays[0]), np.int8)
    return [_sum(row, arrays, scratch) for row in _rows(k, m)]


def _sum(
    row: Row, sources: Sequence[NDArray[np.uint8]], scratch: NDArray[np.int8]
) -> NDArray[np.uint8]:
    total = np.zeros(len(scratch), np.uint8)
    for bit, numbers in enumerate(row):
        if bit:
            # The arithmetic shift leaves ones in every byte that the doubling overflows.
            np.right_shift(total.view(np.int8), FIELD_BITS - 1, out=scratch)
            np.bitwise_and(scratch, REDUCTION, out=scratch)
            np.add(total, total, out=total)
            np.bitwise_xor(total, scratch.view(np.uint8), out=total)
        for number in numbers:
            np.bitwise_xor(total, sources[number], out=total)
    return total


@functools.cache
def _rows(k: int, m: int) -> tuple[Row, ...]:
    """Zfec's own constants: what it makes of the unit vectors."""
    from zfec import Encoder  # noqa: PLC0415 - slow to import, and most commands encode nothing

    units = tuple(bytes(number == other for other in range(k)) for number in range(k))
    repairs: Sequence[bytes] = Encoder(k, m).encode(units, tuple(range(k, m)))
    return tuple(
        tuple(
            tuple(number for number in range(k) if constants[number] >> bit & 1)
            for bit in reversed(range(FIELD_BITS))
        )
        for constants in repairs
    )
