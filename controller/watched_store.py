"""A store that is watched: what was asked of it, what it lacked, and what stood in the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from manifests.errors import ObjectObstructed
from manifests.names import symbol_of
from store.port import UNWATCHED, ObjectInfo, Store, Transfer, VersionedBytes


@dataclass(frozen=True, slots=True)
class StoreFindings:
    """What was found in one store; as many objects as were lost or damaged were sent again.

    ``obstructions`` say in the place of which symbols something else stands, which must be moved
    away first.
    """

    url: str
    objects: int
    read_bytes: int
    lost: int
    damaged: int
    recreated: int
    obstructions: tuple[ObjectObstructed, ...]


class WatchedStore:
    """A :class:`store.port.Store` that knows what was asked of it, and what it lacked.

    What is created was damaged if it had been seen there before, and else lost. A symbol that
    cannot be created because something else stands in its place is noted, and answered for as if it
    had been created: whoever asks goes on with the next.
    """

    def __init__(self, behind: Store) -> None:
        self._behind = behind
        self._lock = threading.Lock()
        self._there: set[str] = set()
        self._lost: set[str] = set()
        self._damaged: set[str] = set()
        self._obstructed: dict[str, ObjectObstructed] = {}
        self._read_bytes = 0

    @property
    def url(self) -> str:
        """See :attr:`store.port.Store.url`."""
        return self._behind.url

    def findings(self) -> StoreFindings:
        """What was found so far."""
        with self._lock:
            return StoreFindings(
                url=self.url,
                objects=len(self._there | self._lost),
                read_bytes=self._read_bytes,
                lost=len(self._lost),
                damaged=len(self._damaged),
                recreated=len(self._lost | self._damaged),
                obstructions=tuple(error for _, error in sorted(self._obstructed.items())),
            )

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        """See :meth:`store.port.Store.get`."""
        data = self._behind.get(key, offset=offset, length=length)
        self._saw(key, len(data))
        return data

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """See :meth:`store.port.Store.read_into`."""
        count = self._behind.read_into(key, offset=offset, buffer=buffer, transfer=transfer)
        self._saw(key, count)
        return count

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        """See :meth:`store.port.Store.get_versioned`."""
        found = self._behind.get_versioned(key, limit_bytes=limit_bytes)
        if found is not None:
            self._saw(key, len(found.data))
        return found

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """See :meth:`store.port.Store.put_if_absent`."""
        try:
            created = self._behind.put_if_absent(key, parts)
        except ObjectObstructed as error:
            if symbol_of(key) is None:
                raise
            with self._lock:
                self._obstructed[key] = error
            return True
        if created:
            self._created(key)
        return created

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """See :meth:`store.port.Store.compare_and_swap`."""
        swapped = self._behind.compare_and_swap(key, data, expected)
        if swapped:
            self._created(key)
        return swapped

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`store.port.Store.list`."""
        return self._behind.list(prefix)

    def stat(self, key: str) -> ObjectInfo | None:
        """See :meth:`store.port.Store.stat`."""
        try:
            found = self._behind.stat(key)
        except ObjectObstructed:
            self._saw(key, 0)
            raise
        if found is not None:
            self._saw(key, 0)
        return found

    def delete(self, key: str) -> None:
        """See :meth:`store.port.Store.delete`."""
        self._behind.delete(key)

    def _saw(self, key: str, read_bytes: int) -> None:
        with self._lock:
            self._there.add(key)
            self._read_bytes += read_bytes

    def _created(self, key: str) -> None:
        with self._lock:
            (self._damaged if key in self._there else self._lost).add(key)
