from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, strategies

from manifests.errors import BadSymbolSet
from symbols.decode import rebuild_chunks
from symbols.encode import Encoded
from symbols.geometry import Geometry, choose
from tests.symbols.geometries import small_geometries
from tests.symbols.samples import chunks_of, encoded_artifact, reference_symbols, reference_table

TEN_OF_TWELVE = Geometry(997, 10, 12, 40)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """10 + 2 symbols of 100 bytes (the tenth 97) in chunks of 40, 40 and 20 (17) bytes."""
    return encoded_artifact(tmp_path_factory.mktemp("encoded"), TEN_OF_TWELVE)


def good_shares(encoded: Encoded, chunk: int, *lost: int) -> dict[int, bytes]:
    column = chunks_of(encoded, chunk)
    survivors = [number for number in column if number not in lost]
    needed = encoded.geometry.shares_needed(chunk)
    return {number: column[number] for number in survivors[:needed]}


def rebuild(
    geometry: Geometry, table: bytes, number: int, chunk: int, shares: Mapping[int, bytes]
) -> bytes:
    """One chunk, as bytes."""
    return bytes(rebuild_chunks(geometry, table, {number}, chunk, shares)[number])


def test_every_loss_of_two_symbols_is_rebuilt(encoded: Encoded) -> None:
    patterns = list(combinations(range(12), 2))
    assert len(patterns) == 66
    for lost in patterns:
        for chunk in range(3):
            column = chunks_of(encoded, chunk)
            shares = {number: data for number, data in column.items() if number not in lost}
            rebuilt = rebuild_chunks(TEN_OF_TWELVE, encoded.table, set(lost), chunk, shares)
            assert rebuilt == {number: column[number] for number in lost}
            for number in lost:
                one = rebuild(TEN_OF_TWELVE, encoded.table, number, chunk, shares)
                assert one == column[number]


def test_every_loss_of_three_symbols_is_refused(encoded: Encoded) -> None:
    column = chunks_of(encoded, 1)
    patterns = list(combinations(range(12), 3))
    assert len(patterns) == 220
    for lost in patterns:
        shares = {number: data for number, data in column.items() if number not in lost}
        with pytest.raises(BadSymbolSet, match="exactly 10 shares"):
            rebuild(TEN_OF_TWELVE, encoded.table, lost[0], 1, shares)


@pytest.mark.parametrize(
    "size_bytes",
    [1, 64 << 10, (64 << 10) + 1, 1 << 20, (1 << 20) + 1, (10 << 20) - 1, (10 << 20) + 1],
)
def test_artifacts_of_odd_sizes_are_rebuilt(tmp_path: Path, size_bytes: int) -> None:
    geometry = choose(size_bytes)
    encoded = encoded_artifact(tmp_path, geometry)
    for chunk in range(geometry.column_count):
        column = chunks_of(encoded, chunk)
        for number in {0, geometry.k - 1, geometry.k, geometry.m - 1} & set(column):
            shares = good_shares(encoded, chunk, number)
            assert rebuild(geometry, encoded.table, number, chunk, shares) == column[number]


@given(small_geometries(), strategies.data())
def test_any_sufficient_shares_rebuild_any_chunk(
    tmp_path_factory: pytest.TempPathFactory, geometry: Geometry, data: strategies.DataObject
) -> None:
    encoded = encoded_artifact(tmp_path_factory.mktemp("small"), geometry)
    chunk = data.draw(strategies.integers(0, geometry.column_count - 1))
    column = chunks_of(encoded, chunk)
    wanted, *survivors = data.draw(strategies.permutations(sorted(column)))
    shares = {number: column[number] for number in survivors[: geometry.shares_needed(chunk)]}
    assert rebuild(geometry, encoded.table, wanted, chunk, shares) == column[wanted]


def test_beyond_a_short_last_source_its_share_is_known(tmp_path: Path) -> None:
    # Three source symbols of 34, 34 and 32 bytes: the last has no third chunk.
    geometry = Geometry(100, 3, 5, 16)
    encoded = encoded_artifact(tmp_path, geometry)
    column = chunks_of(encoded, 2)
    assert sorted(column) == [0, 1, 3, 4]
    assert geometry.shares_needed(2) == 2
    for wanted in column:
        for pair in combinations(sorted(set(column) - {wanted}), 2):
            shares = {number: column[number] for number in pair}
            assert rebuild(geometry, encoded.table, wanted, 2, shares) == column[wanted]
    with pytest.raises(BadSymbolSet):
        rebuild(geometry, encoded.table, 2, 2, {0: column[0], 1: column[1]})
    with pytest.raises(BadSymbolSet):
        rebuild(geometry, encoded.table, 0, 2, {2: bytes(2), 1: column[1]})


@pytest.mark.parametrize("damaged", [1, 9, 10])
def test_a_bad_share_is_refused_before_the_decode(encoded: Encoded, damaged: int) -> None:
    shares = good_shares(encoded, 0, 0)
    good = shares[damaged]
    other = next(number for number in shares if number != damaged)
    for bad in (good[:-1], good + b"\0", b"", bytes([good[0] ^ 1]) + good[1:], shares[other]):
        with pytest.raises(BadSymbolSet, match=f"share of symbol {damaged}"):
            rebuild(TEN_OF_TWELVE, encoded.table, 0, 0, {**shares, damaged: bad})


def test_swapped_shares_are_refused(encoded: Encoded) -> None:
    shares = good_shares(encoded, 0, 0)
    shares[3], shares[10] = shares[10], shares[3]
    with pytest.raises(BadSymbolSet):
        rebuild(TEN_OF_TWELVE, encoded.table, 0, 0, shares)


def test_a_chunk_of_another_column_is_refused(encoded: Encoded) -> None:
    shares = {**good_shares(encoded, 0, 0), 4: chunks_of(encoded, 1)[4]}
    with pytest.raises(BadSymbolSet):
        rebuild(TEN_OF_TWELVE, encoded.table, 0, 0, shares)


@pytest.mark.parametrize("number", [-1, 12, 255, 256])
def test_an_out_of_range_share_is_refused(encoded: Encoded, number: int) -> None:
    shares = good_shares(encoded, 0, 0)
    shares[number] = shares.pop(10)
    with pytest.raises(BadSymbolSet):
        rebuild(TEN_OF_TWELVE, encoded.table, 0, 0, shares)


def test_too_many_shares_or_the_wanted_one_are_refused(encoded: Encoded) -> None:
    column = chunks_of(encoded, 0)
    with pytest.raises(BadSymbolSet, match="exactly 10"):
        rebuild(TEN_OF_TWELVE, encoded.table, 0, 0, {n: column[n] for n in range(1, 12)})
    with pytest.raises(BadSymbolSet, match="among the shares"):
        rebuild(TEN_OF_TWELVE, encoded.table, 0, 0, {n: column[n] for n in range(10)})


@pytest.mark.parametrize(("number", "chunk"), [(12, 0), (-1, 0), (0, 3), (0, -1)])
def test_a_chunk_that_does_not_exist_is_refused(encoded: Encoded, number: int, chunk: int) -> None:
    with pytest.raises(BadSymbolSet):
        rebuild(TEN_OF_TWELVE, encoded.table, number, chunk, good_shares(encoded, 0, 0))


def test_symbols_of_two_artifacts_under_one_table_are_refused_after_the_decode() -> None:
    """A writer's fault that no share shows: each is what the table says, but they do not fit."""
    geometry = Geometry(20, 2, 3, 10)
    symbols = reference_symbols(b"a" * 10 + b"b" * 10, geometry)
    symbols[2] = reference_symbols(b"c" * 20, geometry)[2]
    table = reference_table(symbols, geometry.chunk_size_bytes)
    with pytest.raises(BadSymbolSet, match="rebuilt wrongly"):
        rebuild(geometry, table, 0, 0, {1: symbols[1], 2: symbols[2]})
