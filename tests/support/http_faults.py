"""An HTTP server with scripted faults, as an origin or as a proxy before a real server.

    with FaultyServer(holding({"/key": b"bytes"})) as server:
        server.plan(status(503), None, cut_after(10))

The next request is answered 503, the one after it as it should be, the third is cut short, and all
others are answered as they should be.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

PAUSE_S = 0.02
BLOCK = b"x" * 65536


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What to send; ``Content-Length`` is added unless ``headers`` have one."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Origin = Callable[[Asked], Answer]


class Line:
    """One request and the connection it came on."""

    def __init__(self, asked: Asked, origin: Origin, connection: Any, closing: threading.Event):
        self.asked = asked
        self._origin = origin
        self._connection = connection
        self._closing = closing
        self.is_kept = True

    def proper(self) -> Answer:
        """What the origin answers; a request that changes something has changed it by now."""
        return self._origin(self.asked)

    def write(self, data: bytes) -> None:
        self._connection.wfile.write(data)

    def write_head(self, answer: Answer) -> None:
        self.write(head(answer))

    def send(self, answer: Answer) -> None:
        self.write_head(answer)
        if self.asked.method != "HEAD":
            self.write(answer.body)

    def hang_up(self) -> None:
        self.is_kept = False

    def pauses(self, seconds: float = PAUSE_S) -> Iterator[None]:
        """Yield now and after each pause, until the server closes."""
        yield
        while not self._closing.wait(seconds):
            yield

    def wait_for_the_end(self) -> None:
        """Say nothing until the server closes; a client that leaves is noticed."""
        self.hang_up()
        for _ in self.pauses():
            with contextlib.suppress(TimeoutError, ssl.SSLError):
                self._connection.connection.settimeout(PAUSE_S)
                if self._connection.connection.recv(1) == b"":
                    return


Fault = Callable[[Line], None]


def head(answer: Answer) -> bytes:
    """The status line and the headers."""
    lines = [f"HTTP/1.1 {answer.status} {http.client.responses.get(answer.status, '')}"]
    headers = {"Content-Length": str(len(answer.body)), **answer.headers}
    lines += [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([*lines, "", ""]).encode()


def holding(objects: Mapping[str, bytes]) -> Origin:
    """An origin of ``objects`` by path, which knows ranges and nothing else."""

    def origin(asked: Asked) -> Answer:
        data = objects.get(urlsplit(asked.path).path)
        if data is None:
            return Answer(404)
        tag = {"ETag": f'"{md5(data, usedforsecurity=False).hexdigest()}"'}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.headers.get("Range", ""))
        if wanted is None:
            return Answer(200, tag, data)
        start, end = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        if start > end:
            return Answer(416, {"Content-Range": f"bytes */{len(data)}"})
        part = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        return Answer(206, {**tag, **part}, data[start : end + 1])

    return origin


def proxy_to(endpoint: str) -> Origin:
    """An origin that asks the server at ``endpoint``."""
    host = urlsplit(endpoint).netloc

    def origin(asked: Asked) -> Answer:
        connection = http.client.HTTPConnection(host, timeout=60)
        try:
            # A signature is over the Host header: it stays what the client sent.
            headers = {k: v for k, v in asked.headers.items() if k.lower() != "expect"}
            connection.request(asked.method, asked.path, asked.body, headers)
            response = connection.getresponse()
            body = response.read()
            hop = {"connection", "transfer-encoding", "keep-alive"}
            kept = {k: v for k, v in response.getheaders() if k.lower() not in hop}
            return Answer(response.status, kept, body)
        finally:
            connection.close()

    return origin


def without_conditions(origin: Origin) -> Origin:
    """A server that accepts conditions and ignores them, as several do."""

    def unsafe(asked: Asked) -> Answer:
        kept = {k: v for k, v in asked.headers.items() if not k.lower().startswith("if-")}
        return origin(replace(asked, headers=kept))

    return unsafe


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer ``code``, whatever was asked; ``Content_Range="…"`` is a header."""
    return lambda line: line.send(Answer(code, _named(headers), body))


def s3_error(code: int, name: str) -> Fault:
    """Refuse as S3 does."""
    return status(code, f"<Error><Code>{name}</Code><Message>no</Message></Error>".encode())


def changed(change: Callable[[Answer], Answer]) -> Fault:
    """The proper answer, changed."""
    return lambda line: line.send(change(line.proper()))


def with_headers(**headers: str) -> Fault:
    """The proper answer with other headers (``Content_Range="…"``); an empty one is left out."""
    given = _named(headers)
    return changed(lambda answer: replace(answer, headers={**answer.headers, **given}))


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def cut_after(size_bytes: int) -> Fault:
    """The proper answer, whose body ends after ``size_bytes`` with the connection."""

    def fault(line: Line) -> None:
        answer = line.proper()
        line.write_head(answer)
        line.write(answer.body[:size_bytes])
        line.hang_up()

    return fault


def silent_after(size_bytes: int) -> Fault:
    """The proper answer up to ``size_bytes`` of its body, then nothing more."""

    def fault(line: Line) -> None:
        answer = line.proper()
        line.write_head(answer)
        line.write(answer.body[:size_bytes])
        line.wait_for_the_end()

    return fault


def silent(line: Line) -> None:
    """Never answer."""
    line.wait_for_the_end()


def no_answer(line: Line) -> None:
    """Do what was asked and close the connection without a word."""
    line.proper()
    line.hang_up()


def closed(line: Line) -> None:
    """Close the connection, having done nothing."""
    line.hang_up()


def drip(line: Line) -> None:
    """The proper answer, its body a byte at a time."""
    answer = line.proper()
    line.write_head(answer)
    _drip(line, answer.body)


def drip_head(line: Line) -> None:
    """An answer that does not come to the end of its headers, a byte at a time."""
    _drip(line, b"HTTP/1.1 200 OK\r\nX-Slow: " + BLOCK)


def endless(line: Line) -> None:
    """A body of no stated length that does not end."""
    line.write(b'HTTP/1.1 200 OK\r\nETag: "endless"\r\nConnection: close\r\n\r\n')
    line.hang_up()
    for _ in line.pauses(0):
        line.write(BLOCK)


def _drip(line: Line, data: bytes) -> None:
    line.hang_up()
    for number, _ in enumerate(line.pauses()):
        line.write(data[number : number + 1])


class FaultyServer:
    """The server, from ``with`` on; safe to plan for from any thread.

    ``always`` is the fault of every request that no plan covers. ``seen`` lists the requests.
    """

    def __init__(self, origin: Origin, *, tls: ssl.SSLContext | None = None) -> None:
        self._planned: deque[Fault | None] = deque()
        self._closing = threading.Event()
        self.always: Fault | None = None
        self.origin = origin
        self.seen: list[Asked] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self._meet, self._closing))
        self.connections = self._server.accepted
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(PAUSE_S,))

    def plan(self, *faults: Fault | None) -> None:
        """What the next requests meet, in order; ``None`` is a proper answer."""
        self._planned.extend(faults)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _meet(self, asked: Asked, connection: Any) -> bool:
        self.seen.append(asked)
        fault = self._planned.popleft() if self._planned else self.always
        line = Line(asked, self.origin, connection, self._closing)
        if fault is None:
            line.send(line.proper())
        else:
            fault(line)
        return line.is_kept


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.accepted: list[Any] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self.accepted.append(address)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of this server leave in the middle; that is no error."""


def _handler(
    meet: Callable[[Asked, Any], bool], closing: threading.Event
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60
        disable_nagle_algorithm = True

        def handle_method(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            asked = Asked(
                self.command, self.path, dict(self.headers.items()), self.rfile.read(length)
            )
            self.close_connection = not meet(asked, self) or closing.is_set()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_method  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Tests look at ``seen``."""

    return Handler
