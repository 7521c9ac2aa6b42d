from __future__ import annotations

import pytest
from hypothesis import given, strategies

from manifests.errors import BadSymbolSet, ManifestMalformed
from manifests.generation import SymbolSet
from symbols.geometry import Geometry, choose, describe, from_manifest
from tests.symbols.geometries import small_geometries

KIB = 1 << 10
MIB = 1 << 20


@pytest.mark.parametrize(
    ("size_bytes", "k", "m"),
    [
        (1, 1, 2),
        (64 * KIB, 1, 2),
        (64 * KIB + 1, 5, 6),
        (MIB, 5, 6),
        (MIB + 1, 10, 12),
        (4 << 30, 10, 12),
    ],
)
def test_larger_artifacts_get_more_symbols(size_bytes: int, k: int, m: int) -> None:
    geometry = choose(size_bytes)
    assert (geometry.k, geometry.m) == (k, m)


@pytest.mark.parametrize(
    ("store_count", "symbols", "overheads_percent"),
    [
        (1, [2, 6, 12], [100, 20, 20]),
        (2, [2, 10, 20], [100, 100, 100]),
        (3, [2, 8, 15], [100, 60, 50]),
        (4, [2, 7, 14], [100, 40, 40]),
        (5, [2, 7, 13], [100, 40, 30]),
        (6, [2, 6, 12], [100, 20, 20]),
        (64, [2, 6, 12], [100, 20, 20]),
    ],
)
def test_several_stores_cost_the_repair_symbols_that_losing_one_of_them_takes(
    store_count: int, symbols: list[int], overheads_percent: list[int]
) -> None:
    cuts = [choose(size_bytes, store_count) for size_bytes in (1, MIB, MIB + 1)]
    assert [cut.m for cut in cuts] == symbols
    assert [cut.k for cut in cuts] == [1, 5, 10]
    assert [cut.overhead_percent for cut in cuts] == overheads_percent
    assert all((cut.stores_survived(store_count) >= 1) == (store_count > 1) for cut in cuts)


def test_twelve_symbols_over_twelve_stores_survive_the_loss_of_two() -> None:
    cut = choose(MIB + 1, 12)
    assert [cut.stores_survived(count) for count in (1, 2, 3, 5, 6, 11, 12)] == [
        0, 0, 0, 0, 1, 1, 2,
    ]  # fmt: skip


def test_overhead_and_words() -> None:
    large = choose(64 * MIB)
    assert large.overhead_percent == 20
    assert large.survives == "any 2 of 12 symbols"
    assert choose(1).overhead_percent == 100
    assert Geometry(100, 3, 4, 10).overhead_percent == 34
    assert 1.2 < large.stored_size_bytes / large.size_bytes < 1.205


@given(small_geometries())
def test_source_symbols_tile_the_artifact(geometry: Geometry) -> None:
    end = 0
    for number in range(geometry.k):
        offset, length = geometry.source_range(number)
        assert offset == end
        assert length >= 1
        end += length
    assert end == geometry.size_bytes


@given(small_geometries())
def test_chunks_tile_each_symbol_and_hashes_tile_the_table(geometry: Geometry) -> None:
    entry = 0
    for number in range(geometry.m):
        end = 0
        for chunk in range(geometry.chunk_count(number)):
            offset, length = geometry.chunk_range(number, chunk)
            assert offset == end
            assert 1 <= length <= geometry.column_width_bytes(chunk) <= geometry.chunk_size_bytes
            assert geometry.table_offset(number, chunk) == entry
            end += length
            entry += 32
        assert end == geometry.data_size_bytes(number)
        assert geometry.table_range(number).offset == end
    assert entry == geometry.table_size_bytes


@given(small_geometries())
def test_shares_needed_are_fewer_only_beyond_a_short_last_source(geometry: Geometry) -> None:
    for chunk in range(geometry.column_count):
        short = chunk >= geometry.chunk_count(geometry.k - 1)
        assert geometry.shares_needed(chunk) == geometry.k - short


@given(strategies.integers(1, 1 << 40))
def test_every_chosen_cut_survives_the_manifest(size_bytes: int) -> None:
    geometry = choose(size_bytes)
    if geometry.table_size_bytes <= MIB:
        symbols = describe(geometry, bytes(geometry.table_size_bytes))
        assert from_manifest(size_bytes, symbols) == geometry


@pytest.mark.parametrize(
    ("size_bytes", "k", "m", "chunk_size_bytes"),
    [
        (0, 1, 2, 10),
        (10, 1, 2, 0),
        (10, 0, 2, 10),
        (10, 2, 2, 10),
        (1000, 200, 257, 10),
        (4, 5, 6, 10),  # the fifth source symbol would be empty
        (16, 7, 8, 10),  # six symbols of three bytes hold all sixteen
    ],
)
def test_impossible_cuts_are_refused(
    size_bytes: int, k: int, m: int, chunk_size_bytes: int
) -> None:
    with pytest.raises(BadSymbolSet):
        Geometry(size_bytes, k, m, chunk_size_bytes)


def test_symbols_and_chunks_that_do_not_exist_are_refused() -> None:
    geometry = Geometry(100, 3, 5, 10)
    for number in (-1, 5):
        with pytest.raises(BadSymbolSet):
            geometry.data_size_bytes(number)
    for chunk in (-1, 4):
        with pytest.raises(BadSymbolSet):
            geometry.chunk_range(0, chunk)
        with pytest.raises(BadSymbolSet):
            geometry.symbols_with_chunk(chunk)
    with pytest.raises(BadSymbolSet):
        geometry.source_range(3)
    with pytest.raises(BadSymbolSet):
        describe(geometry, b"short")


@pytest.mark.parametrize(
    "change",
    [
        {"symbol_size_bytes": 104857},
        {"chunk_size_bytes": 4095},
        {"chunk_size_bytes": (16 << 20) + 1},
        {"overhead_percent": 19},
        {"k": 11},
        {"m": 13},
    ],
)
def test_a_manifest_with_numbers_that_do_not_fit_is_refused(change: dict[str, int]) -> None:
    geometry = choose(MIB + 1)
    good = describe(geometry, bytes(geometry.table_size_bytes))
    with pytest.raises(ManifestMalformed):
        from_manifest(MIB + 1, SymbolSet(**{**good.model_dump(), **change}))


def test_a_manifest_with_empty_source_symbols_is_refused() -> None:
    geometry = choose(MIB + 1)
    good = describe(geometry, bytes(geometry.table_size_bytes))
    with pytest.raises(ManifestMalformed, match="do not fill"):
        from_manifest(4, good)
