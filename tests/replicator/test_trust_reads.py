"""What a refresh reads: within a time, by a clock; from real servers that misbehave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from tuf.api.metadata import Timestamp

from manifests.errors import BodyMismatch, ClockSuspect, TransferDeadline
from replicator.trust import Surroundings, Trust
from store.locate import open_store
from store.port import Store
from store.retrying import Backoff, RetryingStore
from store.server_time import server_time
from store.spread import SpreadStore
from tests.replicator.shards import Shard, generation
from tests.support import http_faults as faults
from tests.support.certificate import own_certificate, tls_of
from tests.support.http_faults import Answer, Asked, FaultyServer, Line, holding

GRACE_S = 0.5


@pytest.fixture
def shard() -> Shard:
    return Shard()


@pytest.fixture
def server(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """The shard's metadata behind HTTP, as a server of S3 gives it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anything")

    def origin(asked: Asked) -> Answer:
        keys = [info.key for info in shard.store.list("")]
        return holding({f"/bucket/{key}": shard.store.get(key, length=1 << 20) for key in keys})(
            asked
        )

    with FaultyServer(origin) as running:
        yield running


@pytest.fixture
def store(server: FaultyServer) -> SpreadStore:
    """As a node has it: several stores as one, asked again."""
    behind = open_store(f"s3://bucket?endpoint={server.url}")
    return SpreadStore([RetryingStore(behind, Backoff(lambda _: None, lambda: 0.0))])


def trust(shard: Shard, folder: Path) -> Trust:
    around = Surroundings(
        now=lambda: shard.now, grace_s=GRACE_S, min_bytes_per_s=1 << 30, monotonic=time.monotonic
    )
    return Trust(folder, shard.anchor, around)


def only(name: str, fault: faults.Fault) -> faults.Fault:
    """The fault for one object, a proper answer for all others."""

    def meet(line: Line) -> None:
        if line.asked.path.endswith(name):
            fault(line)
        else:
            line.send(line.proper())

    return meet


@pytest.mark.parametrize("fault", [faults.drip, faults.drip_head, faults.silent])
@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json", "root.json"])
def test_row_28_a_store_that_drips_is_given_up_and_what_was_believed_stands(
    shard: Shard,
    server: FaultyServer,
    store: Store,
    tmp_path: Path,
    name: str,
    fault: faults.Fault,
) -> None:
    patient = shard.trust(tmp_path / "trust")
    patient.refresh(shard.store)
    shard.next_root()
    shard.release(2)
    server.always = only(name, fault)
    with pytest.raises(TransferDeadline):
        trust(shard, tmp_path / "trust").refresh(store)
    assert patient.last_record().active == generation(1).generation_id
    server.always = None
    assert patient.refresh(store).record.active == generation(2).generation_id


@pytest.mark.parametrize("fault", [faults.drip, faults.silent])
def test_row_28_a_store_that_drips_leaves_the_next_one_its_time_and_is_asked_only_once(
    shard: Shard, server: FaultyServer, store: SpreadStore, tmp_path: Path, fault: faults.Fault
) -> None:
    server.always = fault
    trusted = trust(shard, tmp_path / "trust").refresh(SpreadStore([*store.stores, shard.store]))
    assert trusted.record.active == generation(1).generation_id
    assert len(server.seen) == 1


@pytest.mark.parametrize("name", ["timestamp.json", "targets.json"])
def test_row_51_an_answer_that_breaks_off_is_asked_for_again_a_few_times(
    shard: Shard, server: FaultyServer, store: Store, tmp_path: Path, name: str
) -> None:
    cuts = [faults.cut_after(10), faults.cut_after(100)]

    def cut(line: Line) -> None:
        if cuts:
            cuts.pop()(line)
        else:
            line.send(line.proper())

    server.always = only(name, cut)
    patient = shard.trust(tmp_path / "trust")
    assert patient.refresh(store).record.active == generation(1).generation_id
    shard.release(2)
    server.always = only(name, faults.cut_after(10))
    with pytest.raises(BodyMismatch):
        patient.refresh(store)


def test_row_28_the_time_is_that_of_all_reads_together(
    shard: Shard, server: FaultyServer, store: Store, tmp_path: Path
) -> None:
    """Each read alone is within the time, but the clock goes on."""
    seconds = iter(range(1000))
    around = Surroundings(
        now=lambda: shard.now, grace_s=3.0, min_bytes_per_s=1 << 30, monotonic=lambda: next(seconds)
    )
    with pytest.raises(TransferDeadline):
        Trust(tmp_path / "trust", shard.anchor, around).refresh(store)


def test_row_23_the_servers_date_is_its_time(server: FaultyServer) -> None:
    told = datetime(2026, 11, 21, 12, tzinfo=UTC)
    server.always = faults.with_headers(Date=format_datetime(told, usegmt=True))
    assert server_time([f"s3://bucket?endpoint={server.url}"]) == told
    (asked,) = server.seen
    assert asked.method == "HEAD"
    assert "Authorization" not in asked.headers


@pytest.mark.parametrize("is_trusted", [True, False])
def test_row_23_the_time_is_believed_from_who_has_a_certificate_that_a_profile_trusts(
    shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_trusted: bool
) -> None:
    """Without credentials: there are none here, and none are asked for."""
    certificate = own_certificate(tmp_path)
    profile = tmp_path / "config"
    profile.write_text(f"[default]\nca_bundle = {certificate}\n" if is_trusted else "", "utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(profile))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    with FaultyServer(holding({}), tls=tls_of(certificate)) as server:
        server.always = faults.with_headers(Date=format_datetime(shard.now, usegmt=True))
        told = server_time([f"s3://bucket?endpoint={server.url}"])
    assert told == (shard.now if is_trusted else None)


def test_a_profile_that_does_not_exist_tells_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert server_time(["s3://bucket?endpoint=https://127.0.0.1:1"]) is None


@pytest.mark.parametrize(
    "fault",
    [
        faults.with_headers(Date="soon"),
        faults.with_headers(Date=""),
        faults.closed,
        faults.status(403),
    ],
)
def test_a_server_that_does_not_tell_the_time_is_asked_nothing_more(
    server: FaultyServer, fault: faults.Fault
) -> None:
    server.always = fault
    assert server_time([f"s3://bucket?endpoint={server.url}"]) is None


def test_a_refusal_tells_the_time_too(server: FaultyServer) -> None:
    server.always = faults.status(403, Date="Sat, 21 Nov 2026 12:00:00 GMT")
    assert server_time([f"s3://bucket?endpoint={server.url}"]) == datetime(
        2026, 11, 21, 12, tzinfo=UTC
    )


def test_a_folder_has_no_time_of_its_own_and_the_next_store_is_asked(
    server: FaultyServer, tmp_path: Path
) -> None:
    assert server_time([str(tmp_path)]) is None
    server.always = faults.with_headers(Date="Sat, 21 Nov 2026 12:00:00 GMT")
    assert server_time([str(tmp_path), f"s3://bucket?endpoint={server.url}"]) is not None


@pytest.mark.parametrize("off", [timedelta(days=-1), timedelta(days=1)], ids=str)
def test_row_23_a_node_asks_its_store_for_the_time_first(
    shard: Shard, server: FaultyServer, tmp_path: Path, off: timedelta
) -> None:
    server.always = faults.with_headers(Date=format_datetime(shard.now, usegmt=True))
    around = Surroundings(
        now=lambda: shard.now + off,
        store_time=lambda: server_time([f"s3://bucket?endpoint={server.url}"]),
    )
    with pytest.raises(ClockSuspect):
        Trust(tmp_path / "trust", shard.anchor, around).refresh(shard.store)
    assert not any(Timestamp.type in asked.path for asked in server.seen)
