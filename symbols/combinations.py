"""Combinations of blocks: the bytes that zfec gives, by additions and doublings of whole blocks.

A repair block is a sum of source blocks, each multiplied by a constant of GF(2^8), and a lost
source block is such a sum of any others. zfec looks every product up, one byte at a time. Here the
constants are taken apart into bits: the blocks whose constant has the highest bit are added up, the
sum is doubled, those with the next bit are added, and so on (Horner's rule). Adding is XOR, and
doubling a block takes four operations (Anvin, "The mathematics of RAID-6", 2004), all of them on
vectors. What several sums have in common is added up once (Paar, "Optimized arithmetic for
Reed-Solomon encoders", 1997): with k=10, m=12 that leaves 48 additions of 72. Half the processor
time, the same bytes (ADR 0015).
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FIELD_BITS = 8
SLICE_SIZE_BYTES = 352 << 10
"""So much of each block at a time, a third of a chunk: with less, threads wait for the interpreter,
with more for memory."""

REDUCTION = 0x1D
"""What x^8 is in zfec's field: its polynomial is x^8 + x^4 + x^3 + x^2 + 1."""

MAX_SHARED = 32
"""Each takes a slice of memory in each thread."""

MAX_SEARCH = 10_000
"""Pairs of blocks in all sums of a code in which those in common are looked for; past it, it would
take longer to look for them than to add them up."""

Block = NDArray[np.uint8]


class Schedule(NamedTuple):
    """How some sums of ``k`` blocks are made.

    ``shared[i]`` are two blocks whose sum becomes block ``k + i``. ``bits[b][row]`` are the blocks
    to add to the sum ``row`` at bit ``b``, the highest first.
    """

    shared: tuple[tuple[int, int], ...]
    bits: tuple[tuple[tuple[int, ...], ...], ...]


def repair_blocks(
    k: int, m: int, sources: Sequence[bytes | memoryview], out: Block | None = None
) -> Block:
    """Blocks ``k … m-1`` of a column, one a row, from its ``k`` source blocks, all of one length.

    They are put into ``out``, if it is given, of shape ``(m - k, length)``.
    """
    return _sums(_encoding(k, m), sources, m - k, out)


def lost_blocks(k: int, m: int, blocks: Mapping[int, bytes | memoryview]) -> dict[int, Block]:
    """The source blocks of a column that are not among ``blocks``, any ``k`` of one length."""
    repairs = iter(sorted(number for number in blocks if number >= k))
    # zfec wants each source block at its own index; repair blocks stand in for the lost.
    numbers = tuple(number if number in blocks else next(repairs) for number in range(k))
    lost = [number for number in range(k) if numbers[number] >= k]
    rebuilt = _sums(_decoding(k, m, numbers), [blocks[number] for number in numbers], len(lost))
    return dict(zip(lost, rebuilt, strict=True))


def _sums(
    schedule: Schedule,
    blocks: Sequence[bytes | memoryview],
    count: int,
    out: Block | None = None,
) -> Block:
    arrays = [np.frombuffer(block, np.uint8) for block in blocks]
    totals = np.empty((count, len(arrays[0])), np.uint8) if out is None else out
    for start in range(0, len(arrays[0]), SLICE_SIZE_BYTES):
        part = slice(start, start + SLICE_SIZE_BYTES)
        _add_up(schedule, [array[part] for array in arrays], totals[:, part])
    return totals


def _add_up(schedule: Schedule, blocks: list[Block], totals: Block) -> None:
    # Results are given by position, which numpy makes out a little sooner than `out=`; meanwhile
    # this thread keeps the others from the interpreter.
    xor = np.bitwise_xor
    count, width_bytes = totals.shape
    scratch = _scratch(count + len(schedule.shared), width_bytes)
    for (one, other), made in zip(schedule.shared, scratch[count:], strict=True):
        blocks.append(xor(blocks[one], blocks[other], made))
    signed, overflow = totals.view(np.int8), scratch[:count]
    overflows = overflow.view(np.bool_)
    rows = list(totals)
    highest, *others = schedule.bits
    for numbers, row in zip(highest, rows, strict=True):
        if len(numbers) < 2:
            np.copyto(row, blocks[numbers[0]] if numbers else 0)
            continue
        xor(blocks[numbers[0]], blocks[numbers[1]], row)
        for number in numbers[2:]:
            xor(row, blocks[number], row)
    for sums in others:
        # A byte overflows in the doubling if, as a signed one, it is below zero. numpy has no
        # vector instruction for shifting bytes; comparing and multiplying take a third less.
        np.less(signed, 0, overflows)
        np.multiply(overflow, REDUCTION, overflow)
        np.add(totals, totals, totals)
        xor(totals, overflow, totals)
        for numbers, row in zip(sums, rows, strict=True):
            for number in numbers:
                xor(row, blocks[number], row)


class _Scratch(threading.local):
    memory: Block = np.empty(0, np.uint8)


_SCRATCH = _Scratch()


def _scratch(rows: int, width_bytes: int) -> Block:
    """Memory of this thread, with anything in it, for as long as the thread lives.

    New memory for each slice would cost a third of the time.
    """
    size_bytes = rows * width_bytes
    if len(_SCRATCH.memory) < size_bytes:
        _SCRATCH.memory = np.empty(size_bytes, np.uint8)
    return _SCRATCH.memory[:size_bytes].reshape(rows, width_bytes)


@functools.cache
def _encoding(k: int, m: int) -> Schedule:
    """Of the repair blocks, by zfec's own constants: what it makes of the unit vectors."""
    from zfec import Encoder  # noqa: PLC0415 - slow to import, and most commands encode nothing

    repairs: Sequence[bytes] = Encoder(k, m).encode(_units(k), tuple(range(k, m)))
    return _schedule(k, repairs)


@functools.lru_cache(maxsize=1024)
def _decoding(k: int, m: int, numbers: tuple[int, ...]) -> Schedule:
    """Of the source blocks that are lost where the blocks ``numbers`` are left, likewise."""
    from zfec import Decoder  # noqa: PLC0415

    sources: Sequence[bytes] = Decoder(k, m).decode(_units(k), numbers)
    return _schedule(k, [sources[number] for number in range(k) if numbers[number] >= k])


def _units(k: int) -> tuple[bytes, ...]:
    return tuple(bytes(number == other for other in range(k)) for number in range(k))


def _schedule(k: int, rows: Sequence[bytes]) -> Schedule:
    """For sums of ``k`` blocks, each multiplied by its constant in the row."""
    bits = [
        [{number for number, constant in enumerate(row) if constant >> bit & 1} for row in rows]
        for bit in reversed(range(FIELD_BITS))
    ]
    sums = [numbers for of_bit in bits for numbers in of_bit]
    shared: list[tuple[int, int]] = []
    if sum(len(numbers) ** 2 for numbers in sums) // 2 <= MAX_SEARCH:
        while len(shared) < MAX_SHARED and (pair := _most_shared(sums)):
            for numbers in sums:
                if numbers.issuperset(pair):
                    numbers.difference_update(pair)
                    numbers.add(k + len(shared))
            shared.append(pair)
    return Schedule(
        tuple(shared), tuple(tuple(tuple(sorted(row)) for row in of_bit) for of_bit in bits)
    )


def _most_shared(sums: Sequence[set[int]]) -> tuple[int, int] | None:
    """The two blocks that most sums have in common; ``None``: no two sums share two."""
    counts = Counter(pair for numbers in sums for pair in combinations(sorted(numbers), 2))
    if not counts:
        return None
    times, pair = max((times, pair) for pair, times in counts.items())
    return pair if times > 1 else None
