"""What a collection may delete of what the stores hold, and why it leaves the rest (pure).

An object is judged by its key, by what is reachable, and by its age. What was never reachable may
belong to a publish that has only begun, and is left for a time of grace; what was published until
this very collection is not. What genctl would never have written is unknown, and nobody's to
delete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from builder.reachable import Reach
from manifests.names import symbol_of
from store.port import ObjectInfo
from store.spread import symbol_store

Kind = Literal["symbols", "manifests", "records", "metadata", "probes", "leases", "unknown"]
Verdict = Literal["kept", "young", "garbage", "unknown"]

KEPT_VERSIONS = 10
"""So many versions of targets and snapshot stay: a node may be in the middle of a refresh."""

RECORD_GRACE = timedelta(minutes=10)
"""So old a control record that nothing names must be: a change writes it just before it is signed.

One that was written before a collection moved the record is never signed any more, so this need
only make up for clocks that differ."""

MANY_OLD_OBJECTS = 4 * KEPT_VERSIONS
"""So much old metadata makes a collection due. Less does not: each one leaves some itself."""

NO_GRACE = timedelta(0)

WRITE_GRACE = timedelta(hours=1)
"""So old, at least, is what a write left that was cut off; one object is written sooner."""

MAX_UNKNOWN = 1000
"""So many unknown keys are told by name; the others are counted."""

_METADATA = re.compile(r"metadata/(?:timestamp|(?P<version>[1-9]\d{0,17})\.(?P<role>\w+))\.json")
_MANIFEST = re.compile(
    r"targets/manifests/[0-9a-f]{64}\.(?P<generation>g\d{12}-[0-9a-f]{12})\.json"
)
_RECORD = re.compile(r"targets/[0-9a-f]{64}\.control\.json")
_PROBE = re.compile(r"probe/[0-9a-f]{32}")
_LEASE = re.compile(r"leases/(?P<generation>g\d{12}-[0-9a-f]{12})/[^/]+\.json")
_ROLES = {"root", "targets", "snapshot"}


class Object(NamedTuple):
    """An object of one of several stores, and what becomes of it."""

    place: int
    info: ObjectInfo
    kind: Kind
    verdict: Verdict


def kind_of(key: str) -> Kind:
    """What kind of object a key is of."""
    if symbol_of(key) is not None:
        return "symbols"
    metadata = _METADATA.fullmatch(key)
    if metadata is not None and metadata["role"] in _ROLES | {None}:
        return "metadata"
    for pattern, kind in _KINDS:
        if pattern.fullmatch(key):
            return kind
    return "unknown"


_KINDS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (_MANIFEST, "manifests"),
    (_RECORD, "records"),
    (_PROBE, "probes"),
    (_LEASE, "leases"),
)


@dataclass(frozen=True, slots=True)
class Marks:
    """What objects are judged by.

    Attributes:
        reach: what is reachable.
        store_count: how many stores the symbols are spread over.
        named: the keys that the signed timestamp leads to, itself among them.
        versions: the versions of ``targets`` and ``snapshot`` that it leads to.
        freed: ids of artifacts and generations that were published and are no more: no grace.
        over_leases: the keys of leases that ended longer ago than the time of grace, and whose
            generations are gone.
        now: the time.
        grace: how old what was never reachable must be; for control records
            :data:`RECORD_GRACE` is enough.
    """

    reach: Reach
    store_count: int
    named: frozenset[str]
    versions: Mapping[str, int]
    freed: frozenset[str]
    over_leases: frozenset[str]
    now: datetime
    grace: timedelta

    @property
    def cut_off_before(self) -> datetime:
        """What is being written, and was begun before this, was cut off."""
        return self.now - max(self.grace, WRITE_GRACE)

    def judge(self, key: str, copies: Mapping[int, ObjectInfo]) -> list[Object]:
        """What becomes of one object in each store that has it; ``copies`` by the store's place."""
        kind = kind_of(key)
        return [
            Object(place, info, kind, self._verdict(kind, key, place, copies))
            for place, info in copies.items()
        ]

    def _verdict(
        self, kind: Kind, key: str, place: int, copies: Mapping[int, ObjectInfo]
    ) -> Verdict:
        if kind == "unknown":
            return "unknown"
        if kind == "symbols":
            return self._verdict_of_symbol(key, place, copies)
        if kind == "metadata":
            return "garbage" if self._is_old(key) else "kept"
        if kind == "leases":
            return "garbage" if key in self.over_leases else "kept"
        if key in self.named or self.reach.keeper_of_manifest(key) is not None:
            return "kept"
        if kind == "records":
            return self._aged(copies[place], min(self.grace, RECORD_GRACE))
        manifest = _MANIFEST.fullmatch(key)
        is_freed = manifest is not None and manifest["generation"] in self.freed
        return self._aged(copies[place], NO_GRACE if is_freed else self.grace)

    def _verdict_of_symbol(self, key: str, place: int, copies: Mapping[int, ObjectInfo]) -> Verdict:
        symbol = symbol_of(key)
        assert symbol is not None  # noqa: S101 - its kind says so
        sizes = self.reach.symbol_sizes(*symbol)
        if not sizes:
            is_freed = symbol[0] in self.freed
            return self._aged(copies[place], NO_GRACE if is_freed else self.grace)
        belongs = symbol_store(*symbol, self.store_count)
        if place == belongs:
            return "kept"
        # Where the stores were others once. It goes only if the one in its place can replace it.
        right = copies.get(belongs)
        if right is None or right.size_bytes not in sizes:
            return "kept"
        return self._aged(copies[place], self.grace)

    def _is_old(self, key: str) -> bool:
        """Whether it is a numbered version that is neither named nor among the newest."""
        found = _METADATA.fullmatch(key)
        if found is None or key in self.named or found["role"] not in self.versions:
            return False
        return int(found["version"]) <= self.versions[found["role"]] - KEPT_VERSIONS

    def _aged(self, info: ObjectInfo, grace: timedelta) -> Verdict:
        if not grace:
            return "garbage"
        if info.modified_at is None or self.now - info.modified_at < grace:
            return "young"
        return "garbage"


@dataclass(slots=True)
class Total:
    """Some objects, by number and bytes."""

    objects: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """Count one more."""
        self.objects += 1
        self.size_bytes += size_bytes


@dataclass(slots=True)
class StoreTally:
    """What one store holds, by what becomes of it.

    ``unknown`` are keys that genctl would never write, at most :data:`MAX_UNKNOWN` of them;
    ``cut_off`` is what writes that were cut off left, which is no object.
    """

    url: str
    kept: Total = field(default_factory=Total)
    young: Total = field(default_factory=Total)
    unknown_objects: Total = field(default_factory=Total)
    cut_off: Total = field(default_factory=Total)
    garbage: dict[Kind, Total] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def add(self, found: Object) -> None:
        """Count one object of this store."""
        size_bytes = found.info.size_bytes
        if found.verdict == "garbage":
            self.garbage.setdefault(found.kind, Total()).add(size_bytes)
        elif found.verdict == "young":
            self.young.add(size_bytes)
        elif found.verdict == "kept":
            self.kept.add(size_bytes)
        else:
            self.unknown_objects.add(size_bytes)
            if len(self.unknown) < MAX_UNKNOWN:
                self.unknown.append(found.info.key)

    @property
    def garbage_objects(self) -> int:
        """How many objects are garbage."""
        return sum(total.objects for total in self.garbage.values())

    @property
    def garbage_bytes(self) -> int:
        """How many bytes they have."""
        return sum(total.size_bytes for total in self.garbage.values())

    @property
    def is_due(self) -> bool:
        """Whether there is more garbage than each collection leaves behind itself."""
        old = sum(self.garbage[kind].objects for kind in LEFT_KINDS if kind in self.garbage)
        return old > MANY_OLD_OBJECTS or old < self.garbage_objects


LEFT_KINDS: tuple[Kind, ...] = ("metadata", "records")
"""What each collection leaves some of itself: alone, a little of it makes none due."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What was asked about, and what keeps it: roots with their reasons.

    ``verdict`` is a sentence.
    """

    asked: str
    what: str
    keepers: tuple[tuple[str, tuple[str, ...]], ...]
    verdict: str


def kept_by(reach: Reach, artifact_id: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The roots that keep an artifact, each with its reasons."""
    return tuple((root.name, root.reasons) for root in reach.keepers(artifact_id))
