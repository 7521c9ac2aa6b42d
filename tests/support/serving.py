"""A real server in a thread of the test's process, what it serves, and clients of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI

from controller.peer_service import peer_application
from controller.serve import PeerServer, open_listener, url_of
from controller.verified_files import VerifiedFiles
from manifests.identifiers import content_id
from store.rate_limit import TokenBucket

DEADLINE_S = 30
LARGE_BYTES = 64 << 20
"""More than the system keeps of a body that its reader does not take."""
SECRET = b"the secret"


@contextlib.contextmanager
def serving(application: FastAPI) -> Iterator[str]:
    """Serves on a free port for the duration; gives the URL."""
    server = PeerServer(application)
    with open_listener("127.0.0.1:0") as listener:
        thread = threading.Thread(target=asyncio.run, args=[server.serve([listener])])
        thread.start()
        try:
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until ``holds``, polling."""
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < end
        pause.wait(0.01)


def connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=DEADLINE_S)


def ask(
    url: str, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers in lower case and the body of one answer."""
    with contextlib.closing(connect(url)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, body


def ask_raw(url: str, request: bytes) -> bytes:
    """What comes back for these very bytes until the connection ends."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), DEADLINE_S) as connection:
        connection.sendall(request)
        received = bytearray()
        while piece := connection.recv(1 << 16):
            received += piece
        return bytes(received)


def status_of(url: str, key: str) -> int:
    return ask(url, f"/v1/objects/{key}")[0]


@contextlib.contextmanager
def stalled(url: str, key: str) -> Iterator[http.client.HTTPResponse]:
    """An answer of which only the head was read."""
    with contextlib.closing(connect(url)) as connection:
        connection.request("GET", f"/v1/objects/{key}")
        response = connection.getresponse()
        assert response.status == 200
        yield response


def rest(response: http.client.HTTPResponse) -> int:
    """How many bytes of the body still come, however the connection ends."""
    count = 0
    with contextlib.suppress(ConnectionError, http.client.IncompleteRead):
        while piece := response.read(1 << 20):
            count += len(piece)
    return count


class Home:
    """A folder with some of what a node's home has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("artifacts", "tables", "generations"):
            (folder / name).mkdir(parents=True)
        (folder / "node.json").write_bytes(SECRET)
        self.data = bytes(range(256)) * 10
        self.artifact = self.put("artifacts", self.data)
        self.table = self.put("tables", b"table")

    def put(self, kind: str, data: bytes) -> str:
        key = f"{kind}/{content_id(data)}"
        (self.folder / key).write_bytes(data)
        return key

    def put_large(self) -> str:
        """An artifact of zeroes that takes no room, under a name that is not its hash."""
        key = f"artifacts/{'1a' * 32}"
        with (self.folder / key).open("wb") as file:
            file.truncate(LARGE_BYTES)
        return key

    def application(self, reads_at_once: int = 4, bandwidth: TokenBucket | None = None) -> FastAPI:
        return peer_application(VerifiedFiles(self.folder), dict, reads_at_once, bandwidth)
