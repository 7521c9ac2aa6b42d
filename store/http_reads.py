"""Ranged reads over HTTP into the caller's memory, bounded in size, in time and in what counts.

An answer is taken for a range of the object only if its status, its Content-Range and its length
all say so; everything else is named and its connection closed. Nothing is decompressed, no
redirection followed and nothing retried here.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import urllib3
from urllib3.exceptions import (
    HTTPError,
)
from urllib3.exceptions import TimeoutError as HTTPTimeout

from manifests.errors import (
    BodyMismatch,
    ExpansionExceeded,
    GenctlError,
    LengthExceeded,
    ObjectMissing,
    SourceBusy,
    StoreUnavailable,
)
from store.http_pool import Attempt, receive_into, why_unreachable
from store.patience import DEFAULT_PATIENCE, Patience
from store.port import UNWATCHED, Transfer, VersionedBytes

PIECE_SIZE_BYTES = 512 << 10
MAX_REFUSAL_SIZE_BYTES = 8 << 10
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_NOTHING_THERE = re.compile(r"bytes \*/(\d{1,19})")


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask for: the object's ``key``, for messages, its URL, and headers (a signature).

    The reader adds ``Range`` and ``Accept-Encoding``.
    """

    key: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not the object; ``body`` is its first 8 KiB."""

    key: str
    status: int
    body: bytes


def refused(store_url: str, refusal: Refusal) -> GenctlError:
    """The error that a status stands for where the server is not known to say more in the body.

    ``ObjectMissing`` for 404, ``SourceBusy`` for 429 and 503, ``StoreUnavailable`` for all else.
    """
    key, status = refusal.key, refusal.status
    if status == 404:
        return ObjectMissing(f"{store_url} has no object {key}", store=store_url, key=key)
    reason = "try again in a while" if status == 429 or status >= 500 else "check its URL"
    kind = SourceBusy if status in {429, 503} else StoreUnavailable
    return kind(
        f"{store_url} answers {status} to a read of {key}; {reason}",
        store=store_url,
        key=key,
        status=status,
    )


class _Body:
    """The next ``count`` bytes of an answer, never more; without an answer, none."""

    def __init__(
        self,
        reader: HttpReader,
        request: Request,
        attempt: Attempt | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        count: int = 0,
    ) -> None:
        self._reader = reader
        self._request = request
        self._attempt = attempt
        self._response = response
        self._count = count

    def whole(self) -> bytes:
        """All of it; see :meth:`into`."""
        data = bytearray(self._count)
        for _ in self.into(memoryview(data)):
            pass
        return bytes(data)

    def into(self, buffer: memoryview) -> Iterator[int]:
        """Fill ``buffer``, and tell after each piece how many bytes it had.

        Raises:
            BodyMismatch: there are fewer than announced.
            StoreUnavailable: nothing came for too long.
            TransferDeadline: the bytes come too slowly.
        """
        attempt, response, done = self._attempt, self._response, 0
        if attempt is None or response is None:
            return
        attempt.end += self._count / self._reader.patience.min_bytes_per_s
        while done < self._count:
            try:
                piece = buffer[done : min(done + PIECE_SIZE_BYTES, self._count)]
                received = receive_into(response, piece)
            except (HTTPTimeout, TimeoutError) as error:
                attempt.check()
                raise self._reader.unavailable(self._request, error) from error
            except (HTTPError, OSError) as error:
                attempt.check()
                raise self._reader.cut_short(self._request, done, self._count) from error
            attempt.check()
            if not received:
                raise self._reader.cut_short(self._request, done, self._count)
            done += received
            yield received
        # The body has been read to its end: the connection can be used again.
        response.release_conn()


class HttpReader:
    """Reads objects of the store ``store_url`` through ``pool``; safe among threads.

    ``pool`` comes from :func:`store.http_pool.open_pool`. ``explain`` turns a refusal into the
    error to raise, an ``ObjectMissing`` if it says that the object is absent.

    Every method raises besides the errors it names:
        StoreUnavailable: refused, unreachable, silent, or cut off before the answer's body.
        BodyMismatch: the answer is not what was asked for, or was cut short.
        ExpansionExceeded: the body is compressed.
        TransferDeadline: the bytes come too slowly, or ``transfer`` was used to stop the read.
    """

    def __init__(
        self,
        store_url: str,
        pool: urllib3.PoolManager,
        *,
        explain: Callable[[Refusal], GenctlError] | None = None,
        patience: Patience = DEFAULT_PATIENCE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store_url = store_url
        self._pool = pool
        self._explain = explain or (lambda refusal: refused(store_url, refusal))
        self.patience = patience
        self._monotonic = monotonic

    def read_into(
        self, request: Request, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """Fill ``buffer`` from ``offset`` on; see :meth:`store.port.Store.read_into`.

        Raises:
            ObjectMissing: there is no such object.
        """
        done = 0
        with self._range(request, offset, len(buffer), transfer) as body:
            for count in body.into(buffer):
                done += count
                transfer.arrived(count)
        return done

    def get(self, request: Request, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset`` on; fewer only at the object's end.

        Raises:
            ObjectMissing: there is no such object.
        """
        with self._range(request, offset, length, UNWATCHED) as body:
            return body.whole()

    def get_whole(self, request: Request, limit_bytes: int) -> VersionedBytes | None:
        """The whole object with its ETag, without quotes, as the version; ``None``: absent.

        Raises:
            LengthExceeded: it is longer than ``limit_bytes``; no more than that was read.
        """
        with self._attempt(request, UNWATCHED) as attempt:
            response = self._answer(request, attempt, {})
            with contextlib.closing(response):
                if response.status != 200:
                    self._check_absent(request, attempt, response)
                    return None
                announced = _announced(response)
                # Without a length nobody can tell whether the body is whole; it may be endless.
                count = limit_bytes + 1 if announced is None else announced
                data = b""
                if count <= limit_bytes or announced is None:
                    data = _Body(self, request, attempt, response, count).whole()
                if count > limit_bytes:
                    raise LengthExceeded(
                        f"{request.key} in {self._store_url} is longer than {limit_bytes} bytes",
                        key=request.key,
                        limit_bytes=limit_bytes,
                    )
                version = response.headers.get("ETag", "").strip('"')
                if not version:
                    raise self._mismatch(request, "it has no ETag")
                return VersionedBytes(data, version)

    def size_bytes(self, request: Request) -> int | None:
        """How long the object is; ``None``: absent.

        Asked by a GET of its first byte, since the answer to a HEAD has no body that says what is
        wrong.
        """
        with self._attempt(request, UNWATCHED) as attempt:
            response = self._answer(request, attempt, {"Range": "bytes=0-0"})
            with contextlib.closing(response):
                if response.status == 206:
                    count, size_bytes = self._count(request, response, 0, 1)
                    # To the end, so that the connection can be used again.
                    _Body(self, request, attempt, response, count).whole()
                    return size_bytes
                if response.status == 416:
                    self._check_nothing_at(request, response, 0)
                    return 0
                self._check_absent(request, attempt, response)
                return None

    @contextlib.contextmanager
    def _range(
        self, request: Request, offset: int, length: int, transfer: Transfer
    ) -> Iterator[_Body]:
        if length == 0:
            # A range cannot be empty, and an absent object is to be named all the same.
            if self.size_bytes(request) is None:
                raise self._explain(Refusal(request.key, 404, b""))
            yield _Body(self, request)
            return
        with self._attempt(request, transfer) as attempt:
            wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
            with contextlib.closing(self._answer(request, attempt, wanted)) as response:
                if response.status == 416:
                    self._check_nothing_at(request, response, offset)
                    yield _Body(self, request)
                    return
                if response.status != 206:
                    raise self._refusal(request, attempt, response)
                count, _ = self._count(request, response, offset, length)
                yield _Body(self, request, attempt, response, count)

    @contextlib.contextmanager
    def _attempt(self, request: Request, transfer: Transfer) -> Iterator[Attempt]:
        what = f"{request.key} from {self._store_url}"
        attempt = Attempt(self._monotonic() + self.patience.grace_s, self._monotonic, what)
        transfer.stop_by(attempt.stop)
        with attempt.running():
            yield attempt

    def _answer(
        self, request: Request, attempt: Attempt, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        patience = self.patience
        attempt.check()
        try:
            response = self._pool.request(
                "GET",
                request.url,
                headers={**request.headers, **headers, "Accept-Encoding": "identity"},
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=patience.connect_s, read=patience.silence_s),
            )
        except HTTPError as error:
            attempt.check()
            raise self.unavailable(request, error) from error
        if response.status < 300 and response.headers.get("Content-Encoding", "identity") not in {
            "",
            "identity",
        }:
            response.close()
            raise ExpansionExceeded(
                f"{self._store_url} sends {request.key} compressed "
                f"({response.headers['Content-Encoding']}), unasked; nothing was expanded",
                store=self._store_url,
                key=request.key,
            )
        return response

    def _count(
        self, request: Request, response: urllib3.BaseHTTPResponse, offset: int, length: int
    ) -> tuple[int, int]:
        """How many bytes a partial answer has, and how many the object; those asked for only."""
        header = response.headers.get("Content-Range", "")
        found = _CONTENT_RANGE.fullmatch(header)
        if found is None:
            raise self._mismatch(request, f"its Content-Range is {header[:60]!r}")
        start, end, size_bytes = map(int, found.groups())
        if start != offset or end != min(offset + length, size_bytes) - 1 or end < start:
            raise self._mismatch(
                request, f"it is {header!r}, not {length} bytes from offset {offset} on"
            )
        count = end - start + 1
        if _announced(response) not in {None, count}:
            raise self._mismatch(request, f"it has {_announced(response)} bytes, not {count}")
        return count, size_bytes

    def _check_nothing_at(
        self, request: Request, response: urllib3.BaseHTTPResponse, offset: int
    ) -> None:
        """Refuse an answer 416 that contradicts itself; not every server gives the size in it."""
        header = response.headers.get("Content-Range", "")
        found = _NOTHING_THERE.fullmatch(header)
        if found is not None and int(found[1]) > offset:
            raise self._mismatch(request, f"it denies offset {offset} of {found[1]} bytes")

    def _check_absent(
        self, request: Request, attempt: Attempt, response: urllib3.BaseHTTPResponse
    ) -> None:
        """Return if the answer says that there is no such object, else raise what it says."""
        error = self._refusal(request, attempt, response)
        if not isinstance(error, ObjectMissing):
            raise error

    def _refusal(
        self, request: Request, attempt: Attempt, response: urllib3.BaseHTTPResponse
    ) -> GenctlError:
        if response.status < 300:
            return self._mismatch(request, f"its status is {response.status}")
        body = b""
        # Whatever cuts the explanation short, the status stands.
        with contextlib.suppress(HTTPError):
            while len(body) < MAX_REFUSAL_SIZE_BYTES:
                piece = response.read1(MAX_REFUSAL_SIZE_BYTES - len(body))
                attempt.check()
                if not piece:
                    break
                body += piece
        return self._explain(Refusal(request.key, response.status, body))

    def _mismatch(self, request: Request, why: str) -> BodyMismatch:
        return BodyMismatch(
            f"the answer of {self._store_url} is not {request.key}: {why}; see what answers at "
            "that address, then try again",
            store=self._store_url,
            key=request.key,
        )

    def cut_short(self, request: Request, done: int, count: int) -> BodyMismatch:
        """The error for an answer that ended after ``done`` of its ``count`` bytes."""
        return BodyMismatch(
            f"{self._store_url} sent {done} of {count} bytes of {request.key}; try again",
            store=self._store_url,
            key=request.key,
            received_bytes=done,
            expected_bytes=count,
        )

    def unavailable(self, request: Request, error: Exception) -> StoreUnavailable:
        """The error for a server that cannot be reached, or goes silent."""
        return StoreUnavailable(
            f"{self._store_url} cannot be read ({request.key}): {why_unreachable(error)}",
            store=self._store_url,
            key=request.key,
        )


def _announced(response: urllib3.BaseHTTPResponse) -> int | None:
    """How many bytes the body is said to have, if it is said in a way that can be relied on."""
    length = response.headers.get("Content-Length", "")
    if "Transfer-Encoding" in response.headers or not length.isascii() or not length.isdecimal():
        return None
    return int(length)
