"""Tombstones: the rows that later commits replaced or deleted.

A file is ascending little-endian uint64. A generation's dead rows are the union of its files; they
are disjoint, because a row dies once. A merge drops dead rows from the other artifacts, and a build
that puts it in place writes the files that named them again without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from durable.files import translated


def tombstone_bytes(rows: Iterable[int]) -> bytes:
    """The file content for these rows (distinct, any order)."""
    return np.array(sorted(rows), dtype="<u8").tobytes()


def read_tombstones(paths: Sequence[Path]) -> NDArray[np.uint64]:
    """The union of verified tombstone files, ascending, shape ``(dead rows,)``."""
    if not paths:
        return np.empty(0, dtype=np.uint64)
    with translated(paths[0].parent):
        return np.sort(np.concatenate([np.fromfile(path, dtype="<u8") for path in paths]))


def are_dead(tombstones: NDArray[np.uint64], rows: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of ``rows`` are among the ascending ``tombstones`` (not empty); the shape of rows."""
    places = np.searchsorted(tombstones, rows)
    places[places == len(tombstones)] = 0
    dead: NDArray[np.bool_] = tombstones[places] == rows
    return dead
