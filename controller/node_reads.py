"""Which generation a node's read is answered from, and how one that is not here is brought."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from controller import clock, degraded, wiring
from durable import files
from index.verification import VerifiedGeneration
from manifests.record import ControlRecord, GenerationEntry
from query.resolve import resolve
from replicator.bring import bring, unwatched

if TYPE_CHECKING:
    from controller.node import NodeHome

MIN_COMMIT_SEQ_DEADLINE_MS = 5_000
FETCH_WAIT_MS = 60_000
"""How long a query of the past waits for a bootstrap that is under way, before it fetches."""


def choose(
    node: NodeHome,
    as_of_commit_seq: int | None = None,
    min_commit_seq: int | None = None,
    deadline_ms: int = MIN_COMMIT_SEQ_DEADLINE_MS,
) -> GenerationEntry:
    """The generation that a read with these wishes is answered from.

    Raises:
        BadQuery, GenerationCollected, NotYetActivated: see :mod:`query.resolve`.
        StoreUnavailable, TrustError …: the past asked for is later than what is known here, and
            the store cannot be asked.
        ArtifactHashMismatch: that generation has damage here that could not be mended.
    """
    keep_waiting = clock.poller(deadline_ms)
    entry = resolve(
        lambda: node.pointer().active,
        lambda: _record_up_to(node, as_of_commit_seq or 0, keep_waiting),
        as_of_commit_seq=as_of_commit_seq,
        min_commit_seq=min_commit_seq,
        keep_waiting=keep_waiting,
    )
    degraded.refuse_damaged(node.state(), entry.generation_id)
    return entry


def fetch_old(node: NodeHome, entry: GenerationEntry) -> VerifiedGeneration:
    """Bring a retained generation that is not here, without activating it.

    Raises:
        HomeLocked: another command holds the node for longer than a query waits.
        GenerationNotPublished: the newest record has it no more.
        TrustError, StoreUnavailable …: see :meth:`controller.node.NodeHome.bootstrap`.
    """
    keep_waiting = clock.poller(FETCH_WAIT_MS)
    with files.locked(node.home / "lock", "query", keep_waiting=keep_waiting):
        store = node.stores()
        trusted = node.trust().refresh(store)
        current = trusted.record.entry(entry.generation_id)
        supply = wiring.supply(node.settings, store, node.healths)
        incoming = node.home / "incoming"
        with node.quarantine.noting(clock.now()):
            return bring(
                current,
                trusted,
                node.residence,
                supply,
                incoming,
                unwatched,
                keep_others=True,
            ).verified


def _record_up_to(
    node: NodeHome, commit_seq: int, keep_waiting: Callable[[], bool]
) -> ControlRecord:
    """The last record; a newer one, if this one may not know all generations up to then.

    Raises:
        StoreUnavailable, TrustError …: the newer one cannot be had, so which generation that
            commit fell into is not known here.
    """
    record = node.record()
    if not record.published or record.published[-1].high_seq >= commit_seq:
        return record
    with files.locked(node.home / "lock", "query", keep_waiting=keep_waiting):
        return node.trust().refresh(node.stores()).record
