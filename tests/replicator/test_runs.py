from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

from hypothesis import given, strategies

from replicator import runs
from replicator.runs import runs_of, source_runs
from symbols.geometry import Geometry
from tests.symbols.geometries import small_geometries

LIMITS = strategies.integers(1, 120)


@given(small_geometries(), LIMITS)
def test_source_runs_are_every_byte_once_and_in_order(geometry: Geometry, limit: int) -> None:
    with patch.object(runs, "RUN_SIZE_BYTES", limit):
        found = list(source_runs(geometry))
    end = 0
    for run in found:
        offset, length = run.in_artifact
        assert offset == end
        assert length == run.in_symbol.length > 0
        assert length <= max(limit, geometry.chunk_size_bytes)
        end += length
    assert end == geometry.size_bytes


@given(small_geometries(), LIMITS, strategies.data())
def test_runs_are_the_fewest_that_hold_the_chunks_and_of_like_size(
    geometry: Geometry, limit: int, data: strategies.DataObject
) -> None:
    number = data.draw(strategies.integers(0, geometry.m - 1))
    chosen = data.draw(strategies.sets(strategies.integers(0, geometry.chunk_count(number) - 1)))
    most = max(1, limit // geometry.chunk_size_bytes)
    with patch.object(runs, "RUN_SIZE_BYTES", limit):
        found = list(runs_of(geometry, number, sorted(chosen)))
    assert [chunk for run in found for chunk in run.chunks] == sorted(chosen)
    assert all(run.count <= most for run in found)
    stretches: list[list[int]] = []
    for before, run in zip([None, *found], found, strict=False):
        if before is None or before.first + before.count < run.first:
            stretches.append([])
        stretches[-1].append(run.count)
    for counts in stretches:
        assert len(counts) == -(-sum(counts) // most)
        assert max(counts) - min(counts) <= 1


@given(small_geometries(), strategies.data())
def test_parts_and_chunks_of_a_run_stand_where_they_stood_in_it(
    geometry: Geometry, data: strategies.DataObject
) -> None:
    number = data.draw(strategies.integers(0, geometry.m - 1))
    (run,) = runs_of(geometry, number, range(geometry.chunk_count(number)))
    for chunk in run.chunks:
        offset, length = run.within(chunk)
        assert (run.in_symbol.offset + offset, length) == geometry.chunk_range(number, chunk)
    chosen = data.draw(strategies.sets(strategies.sampled_from(list(run.chunks))))
    parts = run.parts(chosen)
    assert [chunk for part in parts for chunk in part.chunks] == sorted(chosen)
    for before, after in pairwise(parts):
        assert before.first + before.count < after.first
    for part in parts:
        assert part.in_symbol.offset == geometry.chunk_range(number, part.first).offset
        lengths = [geometry.chunk_range(number, chunk).length for chunk in part.chunks]
        assert part.in_symbol.length == sum(lengths)
        if geometry.is_source(number):
            assert part.in_artifact.offset == geometry.chunk_source_range(number, part.first).offset
