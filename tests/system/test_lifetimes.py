"""The life of a home, for some steps; ``make lifetimes`` takes thousands."""

from __future__ import annotations

from controller import clock
from tests.system.lifetimes import run

STEPS = 300


def test_rows_39_47_48_57_whatever_happens_what_can_be_read_is_there() -> None:
    seed = clock.now_ms()
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when this fails
    counts = run(STEPS, seed)
    assert counts["publish"]
    assert counts["converged"]
