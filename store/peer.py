"""A peer as a store: what another node serves of what it has verified, over HTTP, for reading.

Nothing a peer says is believed: whoever reads checks every byte against the signed record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn
from urllib.parse import urlsplit

from pydantic import ValidationError

from manifests.canonical import Frozen
from manifests.errors import BadSetting, BodyMismatch, StoreUnavailable
from store.http_answers import Request
from store.http_pool import open_pool
from store.http_reads import HttpReader
from store.keys import check_key, check_prefix, check_range
from store.patience import Patience
from store.port import UNWATCHED, ObjectInfo, Transfer, VersionedBytes

OBJECTS_PATH = "/v1/objects"
MAX_LISTED = 1_000
"""How many objects one part of a listing has, at most."""
MAX_LISTING_SIZE_BYTES = 1 << 20


class ListedObject(Frozen):
    """An object of a peer's listing."""

    key: str
    size_bytes: int


class Listing(Frozen):
    """One part of a peer's listing, in the order of the keys; ``more``: others come after it."""

    objects: tuple[ListedObject, ...]
    more: bool


class PeerStore:
    """A :class:`store.port.Store` for reading from the peer at ``url``; safe among threads.

    The version token is the ETag. What would change an object is refused with ``BadSetting``.

    Args:
        url: ``http://host:port``, with a path before the peer's own if something forwards it.
        patience: how long a read may take.
        monotonic: seconds on a clock that never goes back.

    Raises:
        BadSetting: the URL is not of that form.
    """

    def __init__(
        self,
        url: str,
        *,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = _checked(url)
        self._reader = HttpReader(
            self._url, open_pool(self._url), patience=patience, monotonic=monotonic
        )

    @property
    def url(self) -> str:
        """The peer's URL without a slash at its end."""
        return self._url

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        """See :meth:`store.port.Store.get`."""
        check_range(offset, length)
        return self._reader.get(self._request(key), offset, length)

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """See :meth:`store.port.Store.read_into`."""
        check_range(offset, len(buffer))
        return self._reader.read_into(self._request(key), offset, buffer, transfer)

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        """See :meth:`store.port.Store.get_versioned`."""
        return self._reader.get_whole(self._request(key), limit_bytes)

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """Refused: a peer is read-only."""
        self._refuse()

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """Refused: a peer is read-only."""
        self._refuse()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`store.port.Store.list`; asks for 1,000 objects at a time.

        Raises:
            BodyMismatch: the answer is no listing of that prefix in the order of the keys.
        """
        check_prefix(prefix)
        return self._listed(prefix)

    def stat(self, key: str) -> ObjectInfo | None:
        """See :meth:`store.port.Store.stat`."""
        size_bytes = self._reader.size_bytes(self._request(key))
        return None if size_bytes is None else ObjectInfo(key, size_bytes)

    def delete(self, key: str) -> None:
        """Refused: a peer is read-only."""
        self._refuse()

    def _request(self, key: str) -> Request:
        check_key(key)
        # The characters of a key stand for themselves in a URL.
        return Request(key, f"{self._url}{OBJECTS_PATH}/{key}")

    def _refuse(self) -> NoReturn:
        raise BadSetting(
            f"{self._url} is a peer, and a peer is read-only; write to a store", store=self._url
        )

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        after = ""
        while True:
            part = self._listing(prefix, after)
            for listed in part.objects:
                if listed.key <= after or not listed.key.startswith(prefix):
                    raise self._no_listing()
                after = listed.key
                yield ObjectInfo(listed.key, listed.size_bytes)
            if not part.more:
                return
            if not part.objects:
                raise self._no_listing()

    def _listing(self, prefix: str, after: str) -> Listing:
        url = f"{self._url}{OBJECTS_PATH}?prefix={prefix}&after={after}"
        answer = self._reader.get_whole(Request("its listing", url), MAX_LISTING_SIZE_BYTES)
        if answer is None:
            raise StoreUnavailable(
                f"{self._url} lists no objects, so it is no peer; check its URL", store=self._url
            )
        try:
            return Listing.model_validate_json(answer.data)
        except ValidationError as error:
            raise self._no_listing() from error

    def _no_listing(self) -> BodyMismatch:
        return BodyMismatch(
            f"{self._url} sends a listing that is none; see what answers at that address, then "
            "try again",
            store=self._url,
        )


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.username is None
            and parts.port != 0
            and not (parts.query or parts.fragment)
            and url.isascii()
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        usable = False
    if not usable:
        # Not the URL itself: it may carry a password.
        raise BadSetting("a peer's URL has the form http://host:port, with no login in it")
    return url.rstrip("/")
