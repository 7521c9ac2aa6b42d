"""What a peer gives at most: reads, time, connections, bytes; and what a failing disk does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from urllib.parse import urlsplit

import pytest

from controller import serve as serve_module
from controller.peer_service import PIECE_SIZE_BYTES
from controller.serve import PeerProtocol
from store.rate_limit import TokenBucket
from tests.support.serving import (
    DEADLINE_S,
    LARGE_BYTES,
    Home,
    ask,
    ask_raw,
    connect,
    eventually,
    rest,
    serving,
    stalled,
    status_of,
)


class Recording(TokenBucket):
    """Asks everybody to wait for ``delay`` and keeps what they took."""

    def __init__(self, bytes_per_s: int, delay: float) -> None:
        super().__init__(bytes_per_s, lambda: 0.0)
        self.taken: list[int] = []
        self.delay = delay

    def delay_s(self, size_bytes: int) -> float:
        self.taken.append(size_bytes)
        return self.delay


def end_of(connection: socket.socket) -> bytes:
    """What still comes until the other side ends the connection, which it must."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(1 << 16):
            received += piece
    return bytes(received)


def test_more_reads_than_are_allowed_at_once_are_refused_at_once(home: Home) -> None:
    large = home.put_large()
    with serving(home.application(reads_at_once=2)) as url:
        with stalled(url, large):
            with stalled(url, large):
                status, headers, _ = ask(url, f"/v1/objects/{home.artifact}")
                assert status == 503
                assert int(headers["retry-after"]) >= 1
                assert ask(url, "/v1/health")[0] == 200
            eventually(lambda: status_of(url, home.artifact) == 200)
            assert status_of(url, home.artifact) == 200
        # Nothing is kept by reads that ended, well or badly.
        for _ in range(3):
            eventually(lambda: status_of(url, home.artifact) == 200)
            assert status_of(url, "artifacts/" + "0" * 64) == 404
            assert ask(url, f"/v1/objects/{home.artifact}", Range="bytes=9999-")[0] == 416


def test_a_read_counts_until_its_last_piece_has_left(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Narrow(PeerProtocol):
        """Its system keeps so little that most of a piece stays with the server."""

        def connection_made(  # type: ignore[override]
            self, transport: asyncio.Transport
        ) -> None:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            super().connection_made(transport)

    monkeypatch.setattr(serve_module, "PeerProtocol", Narrow)
    one_piece = home.put("artifacts", bytes(PIECE_SIZE_BYTES))
    with serving(home.application(reads_at_once=1)) as url:
        parts = urlsplit(url)
        with socket.socket() as reader:
            reader.settimeout(DEADLINE_S)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            reader.connect((parts.hostname, parts.port))
            reader.sendall(f"GET /v1/objects/{one_piece} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert reader.recv(15) == b"HTTP/1.1 200 OK"
            for _ in range(5):
                assert status_of(url, home.artifact) == 503
        eventually(lambda: status_of(url, home.artifact) == 200)


def test_nothing_more_is_read_for_a_reader_that_left(home: Home) -> None:
    large = home.put_large()
    bandwidth = Recording(1 << 30, 0)
    with serving(home.application(reads_at_once=1, bandwidth=bandwidth)) as url:
        with stalled(url, large):
            pass
        eventually(lambda: status_of(url, home.artifact) == 200)
        assert sum(bandwidth.taken) < LARGE_BYTES


def test_a_reader_that_stops_reading_is_cut_off(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "WRITE_TIMEOUT_S", 0.2)
    large = home.put_large()
    with serving(home.application(reads_at_once=1)) as url, stalled(url, large) as response:
        eventually(lambda: status_of(url, home.artifact) == 200)
        assert rest(response) < LARGE_BYTES


def test_a_reader_that_takes_it_all_is_timed_no_more(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[PeerProtocol] = []
    timed: list[bool] = []

    class Watched(PeerProtocol):
        def connection_made(  # type: ignore[override]
            self, transport: asyncio.Transport
        ) -> None:
            made.append(self)
            super().connection_made(transport)

        def pause_writing(self) -> None:
            super().pause_writing()
            timed.append(self._write_timer is not None)

    monkeypatch.setattr(serve_module, "PeerProtocol", Watched)
    with (
        serving(home.application()) as url,
        stalled(url, home.put_large()) as response,
    ):
        eventually(lambda: bool(timed))
        assert rest(response) == LARGE_BYTES
        assert all(timed)
        (protocol,) = made
        eventually(lambda: protocol._write_timer is None)


def test_a_connection_that_asks_for_nothing_is_dropped(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "REQUEST_TIMEOUT_S", 0.1)
    with serving(home.application()) as url:
        for begun in (b"", b"GET /v1/health HTTP/1.1\r\nHost:"):
            assert ask_raw(url, begun) == b""


@pytest.mark.parametrize("more", [b"G", b"GET /v1/health HTTP/1.1\r\nHost:"])
def test_a_kept_connection_that_only_begins_its_next_request_is_dropped(
    home: Home, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    with serving(home.application()) as url, contextlib.closing(connect(url)) as kept:
        for _ in range(2):  # between whole requests nothing is timed but idleness
            kept.request("GET", "/v1/health")
            assert kept.getresponse().read()
        monkeypatch.setattr(serve_module, "REQUEST_TIMEOUT_S", 0.1)
        assert kept.sock is not None
        kept.sock.sendall(more)
        assert end_of(kept.sock) == b""


def test_a_body_that_never_comes_does_not_hold_a_kept_connection(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    with serving(home.application()) as url, contextlib.closing(connect(url)) as kept:
        kept.connect()
        kept.sock.sendall(head)
        assert kept.sock.recv(12) == b"HTTP/1.1 200"
        monkeypatch.setattr(serve_module, "REQUEST_TIMEOUT_S", 0.1)

        def dropped() -> bool:
            try:
                kept.sock.sendall(b"1")
            except ConnectionError:
                return True
            return False

        eventually(dropped)


def test_a_next_request_that_begins_during_an_answer_has_its_time_too(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "REQUEST_TIMEOUT_S", 0.1)
    both = f"GET /v1/objects/{home.artifact} HTTP/1.1\r\nHost: x\r\n\r\nG".encode()
    with serving(home.application()) as url:
        assert ask_raw(url, both).endswith(home.data)


def test_bytes_that_drip_do_not_start_the_time_of_a_request_anew(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    class Watched(PeerProtocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            started.append(self._request_timer)

    monkeypatch.setattr(serve_module, "PeerProtocol", Watched)
    with serving(home.application()) as url, contextlib.closing(connect(url)) as dripping:
        dripping.connect()
        for byte in b"GET /v1/":
            before = len(started)
            dripping.sock.sendall(bytes([byte]))
            eventually(lambda before=before: len(started) > before)  # type: ignore[misc]
        assert len(set(started)) == 1
        dripping.sock.sendall(b"health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert dripping.sock.recv(12) == b"HTTP/1.1 200"
        assert None not in started[:-1]
        assert started[-1] is None


def test_an_answer_that_takes_its_time_is_no_request_that_does(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "REQUEST_TIMEOUT_S", 0.1)
    bandwidth = Recording(4_000, 0.1)
    with serving(home.application(bandwidth=bandwidth)) as url:
        assert ask(url, f"/v1/objects/{home.artifact}")[2] == home.data
    assert len(bandwidth.taken) >= 2


def test_connections_past_the_bound_are_dropped(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "MAX_CONNECTIONS", 2)
    with serving(home.application()) as url:
        first, second = connect(url), connect(url)
        for connection in (first, second):
            connection.request("GET", "/v1/health")
            assert connection.getresponse().read()
        with pytest.raises(ConnectionError):
            ask(url, "/v1/health")
        first.request("GET", "/v1/health")
        assert first.getresponse().read()
        first.close()

        def answered() -> bool:
            with contextlib.suppress(ConnectionError):
                return ask(url, "/v1/health")[0] == 200
            return False

        eventually(answered)
        second.close()


def test_every_byte_of_every_body_is_paid_for_in_small_pieces(home: Home) -> None:
    bandwidth = Recording(4_000, 0)
    with serving(home.application(reads_at_once=4, bandwidth=bandwidth)) as url:
        assert ask(url, f"/v1/objects/{home.artifact}")[2] == home.data
        assert ask(url, f"/v1/objects/{home.artifact}", Range="bytes=5-9")[2] == home.data[5:10]
    assert sum(bandwidth.taken) == 2560 + 5
    assert max(bandwidth.taken) <= 1_000


def test_a_body_that_waits_for_its_turn_ends_when_its_reader_leaves(home: Home) -> None:
    bandwidth = Recording(1 << 20, 3_600)
    with serving(home.application(reads_at_once=1, bandwidth=bandwidth)) as url:
        with stalled(url, home.artifact):
            eventually(lambda: len(bandwidth.taken) == 1)
            assert status_of(url, home.artifact) == 503
        bandwidth.delay = 0
        eventually(lambda: status_of(url, home.artifact) == 200)


def test_a_file_that_is_removed_is_served_to_its_end(home: Home, url: str) -> None:
    large = home.put_large()
    with stalled(url, large) as response:
        (home.folder / large).unlink()
        assert status_of(url, large) == 404
        assert rest(response) == LARGE_BYTES


def test_row_51_a_file_that_became_shorter_ends_the_answer_short(home: Home, url: str) -> None:
    large = home.put_large()
    with stalled(url, large) as response:
        os.truncate(home.folder / large, 1)
        assert rest(response) < LARGE_BYTES
    assert status_of(url, home.artifact) == 200


def test_row_41_a_disk_that_fails_ends_the_answer_short(
    home: Home, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.preadv
    asked: list[int] = []

    def failing(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        asked.append(offset)
        if offset >= PIECE_SIZE_BYTES:
            raise OSError(5, "Input/output error")
        return real(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", failing)
    with stalled(url, home.put_large()) as response:
        assert rest(response) <= PIECE_SIZE_BYTES
    assert max(asked) >= PIECE_SIZE_BYTES
    assert status_of(url, home.artifact) == 200


def test_what_is_not_in_memory_is_read_in_a_thread(
    home: Home, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.preadv
    readers: list[str] = []

    def cold(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            raise BlockingIOError(11, "would wait for the disk")
        readers.append(threading.current_thread().name)
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", cold)
    assert ask(url, f"/v1/objects/{home.artifact}")[2] == home.data
    assert len(readers) == 1
    assert "AnyIO worker thread" in readers[0]
