"""What HTTP answers are taken for: a range of an object, a refusal, or something else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as HTTPTimeout

from manifests.errors import (
    BodyMismatch,
    GenctlError,
    ObjectMissing,
    SourceBusy,
    StoreUnavailable,
)
from store.http_pool import Attempt, receive_into, why_unreachable

PIECE_SIZE_BYTES = 512 << 10
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


@dataclass(frozen=True, slots=True)
class Body:
    """The next ``count`` bytes of an answer, never more.

    ``attempt`` is given time for them: ``count / min_bytes_per_s``.
    """

    store_url: str
    key: str
    attempt: Attempt
    response: urllib3.BaseHTTPResponse
    count: int
    min_bytes_per_s: float

    def whole(self) -> bytes:
        """All of it; see :meth:`into`."""
        data = bytearray(self.count)
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
        attempt, response, done = self.attempt, self.response, 0
        attempt.end += self.count / self.min_bytes_per_s
        while done < self.count:
            try:
                piece = buffer[done : min(done + PIECE_SIZE_BYTES, self.count)]
                received = receive_into(response, piece)
            except (HTTPTimeout, TimeoutError) as error:
                attempt.check()
                raise unavailable(self.store_url, self.key, error) from error
            except (HTTPError, OSError) as error:
                attempt.check()
                raise self._cut_short(done) from error
            attempt.check()
            if not received:
                raise self._cut_short(done)
            done += received
            yield received
        # The body has been read to its end: the connection can be used again.
        response.release_conn()

    def _cut_short(self, done: int) -> BodyMismatch:
        return BodyMismatch(
            f"{self.store_url} sent {done} of {self.count} bytes of {self.key}; try again",
            store=self.store_url,
            key=self.key,
            received_bytes=done,
            expected_bytes=self.count,
        )


def partial_bytes(
    store_url: str, request: Request, response: urllib3.BaseHTTPResponse, offset: int, length: int
) -> tuple[int, int]:
    """How many bytes a partial answer has, and how many the object.

    Raises:
        BodyMismatch: they are not those that were asked for.
    """
    header = response.headers.get("Content-Range", "")
    found = _CONTENT_RANGE.fullmatch(header)
    if found is None:
        raise mismatch(store_url, request.key, f"its Content-Range is {header[:60]!r}")
    start, end, size_bytes = map(int, found.groups())
    if start != offset or end != min(offset + length, size_bytes) - 1 or end < start:
        why = f"it is {header!r}, not {length} bytes from offset {offset} on"
        raise mismatch(store_url, request.key, why)
    count = end - start + 1
    announced = announced_bytes(response)
    if announced not in {None, count}:
        raise mismatch(store_url, request.key, f"it has {announced} bytes, not {count}")
    return count, size_bytes


def check_nothing_at(
    store_url: str, request: Request, response: urllib3.BaseHTTPResponse, offset: int
) -> None:
    """Refuse an answer 416 that contradicts itself; not every server gives the size in it."""
    header = response.headers.get("Content-Range", "")
    found = _NOTHING_THERE.fullmatch(header)
    if found is not None and int(found[1]) > offset:
        raise mismatch(store_url, request.key, f"it denies offset {offset} of {found[1]} bytes")


def announced_bytes(response: urllib3.BaseHTTPResponse) -> int | None:
    """How many bytes the body is said to have, if it is said in a way that can be relied on."""
    length = response.headers.get("Content-Length", "")
    if "Transfer-Encoding" in response.headers or not length.isascii() or not length.isdecimal():
        return None
    return int(length)


def mismatch(store_url: str, key: str, why: str) -> BodyMismatch:
    """The error for an answer that is not the object."""
    return BodyMismatch(
        f"the answer of {store_url} is not {key}: {why}; see what answers at "
        "that address, then try again",
        store=store_url,
        key=key,
    )


def unavailable(store_url: str, key: str, error: Exception) -> StoreUnavailable:
    """The error for a server that cannot be reached, or goes silent."""
    return StoreUnavailable(
        f"{store_url} cannot be read ({key}): {why_unreachable(error)}",
        store=store_url,
        key=key,
    )
