"""Small geometries of every shape, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies

from symbols.geometry import Geometry


@strategies.composite
def small_geometries(draw: strategies.DrawFn) -> Geometry:
    k = draw(strategies.integers(1, 6))
    m = draw(strategies.integers(k + 1, k + 4))
    symbol_size_bytes = draw(strategies.integers(1, 100))
    # The last source symbol has between one byte and a full symbol.
    last_bytes = draw(strategies.integers(1, symbol_size_bytes))
    size_bytes = (k - 1) * symbol_size_bytes + last_bytes
    return Geometry(size_bytes, k, m, draw(strategies.integers(1, 40)))
