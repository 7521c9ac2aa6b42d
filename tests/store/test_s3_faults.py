"""The S3 store behind a server that misbehaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manifests.errors import (
    BodyMismatch,
    DiskFull,
    GenctlError,
    ObjectMissing,
    StoreUnavailable,
)
from store.locate import open_store
from store.patience import Patience
from store.port import Store
from store.s3 import S3Store
from store.s3_address import parse_address
from tests.store.contract import versioned
from tests.support import http_faults as faults
from tests.support.certificate import own_certificate, tls_of
from tests.support.http_faults import Fault, FaultyServer, Line, proxy_to, s3_error
from tests.support.s3_server import S3Server


@pytest.fixture
def proxy(s3: S3Server, s3_url: str) -> Iterator[FaultyServer]:
    with FaultyServer(proxy_to(s3.endpoint)) as running:
        yield running


@pytest.fixture
def direct(s3_url: str) -> Store:
    return open_store(s3_url)


@pytest.fixture
def store(proxy: FaultyServer, s3: S3Server, s3_url: str) -> Store:
    """The store through the proxy, with its proof behind it and ``pointer`` in it."""
    made = open_store(s3_url.replace(s3.endpoint, proxy.url))
    assert made.put_if_absent("pointer", [b"one"])
    proxy.seen.clear()
    return made


def carried_out_then(fault: Fault) -> Fault:
    """Do what was asked, then answer something else."""

    def both(line: Line) -> None:
        line.proper()
        fault(line)

    return both


conflict = s3_error(409, "ConditionalRequestConflict")
lost_race = s3_error(500, "UnknownError")


def test_row_46_a_conflict_is_tried_again_a_few_times(
    store: Store, proxy: FaultyServer, direct: Store
) -> None:
    proxy.plan(conflict, conflict)
    assert store.compare_and_swap("pointer", b"two", versioned(direct, "pointer").version)
    proxy.plan(conflict)
    assert store.put_if_absent("new", [b"x", b"y"])
    assert direct.get("new", length=9) == b"xy"
    proxy.seen.clear()
    proxy.always = conflict
    with pytest.raises(StoreUnavailable):
        store.compare_and_swap("pointer", b"three", versioned(direct, "pointer").version)
    assert len(proxy.seen) == 5
    assert direct.get("pointer", length=9) == b"two"


def test_row_46_after_a_conflict_the_condition_may_no_longer_hold(
    store: Store, proxy: FaultyServer, direct: Store
) -> None:
    old = versioned(direct, "pointer").version
    assert direct.compare_and_swap("pointer", b"other", old)
    proxy.plan(conflict)
    assert not store.compare_and_swap("pointer", b"two", old)
    proxy.plan(conflict)
    assert not store.put_if_absent("pointer", [b"two"])
    assert direct.get("pointer", length=9) == b"other"


@pytest.mark.parametrize("fault", [faults.no_answer, carried_out_then(s3_error(503, "SlowDown"))])
def test_row_45_an_outcome_that_is_unknown_is_not_guessed(
    store: Store, proxy: FaultyServer, direct: Store, fault: Fault
) -> None:
    proxy.plan(fault)
    with pytest.raises(StoreUnavailable):
        store.compare_and_swap("pointer", b"two", versioned(direct, "pointer").version)
    assert direct.get("pointer", length=9) == b"two"
    proxy.plan(fault)
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("new", [b"x"])
    assert direct.get("new", length=9) == b"x"
    proxy.plan(faults.closed)
    with pytest.raises(StoreUnavailable):
        store.compare_and_swap("pointer", b"three", versioned(direct, "pointer").version)
    assert direct.get("pointer", length=9) == b"two"


def test_row_45_an_answer_500_to_a_write_that_took_place_is_success(
    store: Store, proxy: FaultyServer, direct: Store
) -> None:
    proxy.plan(carried_out_then(lost_race))
    assert store.compare_and_swap("pointer", b"two", versioned(direct, "pointer").version)
    assert direct.get("pointer", length=9) == b"two"
    proxy.plan(carried_out_then(lost_race))
    assert store.put_if_absent("new", [b"x"])


def test_row_44_an_answer_500_to_a_lost_race_is_a_lost_race(
    store: Store, proxy: FaultyServer, direct: Store
) -> None:
    old = versioned(direct, "pointer").version
    # The same bytes: only the token in the metadata tells the two writers apart.
    assert direct.compare_and_swap("pointer", b"two", old)
    proxy.plan(lost_race)
    assert not store.compare_and_swap("pointer", b"two", old)
    proxy.plan(lost_race)
    assert not store.put_if_absent("pointer", [b"two"])


def test_row_45_an_answer_500_that_changed_nothing_is_tried_again(
    store: Store, proxy: FaultyServer, direct: Store
) -> None:
    proxy.plan(lost_race)
    assert store.compare_and_swap("pointer", b"two", versioned(direct, "pointer").version)
    # Carried out late: the second attempt finds the first one's object.
    proxy.plan(lost_race, None, carried_out_then(s3_error(412, "PreconditionFailed")))
    assert store.compare_and_swap("pointer", b"three", versioned(direct, "pointer").version)
    proxy.plan(*[lost_race, None] * 5)
    with pytest.raises(StoreUnavailable):
        store.compare_and_swap("pointer", b"four", versioned(direct, "pointer").version)
    assert direct.get("pointer", length=9) == b"three"


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (s3_error(429, "TooManyRequests"), StoreUnavailable, "try again in a while"),
        (s3_error(503, "SlowDown"), StoreUnavailable, "try again in a while"),
        (s3_error(403, "AccessDenied"), StoreUnavailable, "permission s3:"),
        (s3_error(403, "RequestTimeTooSkewed"), StoreUnavailable, "clock"),
        (s3_error(301, "PermanentRedirect"), StoreUnavailable, "region"),
        (s3_error(403, "QuotaExceeded"), DiskFull, "is full"),
        (faults.closed, StoreUnavailable, "again"),
    ],
)
def test_row_50_refusals_of_every_request_are_named(
    store: Store, proxy: FaultyServer, fault: Fault, error: type[GenctlError], words: str
) -> None:
    acts: list[Callable[[], object]] = [
        lambda: store.get("pointer", length=3),
        lambda: store.stat("pointer"),
        lambda: store.get_versioned("pointer", limit_bytes=9),
        lambda: list(store.list("")),
        lambda: store.put_if_absent("new", [b"x"]),
        lambda: store.compare_and_swap("pointer", b"x", "0" * 32),
        lambda: store.delete("pointer"),
    ]
    proxy.always = fault
    for act in acts:
        with pytest.raises(error, match=words):
            act()
    proxy.always = None
    assert store.get("pointer", length=9) == b"one"


def page(*keys: str, goes_on: bool = False) -> Fault:
    """An answer to a request for a listing."""
    entries = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    more = "<NextContinuationToken>t</NextContinuationToken>" if goes_on else ""
    truncated = f"<IsTruncated>{str(goes_on).lower()}</IsTruncated>"
    body = f"<ListBucketResult>{truncated}{more}{entries}</ListBucketResult>"
    return faults.status(200, body.encode())


@pytest.mark.parametrize(
    "fault",
    [s3_error(503, "SlowDown"), faults.closed, faults.cut_after(5), faults.status(200, b"<h")],
)
def test_row_50_a_listing_that_breaks_off_says_so(
    store: Store, proxy: FaultyServer, fault: Fault
) -> None:
    proxy.plan(page("a", "b", goes_on=True), fault)
    listing = store.list("")
    assert [next(listing).key, next(listing).key] == ["a", "b"]
    with pytest.raises(StoreUnavailable):
        next(listing)


def test_a_listing_out_of_order_is_refused(store: Store, proxy: FaultyServer) -> None:
    proxy.plan(page("b", goes_on=True), page("a"))
    with pytest.raises(BodyMismatch, match="order"):
        list(store.list(""))


def test_row_51_a_body_cut_short_is_a_mismatch(store: Store, proxy: FaultyServer) -> None:
    proxy.plan(faults.cut_after(2))
    with pytest.raises(BodyMismatch):
        store.get("pointer", length=3)
    proxy.plan(faults.status(200, b"<html>sign in</html>"))
    with pytest.raises(BodyMismatch):
        store.get_versioned("pointer", limit_bytes=100)


@pytest.mark.parametrize("body", [b"", b"<html>sign in</html>"])
def test_row_51_a_page_of_something_else_is_no_empty_listing_and_no_acknowledgement(
    store: Store, proxy: FaultyServer, direct: Store, body: bytes
) -> None:
    proxy.always = faults.status(200, body)
    with pytest.raises(BodyMismatch):
        list(store.list(""))
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("new", [b"x"])
    with pytest.raises(StoreUnavailable):
        store.compare_and_swap("pointer", b"two", versioned(direct, "pointer").version)


def test_row_52_an_object_that_is_not_there_is_missing(store: Store) -> None:
    with pytest.raises(ObjectMissing) as caught:
        store.read_into("absent", offset=0, buffer=memoryview(bytearray(1)))
    assert caught.value.facts["key"] == "absent"


def test_row_50_a_server_that_says_nothing_is_given_up(
    proxy: FaultyServer, s3: S3Server, s3_url: str
) -> None:
    address = parse_address(s3_url.replace(s3.endpoint, proxy.url))
    proxy.plan(faults.silent)
    with pytest.raises(StoreUnavailable, match="in time"):
        S3Store(address, patience=Patience(silence_s=0.3)).stat("key")


def test_a_certificate_that_nobody_vouches_for_is_refused_and_a_trusted_one_taken(
    s3: S3Server, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = own_certificate(tmp_path)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with FaultyServer(proxy_to(s3.endpoint), tls=tls_of(path)) as server:
        url = s3_url.replace(s3.endpoint, server.url)
        with pytest.raises(StoreUnavailable, match="certificate"):
            open_store(url).stat("key")
        with pytest.raises(StoreUnavailable, match="certificate"):
            open_store(url, create=True)
        assert server.seen == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(path))
        store = open_store(url, create=True)
        assert store.put_if_absent("key", [b"value"])
        assert store.get("key", length=9) == b"value"
        server.plan(faults.cut_after(2))
        with pytest.raises(BodyMismatch):
            store.get("key", length=9)
