"""The store port: the six things genctl asks of a place that keeps blobs.

Keys are ``/``-separated relative paths of safe characters. Every backend passes the contract suite
in ``tests/store/contract.py`` and translates its library's errors into the ones named here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object without reading it."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class VersionedBytes:
    """A small mutable object and the token that :meth:`Store.compare_and_swap` wants back."""

    data: bytes
    version: str


class Store(Protocol):
    """A place that keeps blobs.

    Every method raises ``StoreUnavailable`` when the store does not answer or fails, and
    ``DiskFull`` / ``DiskError`` where a local disk does.
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
