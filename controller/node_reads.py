"""Which generation a node's read is answered from, and how one that is not here is brought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from activator.pointer import Pointer
from controller import clock, degraded, node_space
from controller.going_back import steps_back
from controller.leased_fetch import bring_leased
from durable import files
from index import in_use
from index.in_use import HeldGeneration
from index.verification import VerifiedGeneration
from manifests.errors import NothingPublished
from manifests.record import ControlRecord, GenerationEntry, utc_text
from manifests.record_changes import readable_entry
from query.resolve import Chosen, resolve
from replicator.bring import unwatched
from replicator.trust import TrustedRecord
from store.spread import SpreadStore

if TYPE_CHECKING:
    from controller.node import NodeHome

MIN_COMMIT_SEQ_DEADLINE_MS = 5_000
FETCH_WAIT_MS = 60_000
"""How long a query of the past waits for a bootstrap that is under way, before it fetches."""


def choose(
    node: NodeHome,
    *,
    as_of_commit_seq: int | None = None,
    as_of_time: datetime | None = None,
    min_commit_seq: int | None = None,
    deadline_ms: int = MIN_COMMIT_SEQ_DEADLINE_MS,
) -> Chosen:
    """The generation that a read with these wishes is answered from.

    Raises:
        BadQuery, GenerationCollected, GenerationRevoked, NotYetActivated: see
            :mod:`query.resolve`.
        StoreUnavailable, TrustError …: the past asked for is later than what is known here, and
            the store cannot be asked.
        ArtifactHashMismatch: that generation has damage here that could not be mended.
    """
    keep_waiting = clock.poller(deadline_ms)
    chosen = resolve(
        lambda: node.pointer().active,
        lambda: _record_up_to(node, as_of_commit_seq, as_of_time, keep_waiting),
        as_of_commit_seq=as_of_commit_seq,
        as_of_time=as_of_time,
        min_commit_seq=min_commit_seq,
        keep_waiting=keep_waiting,
    )
    degraded.refuse_damaged(node.state(), chosen.entry.generation_id)
    return chosen


def fetch_old(node: NodeHome, entry: GenerationEntry) -> HeldGeneration:
    """Bring a retained generation that is not here, without activating it, and hold it.

    Older ones that nobody has open make room for it.

    Raises:
        HomeLocked: another command holds the node for longer than a query waits.
        GenerationCollected, GenerationRevoked: by the newest record it is not to be read any more.
        TrustError, StoreUnavailable …: see :meth:`controller.node.NodeHome.bootstrap`.
    """
    keep_waiting = clock.poller(FETCH_WAIT_MS)
    with files.locked(node.home / "lock", "query", keep_waiting=keep_waiting):
        stores = node.stores()
        trusted = node.trust().refresh(stores)
        current = readable_entry(trusted.record, entry.generation_id)
        verified = _bring(node, current, trusted, stores, "query")
        held = HeldGeneration(verified, in_use.hold(verified.folder.parent))
        node_space.keep_within_bounds(node, [current.generation_id])
        return held


def fetch_back(
    node: NodeHome, pointer: Pointer
) -> tuple[VerifiedGeneration, GenerationEntry, ControlRecord]:
    """Bring what a node goes back to by the newest record, and give that record.

    The node's lock is held.

    Raises:
        NothingPublished: by that record there is nothing to go back to.
        TrustError, StoreUnavailable …: see :meth:`controller.node.NodeHome.bootstrap`.
    """
    stores = node.stores()
    trusted = node.trust().refresh(stores)
    resident = node.residence.resident_ids()
    target = first_step(steps_back(trusted.record, pointer, resident), pointer)
    if target.generation_id in resident:
        return node.residence.reopen(target, pointer.shard), target, trusted.record
    return _bring(node, target, trusted, stores, "rollback"), target, trusted.record


def first_step(steps: Sequence[GenerationEntry], pointer: Pointer) -> GenerationEntry:
    """The first of these.

    Raises:
        NothingPublished: there is none.
    """
    if not steps:
        raise NothingPublished(
            f"there is no generation to go back to from {pointer.active.generation_id}: none older "
            "is retained but what was gone back from",
            generation_id=pointer.active.generation_id,
        )
    return steps[0]


def _bring(
    node: NodeHome,
    entry: GenerationEntry,
    trusted: TrustedRecord,
    stores: SpreadStore,
    purpose: str,
) -> VerifiedGeneration:
    fetched = bring_leased(
        node, entry, trusted, stores, unwatched, purpose=purpose, keep_others=True
    )
    return fetched.brought.verified


def _record_up_to(
    node: NodeHome,
    commit_seq: int | None,
    time: datetime | None,
    keep_waiting: Callable[[], bool],
) -> ControlRecord:
    """The last record; a newer one, if this one may not know all generations up to then.

    Raises:
        StoreUnavailable, TrustError …: the newer one cannot be had, so which generation that
            commit or time fell into is not known here.
    """
    record = node.record()
    if not record.published or _tells_all(record, commit_seq, time):
        return record
    with files.locked(node.home / "lock", "query", keep_waiting=keep_waiting):
        return node.trust().refresh(node.stores()).record


def _tells_all(record: ControlRecord, commit_seq: int | None, time: datetime | None) -> bool:
    """Whether a generation that is published later than ``record`` was signed is later than that.

    Its commits follow those of the newest one here, and it is given no earlier time than that has.
    """
    newest = record.published[-1]
    if time is not None and record.published_at.get(newest.generation_id, "") <= utc_text(time):
        return False
    return commit_seq is None or newest.high_seq >= commit_seq
