"""What a node's trust state refuses, by name; whatever it refuses, it believes what it believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from durable import files
from manifests.errors import (
    BadRootRotation,
    BelowMinimumVersion,
    ClockSuspect,
    ForkDetected,
    FreezeSuspected,
    GenctlError,
    LengthExceeded,
    ManifestMalformed,
    MetadataRollback,
    MixAndMatch,
    NothingPublished,
    ObjectMissing,
    TrustStateCorrupt,
    UnsignedRecord,
    UnsignedRollback,
    VersionJump,
    WrongRecordType,
)
from manifests.identifiers import content_id
from replicator.high_water import HighWaterFile
from replicator.trust import Trust, has_accepted
from replicator.trust_rules import MAX_VERSION_JUMP
from store.signed import LIMITS_BYTES
from tests.replicator.shards import Shard, generation, signed
from tests.support.watching import hearing

DAY = timedelta(days=1)
E = TypeVar("E", bound=GenctlError)


@pytest.fixture
def shard() -> Shard:
    return Shard()


@pytest.fixture
def folder(shard: Shard, tmp_path: Path) -> Path:
    """The trust state of a node that has accepted the shard's first record."""
    shard.trust(tmp_path / "trust").refresh(shard.store)
    return tmp_path / "trust"


def refused(shard: Shard, folder: Path, error: type[E], **how: object) -> E:
    """A refresh is refused with ``error`` itself, and the record believed before stands."""
    trust = shard.trust(folder, **how)  # type: ignore[arg-type]
    believed = trust.last_record() if has_accepted(folder) else None
    with pytest.raises(error) as caught:
        trust.refresh(shard.store)
    assert type(caught.value) is error
    if believed is not None:
        assert trust.last_record() == believed
        assert str(trust.state()["trust"]).startswith(error.__name__)
        assert trust.state()["trust_error"] == error.__name__
    return caught.value


def believed(shard: Shard, folder: Path, **how: object) -> Trust:
    """A refresh succeeds, and leaves the versions that the shard has."""
    trust = shard.trust(folder, **how)  # type: ignore[arg-type]
    trust.refresh(shard.store)
    mark = HighWaterFile(folder).read()
    for role in (Timestamp.type, Snapshot.type, Targets.type):
        assert getattr(mark, role).version == shard.versions[role]
    assert (trust.state()["trust"], trust.state()["trust_error"]) == ("ok", None)
    return trust


def edited(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


# --- signatures: rows 9 to 13 ---------------------------------------------------------------------


@pytest.mark.parametrize("role", [Timestamp.type, Snapshot.type, Targets.type])
def test_row_9_what_an_unknown_key_signed_is_unsigned(
    shard: Shard, folder: Path, role: str
) -> None:
    shard.keys[role] = [CryptoSigner.generate_ed25519()]
    shard.release(2)
    refused(shard, folder, UnsignedRecord)


@pytest.mark.parametrize("role", [Timestamp.type, Snapshot.type, Targets.type])
def test_row_10_one_signature_of_two_is_unsigned_and_so_is_one_counted_twice(
    shard: Shard, folder: Path, role: str
) -> None:
    one, two = shard.keys[role][0], CryptoSigner.generate_ed25519()
    shard.keys[role], shard.thresholds[role] = [one, two], 2
    shard.next_root()
    shard.keys[role] = [one]
    shard.release(2)
    refused(shard, folder, UnsignedRecord)
    path = shard.name(role)
    document = json.loads(shard.held(path))
    document["signatures"] *= 2
    shard.put(path, json.dumps(document, separators=(",", ":")).encode())
    with pytest.raises(GenctlError) as caught:
        shard.trust(folder).refresh(shard.store)
    # A document that grew is longer than what was signed for it.
    assert type(caught.value) is (UnsignedRecord if role == Timestamp.type else LengthExceeded)
    shard.keys[role] = [one, two]
    shard.release(2)
    believed(shard, folder)


@pytest.mark.parametrize("role", [Timestamp.type, Targets.type])
def test_row_11_what_a_revoked_key_signed_is_unsigned(
    shard: Shard, folder: Path, role: str
) -> None:
    revoked = shard.keys[role]
    roles = (Timestamp.type, Snapshot.type) if role == Timestamp.type else (role,)
    shard.rotate(*roles)
    for each in roles:
        shard.keys[each] = revoked
    shard.release(2)
    refused(shard, folder, UnsignedRecord)


def test_row_12_a_root_that_the_old_one_did_not_sign_is_a_bad_rotation(
    shard: Shard, folder: Path
) -> None:
    thief = CryptoSigner.generate_ed25519()
    shard.keys[Root.type] = [thief]
    shard.next_root(signers=[thief])
    refused(shard, folder, BadRootRotation)


def test_row_12_a_root_that_does_not_sign_itself_or_skips_a_version_is_a_bad_rotation(
    shard: Shard, folder: Path
) -> None:
    old = shard.keys[Root.type]
    shard.keys[Root.type] = [CryptoSigner.generate_ed25519()]
    shard.next_root(signers=old)
    refused(shard, folder, BadRootRotation)
    shard.keys[Root.type] = old
    skipping = shard.next_root(signers=old)
    shard.put("2.root.json", skipping)
    refused(shard, folder, BadRootRotation)


@pytest.mark.parametrize("role", [Timestamp.type, Snapshot.type, Targets.type])
def test_row_13_another_roles_metadata_is_of_the_wrong_type(
    shard: Shard, folder: Path, role: str
) -> None:
    shard.release(2)
    other = shard.held("timestamp.json" if role == Targets.type else shard.name(Targets.type))
    shard.put(shard.name(role), other)
    if role == Snapshot.type:  # else it would be too long
        v = shard.versions
        shard.put("timestamp.json", shard.timestamp(v[Timestamp.type], v[role], other))
    refused(shard, folder, WrongRecordType)


def test_row_13_a_snapshot_that_the_right_key_signed_is_no_timestamp(
    shard: Shard, folder: Path
) -> None:
    shard.release(2)
    shard.put("timestamp.json", shard.held(shard.name(Snapshot.type)))
    error = refused(shard, folder, WrongRecordType)
    assert error.facts["found_role"] == Snapshot.type


def test_row_13_another_document_in_the_place_of_a_root_is_a_bad_rotation(
    shard: Shard, folder: Path
) -> None:
    shard.put("2.root.json", shard.held("timestamp.json"))
    refused(shard, folder, BadRootRotation)


# --- freshness: rows 14 to 21 ---------------------------------------------------------------------


def lose_cache(folder: Path) -> None:
    for path in folder.rglob("*.json"):
        if path.name != "high_water.json":
            path.unlink()


@pytest.mark.parametrize("is_lost", [False, True])
def test_row_14_15_an_older_record_is_a_rollback_with_the_cache_or_without(
    shard: Shard, folder: Path, is_lost: bool
) -> None:
    old = shard.held("timestamp.json")
    shard.release(2)
    believed(shard, folder)
    shard.put("timestamp.json", old)
    if is_lost:
        lose_cache(folder)
        with pytest.raises(MetadataRollback):
            shard.trust(folder).refresh(shard.store)
    else:
        refused(shard, folder, MetadataRollback)


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("role", [Snapshot.type, Targets.type])
def test_row_14_15_older_documents_under_newer_ones_are_a_rollback_and_nothing_of_it_is_kept(
    shard: Shard, folder: Path, role: str, is_lost: bool
) -> None:
    shard.release(2)
    believed(shard, folder)
    mark = (folder / "high_water.json").read_bytes()
    if is_lost:
        lose_cache(folder)
    shard.versions[role] -= 2
    shard.release(1)
    with pytest.raises(MetadataRollback):
        shard.trust(folder).refresh(shard.store)
    if role == Snapshot.type:
        assert (folder / "high_water.json").read_bytes() == mark


def test_row_15_an_older_root_is_a_rollback_after_the_cache_was_lost(
    shard: Shard, folder: Path
) -> None:
    old = shard.keys[Timestamp.type]
    shard.rotate(Timestamp.type, Snapshot.type)
    shard.release(2)
    believed(shard, folder)
    lose_cache(folder)
    shard.store.delete("metadata/2.root.json")
    shard.keys[Timestamp.type] = shard.keys[Snapshot.type] = old
    shard.release(3)
    with pytest.raises(MetadataRollback) as caught:
        shard.trust(folder).refresh(shard.store)
    assert caught.value.facts["role"] == Root.type


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda data: data[:-30],
        lambda data: edited(data, b'"version":1', b'"version":2'),
        lambda data: data.splitlines()[0],
        lambda _: b'{"schema_version":1,"snapshot":1,"targets":1,"timestamp":1}',
        lambda _: None,
    ],
    ids=["empty", "torn", "edited", "no checksum", "older form", "missing"],
)
def test_row_16_a_damaged_mark_is_corrupt_and_stays_as_it_is(
    shard: Shard, folder: Path, damage: Callable[[bytes], bytes | None]
) -> None:
    path = folder / "high_water.json"
    data = damage(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    error = refused(shard, folder, TrustStateCorrupt)
    assert "node repin" in error.message
    assert (path.read_bytes() if path.exists() else None) == data


def test_row_17_an_expired_record_is_a_freeze_which_is_told_and_the_next_signature_ends_it(
    shard: Shard, folder: Path
) -> None:
    shard.now += 8 * DAY
    with hearing() as events:
        error = refused(shard, folder, FreezeSuspected)
    (facts,) = events.of("metadata_freeze_suspected")
    assert facts["message"] == error.message
    shard.sign_again()
    believed(shard, folder)


def test_row_17_the_state_says_that_a_record_has_expired_that_nobody_looked_for(
    shard: Shard, folder: Path
) -> None:
    late = shard.trust(folder, now=shard.now + 8 * DAY)
    assert str(late.state()["trust"]).startswith("FreezeSuspected")
    assert late.state()["trust_error"] == "FreezeSuspected"


@pytest.mark.parametrize("role", [Snapshot.type, Targets.type])
def test_row_17_an_expired_document_below_the_timestamp_is_a_freeze(
    shard: Shard, folder: Path, role: str
) -> None:
    shard.now += 366 * DAY
    shard.sign_again()
    refused(shard, folder, FreezeSuspected)


def test_row_17_a_root_that_has_expired_takes_a_new_root_and_no_signing_again(
    shard: Shard, folder: Path
) -> None:
    shard.now += 3651 * DAY
    shard.release()
    error = refused(shard, folder, FreezeSuspected)
    assert error.facts == {"role": Root.type, "known_version": 1}
    assert "keys renew" in error.message
    assert "keys refresh" not in error.message
    shard.next_root()
    believed(shard, folder)


@pytest.mark.parametrize("role", [Snapshot.type, Targets.type])
def test_row_18_a_signed_document_that_is_not_the_one_named_is_mix_and_match(
    shard: Shard, folder: Path, role: str
) -> None:
    old = shard.held(shard.name(role))
    shard.release(2)
    shard.put(shard.name(role), old)
    error = refused(shard, folder, MixAndMatch)
    assert (error.facts["offered_version"], error.facts["named_version"]) == (1, 2)


@pytest.mark.parametrize("is_lost", [False, True])
def test_row_19_another_timestamp_of_a_version_is_a_fork(
    shard: Shard, folder: Path, is_lost: bool
) -> None:
    if is_lost:
        lose_cache(folder)
    shard.versions[Timestamp.type] -= 1
    shard.sign_again(lifetime=6 * DAY)
    fork_is_told(shard, folder, Timestamp.type)


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("role", [Snapshot.type, Targets.type])
def test_row_19_another_snapshot_or_targets_of_a_version_is_a_fork(
    shard: Shard, folder: Path, role: str, is_lost: bool
) -> None:
    if is_lost:
        lose_cache(folder)
    shard.versions[role] -= 1
    shard.now += timedelta(minutes=1)
    shard.release(2)
    fork_is_told(shard, folder, role)


def fork_is_told(shard: Shard, folder: Path, role: str) -> None:
    offered = content_id(shard.held(shard.name(role)))
    quarantined: list[tuple[object, ...]] = []
    trust = shard.trust(folder, quarantine=lambda *told, **_: quarantined.append(told))
    with pytest.raises(ForkDetected) as caught:
        trust.refresh(shard.store)
    error = caught.value
    assert (error.facts["role"], error.facts["content_hash"]) == (role, offered)
    assert error.runbook == "fork"
    assert quarantined == [(offered, "ForkDetected", error.message, shard.now)]


def test_row_19_another_root_of_a_version_is_a_fork_and_one_signed_once_more_is_none(
    shard: Shard, folder: Path
) -> None:
    second = CryptoSigner.generate_ed25519()
    shard.keys[Root.type].append(second)
    shard.next_root(signers=shard.keys[Root.type])
    believed(shard, folder)
    root = Metadata[Root].from_bytes(shard.held("2.root.json"))
    lose_cache(folder)
    shard.put("2.root.json", signed(root.signed, shard.keys[Root.type][0]))
    believed(shard, folder)
    lose_cache(folder)
    root.signed.expires += DAY
    shard.put("2.root.json", signed(root.signed, *shard.keys[Root.type]))
    with pytest.raises(ForkDetected) as caught:
        shard.trust(folder).refresh(shard.store)
    assert caught.value.facts["content_hash"] == content_id(shard.held("2.root.json"))


def test_row_20_a_fresh_node_starts_from_no_record_below_its_minimum(
    shard: Shard, tmp_path: Path
) -> None:
    error = refused(shard, tmp_path / "fresh", BelowMinimumVersion, minimum_version=2)
    assert (error.facts["offered_version"], error.facts["minimum_version"]) == (1, 2)
    assert not has_accepted(tmp_path / "fresh")
    shard.release(2)
    believed(shard, tmp_path / "fresh", minimum_version=2)


@pytest.mark.parametrize("role", [Timestamp.type, Snapshot.type, Targets.type])
def test_row_21_a_jump_is_refused_and_a_year_of_one_version_a_second_is_none(
    shard: Shard, folder: Path, role: str
) -> None:
    shard.versions[role] += MAX_VERSION_JUMP
    shard.release(2)
    refused(shard, folder, VersionJump)
    shard = Shard()
    other = folder.parent / "other"
    believed(shard, other)
    shard.versions[role] += 366 * 24 * 3600
    shard.release(2)
    believed(shard, other)


@pytest.mark.parametrize("is_lost", [False, True])
def test_row_21_versions_start_anew_once_the_key_of_who_jumped_is_revoked(
    shard: Shard, folder: Path, is_lost: bool
) -> None:
    for role in (Timestamp.type, Snapshot.type, Targets.type):
        shard.versions[role] += MAX_VERSION_JUMP - 1
    shard.release(2)
    believed(shard, folder)
    if is_lost:
        lose_cache(folder)
    shard.rotate(Timestamp.type, Snapshot.type)
    shard.keys[Snapshot.type] = shard.keys[Timestamp.type]
    shard.next_root()
    for role in (Timestamp.type, Snapshot.type, Targets.type):
        shard.versions[role] = 1
    shard.release(2)
    believed(shard, folder)


def test_row_21_a_key_that_is_added_resets_nothing(shard: Shard, folder: Path) -> None:
    shard.release(2)
    believed(shard, folder)
    added = [shard.keys[Timestamp.type][0], CryptoSigner.generate_ed25519()]
    shard.keys[Timestamp.type] = shard.keys[Snapshot.type] = added
    shard.next_root()
    shard.versions[Timestamp.type] = 0
    shard.sign_again()
    refused(shard, folder, MetadataRollback)


# --- the record and the clocks: rows 22 and 23 ----------------------------------------------------


def test_row_22_an_older_generation_takes_a_rollback(shard: Shard, folder: Path) -> None:
    shard.release(3)
    believed(shard, folder)
    shard.release(2, 3, "activate")
    error = refused(shard, folder, UnsignedRollback)
    assert error.facts["generation_id"] == generation(2).generation_id
    lose_cache(folder)
    with pytest.raises(UnsignedRollback):
        shard.trust(folder).refresh(shard.store)
    shard.release(2, 3, "rollback")
    believed(shard, folder)


def test_row_22_a_node_that_has_missed_the_rollback_believes_what_came_after(
    shard: Shard, folder: Path
) -> None:
    shard.release(3)
    believed(shard, folder)
    shard.release(2, 3, "rollback")
    shard.release(2, 4, "publish")
    believed(shard, folder)


def test_row_22_a_node_that_was_away_is_not_taken_back_without_a_rollback(
    shard: Shard, folder: Path
) -> None:
    shard.release(3)
    believed(shard, folder)
    shard.release(3, 4, "publish")
    shard.release(2, 5, "publish")
    refused(shard, folder, UnsignedRollback)


def test_row_22_what_was_rolled_back_stays_so_until_it_is_activated_again(
    shard: Shard, folder: Path
) -> None:
    shard.release(2)
    shard.release(1, 2, "rollback")
    shard.release(3, 3, "activate")
    believed(shard, folder)
    shard.release(2, 4, "publish")
    shard.release(2, 5, "publish")
    refused(shard, folder, UnsignedRollback)


def test_row_22_a_revocation_may_go_back(shard: Shard, folder: Path) -> None:
    shard.release(3)
    believed(shard, folder)
    shard.release(1, 3, "revoke")
    believed(shard, folder)


def test_row_23_a_clock_behind_what_was_signed_is_suspect_even_before_the_store_is_asked(
    shard: Shard, folder: Path
) -> None:
    refused(shard, folder, ClockSuspect, now=shard.now - timedelta(minutes=61))
    believed(shard, folder, now=shard.now - timedelta(minutes=59))
    fresh = folder.parent / "fresh"
    refused(shard, fresh, ClockSuspect, now=shard.now - DAY)
    assert not has_accepted(fresh)
    shard.store.delete("metadata/timestamp.json")
    refused(shard, folder, ClockSuspect, now=shard.now - DAY)


@pytest.mark.parametrize("off", [-DAY, DAY, 30 * DAY], ids=str)
def test_row_23_a_clock_that_is_off_the_stores_is_suspect_and_no_freeze(
    shard: Shard, folder: Path, off: timedelta
) -> None:
    error = refused(shard, folder, ClockSuspect, now=shard.now + off, store_time=shard.now)
    assert error.runbook == "clock"
    near = shard.now + timedelta(minutes=59)
    believed(shard, folder, now=near, store_time=shard.now)


def test_row_23_an_expired_record_is_a_freeze_where_the_stores_clock_agrees(
    shard: Shard, folder: Path
) -> None:
    late = shard.now + 8 * DAY
    refused(shard, folder, FreezeSuspected, now=late, store_time=late)


def test_a_timestamp_of_a_writer_that_does_not_say_when_it_signed_is_believed(
    shard: Shard, folder: Path
) -> None:
    held = Metadata[Timestamp].from_bytes(shard.held("timestamp.json")).signed
    held.version += 1
    del held.unrecognized_fields["signed_at"]
    shard.versions[Timestamp.type] += 1
    shard.put("timestamp.json", shard.signed_as(Timestamp.type, held))
    believed(shard, folder)


@pytest.mark.parametrize("value", ["yesterday", 1, "2026-11-21T12:00:00+02:00", ["2026"]])
def test_a_time_of_signing_that_is_none_is_refused(
    shard: Shard, folder: Path, value: object
) -> None:
    shard.sign_again(signed_at=value)
    refused(shard, folder, UnsignedRecord)


# --- form and length ------------------------------------------------------------------------------


def signature(data: bytes) -> bytes:
    return str(json.loads(data)["signatures"][0]["sig"]).encode()


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "duplicate key": lambda data: edited(data, b'"signed":{', b'"signed":{"version":9,'),
    "NaN": lambda data: edited(data, b'"signed":{', b'"signed":{"x":NaN,'),
    "Infinity": lambda data: edited(data, b'"signed":{', b'"signed":{"x":-Infinity,'),
    "fraction": lambda data: edited(data, b'"signed":{', b'"signed":{"x":1.5,'),
    "deep": lambda data: edited(
        data, b'"signed":{', b'"signed":{"x":' + b"[" * 20 + b"]" * 20 + b","
    ),
    "very deep": lambda _: b"[" * 8000,
    "not UTF-8": lambda data: edited(data, b'"signed":{', b'"signed":{"x":"\xff",'),
    "not an object": lambda _: b"[]",
    "cut": lambda data: data[:-1],
    "capitals": lambda data: edited(data, signature(data), signature(data).upper()),
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_timestamp_that_could_be_read_in_two_ways_is_unsigned(
    shard: Shard, folder: Path, form: str
) -> None:
    shard.release(2)
    shard.put("timestamp.json", FORMS[form](shard.held("timestamp.json")))
    refused(shard, folder, UnsignedRecord)


@pytest.mark.parametrize("form", ["duplicate key", "very deep", "cut"])
def test_a_root_that_could_be_read_in_two_ways_is_a_bad_rotation(
    shard: Shard, folder: Path, form: str
) -> None:
    shard.next_root()
    shard.put("2.root.json", FORMS[form](shard.held("2.root.json")))
    refused(shard, folder, BadRootRotation)


def test_an_unsigned_control_record_that_is_missing_or_malformed_is_refused(
    shard: Shard, folder: Path
) -> None:
    shard.release(2)
    targets = Metadata[Targets].from_bytes(shard.held(shard.name(Targets.type))).signed
    for has_target, error in ((True, ManifestMalformed), (False, UnsignedRecord)):
        control = targets.targets["control.json"]
        control.unrecognized_fields = {}
        targets.targets = {"control.json": control} if has_target else {}
        targets.version += 1
        data = shard.signed_as(Targets.type, targets)
        shard.versions = {role: version + 1 for role, version in shard.versions.items()}
        v = shard.versions
        shard.put(shard.name(Targets.type), data)
        snapshot = shard.snapshot(v[Snapshot.type], v[Targets.type], data)
        shard.put(shard.name(Snapshot.type), snapshot)
        shard.put("timestamp.json", shard.timestamp(v[Timestamp.type], v[Snapshot.type], snapshot))
        refused(shard, folder, error)


@pytest.mark.parametrize("role", [Timestamp.type, Snapshot.type, Targets.type, Root.type])
def test_row_25_one_byte_too_many_is_too_long(shard: Shard, folder: Path, role: str) -> None:
    if role == Root.type:
        shard.next_root()
    shard.release(2)
    data = shard.held(shard.name(role))
    if role in {Timestamp.type, Root.type}:
        data += b" " * (LIMITS_BYTES[role] - len(data))
        shard.put(shard.name(role), data)
        believed(shard, folder.parent / "other")
    shard.put(shard.name(role), data + b" ")
    error = refused(shard, folder, LengthExceeded)
    assert error.facts["limit_bytes"] == len(data)


@pytest.mark.parametrize("role", [Snapshot.type, Targets.type])
def test_row_52_a_part_that_the_store_lost_is_missing(
    shard: Shard, folder: Path, role: str
) -> None:
    shard.release(2)
    shard.store.delete(f"metadata/{shard.name(role)}")
    refused_missing(shard, folder)


def test_row_52_a_record_that_the_store_lost_is_missing_and_to_a_fresh_node_not_published(
    shard: Shard, folder: Path
) -> None:
    shard.store.delete("metadata/timestamp.json")
    refused_missing(shard, folder)
    with pytest.raises(NothingPublished):
        shard.trust(folder.parent / "fresh").refresh(shard.store)


def refused_missing(shard: Shard, folder: Path) -> None:
    with pytest.raises(ObjectMissing):
        shard.trust(folder).refresh(shard.store)
    assert shard.trust(folder).last_record().active == generation(1).generation_id


# --- every byte -----------------------------------------------------------------------------------


def flipped(byte: int) -> int:
    """Another byte: of a hexadecimal digit, the same one as a capital, which is the hardest."""
    return byte ^ (0x20 if chr(byte) in "abcdef" else 0x01)


@pytest.mark.parametrize(
    ("role", "error"),
    [
        (Timestamp.type, UnsignedRecord),
        (Snapshot.type, UnsignedRecord),
        (Targets.type, UnsignedRecord),
        (Root.type, BadRootRotation),
    ],
)
def test_no_byte_of_signed_metadata_can_be_another(
    shard: Shard, folder: Path, role: str, error: type[GenctlError]
) -> None:
    shard.next_root()
    shard.release(2)
    data = shard.held(shard.name(role))
    others: dict[int, str] = {}
    for offset, byte in enumerate(data):
        shard.put(shard.name(role), data[:offset] + bytes([flipped(byte)]) + data[offset + 1 :])
        with pytest.raises(GenctlError) as caught:
            shard.trust(folder).refresh(shard.store)
        if type(caught.value) is not error:
            others[offset] = caught.value.name
    assert others == {}
    shard.put(shard.name(role), data)
    believed(shard, folder)


# --- what is kept ---------------------------------------------------------------------------------


def test_a_refresh_that_finds_nothing_new_writes_nothing(shard: Shard, folder: Path) -> None:
    def seen() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")}

    before = seen()
    believed(shard, folder)
    assert seen() == before


def test_the_mark_is_on_disk_before_what_it_marks(
    shard: Shard, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def observer(step: str, path: Path) -> None:
        if step == "rename":
            written.append(path.name)

    monkeypatch.setattr(files, "_observers", [observer])
    shard.release(2)
    believed(shard, folder)
    assert written == [
        "high_water.json",
        "timestamp.json",
        "high_water.json",
        "snapshot.json",
        "high_water.json",
        "targets.json",
    ]


def test_a_record_is_read_again_under_the_root_it_was_accepted_under(
    shard: Shard, folder: Path
) -> None:
    shard.rotate(Timestamp.type, Snapshot.type, Targets.type)
    shard.store.delete("metadata/timestamp.json")
    refused_missing(shard, folder)
    assert (folder / "root_history/2.root.json").exists()


def test_what_a_node_believes_does_not_depend_on_its_time_zone(shard: Shard, folder: Path) -> None:
    from datetime import timezone

    there = shard.now.astimezone(timezone(timedelta(hours=9)))
    assert isinstance(there, datetime)
    believed(shard, folder, now=there)
