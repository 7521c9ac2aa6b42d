from __future__ import annotations

import random

from hypothesis import given, settings, strategies
from zfec import Decoder, Encoder

from symbols.combinations import lost_blocks, repair_blocks


@given(strategies.integers(1, 40), strategies.integers(1, 12), strategies.integers(1, 300))
@settings(deadline=None)
def test_repair_blocks_are_the_ones_that_zfec_gives(k: int, repairs: int, length: int) -> None:
    chance = random.Random(k * 1_000_003 + repairs * 1_009 + length)
    sources = [chance.randbytes(length) for _ in range(k)]
    numbers = tuple(range(k, k + repairs))
    expected = Encoder(k, k + repairs).encode(tuple(sources), numbers)
    assert [bytes(block) for block in repair_blocks(k, k + repairs, sources)] == expected


def test_the_largest_code_is_zfecs() -> None:
    chance = random.Random(256)
    sources = [chance.randbytes(64) for _ in range(200)]
    expected = Encoder(200, 256).encode(tuple(sources), tuple(range(200, 256)))
    assert [bytes(block) for block in repair_blocks(200, 256, sources)] == expected


def test_every_byte_value_is_multiplied_as_zfec_does() -> None:
    sources = [bytes(range(256)), bytes(reversed(range(256))), bytes(256)]
    expected = Encoder(3, 5).encode(tuple(sources), (3, 4))
    assert [bytes(block) for block in repair_blocks(3, 5, sources)] == expected


def test_sources_may_be_views_and_are_left_as_they_were() -> None:
    data = bytes(range(200))
    view = memoryview(data)
    sources = [view[3:60], view[60:117]]
    repair_blocks(2, 4, sources)
    assert [bytes(source) for source in sources] == [data[3:60], data[60:117]]


@given(strategies.integers(1, 30), strategies.integers(1, 8), strategies.integers(1, 300))
@settings(deadline=None)
def test_lost_blocks_are_the_ones_that_zfec_gives(k: int, repairs: int, length: int) -> None:
    chance = random.Random(k * 1_000_003 + repairs * 1_009 + length)
    sources = [chance.randbytes(length) for _ in range(k)]
    m = k + repairs
    blocks = dict(enumerate(Encoder(k, m).encode(tuple(sources), tuple(range(m)))))
    left = sorted(chance.sample(range(m), k))
    lost = {number: sources[number] for number in range(k) if number not in left}
    rebuilt = lost_blocks(k, m, {number: blocks[number] for number in left})
    assert {number: bytes(block) for number, block in rebuilt.items()} == lost
    spare = iter(number for number in left if number >= k)
    numbers = tuple(number if number in left else next(spare) for number in range(k))
    decoded = Decoder(k, m).decode(tuple(blocks[number] for number in numbers), numbers)
    assert [bytes(block) for block in decoded] == sources
