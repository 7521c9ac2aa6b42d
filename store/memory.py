"""A store in this process's memory: the fake that passes the contract, for tests and trials."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from manifests.errors import LengthExceeded, ObjectMissing
from manifests.identifiers import content_id
from store.keys import check_key, check_prefix, check_range
from store.port import UNWATCHED, ObjectInfo, Transfer, VersionedBytes


class MemoryStore:
    """A :class:`store.port.Store` that lives as long as the object does; safe among threads.

    ``now`` tells when objects are written; without it, nobody knows.
    """

    def __init__(
        self, name: str = "store", now: Callable[[], datetime | None] = lambda: None
    ) -> None:
        self._name = name
        self._now = now
        self._objects: dict[str, bytes] = {}
        self._modified_at: dict[str, datetime | None] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """A name for messages; nothing opens it."""
        return f"memory:{self._name}"

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        """See :meth:`store.port.Store.get`."""
        check_key(key)
        check_range(offset, length)
        with self._lock:
            data = self._objects.get(key)
        if data is None:
            raise ObjectMissing(f"{self.url} has no object {key}", store=self.url, key=key)
        return data[offset : offset + length]

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """See :meth:`store.port.Store.read_into`."""
        data = self.get(key, offset=offset, length=len(buffer))
        buffer[: len(data)] = data
        if data:
            transfer.arrived(len(data))
        return len(data)

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        """See :meth:`store.port.Store.get_versioned`."""
        check_key(key)
        with self._lock:
            data = self._objects.get(key)
        if data is None:
            return None
        if len(data) > limit_bytes:
            raise LengthExceeded(
                f"{key} in {self.url} is longer than {limit_bytes} bytes",
                key=key,
                limit_bytes=limit_bytes,
            )
        return VersionedBytes(data, content_id(data))

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """See :meth:`store.port.Store.put_if_absent`."""
        check_key(key)
        data = b"".join(parts)
        with self._lock:
            if key in self._objects:
                return False
            self._objects[key], self._modified_at[key] = data, self._now()
            return True

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """See :meth:`store.port.Store.compare_and_swap`."""
        check_key(key)
        with self._lock:
            current = self._objects.get(key)
            if (None if current is None else content_id(current)) != expected:
                return False
            self._objects[key], self._modified_at[key] = bytes(data), self._now()
            return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`store.port.Store.list`; shows the objects of the moment it is called."""
        check_prefix(prefix)
        with self._lock:
            found = [
                ObjectInfo(key, len(data), self._modified_at[key])
                for key, data in sorted(self._objects.items())
                if key.startswith(prefix)
            ]
        return iter(found)

    def stat(self, key: str) -> ObjectInfo | None:
        """See :meth:`store.port.Store.stat`."""
        check_key(key)
        with self._lock:
            data = self._objects.get(key)
        return None if data is None else ObjectInfo(key, len(data))

    def delete(self, key: str) -> None:
        """See :meth:`store.port.Store.delete`."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)
