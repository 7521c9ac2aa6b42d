"""Ranged reads over HTTP into the caller's memory, bounded in size, in time and in what counts.

An answer is taken for a range of the object only if its status, its Content-Range and its length
all say so; everything else is named and its connection closed. Nothing is decompressed, no
redirection followed and nothing retried here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import urllib3
from urllib3.exceptions import HTTPError

from manifests.errors import ExpansionExceeded, GenctlError, LengthExceeded, ObjectMissing
from store.http_answers import (
    Body,
    Refusal,
    Request,
    announced_bytes,
    check_nothing_at,
    mismatch,
    partial_bytes,
    refused,
    unavailable,
)
from store.http_pool import Attempt
from store.patience import DEFAULT_PATIENCE, Patience
from store.port import UNWATCHED, Transfer, VersionedBytes

MAX_REFUSAL_SIZE_BYTES = 8 << 10


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
        self._patience = patience
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
            for count in body.into(buffer) if body else ():
                done += count
                transfer.arrived(count)
        return done

    def get(self, request: Request, offset: int, length: int) -> bytes:
        """At most ``length`` bytes from ``offset`` on; fewer only at the object's end.

        Raises:
            ObjectMissing: there is no such object.
        """
        with self._range(request, offset, length, UNWATCHED) as body:
            return body.whole() if body else b""

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
                announced = announced_bytes(response)
                # Without a length nobody can tell whether the body is whole; it may be endless.
                count = limit_bytes + 1 if announced is None else announced
                data = b""
                if count <= limit_bytes or announced is None:
                    data = self._body(request, attempt, response, count).whole()
                if count > limit_bytes:
                    raise LengthExceeded(
                        f"{request.key} in {self._store_url} is longer than {limit_bytes} bytes",
                        key=request.key,
                        limit_bytes=limit_bytes,
                    )
                version = response.headers.get("ETag", "").strip('"')
                if not version:
                    raise mismatch(self._store_url, request.key, "it has no ETag")
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
                    count, size_bytes = partial_bytes(self._store_url, request, response, 0, 1)
                    # To the end, so that the connection can be used again.
                    self._body(request, attempt, response, count).whole()
                    return size_bytes
                if response.status == 416:
                    check_nothing_at(self._store_url, request, response, 0)
                    return 0
                self._check_absent(request, attempt, response)
                return None

    @contextlib.contextmanager
    def _range(
        self, request: Request, offset: int, length: int, transfer: Transfer
    ) -> Iterator[Body | None]:
        """The bytes of a range; ``None`` where the object has none there."""
        if length == 0:
            # A range cannot be empty, and an absent object is to be named all the same.
            if self.size_bytes(request) is None:
                raise self._explain(Refusal(request.key, 404, b""))
            yield None
            return
        with self._attempt(request, transfer) as attempt:
            wanted = {"Range": f"bytes={offset}-{offset + length - 1}"}
            with contextlib.closing(self._answer(request, attempt, wanted)) as response:
                if response.status == 416:
                    check_nothing_at(self._store_url, request, response, offset)
                    yield None
                    return
                if response.status != 206:
                    raise self._refusal(request, attempt, response)
                count, _ = partial_bytes(self._store_url, request, response, offset, length)
                yield self._body(request, attempt, response, count)

    @contextlib.contextmanager
    def _attempt(self, request: Request, transfer: Transfer) -> Iterator[Attempt]:
        what = f"{request.key} from {self._store_url}"
        attempt = Attempt(self._monotonic() + self._patience.grace_s, self._monotonic, what)
        transfer.stop_by(attempt.stop)
        with attempt.running():
            yield attempt

    def _answer(
        self, request: Request, attempt: Attempt, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        patience = self._patience
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
            raise unavailable(self._store_url, request.key, error) from error
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

    def _body(
        self, request: Request, attempt: Attempt, response: urllib3.BaseHTTPResponse, count: int
    ) -> Body:
        return Body(
            self._store_url,
            request.key,
            attempt,
            response,
            count,
            self._patience.min_bytes_per_s,
        )

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
            return mismatch(self._store_url, request.key, f"its status is {response.status}")
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
