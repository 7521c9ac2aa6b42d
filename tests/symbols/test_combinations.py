from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given, settings, strategies
from zfec import Decoder, Encoder

from symbols.combinations import SLICE_SIZE_BYTES, _encoding, lost_blocks, repair_blocks


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


def test_what_sums_have_in_common_is_added_up_once() -> None:
    schedule = _encoding(10, 12)
    additions = sum(len(numbers) for row in schedule.bits for numbers in row)
    assert len(schedule.shared) + additions == 48
    assert sum(len(numbers) for row in _encoding(200, 256).bits for numbers in row) > 10_000
    assert not _encoding(200, 256).shared, "looking for them would take longer than adding them up"


def test_blocks_of_several_slices_go_where_they_are_wanted() -> None:
    length = 2 * SLICE_SIZE_BYTES + 3
    chance = random.Random(7)
    sources = [chance.randbytes(length) for _ in range(3)]
    memory = np.full((2, length + 1), 0xA5, np.uint8)
    assert repair_blocks(3, 5, sources, memory[:, :length]).base is memory
    expected = Encoder(3, 5).encode(tuple(sources), (3, 4))
    assert [bytes(row[:length]) for row in memory] == expected
    assert memory[:, length].tolist() == [0xA5, 0xA5]


def test_threads_do_not_share_what_they_need_between_their_steps() -> None:
    chance = random.Random(8)
    codes = [(10, 12), (3, 9), (20, 24), (2, 4)] * 8
    sources = [[chance.randbytes(70_000 + 7 * k) for _ in range(k)] for k, _ in codes]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(repair_blocks, *zip(*codes, strict=True), sources))
    for (k, m), data, blocks in zip(codes, sources, found, strict=True):
        assert [bytes(row) for row in blocks] == Encoder(k, m).encode(
            tuple(data), tuple(range(k, m))
        )
