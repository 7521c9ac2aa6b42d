"""A node holds a lease of what it fetches, where it can, and fetches all the same where not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller import clock, leased_fetch
from controller.collection import collect
from controller.leased_fetch import (
    NOTHING_FETCHED,
    FetchLease,
    LeaseReport,
    bring_leased,
    holder_of,
)
from controller.new_home import init_home
from controller.new_node import open_node
from controller.node import NodeHome
from controller.settings import WriterSettings
from controller.writer import WriterHome
from manifests.errors import GenerationCollected, StoreUnavailable, Unrepairable
from manifests.names import symbol_of
from manifests.retention import RetentionPolicy
from query.request import Request
from replicator.bring import unwatched
from store.folder import FolderStore
from store.leases import PREFIX, Lease, is_holder, leases_in
from store.port import UNWATCHED, Store, Transfer, VersionedBytes
from store.spread import SpreadStore
from tests.support.corpus import DIMENSIONS, upserts
from tests.support.homes import (
    TestableWriter,
    add,
    artifacts_of,
    copy_with_store,
    make_writer,
    symbols_of,
)
from tests.support.http_faults import FaultyServer, Line, proxy_to, s3_error, silent
from tests.support.s3_server import S3Server
from tests.support.signed_away import sign_away

DEADLINE_MS = 60_000


def until(holds: Callable[[], bool]) -> None:
    keep_waiting = clock.poller(DEADLINE_MS)
    while not holds():
        assert keep_waiting(), "it never came to that"


class SeenStore(FolderStore):
    """A folder that tells what is written, and lets a test act between reads and writes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.looked = 0
        self.written: list[str] = []
        self.on_write: Callable[[], None] = lambda: None
        self.on_read: Callable[[], None] = lambda: None

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        self.looked += key.startswith(PREFIX)
        return super().get_versioned(key, limit_bytes=limit_bytes)

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        if symbol_of(key) is not None:
            self.on_read()
        return super().read_into(key, offset=offset, buffer=buffer, transfer=transfer)

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        created = super().put_if_absent(key, parts)
        self.written.append(key)
        self.on_write()
        return created

    def leases(self) -> list[Lease]:
        return list(leases_in(FolderStore(self._root)).leases)


class SeenNode(NodeHome):
    """A node whose store is seen."""

    front: SeenStore

    def stores(self) -> SpreadStore:
        return SpreadStore([self.front])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> WriterHome:
    writer = make_writer(tmp_path_factory.mktemp("leased"))
    add(writer, upserts(range(3)))
    add(writer, upserts(range(3, 6)))
    return writer


@pytest.fixture
def writer(made: WriterHome, tmp_path: Path) -> TestableWriter:
    return copy_with_store(made, tmp_path)


@pytest.fixture
def node(writer: WriterHome) -> SeenNode:
    store = writer.settings.stores[0]
    home = writer.home.with_name("node")
    open_node(home, [store], writer.home / "root.json")
    node = SeenNode(home)
    node.front = SeenStore(Path(store))
    return node


def test_a_bootstrap_holds_a_lease_while_bytes_arrive_and_gives_it_back(node: SeenNode) -> None:
    seen: list[Lease] = []

    def look() -> None:
        until(lambda: bool(node.front.leases()))
        seen.extend(node.front.leases())

    node.front.on_read = look
    report = node.bootstrap()
    assert report.activated
    assert {(each.generation_id, each.purpose) for each in seen} == {
        (report.pointer.active.generation_id, "bootstrap")
    }
    assert len({each.holder for each in seen}) == 1
    assert report.lease.lease in seen
    assert (report.lease.store, report.lease.reason) == (node.front.url, None)
    assert node.front.leases() == []
    assert is_holder(holder_of(node))


def test_two_fetches_of_machines_that_are_copies_have_a_lease_each(node: SeenNode) -> None:
    assert holder_of(node) != holder_of(node)


def test_a_bootstrap_that_fetches_nothing_writes_nothing(node: SeenNode) -> None:
    node.bootstrap()
    node.front.written.clear()
    report = node.bootstrap()
    assert (report.lease.lease, report.lease.reason) == (None, NOTHING_FETCHED)
    assert node.front.written == []


def test_a_query_of_the_past_holds_a_lease_of_what_it_fetches(node: SeenNode) -> None:
    node.bootstrap()
    purposes: set[str] = set()

    def look() -> None:
        until(lambda: bool(node.front.leases()))
        purposes.update(each.purpose for each in node.front.leases())

    node.front.on_read = look
    request = Request(text="unique1", mode="lexical")
    assert node.query(node.reader(), request, as_of_commit_seq=1).commit_seq == 1
    assert purposes == {"query"}
    assert node.front.leases() == []


def test_a_lease_is_given_back_after_a_fetch_that_failed(
    writer: TestableWriter, node: SeenNode
) -> None:
    for path in symbols_of(writer, artifacts_of(writer)[0]).iterdir():
        path.unlink()
    with pytest.raises(Unrepairable):
        node.bootstrap()
    assert any(key.startswith(PREFIX) for key in node.front.written)
    assert node.front.leases() == []


def test_a_lease_is_renewed_as_long_as_the_fetch_lasts(
    node: SeenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leased_fetch, "RENEWED_EVERY_S", 0.01)
    node.front.on_read = lambda: until(lambda: node.front.looked > 3)
    assert node.bootstrap().lease.lease is not None
    assert node.front.leases() == []


class FailingRenewals(SeenStore):
    """A folder that takes a lease once, and refuses to have it renewed so many times."""

    def __init__(self, root: Path, refusals: int) -> None:
        (root / "something").touch()  # an empty folder is no store
        super().__init__(root)
        self.refusals = refusals
        self.refused = 0
        self.renewed = 0

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        found = super().get_versioned(key, limit_bytes=limit_bytes)
        if found is not None:
            if self.refused < self.refusals:
                self.refused += 1
                raise StoreUnavailable("says the test")
            self.renewed += 1
        return found


def leased(
    store: Store, monkeypatch: pytest.MonkeyPatch, now: Callable[[], datetime]
) -> FetchLease:
    monkeypatch.setattr(leased_fetch, "RENEWED_EVERY_S", 0.01)
    lease = FetchLease(SpreadStore([store]), "node-n", "bootstrap", now)
    lease.begin(GENERATION)
    assert lease.is_taken()
    lease.confirm()
    return lease


GENERATION = "g000000000001-0123456789ab"
START = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize("hours", [0, 2])
def test_a_lease_that_expired_since_it_could_not_be_renewed_is_reported_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    store = FailingRenewals(tmp_path, 10**9)
    now = [START]
    lease = leased(store, monkeypatch, lambda: now[0])
    until(lambda: store.refused > 0)
    now[0] += timedelta(hours=hours)
    report = lease.end()
    assert report.lease is not None
    if hours == 0:
        assert report.reason is None, "it held to the end"
    else:
        assert report.reason is not None
        assert report.reason.startswith("it expired at 2026-11-21T13:00:00Z, before the fetch")
        assert "StoreUnavailable: says the test" in report.reason


def test_a_lease_that_was_renewed_too_late_is_reported_as_not_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FailingRenewals(tmp_path, 3)
    times = iter([START])
    lease = leased(store, monkeypatch, lambda: next(times, START + timedelta(hours=2)))
    until(lambda: store.renewed > 1)
    report = lease.end()
    assert report.lease is not None
    assert report.lease.expires_at == "2026-11-21T15:00:00Z", "the last one that there was"
    assert report.reason is not None
    assert report.reason.startswith("it was not confirmed: it had expired at 2026-11-21T13:00:00Z")


def test_a_lease_that_came_too_late_to_be_confirmed_is_reported_as_that(
    node: SeenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leased_fetch, "TAKEN_WITHIN_S", 0.0)
    looked, written = threading.Event(), threading.Event()
    is_taken = FetchLease.is_taken

    def looks(lease: FetchLease) -> bool:
        found = is_taken(lease)
        looked.set()
        return found

    end = FetchLease.end

    def ends(lease: FetchLease) -> LeaseReport:
        assert lease._settled.wait(DEADLINE_MS / 1000)
        return end(lease)

    monkeypatch.setattr(FetchLease, "is_taken", looks)
    monkeypatch.setattr(FetchLease, "end", ends)
    node.front.on_write = lambda: written.set() if looked.wait(DEADLINE_MS / 1000) else None
    report = node.bootstrap()
    assert written.is_set()
    assert report.lease.lease is not None
    assert report.lease.reason is not None
    assert report.lease.reason.startswith("it was not confirmed: the record was not read again")


def test_a_store_that_hangs_on_the_lease_keeps_no_bootstrap_waiting(
    node: SeenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leased_fetch, "TAKEN_WITHIN_S", 0.05)
    going_on = threading.Event()

    def hang() -> None:
        assert going_on.wait(DEADLINE_MS / 1000), "the bootstrap waited for it"

    node.front.on_write = hang
    try:
        report = node.bootstrap()
    finally:
        going_on.set()
    assert report.activated
    assert report.lease.lease is None
    assert report.lease.reason is not None
    assert "no store took it" in report.lease.reason
    until(lambda: node.front.leases() == [])


def test_a_folder_in_which_no_lease_can_be_written_is_fetched_from_all_the_same(
    node: SeenNode, writer: TestableWriter
) -> None:
    Path(writer.settings.stores[0], "leases").write_bytes(b"in the way")
    report = node.bootstrap()
    assert report.activated
    assert report.lease.lease is None
    assert report.lease.reason is not None
    assert report.lease.reason.startswith("ObjectObstructed: ")


def test_what_was_collected_before_the_lease_could_be_seen_is_not_served(
    node: SeenNode, writer: TestableWriter
) -> None:
    first = writer.current().signed.record.active
    assert first is not None
    collected: list[str] = []

    def collect() -> None:
        if not collected:
            collected.append(first)
            add(writer, upserts([10]))
            add(writer, upserts([11]))
            sign_away(writer, first)

    node.front.on_write = collect
    report = node.bootstrap()
    assert collected == [first]
    assert report.activated
    assert report.pointer.active.high_seq == 4
    assert node.front.leases() == []


@pytest.fixture
def faulty(s3: S3Server, s3_url: str) -> Iterator[tuple[str, FaultyServer]]:
    """The URL of a bucket behind a server that can be told to fail, and that server."""
    with FaultyServer(proxy_to(s3.endpoint)) as server:
        yield s3_url.replace(s3.endpoint, server.url), server


@pytest.mark.parametrize("how", ["forbidden", "silent"])
def test_a_bucket_that_may_only_be_read_is_fetched_from_all_the_same(
    faulty: tuple[str, FaultyServer], tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, server = faulty
    init_home(
        tmp_path / "writer",
        WriterSettings(
            shard="main",
            stores=(url,),
            embedder="hashing",
            dimensions=DIMENSIONS,
        ),
    )
    writer = WriterHome(tmp_path / "writer")
    entry = add(writer, upserts(range(3)))
    monkeypatch.setattr(leased_fetch, "TAKEN_WITHIN_S", 0.5)

    def read_only(line: Line) -> None:
        if line.asked.method in {"GET", "HEAD"}:
            line.send(line.proper())
        elif how == "forbidden":
            s3_error(403, "AccessDenied")(line)
        else:
            silent(line)

    server.always = read_only
    node = open_node(tmp_path / "node", [url], writer.home / "root.json")
    report = node.bootstrap()
    assert report.pointer.active == entry
    assert report.lease.lease is None
    assert report.lease.reason is not None
    expected = "StoreRefused: " if how == "forbidden" else "no store took it"
    assert report.lease.reason.startswith(expected)
    assert list(leases_in(writer.store()).leases) == []


def test_a_bucket_that_may_be_written_has_the_lease_and_has_it_no_more(
    faulty: tuple[str, FaultyServer], tmp_path: Path
) -> None:
    url, server = faulty
    init_home(
        tmp_path / "writer",
        WriterSettings(shard="main", stores=(url,), embedder="hashing", dimensions=DIMENSIONS),
    )
    writer = WriterHome(tmp_path / "writer")
    add(writer, upserts(range(3)))
    node = open_node(tmp_path / "node", [url], writer.home / "root.json")
    server.seen.clear()
    report = node.bootstrap()
    assert report.lease.lease is not None, report.lease.reason
    changes = [each.method for each in server.seen if PREFIX in each.path and each.method != "GET"]
    assert changes == ["PUT", "DELETE"]
    assert list(leases_in(writer.store()).leases) == []


def test_what_was_collected_under_a_fetch_without_a_lease_is_not_said_to_be_lost(
    node: SeenNode, writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = writer.current().signed.record.active_entry()
    stores = node.stores()
    trusted = node.trust().refresh(stores)
    for number in (7, 8):
        add(writer, upserts([number]))
    policy = {"retention": RetentionPolicy(keep_last=1), "collection_grace_hours": 0}
    writer.settings = writer.settings.model_copy(update=policy)
    collect(writer, lambda _: lambda _: None)

    def refusing(*_: object) -> Store:
        raise StoreUnavailable("nothing may be written here, says the test")

    monkeypatch.setattr(leased_fetch, "write_first", refusing)
    with pytest.raises(GenerationCollected):
        bring_leased(node, entry, trusted, stores, unwatched, purpose="a test")
