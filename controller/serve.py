"""Runs an ASGI application on one address until the process is told to end.

uvicorn bounds neither how long a client may take its answer nor how many connections there are,
and offers the application no way to drop one: :class:`PeerProtocol` does (docs/adr/0014).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from manifests.errors import BadSetting

MAX_CONNECTIONS = 256
WRITE_TIMEOUT_S = 30.0
"""How long a client may take for what was handed to it, at most 1 MiB of a body."""
REQUEST_TIMEOUT_S = 30.0
"""How long a client may take to ask: from its connection, or a later request's first byte, on."""
IDLE_TIMEOUT_S = 60
FINISH_TIMEOUT_S = 30.0
"""How long answers under way may go on once the process was told to end."""

Background = Callable[[threading.Event], None]
"""Work beside the serving: runs in a thread of its own until it is done or the event is set."""


class PeerProtocol(H11Protocol):
    """One connection, dropped when its client asks or takes too slowly, or is one too many."""

    _write_timer: asyncio.TimerHandle | None = None
    _request_timer: asyncio.TimerHandle | None = None

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        """See :class:`asyncio.Protocol`."""
        super().connection_made(transport)
        # The timer below then runs whenever the system has not taken everything.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._time_request()

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        # This ends the timer of idle connections, which runs again only after another answer.
        super().data_received(data)
        self._time_request()

    def on_response_complete(self) -> None:
        """An answer was given; what came of the next request meanwhile starts its time."""
        super().on_response_complete()
        if self.conn.trailing_data[0]:
            self._time_request()

    def pause_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """See :class:`asyncio.Protocol`."""
        self._stop_write_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._stop_write_timer()
        self._stop_request_timer()
        super().connection_lost(exc)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _time_request(self) -> None:
        """Have the timer run while a request is awaited; more bytes of it do not start it anew."""
        # uvicorn declares it as always set; it is None until a request was read.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._stop_request_timer()
        elif self._request_timer is None:
            self._request_timer = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.abort)

    def _stop_request_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None


class PeerServer(uvicorn.Server):
    """A server of ``application`` that leaves signals to whoever runs it."""

    def __init__(self, application: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=PeerProtocol,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level=logging.ERROR,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=IDLE_TIMEOUT_S,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield

    def finish(self) -> None:
        """Take no more requests, and drop what is still under way when its time has passed.

        Called again, it drops it at once.
        """
        if self.should_exit:
            self._drop_connections()
            return
        self.should_exit = True
        asyncio.get_running_loop().call_later(FINISH_TIMEOUT_S, self._drop_connections)

    def _drop_connections(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, PeerProtocol):
                connection.transport.abort()


def open_listener(listen: str) -> socket.socket:
    """A socket that listens on ``HOST:PORT`` (``[HOST]:PORT`` for IPv6); port 0 is a free one.

    Raises:
        BadSetting: it is not of that form, or the address cannot be had.
    """
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise BadSetting(f"--listen {listen!r} is not HOST:PORT, as in 127.0.0.1:7420")
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadSetting(
            f"cannot listen on {listen}: {reason}; choose another address with --listen",
            listen=listen,
        ) from error
    # asyncio switches Nagle's algorithm off only on connections that say they are TCP, which they
    # have from their listener. With it on, each answer waits 40 ms for an acknowledgement.
    return socket.socket(fileno=listener.detach())


def url_of(listener: socket.socket) -> str:
    """The URL of what is served there."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    application: FastAPI,
    listener: socket.socket,
    background: Sequence[Background],
    on_ready: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM, then let answers under way finish for up to 30 s.

    A second signal drops them at once. What runs in the background is told to end by the first.
    ``on_ready`` is called when requests and signals are heeded. Must be called in the main thread.

    Raises:
        What a task in the background raises; the serving has ended in the same way by then.
    """
    asyncio.run(_serve(PeerServer(application), listener, background, on_ready))


async def _serve(
    server: PeerServer,
    listener: socket.socket,
    background: Sequence[Background],
    on_ready: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    ending = threading.Event()

    def finish() -> None:
        ending.set()
        server.finish()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, finish)
    tasks = [asyncio.create_task(asyncio.to_thread(task, ending)) for task in background]

    def end_on_error(task: asyncio.Task[None]) -> None:
        if task.exception() is not None and not server.should_exit:
            server.finish()

    for task in tasks:
        task.add_done_callback(end_on_error)
    on_ready()
    try:
        await server.serve(sockets=[listener])
    finally:
        ending.set()
        await asyncio.gather(*tasks)
