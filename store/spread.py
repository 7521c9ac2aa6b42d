"""Several stores used as one: symbols are spread over them, everything else is in each of them.

*The rule.* Symbol ``i`` of an artifact belongs in store ``(i + r) mod n`` of the ``n`` stores in
their order, where ``r`` is the number that the first eight hexadecimal digits of the artifact's id
are: in turn, from a store that differs from artifact to artifact, so that small ones are spread
evenly too. All other objects are *mirrored*, but for leases, of which each counts where it lies
(:mod:`store.leases`). The first store's are the true ones, its
``timestamp.json`` is the commit point, and those of the other stores are copies, made after it.

*Who needs which stores.* A reader takes what it wants from the first store that answers and has it:
all that it reads is signed or hashed, and a copy that is behind is an older record, which it
refuses. Of signed metadata that is damaged or forged there, the others' copies are tried
(:func:`read_copy`), so that a store that lies stops nobody whom a lost one would not stop. A writer
needs all of them. It sends to all before the commit point, so that one which does not answer is
noticed in time; copies that a crash or a failure left behind are brought up by the next change of
the record, or by :meth:`SpreadStore.mend`. What the first store has lost is never taken for absent
while a copy is left: a record made anew there would undo what was acknowledged. Nor is what is
damaged there copied over what is whole: :mod:`store.sound_metadata` tells them apart.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from manifests.errors import (
    DiskError,
    GenctlError,
    HomeOccupied,
    LengthExceeded,
    ObjectMissing,
    RetryError,
    StoreRefused,
    StoreUnavailable,
    UnsignedRecord,
)
from manifests.names import metadata_key, symbol_of
from store.port import UNWATCHED, ObjectInfo, Store, Transfer, VersionedBytes

if TYPE_CHECKING:
    from tuf.api.metadata import Root

MAX_MIRRORED_SIZE_BYTES = 64 << 20
"""The longest object that is compared with its copies."""

LOST_RUNBOOK = "store-lost"
"""The page for a store of several that is lost, or came back empty or damaged."""

MAX_ROUNDS = 1000
"""How often copies are compared anew because a writer elsewhere changed the object meanwhile."""

ROOT_KEY = metadata_key("1.root.json")
RECORD_KEY = metadata_key("timestamp.json")
MIRRORED_PREFIXES = (metadata_key(""), "targets/")
"""Where the mirrored objects of a shard are."""

T = TypeVar("T")


def copies_of(store: Store) -> tuple[Store, ...]:
    """The stores that have a copy each of what is mirrored, the one that counts first."""
    return store.stores if isinstance(store, SpreadStore) else (store,)


def read_copy(
    store: Store,
    read: Callable[[Store], bytes | None],
    is_sound: Callable[[bytes], bool],
    *,
    is_absent_if_one_says_so: bool = False,
) -> tuple[str, bytes] | None:
    """A mirrored object as ``read`` gives it, with the URL of the store that it is from.

    The first store's that is sound; where none is, the first that there is, for the caller to
    refuse. A single store's is not judged here.

    Args:
        store: one, or several as one.
        read: reads one store; ``None`` or ``ObjectMissing`` where that has no such object.
        is_sound: whether bytes are what they should be.
        is_absent_if_one_says_so: whether what no store has sound is absent if one that answers has
            nothing there.

    Returns:
        ``None`` if it is absent.

    Raises:
        RetryError, DiskError, LengthExceeded: of the first store that failed, if none has it.
    """
    copies = copies_of(store)
    unsound: tuple[str, bytes] | None = None
    failure: GenctlError | None = None
    is_absent = False
    for each in copies:
        try:
            data = read(each)
        except ObjectMissing:
            data = None
        except (RetryError, DiskError, LengthExceeded) as error:
            failure = failure or error
            continue
        if data is None:
            is_absent = True
        elif len(copies) == 1 or is_sound(data):
            return each.url, data
        else:
            unsound = unsound or (each.url, data)
    if is_absent and is_absent_if_one_says_so:
        return None
    if unsound is None and failure is not None:
        raise failure
    return unsound


def symbol_store(artifact_id: str, number: int, store_count: int) -> int:
    """Which of ``store_count`` stores symbol ``number`` of an artifact belongs in, from 0."""
    return (number + int(artifact_id[:8], 16)) % store_count


class SpreadStore:
    """A :class:`store.port.Store` over one or more others; safe among threads and processes."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = tuple(stores)
        self._are_one_shards = False

    @property
    def url(self) -> str:
        """The stores' URLs, for messages."""
        return ", ".join(store.url for store in self.stores)

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        """See :meth:`store.port.Store.get`; from the first store that has it."""
        return self._present(
            key, self._ask(key, lambda store: store.get(key, offset=offset, length=length))
        )

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """See :meth:`store.port.Store.read_into`; from the first store that has it.

        Once bytes have arrived, or the read was stopped, no other store is tried.
        """
        tracked = _Tracked(transfer)
        found = self._ask(
            key,
            lambda store: store.read_into(key, offset=offset, buffer=buffer, transfer=tracked),
            is_final=lambda: tracked.is_final,
        )
        return self._present(key, found)

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        """See :meth:`store.port.Store.get_versioned`; from the store that a swap would change.

        Raises:
            ObjectMissing: the first store has lost the object, and a copy is left.
        """
        true, *copies = self._writing(key)
        with self.needing_all():
            found = true.get_versioned(key, limit_bytes=limit_bytes)
            is_lost = found is None and any(copy.stat(key) is not None for copy in copies)
        if is_lost:
            raise ObjectMissing(
                f"{true.url}, the first of the stores, has no {key}, but another has: the first "
                "has lost it, or was put back empty. Nothing was changed",
                store=true.url,
                key=key,
            ).with_runbook(LOST_RUNBOOK)
        return found

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """See :meth:`store.port.Store.put_if_absent`.

        The first store decides. Whether it has the object now or had it before, the copies are the
        same when this returns.
        """
        true, *copies = self._writing(key)
        with self.needing_all():
            if copies:
                self._refuse_other_shards()
            created = true.put_if_absent(key, parts)
            if created:
                copies = [copy for copy in copies if not copy.put_if_absent(key, parts)]
            self._copy(key, copies)
        return created

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """See :meth:`store.port.Store.compare_and_swap`; the first store decides.

        Raises:
            StoreUnavailable: besides, the object was replaced in the first store, and a copy could
                not be: :meth:`get_versioned` tells.
        """
        true, *copies = self._writing(key)
        with self.needing_all():
            if copies:
                self._refuse_other_shards()
            if not true.compare_and_swap(key, data, expected):
                return False
        try:
            self._copy(key, copies)
        except GenctlError as error:
            raise StoreUnavailable(
                f"{key} was replaced in {true.url}, but not in every other store: {error.message}. "
                "The next command that changes the record makes up for it",
                store=self.url,
            ) from error
        return True

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`store.port.Store.list`; every store is asked, and each must answer."""
        key = attrgetter("key")
        with self.needing_all():
            lists = [store.list(prefix) for store in self.stores]
            # Of equal keys, merge gives the first store's first.
            for _, same in groupby(heapq.merge(*lists, key=key), key):
                yield next(same)

    def stat(self, key: str) -> ObjectInfo | None:
        """See :meth:`store.port.Store.stat`.

        A symbol is there if it is where it belongs: :meth:`put_if_absent` creates it there even if
        another store has it from when there were other stores. What is mirrored is absent if all
        stores that answer say so, one at least: a node must learn that there is no newer root.
        """
        if symbol_of(key) is not None:
            (belongs,) = self._writing(key)
            return belongs.stat(key)
        return self._ask(key, lambda store: store.stat(key), is_absent_if_one_says_so=True)

    def delete(self, key: str) -> None:
        """See :meth:`store.port.Store.delete`; from every store, from the first at last."""
        with self.needing_all():
            for store in reversed(self.stores):
                store.delete(key)

    def mend(self, prefix: str) -> None:
        """Have all stores hold the mirrored objects under ``prefix`` that any of them holds.

        Where they differ, the first is right, unless what it has is damaged. What it lacks or has
        damaged, it gets from a copy that is whole; but the record only if what is left of it shows
        that it was the copy's, since nothing else says that a copy is the newest.

        Raises:
            ObjectMissing: the first store has lost the record, and a copy is left.
            UnsignedRecord: it has the record damaged, and no copy is that record.
            HomeOccupied: a store holds another shard.
            StoreUnavailable: a store does not answer.
        """
        if len(self.stores) == 1:
            return
        with self.needing_all():
            self._mend(prefix)

    @contextlib.contextmanager
    def needing_all(self) -> Iterator[None]:
        """Say of one of several stores that does not answer what a writer can do without it.

        One that refuses is there: its own error says what to mend, or that it is lost.
        """
        try:
            yield
        except StoreUnavailable as error:
            is_told = error.runbook is not None or isinstance(error, StoreRefused)
            if is_told or len(self.stores) == 1:
                raise
            raise StoreUnavailable(
                f"{error.message}. A writer needs all of its stores; if this one is lost for good, "
                "its runbook says what to do",
                **error.facts,
            ).with_runbook(LOST_RUNBOOK) from error

    def _mend(self, prefix: str) -> None:
        self._refuse_other_shards()
        for key in [info.key for info in self.list(prefix) if symbol_of(info.key) is None]:
            first, *others = (
                store.get_versioned(key, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
                for store in self.stores
            )
            if first is None and key == RECORD_KEY:
                self.get_versioned(key, limit_bytes=MAX_MIRRORED_SIZE_BYTES)  # refuses
            copies = [None if each is None else each.data for each in others]
            if first is not None and copies == [first.data] * len(copies):
                continue
            if self._mend_first(key, first, [data for data in copies if data is not None]):
                self._copy(key, self.stores[1:])

    def _mend_first(self, key: str, first: VersionedBytes | None, copies: Sequence[bytes]) -> bool:
        """Have the first store hold the object whole, if it does not and a copy is.

        Whether what it has then may be copied: damage is not, or one store could spread it.
        """
        from store.sound_metadata import is_same_document, is_sound  # noqa: PLC0415 - imports tuf

        roots = self._roots()
        damaged = None if first is None else first.data
        if damaged is not None and is_sound(key, damaged, roots) is not False:
            return True
        whole = [data for data in copies if is_sound(key, data, roots) is not False]
        if damaged is not None and key == RECORD_KEY:
            whole = [data for data in whole if is_same_document(damaged, data)]
            if not whole:
                raise UnsignedRecord(
                    f"{self.stores[0].url}, the first of the stores, has {key} damaged, and what "
                    "is left of it does not show which of the others' copies it was. Nothing was "
                    "changed",
                    store=self.stores[0].url,
                    key=key,
                ).with_runbook(LOST_RUNBOOK)
        if whole:
            version = None if first is None else first.version
            self.stores[0].compare_and_swap(key, whole[0], version)
        return bool(whole)

    def _roots(self) -> Sequence[Root]:
        """All whole versions of the root of trust that any store has."""
        from store.sound_metadata import is_root, sound_roots  # noqa: PLC0415 - imports tuf

        found = [
            (info.key, store.get(info.key, length=MAX_MIRRORED_SIZE_BYTES))
            for store in self.stores
            for info in store.list(metadata_key(""))
            if is_root(info.key)
        ]
        return sound_roots(dict.fromkeys(found))

    def _writing(self, key: str) -> tuple[Store, ...]:
        """The store whose word counts, then those that get copies; a symbol has no copies."""
        symbol = symbol_of(key)
        if symbol is None:
            return self.stores
        return (self.stores[symbol_store(*symbol, len(self.stores))],)

    def _reading(self, key: str) -> tuple[Store, ...]:
        """The stores in the order in which they are likely to have the object."""
        symbol = symbol_of(key)
        first = 0 if symbol is None else symbol_store(*symbol, len(self.stores))
        return self.stores[first:] + self.stores[:first]

    def _ask(
        self,
        key: str,
        ask: Callable[[Store], T | None],
        *,
        is_final: Callable[[], bool] = lambda: False,
        is_absent_if_one_says_so: bool = False,
    ) -> T | None:
        """The first answer that is not ``None``; ``None`` if all stores say that it is absent."""
        failure: GenctlError | None = None
        is_absent = False
        for store in self._reading(key):
            try:
                found = ask(store)
            except ObjectMissing:
                found = None
            except (RetryError, DiskError) as error:
                if is_final():
                    raise
                failure = failure or error
                continue
            if found is not None:
                return found
            is_absent = True
        if failure is None or (is_absent and is_absent_if_one_says_so):
            return None
        raise failure

    def _copy(self, key: str, copies: Sequence[Store]) -> None:
        """Bring ``copies`` to what the first store holds, whoever else is writing."""
        if not copies:
            return
        for _ in range(MAX_ROUNDS):
            # Read before the copies: what changes later, its writer copies.
            found = self.stores[0].get_versioned(key, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
            if found is None:
                return
            were_copies = [self._is_copy(copy, key, found.data) for copy in copies]
            if all(were_copies):
                return
        raise StoreUnavailable(
            f"{key} is being changed all the time by other writers; run the command again",
            store=self.url,
        )

    def _is_copy(self, copy: Store, key: str, data: bytes) -> bool:
        """Whether ``copy`` held the same bytes; if not, it was probably given them."""
        held = copy.get_versioned(key, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
        if held is not None and held.data == data:
            return True
        self._refuse_other_shards()
        copy.compare_and_swap(key, data, None if held is None else held.version)
        return False

    def _refuse_other_shards(self) -> None:
        """Refuse to write copies over another writer's objects; asked once it can be known."""
        if self._are_one_shards:
            return
        true, *copies = self.stores
        root = true.get_versioned(ROOT_KEY, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
        for copy in copies:
            other = copy.get_versioned(ROOT_KEY, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
            if root is None or other is None or root.data == other.data:
                continue
            from store.sound_metadata import is_same_document  # noqa: PLC0415 - imports tuf

            are_same = is_same_document(root.data, other.data)
            if not (are_same or is_same_document(other.data, root.data)):
                raise HomeOccupied(
                    f"{copy.url} has another {ROOT_KEY} than {true.url}: it is another writer's "
                    "store, or badly damaged. Choose an empty place, or remove that object",
                    store=copy.url,
                )
        self._are_one_shards = root is not None

    def _present(self, key: str, found: T | None) -> T:
        if found is None:
            raise ObjectMissing(f"{self.url} has no object {key}", store=self.url, key=key)
        return found


class _Tracked:
    """A :class:`store.port.Transfer` that knows whether another store may still be tried."""

    def __init__(self, behind: Transfer) -> None:
        self._behind = behind
        self.is_final = False

    def arrived(self, size_bytes: int) -> None:
        self.is_final = True
        self._behind.arrived(size_bytes)

    def stop_by(self, stop: Callable[[], None]) -> None:
        def stop_all() -> None:
            self.is_final = True
            stop()

        self._behind.stop_by(stop_all)
