"""The store port: what genctl asks of a place that keeps blobs.

Keys are ``/``-separated relative paths of safe characters. Every backend passes the contract suite
in ``tests/store/contract.py`` and translates its library's errors into the ones named here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object without reading it.

    ``modified_at`` is when it was last written, by the store's own clock. Listings give it where
    the store tells; objects that differ in nothing else are equal.
    """

    key: str
    size_bytes: int
    modified_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class VersionedBytes:
    """A small mutable object and the token that :meth:`Store.compare_and_swap` wants back."""

    data: bytes
    version: str


class Transfer(Protocol):
    """One bulk read as its caller watches it; :data:`UNWATCHED` is for those that do not."""

    def arrived(self, size_bytes: int) -> None:
        """Told after each piece how many bytes it had; what it raises ends the read.

        Whoever checks, counts or slows down a read does it here.
        """
        ...

    def stop_by(self, stop: Callable[[], None]) -> None:
        """Handed a function that ends the read at once, callable from any thread.

        A backend that can wait for a network calls this when it starts to wait.
        """
        ...


class _Unwatched:
    def arrived(self, size_bytes: int) -> None:
        """Nobody counts."""

    def stop_by(self, stop: Callable[[], None]) -> None:
        """Nobody stops it."""


UNWATCHED: Transfer = _Unwatched()


class Store(Protocol):
    """A place that keeps blobs.

    Every method raises ``StoreUnavailable`` when the store does not answer or fails, and
    ``DiskFull`` / ``DiskError`` where a local disk does. Over a network, reads raise besides
    ``TransferDeadline`` when bytes come too slowly and ``BodyMismatch`` when the answer is not the
    range that was asked for.
    """

    @property
    def url(self) -> str:
        """How an operator names this store; carries no secret."""
        ...

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        """At most ``length`` bytes of the object from ``offset`` on; fewer only at its end.

        Raises:
            ObjectMissing: there is no such object.
        """
        ...

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """Fill ``buffer`` with the object's bytes from ``offset`` on, in order; for bulk data.

        Returns how many bytes there were: fewer than ``len(buffer)`` only at the object's end.
        After an error the buffer holds nothing that counts but what ``transfer`` was told of.

        Raises:
            ObjectMissing: there is no such object.
        """
        ...

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        """The whole of a small object with its version token, or ``None`` when it is absent.

        Raises:
            LengthExceeded: it is longer than ``limit_bytes``.
        """
        ...

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """Store the concatenated ``parts`` durably unless the key is taken.

        Returns whether this call created the object. An object is never seen half-written.
        """
        ...

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """Replace the object durably if its version token is ``expected`` (``None``: absent).

        Returns ``False``, having changed nothing, when another writer came first.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects whose keys start with ``prefix``, in the order of their keys."""
        ...

    def stat(self, key: str) -> ObjectInfo | None:
        """The object's size, or ``None`` when it is absent."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; an absent one is no error."""
        ...
