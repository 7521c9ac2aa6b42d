"""A collection's way through the stores: list, judge, and delete what nothing reaches.

Stores are listed side by side, in the order of their keys; counts and one batch of deletions are
all that is kept in memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import groupby

from builder.garbage import Marks, Object, StoreTally, Total
from builder.repository import TIMESTAMP_KEY, TIMESTAMP_LIMIT_BYTES, Repository
from manifests.errors import WriterFenced
from manifests.record import ControlRecord
from manifests.retained import with_collection_ended
from store.folder import CutOff, FolderStore
from store.port import ObjectInfo, Store

DELETIONS_AT_ONCE = 8
BATCH_OBJECTS = 256

Progress = Callable[[int], None]
"""Told of each number of bytes that was deleted."""


def judged(stores: Sequence[Store], marks: Marks, prefix: str = "") -> Iterator[Object]:
    """Every object of every store, in the order of the keys, and what becomes of it.

    With a ``prefix``, those whose keys start so.

    Raises:
        StoreUnavailable, DiskError: a store does not answer.
    """
    lists = [_placed(place, store, prefix) for place, store in enumerate(stores)]
    merged = heapq.merge(*lists, key=lambda found: (found[1].key, found[0]))
    for key, copies in groupby(merged, key=lambda found: found[1].key):
        yield from marks.judge(key, dict(copies))


def _placed(place: int, store: Store, prefix: str) -> Iterator[tuple[int, ObjectInfo]]:
    return ((place, info) for info in store.list(prefix))


def survey(
    stores: Sequence[Store], marks: Marks, look: Callable[[Object], None] = lambda _: None
) -> list[StoreTally]:
    """What each store holds, by what would become of it; ``look`` is shown every object.

    Raises:
        StoreUnavailable, DiskError: a store does not answer.
    """
    tallies = [StoreTally(store.url) for store in stores]
    for found in judged(stores, marks):
        tallies[found.place].add(found)
        look(found)
    for tally, store in zip(tallies, stores, strict=True):
        for cut_off in _cut_off(store, marks):
            tally.cut_off.add(cut_off.size_bytes)
    return tallies


def clear_cut_off(stores: Sequence[Store], marks: Marks) -> list[Total]:
    """Remove what writes that were cut off left in the stores; how much that was in each.

    No object refers to it, and nobody reads it, so that this needs no move of the record.

    Raises:
        StoreUnavailable, DiskError: a store failed; run it again.
    """
    cleared = []
    for store in stores:
        total = Total()
        for cut_off in _cut_off(store, marks):
            cut_off.remove()
            total.add(cut_off.size_bytes)
        cleared.append(total)
    return cleared


def _cut_off(store: Store, marks: Marks) -> Iterator[CutOff]:
    """Only folders have any: a bucket shows nothing of an object that is not whole."""
    return store.cut_off(marks.cut_off_before) if isinstance(store, FolderStore) else iter(())


def sweep(
    stores: Sequence[Store],
    marks: Marks,
    refuse_overtaken: Callable[[], None],
    progress: Progress,
) -> list[StoreTally]:
    """Delete what is garbage, several objects at a time; what each store held, and is left with.

    Args:
        stores: each by itself.
        marks: made after the record was moved: whoever signs now knows that this may be deleted.
        refuse_overtaken: called before each batch; what it raises ends the sweep.
        progress: told of the bytes that are gone.

    Raises:
        StoreUnavailable, DiskError: a store failed; what was deleted is gone, run it again.
    """
    tallies = [StoreTally(store.url) for store in stores]
    batch: list[Object] = []
    with ThreadPoolExecutor(DELETIONS_AT_ONCE) as pool:

        def delete(found: Object) -> Object:
            stores[found.place].delete(found.info.key)
            return found

        def delete_batch() -> None:
            if batch:
                refuse_overtaken()
            for found in pool.map(delete, batch):
                tallies[found.place].add(found)
                progress(found.info.size_bytes)
            batch.clear()

        for found in judged(stores, marks):
            if found.verdict != "garbage":
                tallies[found.place].add(found)
                continue
            batch.append(found)
            if len(batch) == BATCH_OBJECTS:
                delete_batch()
        delete_batch()
    for tally, total in zip(tallies, clear_cut_off(stores, marks), strict=True):
        tally.cut_off = total
    return tallies


def refusing_overtaken(store: Store, token: str) -> Callable[[], None]:
    """A function that refuses to go on once the record is not the one with this version token.

    The function raises:
        WriterFenced: another writer moved it; nothing more may be deleted.
    """

    def refuse() -> None:
        found = store.get_versioned(TIMESTAMP_KEY, limit_bytes=TIMESTAMP_LIMIT_BYTES)
        if found is None or found.version != token:
            raise WriterFenced(
                "another writer moved the record while this collection was deleting; nothing more "
                "was deleted. Look at `genctl generations`, then run the command again",
                store=store.url,
            )

    return refuse


def end_interrupted(
    repository: Repository, signed_last: ControlRecord | None, now: datetime
) -> None:
    """Sign that no collection is under way, if the one that is was this home's own.

    The caller holds the home's lock, so that it was killed. What it did not delete, the next
    deletes. Another home's is left alone.

    Args:
        repository: the home's.
        signed_last: the record that the home signed last.
        now: the time.

    Raises:
        WriterFenced, StoreUnavailable: the record was not moved.
    """
    current = repository.current()
    token = current.signed.record.collecting
    if token is not None and signed_last is not None and signed_last.collecting == token:
        repository.commit(current, with_collection_ended(current.signed.record, token), now)
