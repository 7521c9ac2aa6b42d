"""What may be deleted, judged by key, reach and age: pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from builder.garbage import (
    KEPT_VERSIONS,
    MANY_OLD_OBJECTS,
    MAX_UNKNOWN,
    RECORD_GRACE,
    Kind,
    Marks,
    Object,
    StoreTally,
    Verdict,
    kind_of,
)
from builder.reachable import Reach, Root
from manifests.names import metadata_key, symbol_key, target_key
from store.port import ObjectInfo
from store.spread import symbol_store
from tests.builder.reached import ONE, TWO

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
OLD, YOUNG = NOW - timedelta(hours=24), NOW - timedelta(hours=23, minutes=59)
GENERATION = "g000000000007-0123456789ab"
MANIFEST = target_key(f"manifests/{GENERATION}.json", "a" * 64)
LEASE = f"leases/{GENERATION}/someone.json"


def marks(
    *,
    freed: frozenset[str] = frozenset(),
    store_count: int = 1,
    grace_hours: int = 24,
    manifest_key: str | None = None,
    over_leases: frozenset[str] = frozenset(),
    now: datetime = NOW,
) -> Marks:
    """``ONE`` is reached; targets are at version 40 and snapshot at 50."""
    return Marks(
        reach=Reach([Root("root", ("why",), (ONE,), manifest_key, is_stored=True)]),
        store_count=store_count,
        named=frozenset({metadata_key("40.targets.json"), "targets/" + "c" * 64 + ".control.json"}),
        versions={"targets": 40, "snapshot": 50},
        freed=freed,
        over_leases=over_leases,
        now=now,
        grace=timedelta(hours=grace_hours),
    )


def verdict(by: Marks, key: str, modified_at: datetime | None = OLD) -> Verdict:
    (found,) = by.judge(key, {0: ObjectInfo(key, 10, modified_at)})
    return found.verdict


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (symbol_key("ab" * 32, 3), "symbols"),
        ("symbols/ff/" + "ab" * 32 + "/03", "unknown"),
        ("symbols/ab/" + "ab" * 32 + "/3", "unknown"),
        (MANIFEST, "manifests"),
        ("targets/manifests/" + "a" * 64 + ".x.json", "unknown"),
        ("targets/" + "a" * 64 + ".control.json", "records"),
        ("targets/" + "a" * 64 + ".other.json", "unknown"),
        ("metadata/timestamp.json", "metadata"),
        ("metadata/1.root.json", "metadata"),
        ("metadata/12.snapshot.json", "metadata"),
        ("metadata/012.snapshot.json", "unknown"),
        ("metadata/snapshot.json", "unknown"),
        ("metadata/1.mirrors.json", "unknown"),
        ("metadata/1.timestamp.json", "unknown"),
        ("probe/" + "0" * 32, "probes"),
        ("probe/else", "unknown"),
        (LEASE, "leases"),
        ("leases/else/someone.json", "unknown"),
        ("readme.txt", "unknown"),
        ("artifacts/" + "ab" * 32, "unknown"),
    ],
)
def test_a_key_that_genctl_would_not_write_is_of_no_known_kind(key: str, kind: Kind) -> None:
    assert kind_of(key) == kind


def test_what_is_unknown_is_never_garbage() -> None:
    assert verdict(marks(grace_hours=0), "readme.txt") == "unknown"


def test_a_symbol_is_kept_as_long_as_a_root_reaches_it() -> None:
    assert verdict(marks(grace_hours=0), symbol_key(ONE.blake3, 0)) == "kept"
    assert verdict(marks(), symbol_key(ONE.blake3, ONE.symbols.m)) == "garbage"
    assert verdict(marks(), symbol_key(TWO.blake3, 0)) == "garbage"


@pytest.mark.parametrize("key", [symbol_key(TWO.blake3, 0), MANIFEST, "probe/" + "0" * 32])
def test_what_was_never_reached_is_left_until_it_is_old(key: str) -> None:
    assert verdict(marks(), key, YOUNG) == "young"
    assert verdict(marks(), key, OLD) == "garbage"
    assert verdict(marks(), key, NOW + timedelta(days=1)) == "young"
    assert verdict(marks(), key, None) == "young", "nobody knows how old it is"
    assert verdict(marks(grace_hours=0), key, NOW) == "garbage"


@pytest.mark.parametrize(
    ("key", "freed"), [(symbol_key(TWO.blake3, 0), TWO.blake3), (MANIFEST, GENERATION)]
)
def test_what_was_published_until_now_has_no_grace(key: str, freed: str) -> None:
    assert verdict(marks(freed=frozenset({freed})), key, NOW) == "garbage"


def test_what_is_reached_is_kept_also_if_a_dropped_generation_had_it() -> None:
    by = marks(freed=frozenset({ONE.blake3}), grace_hours=0)
    assert verdict(by, symbol_key(ONE.blake3, 0)) == "kept"


def test_a_manifest_is_kept_with_its_generation() -> None:
    assert verdict(marks(manifest_key=MANIFEST, grace_hours=0), MANIFEST) == "kept"


def test_the_newest_versions_of_metadata_stay_and_no_root_ever_goes() -> None:
    by = marks(grace_hours=0)
    for role, newest in (("targets", 40), ("snapshot", 50)):
        kept = [
            version
            for version in range(1, newest + 3)
            if verdict(by, metadata_key(f"{version}.{role}.json")) == "kept"
        ]
        assert kept == list(range(newest - KEPT_VERSIONS + 1, newest + 3))
    assert verdict(by, metadata_key("1.root.json")) == "kept"
    assert verdict(by, metadata_key("timestamp.json")) == "kept"


def test_the_record_that_is_signed_stays_and_older_ones_go() -> None:
    by = marks(grace_hours=0)
    assert verdict(by, "targets/" + "c" * 64 + ".control.json") == "kept"
    assert verdict(by, "targets/" + "d" * 64 + ".control.json") == "garbage"


def test_an_old_record_goes_long_before_the_time_of_grace_and_one_just_written_stays() -> None:
    """A change that is under way has written its record, and has not signed it yet."""
    record = "targets/" + "d" * 64 + ".control.json"
    assert verdict(marks(), record, NOW - RECORD_GRACE) == "garbage"
    assert verdict(marks(), record, NOW - RECORD_GRACE / 2) == "young"
    assert verdict(marks(), record, None) == "young"


def test_a_lease_goes_when_it_is_long_over_and_else_stays() -> None:
    assert verdict(marks(grace_hours=0), LEASE) == "kept"
    assert verdict(marks(over_leases=frozenset({LEASE})), LEASE, NOW) == "garbage"


def misplaced(right: ObjectInfo | None, modified_at: datetime = OLD) -> dict[str, Verdict]:
    """The verdicts on a symbol of which a store that it does not belong in has a copy."""
    key = symbol_key(ONE.blake3, 0)
    belongs = symbol_store(ONE.blake3, 0, 2)
    copies = {1 - belongs: ObjectInfo(key, 10, modified_at)}
    if right is not None:
        copies[belongs] = right
    found = marks(store_count=2).judge(key, dict(sorted(copies.items())))
    return {"right" if each.place == belongs else "wrong": each.verdict for each in found}


def test_a_symbol_in_a_wrong_store_goes_only_if_the_right_one_has_it_whole() -> None:
    key = symbol_key(ONE.blake3, 0)
    (size_bytes,) = marks().reach.symbol_sizes(ONE.blake3, 0)
    whole, short = ObjectInfo(key, size_bytes, OLD), ObjectInfo(key, size_bytes - 1, OLD)
    assert misplaced(whole) == {"right": "kept", "wrong": "garbage"}
    assert misplaced(whole, YOUNG) == {"right": "kept", "wrong": "young"}
    assert misplaced(short) == {"right": "kept", "wrong": "kept"}
    assert misplaced(None) == {"wrong": "kept"}


def tally(*found: tuple[Kind, Verdict]) -> StoreTally:
    made = StoreTally("a store")
    for number, (kind, what) in enumerate(found):
        made.add(Object(0, ObjectInfo(f"key{number}", 10), kind, what))
    return made


def test_a_tally_counts_objects_and_bytes_by_what_becomes_of_them() -> None:
    made = tally(
        ("symbols", "garbage"), ("symbols", "kept"), ("probes", "young"), ("unknown", "unknown")
    )
    assert (made.garbage_objects, made.garbage_bytes) == (1, 10)
    assert (made.kept.objects, made.young.objects, made.unknown_objects.objects) == (1, 1, 1)
    assert made.unknown == ["key3"]


def test_of_unknown_keys_so_many_are_told_by_name() -> None:
    unknown: tuple[Kind, Verdict] = ("unknown", "unknown")
    made = tally(*[unknown] * (MAX_UNKNOWN + 5))
    assert len(made.unknown) == MAX_UNKNOWN
    assert made.unknown_objects.objects == MAX_UNKNOWN + 5


def test_a_little_old_metadata_alone_does_not_make_a_collection_due() -> None:
    assert not tally().is_due
    old: tuple[Kind, Verdict] = ("metadata", "garbage")
    assert not tally(*[old] * MANY_OLD_OBJECTS).is_due
    assert tally(*[old] * (MANY_OLD_OBJECTS + 1)).is_due
    assert tally(("metadata", "garbage"), ("symbols", "garbage")).is_due
    assert not tally(("symbols", "kept"), ("symbols", "young")).is_due
