"""What every benchmark shares: pairs of timings, a table for people, a JSON line for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from controller.terminal import say, table

Columns = Sequence[tuple[str, str]]


class Disagreement(Exception):
    """Both sides of a comparison must do the same work; they did not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a benchmark came to. ``figures`` holds plain numbers, named with their units.

    ``holds`` is ``None`` if nothing was measured, since something that may be absent is.
    """

    bench: str
    figures: dict[str, Any]
    holds: bool | None


@dataclass(slots=True)
class Pairs:
    """Seconds of the same work done twice, by ours and by the other side, pair by pair.

    The two of a pair run right after one another, so that what else the machine does at that moment
    slows both; the ratio is the median of the pairs' ratios, not the ratio of two medians.
    """

    ours_s: list[float] = field(default_factory=list)
    other_s: list[float] = field(default_factory=list)

    @property
    def ours_median_s(self) -> float:
        return median(self.ours_s)

    @property
    def other_median_s(self) -> float:
        return median(self.other_s)

    @property
    def ratios(self) -> list[float]:
        return [ours / other for ours, other in zip(self.ours_s, self.other_s, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the ratios lies between these."""
        low, _, high = quantiles(self.ratios, n=4, method="inclusive")
        return low, high

    @property
    def difference_s(self) -> float:
        """How much longer ours takes: the median over the pairs."""
        return median(a - b for a, b in zip(self.ours_s, self.other_s, strict=True))


def seconds(action: Callable[[], object]) -> float:
    """How long ``action`` takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def run_pairs(
    count: int,
    ours: Callable[[int], float],
    other: Callable[[int], float],
    *,
    warm: bool = False,
) -> Pairs:
    """Time ``count`` pairs; each side is told the number of the pair. Who goes first alternates.

    With ``warm``, the side that goes second first runs once unmeasured: then both find what the
    same work by the other side has left in the processor's caches.
    """
    pairs = Pairs()
    for number in range(count):
        if number % 2:
            if warm:
                ours(number)
            pairs.other_s.append(other(number))
            pairs.ours_s.append(ours(number))
        else:
            if warm:
                other(number)
            pairs.ours_s.append(ours(number))
            pairs.other_s.append(other(number))
    return pairs


def show(title: str, columns: Columns, rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """Print a table for people, and what must be known to read it."""
    say(title)
    table(columns, rows)
    for note in notes:
        say(f"  {note}")


def finish(outcome: Outcome) -> int:
    """Print the line for programs; returns the exit code."""
    say(json.dumps({"bench": outcome.bench, "figures": outcome.figures, "holds": outcome.holds}))
    return 1 if outcome.holds is False else 0
