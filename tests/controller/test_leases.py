"""Taking, renewing and releasing leases in the stores of a home."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller import leases
from controller.leases import HeldLease, LeasePlace, place_of
from controller.new_home import init_home
from controller.settings import WriterSettings
from controller.writer import WriterHome
from manifests.errors import (
    GenctlError,
    GenerationCollected,
    GenerationNotPublished,
    GenerationRevoked,
    GenerationUnknown,
    HomeMissing,
    LeaseExpired,
    LeaseUnknown,
    StoreUnavailable,
)
from manifests.record import ControlRecord
from manifests.record_changes import with_revoked
from store.folder import FolderStore
from store.leases import LONGEST, Lease, lease_key, leases_in, new_lease, write_lease
from store.spread import SpreadStore
from tests.support.corpus import DIMENSIONS, upserts
from tests.support.homes import TestableWriter, add, copy_with_node, make_node, make_writer
from tests.support.signed_away import sign, sign_away

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer with four generations, of which the oldest two can be collected, and a node."""
    folder = tmp_path_factory.mktemp("leases") / "made"
    writer = make_writer(folder)
    for number in range(4):
        add(writer, upserts([number]))
    make_node(writer)
    return folder


@pytest.fixture
def writer(made: Path, tmp_path: Path) -> TestableWriter:
    copied, _ = copy_with_node(made, tmp_path / "copy")
    return copied


@pytest.fixture
def oldest(writer: TestableWriter) -> str:
    return writer.current().signed.record.published[0].generation_id


def take(
    place: LeasePlace, generation_id: str, lasting: timedelta = HOUR, now: datetime = NOW
) -> HeldLease:
    return leases.take(place, generation_id, "alice", "a backup", lasting=lasting, now=now)


def renew(
    place: LeasePlace, generation_id: str, lasting: timedelta = HOUR, now: datetime = NOW
) -> HeldLease:
    return leases.renew(place, generation_id, "alice", lasting=lasting, now=now)


def stored(writer: WriterHome) -> list[Lease]:
    return list(leases_in(writer.store()).leases)


@pytest.mark.parametrize("kind", ["writer", "node"])
def test_a_lease_is_taken_renewed_and_released_at_either_kind_of_home(
    writer: TestableWriter, oldest: str, kind: str
) -> None:
    home = writer.home if kind == "writer" else writer.home.with_name("node")
    place = place_of(home)
    held = take(place, oldest)
    assert held == HeldLease(new_lease(oldest, "alice", "a backup", NOW, HOUR), place.stores.url)
    assert stored(writer) == [held.lease]
    renewed = renew(place, oldest, 3 * HOUR)
    assert renewed.lease.purpose == "a backup"
    assert (
        stored(writer) == [renewed.lease] == [new_lease(oldest, "alice", "a backup", NOW, 3 * HOUR)]
    )
    assert leases.release(place.stores, oldest, "alice")
    assert stored(writer) == []
    assert not leases.release(place.stores, oldest, "alice")


def test_a_lease_taken_or_renewed_again_is_never_shorter(
    writer: TestableWriter, oldest: str
) -> None:
    place = place_of(writer.home)
    take(place, oldest, 5 * HOUR)
    for act in (take, renew):
        assert act(place, oldest, HOUR).lease.expires_at == "2026-11-21T17:00:00Z"
    assert renew(place, oldest, HOUR, NOW + 4 * HOUR + HOUR / 2).lease.expires_at == (
        "2026-11-21T17:30:00Z"
    )
    assert len(stored(writer)) == 1


def test_a_lease_planted_for_a_holder_makes_theirs_no_longer_than_any_may_be(
    writer: TestableWriter, oldest: str
) -> None:
    place = place_of(writer.home)
    write_lease(writer.store(), new_lease(oldest, "alice", "", NOW, timedelta(days=10_000)))
    lease = take(place, oldest, HOUR).lease
    assert datetime.fromisoformat(lease.expires_at) == NOW + LONGEST


def test_whoever_takes_one_reads_the_record_after_it_and_takes_it_back(
    writer: TestableWriter, oldest: str
) -> None:
    seen: list[list[Lease]] = []

    def record_after_a_collection() -> ControlRecord:
        seen.append(stored(writer))
        sign_away(writer, oldest)
        return writer.current().signed.record

    with pytest.raises(GenerationCollected) as caught:
        take(LeasePlace(writer.store(), record_after_a_collection), oldest)
    assert [[each.holder for each in one] for one in seen] == [["alice"]]
    assert stored(writer) == []
    assert caught.value.facts["retained_low_seq"] == 2


@pytest.mark.parametrize(
    ("generation_id", "error"),
    [
        ("g000000000099-0123456789ab", GenerationNotPublished),
        ("latest", GenerationUnknown),
        ("../../x", GenerationUnknown),
        ("", GenerationUnknown),
    ],
)
def test_of_what_there_is_not_no_lease_is_left(
    writer: TestableWriter, generation_id: str, error: type[GenctlError]
) -> None:
    place = place_of(writer.home)
    for act in (take, renew):
        with pytest.raises(error):
            act(place, generation_id)
    if error is GenerationUnknown:
        with pytest.raises(error):
            leases.release(place.stores, generation_id, "alice")
    assert stored(writer) == []


def test_row_59_of_a_revoked_generation_no_lease_is_had(
    writer: TestableWriter, oldest: str
) -> None:
    sign(writer, lambda record: with_revoked(record, oldest, "wrong"))
    with pytest.raises(GenerationRevoked):
        take(place_of(writer.home), oldest)
    assert stored(writer) == []


def test_an_expired_lease_is_renewed_and_says_so_while_its_generation_is_there(
    writer: TestableWriter, oldest: str
) -> None:
    place = place_of(writer.home)
    take(place, oldest)
    late = NOW + 5 * HOUR
    assert stored(writer)[0].has_expired(late)
    renewed = renew(place, oldest, HOUR, late)
    assert renewed.had_expired
    assert not stored(writer)[0].has_expired(late)
    assert not renew(place, oldest, HOUR, late).had_expired


def test_a_lease_that_expired_before_its_generation_was_collected_says_both(
    writer: TestableWriter, oldest: str
) -> None:
    place = place_of(writer.home)
    take(place, oldest)
    sign_away(writer, oldest)
    for _ in range(2):
        with pytest.raises(LeaseExpired, match="2026-11-21T13:00:00Z") as caught:
            renew(place, oldest, HOUR, NOW + 2 * HOUR)
        assert (caught.value.exit_code, caught.value.runbook) == (6, "lease-expired")
        assert caught.value.facts["generation_id"] == oldest
        assert caught.value.facts["expires_at"] == "2026-11-21T13:00:00Z"
        assert [each.expires_at for each in stored(writer)] == ["2026-11-21T13:00:00Z"]
    writer.store().delete(lease_key(oldest, "alice"))  # as a collection does
    for _ in range(2):
        with pytest.raises(LeaseExpired, match="no store has a lease of alice any more") as caught:
            renew(place, oldest, HOUR, NOW + 2 * HOUR)
        assert (caught.value.facts["expires_at"], caught.value.facts["retained_low_seq"]) == (
            None,
            2,
        )
    assert stored(writer) == []


def test_a_lease_that_counts_stays_although_its_generation_left_the_record(
    writer: TestableWriter, oldest: str
) -> None:
    place = place_of(writer.home)
    lease = take(place, oldest).lease
    sign_away(writer, oldest)
    for act in (renew, take):
        with pytest.raises(GenerationCollected):
            act(place, oldest, 9 * HOUR, NOW + HOUR / 2)
        assert stored(writer) == [lease], "until it ends of itself, as it was"


def test_a_lease_that_nobody_took_is_not_renewed(writer: TestableWriter, oldest: str) -> None:
    place = place_of(writer.home)
    with pytest.raises(LeaseUnknown):
        renew(place, oldest)
    with pytest.raises(GenerationNotPublished):
        renew(place, "g000000000099-0123456789ab")
    assert stored(writer) == []


def test_a_folder_that_is_no_home_has_no_leases(tmp_path: Path) -> None:
    with pytest.raises(HomeMissing):
        place_of(tmp_path)


def two_stores(folder: Path) -> WriterHome:
    init_home(
        folder / "writer",
        WriterSettings(
            shard="main",
            stores=(str(folder / "s0"), str(folder / "s1")),
            embedder="hashing",
            dimensions=DIMENSIONS,
        ),
    )
    writer = WriterHome(folder / "writer")
    add(writer, upserts([1]))
    return writer


def test_of_several_stores_the_first_that_takes_it_has_the_lease(tmp_path: Path) -> None:
    writer = two_stores(tmp_path)
    generation_id = writer.current().signed.record.published[0].generation_id
    (tmp_path / "s0" / "leases").write_bytes(b"in the way")
    place = place_of(writer.home)
    assert take(place, generation_id).store == str(tmp_path / "s1")
    assert (tmp_path / "s1" / lease_key(generation_id, "alice")).is_file()
    (tmp_path / "s0" / "leases").unlink()
    assert renew(place, generation_id).store == str(tmp_path / "s1"), "where it is"
    assert len(stored(writer)) == 1
    write_lease(FolderStore(tmp_path / "s0"), new_lease(generation_id, "alice", "", NOW, HOUR))
    assert leases.release(place.stores, generation_id, "alice")
    assert stored(writer) == []


def test_what_the_stores_that_answer_have_is_listed_beside_who_is_silent(tmp_path: Path) -> None:
    writer = two_stores(tmp_path)
    generation_id = writer.current().signed.record.published[0].generation_id
    place = place_of(writer.home)
    lease = take(place, generation_id).lease
    (tmp_path / "s1").rename(tmp_path / "away")
    listed = leases.listed(place.stores)
    assert listed.found.leases == (lease,)
    assert [each.name for each in listed.silent] == ["StoreUnavailable"]
    with pytest.raises(StoreUnavailable):
        leases.release(place.stores, generation_id, "alice")
    assert leases.listed(place.stores).found.leases == (), "given back where that could be"
    (tmp_path / "s0").rename(tmp_path / "away too")
    with pytest.raises(StoreUnavailable):
        leases.listed(place.stores)
    with pytest.raises(StoreUnavailable):
        take(LeasePlace(SpreadStore(place.stores.stores), place.record), generation_id)
