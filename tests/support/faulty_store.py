"""Faults on the production store port: refusals, lost races and answers that never arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from manifests.errors import StoreUnavailable
from store.port import UNWATCHED, ObjectInfo, Store, Transfer, VersionedBytes


class FaultyStore:
    """A :class:`store.port.Store` that passes everything on until it is told not to.

    ``fail_at`` is the number of the mutation (put, swap, delete; from 0) at which the store dies;
    from then on nothing works until it is set to ``None``. With ``outcome_unknown`` the mutation it
    dies at is carried out first. ``before_swap`` runs once, before the next compare-and-swap;
    ``lose_answer`` has that swap carried out (or not) and then reported as unavailable, once.
    """

    def __init__(self, behind: Store) -> None:
        self._behind = behind
        self._lock = threading.Lock()
        self.mutations = 0
        self.fail_at: int | None = None
        self.outcome_unknown = False
        self.before_swap: Callable[[], None] | None = None
        self.lose_answer: bool | None = None
        self._dead = False

    def revive(self) -> None:
        """Work again, and count mutations from 0."""
        self.fail_at, self.mutations, self._dead = None, 0, False

    @property
    def url(self) -> str:
        return self._behind.url

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        self._check()
        return self._behind.get(key, offset=offset, length=length)

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        self._check()
        return self._behind.read_into(key, offset=offset, buffer=buffer, transfer=transfer)

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        self._check()
        return self._behind.get_versioned(key, limit_bytes=limit_bytes)

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        return self._mutate(lambda: self._behind.put_if_absent(key, parts))

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        before, self.before_swap = self.before_swap, None
        if before is not None:
            before()
        carried_out, self.lose_answer = self.lose_answer, None
        if carried_out is not None:
            if carried_out:
                self._behind.compare_and_swap(key, data, expected)
            raise self._unavailable()
        return self._mutate(lambda: self._behind.compare_and_swap(key, data, expected))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._check()
        return self._behind.list(prefix)

    def stat(self, key: str) -> ObjectInfo | None:
        self._check()
        return self._behind.stat(key)

    def delete(self, key: str) -> None:
        def delete() -> bool:
            self._behind.delete(key)
            return True

        self._mutate(delete)

    def _mutate(self, act: Callable[[], bool]) -> bool:
        with self._lock:
            self._check()
            number, self.mutations = self.mutations, self.mutations + 1
            self._dead = number == self.fail_at
            if self._dead and not self.outcome_unknown:
                raise self._unavailable()
            done = act()
            if self._dead:
                raise self._unavailable()
            return done

    def _check(self) -> None:
        if self._dead:
            raise self._unavailable()

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable(f"the store {self.url} is out of order, says the test")
