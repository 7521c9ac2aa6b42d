"""What an HTTP server can do to a read, and what becomes of the read."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from manifests.errors import (
    BodyMismatch,
    ExpansionExceeded,
    GenctlError,
    LengthExceeded,
    ObjectMissing,
    SourceBusy,
    StoreUnavailable,
    TransferDeadline,
)
from store.http_answers import Request
from store.http_pool import open_pool
from store.http_reads import HttpReader
from store.patience import Patience
from tests.store.contract import Watch
from tests.support import http_faults as faults
from tests.support.certificate import own_certificate, tls_of
from tests.support.http_faults import Answer, Fault, FaultyServer, holding
from tests.support.s3_server import free_ports
from tests.support.serving import eventually

TEN = b"0123456789"
LARGE = bytes(range(256)) * 8192
PATIENT = Patience(grace_s=60, silence_s=30)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(holding({"/ten": TEN, "/large": LARGE, "/empty": b""})) as running:
        yield running


@pytest.fixture
def over_tls(tmp_path: Path) -> Iterator[tuple[FaultyServer, HttpReader]]:
    certificate = own_certificate(tmp_path)
    with FaultyServer(holding({"/large": LARGE}), tls=tls_of(certificate)) as running:
        pool = open_pool(running.url, ca_bundle=str(certificate))
        yield running, HttpReader("the store", pool, patience=PATIENT)


def reader(server: FaultyServer, patience: Patience = PATIENT) -> HttpReader:
    return HttpReader("the store", open_pool(server.url), patience=patience)


def request(server: FaultyServer, key: str = "ten") -> Request:
    return Request(key, f"{server.url}/{key}")


def bulk(server: FaultyServer, patience: Patience = PATIENT) -> bytes:
    buffer = memoryview(bytearray(len(LARGE)))
    assert reader(server, patience).read_into(request(server, "large"), 0, buffer) == len(LARGE)
    return bytes(buffer)


def range_of(**headers: str) -> Fault:
    return faults.with_headers(**headers)


def body_of(change: Callable[[bytes], bytes]) -> Fault:
    return faults.changed(lambda answer: replace(answer, body=change(answer.body)))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(faults.status(429), SourceBusy, id="row 50: 429"),
        pytest.param(faults.status(500), StoreUnavailable, id="row 50: 500"),
        pytest.param(faults.status(503), SourceBusy, id="row 50: 503"),
        pytest.param(faults.closed, StoreUnavailable, id="row 50: closed"),
        pytest.param(faults.status(403), StoreUnavailable, id="403"),
        pytest.param(faults.status(302, Location="/large"), StoreUnavailable, id="redirect"),
        pytest.param(faults.cut_after(0), BodyMismatch, id="row 51: cut at 0"),
        pytest.param(faults.cut_after(5), BodyMismatch, id="row 51: cut at 5"),
        pytest.param(
            faults.status(200, b"<html>sign in</html>"), BodyMismatch, id="row 51: a page"
        ),
        pytest.param(faults.status(200, TEN[3:]), BodyMismatch, id="row 51: 200 of that length"),
        pytest.param(faults.status(204), BodyMismatch, id="row 51: no content"),
        pytest.param(range_of(Content_Range=""), BodyMismatch, id="row 51: no range"),
        pytest.param(
            range_of(Content_Range="bytes 2-8/10"), BodyMismatch, id="row 51: another range"
        ),
        pytest.param(
            range_of(Content_Range="bytes 3-8/10"), BodyMismatch, id="row 51: a shorter range"
        ),
        pytest.param(
            range_of(Content_Range="bytes 3-9/*"), BodyMismatch, id="row 51: unknown total"
        ),
        pytest.param(
            range_of(Content_Range="bytes 3-20/30"), BodyMismatch, id="row 25: a longer range"
        ),
        pytest.param(body_of(lambda body: body + b"more"), BodyMismatch, id="row 25: more bytes"),
        pytest.param(
            faults.status(416, Content_Range="bytes */10"), BodyMismatch, id="416 that is not so"
        ),
        pytest.param(
            faults.changed(
                lambda answer: replace(
                    answer,
                    body=gzip.compress(b"\0" * 100_000),
                    headers={**answer.headers, "Content-Encoding": "gzip"},
                )
            ),
            ExpansionExceeded,
            id="row 27: a bomb",
        ),
        pytest.param(faults.status(404), ObjectMissing, id="row 52"),
    ],
)
def test_a_bad_answer_to_a_range_is_named_and_the_next_read_is_right(
    server: FaultyServer, fault: Fault, error: type[GenctlError]
) -> None:
    store = reader(server)
    for read in (
        lambda: store.get(request(server), 3, 7),
        lambda: store.read_into(request(server), 3, memoryview(bytearray(7))),
    ):
        server.plan(fault)
        with pytest.raises(error) as caught:
            read()
        assert type(caught.value) is error
        assert store.get(request(server), 3, 7) == TEN[3:]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(faults.status(503), StoreUnavailable, id="row 50"),
        pytest.param(faults.cut_after(5), BodyMismatch, id="row 51: cut"),
        pytest.param(range_of(ETag=""), BodyMismatch, id="row 51: a page"),
        pytest.param(faults.status(206, TEN, ETag="x"), BodyMismatch, id="row 51: a part"),
        pytest.param(range_of(Content_Encoding="br"), ExpansionExceeded, id="row 27"),
        pytest.param(faults.endless, LengthExceeded, id="row 25: endless"),
        pytest.param(
            range_of(Content_Length=str(1 << 60)), LengthExceeded, id="row 25: says it is long"
        ),
    ],
)
def test_a_bad_answer_to_a_small_object_is_named(
    server: FaultyServer, fault: Fault, error: type[GenctlError]
) -> None:
    store = reader(server)
    server.plan(fault)
    with pytest.raises(error):
        store.get_whole(request(server), 1000)
    found = store.get_whole(request(server), 1000)
    assert found is not None
    assert found.data == TEN
    assert store.get_whole(request(server, "absent"), 1000) is None


def test_a_body_of_no_stated_length_is_no_small_object(server: FaultyServer) -> None:
    def unmeasured(line: faults.Line) -> None:
        line.send(Answer(200, {"Content-Length": "", "Connection": "close", "ETag": "x"}, TEN))
        line.hang_up()

    server.plan(unmeasured)
    with pytest.raises(BodyMismatch):
        reader(server).get_whole(request(server), 1000)


def test_the_size_is_asked_without_reading_the_object(server: FaultyServer) -> None:
    store = reader(server)
    assert store.size_bytes(request(server, "large")) == len(LARGE)
    assert store.size_bytes(request(server, "empty")) == 0
    assert store.size_bytes(request(server, "absent")) is None
    server.plan(faults.status(200, b"a page"), faults.status(503))
    with pytest.raises(BodyMismatch):
        store.size_bytes(request(server))
    with pytest.raises(StoreUnavailable):
        store.size_bytes(request(server))


def test_nothing_is_asked_to_be_compressed(server: FaultyServer) -> None:
    reader(server).get(request(server), 0, 10)
    assert [asked.headers["Accept-Encoding"] for asked in server.seen] == ["identity"]


def test_one_connection_serves_many_reads_and_none_that_was_left_in_the_middle(
    server: FaultyServer,
) -> None:
    store = reader(server)
    for _ in range(3):
        store.get(request(server), 0, 10)
        store.size_bytes(request(server, "large"))
        store.get_whole(request(server), 10)
        with pytest.raises(ObjectMissing):
            store.get(request(server, "absent"), 0, 1)
    assert len(server.connections) == 1

    def arrived(size_bytes: int) -> None:
        raise InterruptedError(size_bytes)

    with pytest.raises(InterruptedError):
        store.read_into(
            request(server, "large"), 0, memoryview(bytearray(len(LARGE))), Watch(arrived)
        )
    assert store.get(request(server), 0, 10) == TEN
    assert len(server.connections) == 2


def test_pieces_are_told_of_once_they_are_in_the_buffer(server: FaultyServer) -> None:
    buffer = memoryview(bytearray(len(LARGE)))
    done = 0

    def arrived(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        assert buffer[:done] == LARGE[:done]

    server.plan(faults.cut_after(1_000_000))
    with pytest.raises(BodyMismatch) as caught:
        reader(server).read_into(request(server, "large"), 0, buffer, Watch(arrived))
    assert done == 1_000_000
    assert caught.value.facts["received_bytes"] == 1_000_000


@pytest.mark.parametrize("fault", [faults.drip, faults.drip_head])
def test_row_28_a_drip_meets_its_deadline_in_the_body_and_in_the_headers(
    server: FaultyServer, fault: Fault
) -> None:
    server.always = fault
    quick = Patience(grace_s=0.5, silence_s=30, min_bytes_per_s=1 << 40)
    with pytest.raises(TransferDeadline, match="too slowly"):
        bulk(server, quick)
    with pytest.raises(TransferDeadline, match="too slowly"):
        reader(server, quick).get_whole(request(server, "large"), 1 << 30)


def test_row_28_the_deadline_grows_with_what_is_read(server: FaultyServer) -> None:
    now = 0.0

    def monotonic() -> float:
        return now

    def arrived(size_bytes: int) -> None:
        nonlocal now
        now += size_bytes / 1000

    patience = Patience(grace_s=1, min_bytes_per_s=1000)
    store = HttpReader("the store", open_pool(server.url), patience=patience, monotonic=monotonic)
    buffer = memoryview(bytearray(len(LARGE)))
    assert store.read_into(request(server, "large"), 0, buffer, Watch(arrived)) == len(LARGE)
    patience = Patience(grace_s=1, min_bytes_per_s=2000)
    store = HttpReader("the store", open_pool(server.url), patience=patience, monotonic=monotonic)
    with pytest.raises(TransferDeadline):
        store.read_into(request(server, "large"), 0, buffer, Watch(arrived))


@pytest.mark.parametrize("fault", [faults.silent, faults.silent_after(100)])
def test_row_50_silence_is_given_up(server: FaultyServer, fault: Fault) -> None:
    server.plan(fault)
    with pytest.raises(StoreUnavailable, match="in time"):
        bulk(server, Patience(silence_s=0.3))
    assert bulk(server) == LARGE


def test_row_50_a_port_where_nothing_listens_is_unavailable() -> None:
    [port] = free_ports(1)
    store = HttpReader("the store", open_pool(f"http://127.0.0.1:{port}"))
    with pytest.raises(StoreUnavailable, match="nothing answers"):
        store.get(Request("key", f"http://127.0.0.1:{port}/key"), 0, 1)


def test_row_50_a_host_that_no_name_service_knows_is_unavailable() -> None:
    store = HttpReader("the store", open_pool("http://no-such-host.invalid"))
    with pytest.raises(StoreUnavailable, match="host name"):
        store.get(Request("key", "http://no-such-host.invalid/key"), 0, 1)


def test_what_is_no_http_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail.example ESMTP\r\n" * 3)

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(StoreUnavailable):
            HttpReader("the store", open_pool(url)).get(Request("key", url), 0, 1)
        thread.join()


class Stopper:
    """A transfer that another thread stops once ``arrivals`` pieces are there."""

    def __init__(self, arrivals: int) -> None:
        self._arrivals = arrivals
        self._stop: Callable[[], None] | None = None
        self.ready = threading.Event()

    def arrived(self, size_bytes: int) -> None:
        self._arrivals -= 1
        if self._arrivals == 0:
            self.ready.set()

    def stop_by(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        if self._arrivals == 0:
            self.ready.set()

    def stop(self) -> None:
        assert self._stop is not None
        self._stop()


def stopped(server: FaultyServer, store: HttpReader, stopper: Stopper) -> None:
    buffer = memoryview(bytearray(len(LARGE)))
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(store.read_into, request(server, "large"), 0, buffer, stopper)
        assert stopper.ready.wait(30)
        eventually(lambda: bool(server.seen))
        stopper.stop()
        with pytest.raises(TransferDeadline, match="stopped"):
            reading.result(timeout=20)
    stopper.stop()
    assert store.get(request(server, "large"), 0, 10) == LARGE[:10]


STOPS = [(faults.silent, 0), (faults.silent_after(100), 1), (faults.drip, 1)]


@pytest.mark.parametrize(("fault", "arrivals"), STOPS)
def test_another_thread_ends_a_read_at_once(
    server: FaultyServer, fault: Fault, arrivals: int
) -> None:
    server.plan(fault)
    stopped(server, reader(server), Stopper(arrivals))


@pytest.mark.parametrize(("fault", "arrivals"), STOPS)
def test_another_thread_ends_a_read_over_tls_at_once(
    over_tls: tuple[FaultyServer, HttpReader], fault: Fault, arrivals: int
) -> None:
    server, store = over_tls
    server.plan(fault)
    stopped(server, store, Stopper(arrivals))


def test_another_thread_ends_a_read_whose_server_never_shakes_hands() -> None:
    stopper = Stopper(0)
    with socket.create_server(("127.0.0.1", 0)) as mute, ThreadPoolExecutor(1) as threads:
        url = f"https://127.0.0.1:{mute.getsockname()[1]}/large"
        store = HttpReader("the store", open_pool(url), patience=PATIENT)
        buffer = memoryview(bytearray(10))
        reading = threads.submit(store.read_into, Request("large", url), 0, buffer, stopper)
        connection, _ = mute.accept()
        with connection:
            assert connection.recv(1)  # it has begun to shake hands
            stopper.stop()
            with pytest.raises(TransferDeadline, match="stopped"):
                reading.result(timeout=20)


def test_a_proxy_of_the_environment_is_used_except_for_hosts_it_excepts(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "NO_PROXY", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://user:pass@{server.url.removeprefix('http://')}")
    origin = "http://origin.invalid"
    asked = Request("ten", f"{origin}/ten")
    assert HttpReader("the store", open_pool(origin)).get(asked, 0, 10) == TEN
    assert server.seen[0].path == f"{origin}/ten"
    sent = {name.lower(): value for name, value in server.seen[0].headers.items()}
    assert sent["proxy-authorization"] == "Basic dXNlcjpwYXNz"
    monkeypatch.setenv("no_proxy", ".invalid")
    with pytest.raises(StoreUnavailable) as caught:
        HttpReader("the store", open_pool(origin)).get(asked, 0, 10)
    assert "pass" not in caught.value.message
