"""What a peer answers over HTTP: objects whole or in part, a listing, its health; read-only.

Bodies go out in pieces of 1 MiB. A piece that is in the page cache is read where the answer is
made; one that is not is read in a thread, so that a slow disk holds up no other answer
(docs/adr/0014). What is in memory at a time is one piece for each body under way, twice.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from manifests.errors import BadSetting, GenctlError, InputError
from manifests.identifiers import content_id
from store.keys import check_key, check_prefix
from store.peer import MAX_LISTED, OBJECTS_PATH, ListedObject, Listing
from store.port import ObjectInfo
from store.rate_limit import TokenBucket

PIECE_SIZE_BYTES = 1 << 20
RETRY_AFTER_S = 1
_RANGE = re.compile(r"bytes=([0-9]{1,19})-([0-9]{0,19})")
# The bytes are not in memory; the file system cannot say whether they are.
_ASK_A_THREAD = {errno.EAGAIN, errno.EOPNOTSUPP}
_log = logging.getLogger("genctl.peer")

Health = Callable[[], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Opened:
    """An open object: whoever gets it closes ``descriptor``. ``tag`` stands for its content."""

    descriptor: int
    size_bytes: int
    tag: str


class Offer(Protocol):
    """What may be served. Asked in threads; keys and prefixes were checked by ``store.keys``."""

    def open(self, key: str) -> Opened | None:
        """The object, or ``None`` if there is none of that key."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects whose keys start with ``prefix``, in the order of their keys."""
        ...


def peer_application(
    offer: Offer, health: Health, reads_at_once: int, bandwidth: TokenBucket | None
) -> FastAPI:
    """The ASGI application that serves ``offer``.

    Args:
        offer: what may be served.
        health: what ``/v1/health`` answers besides ``status``; asked in a thread.
        reads_at_once: how many objects are on their way at a time; who asks for more is told 503.
        bandwidth: the cap on the bytes of all objects together.
    """
    application = FastAPI(openapi_url=None, redirect_slashes=False)

    @application.get("/v1/health")
    def answer_health() -> dict[str, object]:
        return {"status": "serving", **health()}

    @application.get(OBJECTS_PATH)
    def answer_listing(prefix: str = "", after: str = "") -> Response:
        check_prefix(prefix)
        later = (found for found in offer.list(prefix) if found.key > after)
        first = [
            ListedObject(key=found.key, size_bytes=found.size_bytes)
            for found in itertools.islice(later, MAX_LISTED)
        ]
        listing = Listing(objects=tuple(first), more=next(later, None) is not None)
        data = listing.model_dump_json().encode()
        return Response(
            data, media_type="application/json", headers={"ETag": f'"{content_id(data)}"'}
        )

    @application.exception_handler(GenctlError)
    def answer_error(_: Request, error: GenctlError) -> Response:
        # What is asked may be wrong, or this node's disk.
        status = 400 if isinstance(error, InputError) else 500
        return JSONResponse({"error": error.name, "message": error.message}, status)

    bodies = _Bodies(offer, reads_at_once, bandwidth)
    application.router.routes.append(
        Route(f"{OBJECTS_PATH}/{{key:path}}", bodies, methods=["GET", "HEAD"])
    )
    return application


class _Bodies:
    """Answers for single objects; lives in one event loop."""

    def __init__(self, offer: Offer, reads_at_once: int, bandwidth: TokenBucket | None) -> None:
        self._offer = offer
        self._reads_at_once = reads_at_once
        self._bandwidth = bandwidth
        self._piece_size_bytes = PIECE_SIZE_BYTES
        if bandwidth is not None:
            # Every body moves on about once a second, so that nobody takes slowness for silence.
            share = bandwidth.burst_bytes // reads_at_once
            self._piece_size_bytes = max(1, min(PIECE_SIZE_BYTES, share))
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = scope["path_params"]["key"]
        response: Response | None
        if not _is_key(key):
            response = PlainTextResponse("no such object", 404)
        elif self._under_way >= self._reads_at_once:
            response = PlainTextResponse(
                "busy with other reads", 503, {"Retry-After": str(RETRY_AFTER_S)}
            )
        else:
            self._under_way += 1
            try:
                response = await self._send_object(key, Request(scope), receive, send)
            finally:
                self._under_way -= 1
        if response is not None:
            await response(scope, receive, send)

    async def _send_object(
        self, key: str, request: Request, receive: Receive, send: Send
    ) -> Response | None:
        """Answer with the object; or give the answer that stands for why not."""
        opened = await run_in_threadpool(self._offer.open, key)
        if opened is None:
            return PlainTextResponse("no such object", 404)
        try:
            header = request.headers.get("range") if request.method == "GET" else None
            wanted = requested_range(header, opened.size_bytes)
            if wanted is not None and not wanted:
                return PlainTextResponse(
                    "no such range", 416, {"Content-Range": f"bytes */{opened.size_bytes}"}
                )
            await send(_start(opened, wanted))
            sent = wanted if wanted is not None else range(opened.size_bytes)
            if request.method == "HEAD" or await self._send_bytes(
                key, opened.descriptor, sent, receive, send
            ):
                # Waits until the pieces before it are with the system, and the slot with it.
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            return None
        finally:
            os.close(opened.descriptor)

    async def _send_bytes(
        self, key: str, descriptor: int, wanted: range, receive: Receive, send: Send
    ) -> bool:
        """Whether all of them went out; where they did not, the answer must be cut off."""
        buffer = memoryview(bytearray(min(self._piece_size_bytes, len(wanted))))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            offset = wanted.start
            while offset < wanted.stop:
                count = await _read(descriptor, buffer[: wanted.stop - offset], offset)
                if count == 0:
                    _log.error("%s is shorter than it was; its answer was cut off", key)
                    return False
                await self._pay(count, gone)
                if gone.done():
                    return False
                await send(
                    {
                        "type": "http.response.body",
                        "body": bytes(buffer[:count]),
                        "more_body": True,
                    }
                )
                offset += count
                # Nothing above waits while the system takes all it is given, or when the reader
                # has left: others would not get their turn, nor this one hear of that.
                await asyncio.sleep(0)
            return True
        except OSError as error:
            _log.error("%s cannot be read (%s); its answer was cut off", key, error.strerror)
            return False
        finally:
            gone.cancel()

    async def _pay(self, size_bytes: int, gone: asyncio.Task[None]) -> None:
        if self._bandwidth is not None:
            delay_s = self._bandwidth.delay_s(size_bytes)
            if delay_s > 0:
                await asyncio.wait({gone}, timeout=delay_s)


def requested_range(header: str | None, size_bytes: int) -> range | None:
    """Which bytes of an object of ``size_bytes`` a ``Range`` header asks for.

    Returns ``None`` for the whole object, as RFC 9110 section 14.2 has it where there is no header
    or one of another form than ``bytes=a-b`` or ``bytes=a-``; an empty range if the object ends
    before its first byte.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None:
        return None
    first = int(found[1])
    last = int(found[2]) if found[2] else size_bytes - 1
    if found[2] and last < first:
        return None
    return range(first, min(last + 1, size_bytes))


def _start(opened: Opened, wanted: range | None) -> dict[str, Any]:
    """The head of the answer with these bytes, or with the whole object."""
    headers = {
        "accept-ranges": "bytes",
        "content-length": str(opened.size_bytes if wanted is None else len(wanted)),
        "content-type": "application/octet-stream",
        "etag": f'"{opened.tag}"',
    }
    if wanted is not None:
        headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{opened.size_bytes}"
    return {
        "type": "http.response.start",
        "status": 200 if wanted is None else 206,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }


def _is_key(text: str) -> bool:
    try:
        check_key(text)
    except BadSetting:
        return False
    return True


async def _read(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Like ``os.preadv``, without making others wait for the disk."""
    try:
        return os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno not in _ASK_A_THREAD:
            raise
    return await run_in_threadpool(os.preadv, descriptor, [buffer], offset)


async def _until_gone(receive: Receive) -> None:
    """Ends when the client has left; the body of its request, if any, is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass
