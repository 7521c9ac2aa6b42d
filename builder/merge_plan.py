"""Which parts of a generation are to be merged, and why: the rules, without any file (pure).

A generation's rows are kept in *parts*, one a build or merge: a vector shard and a head table over
the same rows. Its text is kept in segments, parts of their own. Parts stand in the order of their
age. Every part costs each search and each manifest something, so there may be only so many; every
merge writes anew what it reads, so there should be few merges.

The rule is lazy and size-tiered: nothing is merged for its number before there are too many; then
the newest parts are, back to the first one that is more than ``size_ratio`` times as large as the
largest after it. That is the binomial merge policy (Mathieu, Staelin, Young and Yousefi, "Bigtable
Merge Compaction", 2014) with sizes in the place of its counters: with at most 12 parts, what a
build writes is written again two or three times in its first 200 successors (ADR 0020).

Besides, a part of which too many documents are dead is written again without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

NEW_PARTS = 2
"""So many parts of a kind does one build add at most."""

Reason = Literal["too many parts", "dead documents"]


@dataclass(frozen=True, slots=True)
class Part:
    """Artifacts that can be merged with their neighbours only as one.

    Attributes:
        name: what it is, for people.
        live: how many documents it holds that are live.
        dead: how many that are not.
        size_bytes: all of its artifacts.
        shards: how many vector shards, or segments, it counts for.
    """

    name: str
    live: int
    dead: int
    size_bytes: int
    shards: int

    @property
    def live_bytes(self) -> int:
        """About what is left of it without its dead."""
        return self.size_bytes * self.live // max(1, self.live + self.dead)


@dataclass(frozen=True, slots=True)
class MergePolicy:
    """When to merge, and how much at a time.

    Attributes:
        shards: how many vector shards a generation has at most, and how many text segments.
        size_ratio: a run of merged parts ends before one that is more than so many times as large.
        dead_documents_percent: a part with a larger share of dead documents is written again.
        compact_max_bytes: what one compaction reads at most.
        build_max_bytes: what merges within one build read at most; two parts are always merged
            where there would otherwise be more than ``shards``.
    """

    shards: int
    size_ratio: int
    dead_documents_percent: int
    compact_max_bytes: int
    build_max_bytes: int


DEFAULT_POLICY = MergePolicy(
    shards=12,
    size_ratio=2,
    dead_documents_percent=50,
    compact_max_bytes=1 << 30,
    build_max_bytes=64 << 20,
)

P = TypeVar("P", bound=Part)


@dataclass(frozen=True, slots=True)
class Merge(Generic[P]):
    """Neighbouring parts that become one, or none if nothing in them is live."""

    parts: tuple[P, ...]
    reason: Reason

    @property
    def read_bytes(self) -> int:
        """What the merge reads: its parts, or nothing if nothing in them is live."""
        return sum(part.size_bytes for part in self.parts) if self.live else 0

    @property
    def written_bytes(self) -> int:
        """About what it writes."""
        return sum(part.live_bytes for part in self.parts)

    @property
    def live(self) -> int:
        """How many documents it writes."""
        return sum(part.live for part in self.parts)

    @property
    def dead(self) -> int:
        """How many documents it drops."""
        return sum(part.dead for part in self.parts)


def plan_merges(
    parts: Sequence[P], policy: MergePolicy, *, most: int, max_bytes: int, must: bool
) -> list[Merge[P]]:
    """The merges that are due, in the order of their parts; no part is in two of them.

    Args:
        parts: oldest first.
        policy: the rules.
        most: how many shards there may be.
        max_bytes: what all merges together may read.
        must: whether ``most`` counts more than ``max_bytes``; what is read beyond that is then
            the least with which it can be kept.
    """
    merges: list[Merge[P]] = []
    excess = sum(part.shards for part in parts) - most
    if excess > 0:
        run = _newest_run(parts, policy.size_ratio, excess)
        if _size_bytes(run) > max_bytes:
            run = _cheapest_run(parts, excess, max_bytes, must=must)
        if len(run) > 1 or sum(part.shards for part in run) > 1:
            merges.append(Merge(tuple(run), "too many parts"))
    left_bytes = max_bytes - sum(merge.read_bytes for merge in merges)
    merged = {id(part) for merge in merges for part in merge.parts}
    for part in sorted(parts, key=lambda each: each.live_bytes):
        stale = part.dead * 100 > policy.dead_documents_percent * (part.live + part.dead)
        merge = Merge((part,), "dead documents")
        if stale and id(part) not in merged and merge.read_bytes <= left_bytes:
            merges.append(merge)
            left_bytes -= merge.read_bytes
    order = {id(part): place for place, part in enumerate(parts)}
    return sorted(merges, key=lambda merge: order[id(merge.parts[0])])


def _newest_run(parts: Sequence[P], size_ratio: int, excess: int) -> Sequence[P]:
    """The newest parts, as many as must be, and the older ones that are not much larger."""
    start, removed, largest_bytes = len(parts), -1, 0
    while start > 0:
        older = parts[start - 1]
        if removed >= excess and older.live_bytes > size_ratio * largest_bytes:
            break
        start, removed = start - 1, removed + older.shards
        largest_bytes = max(largest_bytes, older.live_bytes)
    return parts[start:]


def _cheapest_run(parts: Sequence[P], excess: int, max_bytes: int, *, must: bool) -> Sequence[P]:
    """The neighbours to merge where the newest run is too much.

    The fewest bytes that remove ``excess`` shards; if these too are more than ``max_bytes`` and
    need not be, the run within it that removes the most; perhaps none.
    """
    runs = [
        parts[start:end] for start in range(len(parts)) for end in range(start + 1, len(parts) + 1)
    ]
    enough = [run for run in runs if _removed(run) >= excess]
    cheapest = min(enough, key=_size_bytes, default=parts[:0])
    if must or _size_bytes(cheapest) <= max_bytes:
        return cheapest
    affordable = [run for run in runs if _removed(run) > 0 and _size_bytes(run) <= max_bytes]
    return max(affordable, key=lambda run: (_removed(run), -_size_bytes(run)), default=parts[:0])


def _removed(run: Sequence[Part]) -> int:
    return sum(part.shards for part in run) - 1


def _size_bytes(run: Sequence[Part]) -> int:
    return sum(part.size_bytes for part in run)
