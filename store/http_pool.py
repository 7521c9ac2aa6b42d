"""Pooled HTTP connections whose wait for an answer has an end and can be ended from outside.

urllib3 bounds each single wait for bytes. A server that sends one byte of its headers a second
keeps within that bound for days, so the connections made here look at the clock after each piece.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as HTTPTimeout
from urllib3.response import HTTPResponse

from manifests.errors import TransferDeadline

CONNECTIONS_KEPT = 64


def open_pool(url: str, *, ca_bundle: str | None = None) -> urllib3.PoolManager:
    """A pool for requests to ``url``'s host, made the way the environment says.

    ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` count as usual; certificates are verified
    against the file ``ca_bundle``, or else against those that the system trusts.
    """
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    options: dict[str, Any] = {"maxsize": CONNECTIONS_KEPT, "ca_certs": ca_bundle}
    if proxy is None or proxy_bypass(parts.netloc):
        pool = urllib3.PoolManager(**options)
    else:
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        pool = urllib3.ProxyManager(proxy, proxy_headers=_proxy_headers(proxy), **options)
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


def why_unreachable(error: Exception) -> str:
    """What a failure of urllib3 means to an operator and what to do about it."""
    if isinstance(error, ProxyError):
        return "the proxy does not answer; check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
    if isinstance(error, SSLError):
        return (
            "there is no trusted TLS connection to it; check the URL's scheme, the server's "
            f"certificate and the trusted ones ({error})"
        )
    if isinstance(error, NameResolutionError):
        return "its host name is unknown; check the URL and the name service"
    if isinstance(error, NewConnectionError):
        return "nothing answers at its address; check the URL and whether the server runs"
    if isinstance(error, (HTTPTimeout, TimeoutError)):
        return "it does not answer in time; try again in a while"
    return "the connection was lost; try again"


def receive_into(response: urllib3.BaseHTTPResponse, buffer: memoryview) -> int:
    """Put what has come of the body into ``buffer``, at least a byte; 0 when the body has ended.

    urllib3's own way hands out a new object for each piece; where the length of the body is known
    the bytes go where they are wanted, which spares a copy of all of them.
    """
    raw = getattr(response, "_original_response", None)
    if isinstance(raw, _Response) and raw.length is not None:
        return raw.receive_into(buffer)
    piece = response.read1(len(buffer))
    buffer[: len(piece)] = piece
    return len(piece)


class Attempt:
    """One request and its answer, until ``end`` on the ``monotonic`` clock or until stopped."""

    def __init__(self, end: float, monotonic: Callable[[], float], what: str) -> None:
        self.end = end
        self._monotonic = monotonic
        self._what = what
        self._stopped = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Called after each piece that arrived.

        Raises:
            TransferDeadline: the time has passed, or the attempt was stopped.
        """
        if self._stopped:
            raise TransferDeadline(f"{self._what}: stopped by its reader")
        if self._monotonic() > self.end:
            raise TransferDeadline(
                f"{self._what}: given up, the bytes come too slowly; look at the network and the "
                "load of the server, then try again"
            )

    def stop(self) -> None:
        """End the attempt at once; callable from any thread, without effect after its end."""
        with self._lock:
            self._stopped = True
            if self._socket is not None:
                # Not the method of a TLS socket: it would have the reader take cipher text for
                # data that is still on its way.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RD)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """For the duration, requests made by this thread through :func:`open_pool` are this one."""
        token = _ATTEMPT.set(self)
        try:
            yield
        finally:
            _ATTEMPT.reset(token)
            self._waits_on(None)

    def _waits_on(self, connected: object) -> None:
        with self._lock:
            self._socket = connected if isinstance(connected, socket.socket) else None


_ATTEMPT: ContextVar[Attempt | None] = ContextVar("_ATTEMPT", default=None)


class _Lines:
    """A response's stream whose ``readline`` looks at the clock after each piece that arrives."""

    def __init__(self, stream: Any, attempt: Attempt) -> None:
        self._stream = stream
        self._attempt = attempt

    def readline(self, limit: int = -1) -> bytes:
        line = bytearray()
        while limit < 0 or len(line) < limit:
            waiting = self._stream.peek(1)
            self._attempt.check()
            if not waiting:
                break
            if limit >= 0:
                waiting = waiting[: limit - len(line)]
            size_bytes = waiting.find(b"\n") + 1
            line += self._stream.read(size_bytes or len(waiting))
            if size_bytes:
                break
        return bytes(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Response(http.client.HTTPResponse):
    _is_drained = False

    def begin(self) -> None:
        attempt = _ATTEMPT.get()
        if attempt is None:
            super().begin()
            return
        stream: Any = self.fp
        self.fp = _Lines(stream, attempt)  # type: ignore[assignment]
        super().begin()
        # A chunked body has lines too. http.client has let go of an empty body's stream already.
        if not self.chunked and self.fp is not None:
            self.fp = stream

    def receive_into(self, buffer: memoryview) -> int:
        """What has come of a body of known length, straight into ``buffer``; 0 at its end."""
        if self.isclosed() or not self.length:
            return 0
        most_bytes = self.length
        if not self._is_drained:
            # What came with the headers; asked for more, the stream would wait for it.
            most_bytes, self._is_drained = min(most_bytes, io.DEFAULT_BUFFER_SIZE), True
        count = self.fp.readinto1(buffer[:most_bytes])
        self.length -= count
        if not count or not self.length:
            self.close()
        return count


class _Stoppable(HTTPConnection):
    response_class = _Response

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        attempt = _ATTEMPT.get()
        if attempt is not None:
            attempt._waits_on(self.sock)  # noqa: SLF001 - the two are one mechanism
            attempt.check()
        return super().getresponse()


class _StoppableTLS(_Stoppable, HTTPSConnection):
    _while_shaking_hands: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        attempt = _ATTEMPT.get()
        if attempt is not None:
            # TLS takes the descriptor away from this socket before it shakes hands, and a server
            # may never answer that: a stop goes through a descriptor of its own meanwhile.
            self._while_shaking_hands = connected.dup()
            attempt._waits_on(self._while_shaking_hands)  # noqa: SLF001 - the two are one mechanism
            attempt.check()
        return connected

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            attempt, shaking = _ATTEMPT.get(), self._while_shaking_hands
            if attempt is not None and shaking is not None:
                attempt._waits_on(None)  # noqa: SLF001 - the two are one mechanism
                shaking.close()
                self._while_shaking_hands = None


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Stoppable


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _StoppableTLS


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(urllib3.make_headers(proxy_basic_auth=login))
