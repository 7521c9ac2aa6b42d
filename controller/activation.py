"""How a node comes to serve a generation: the gate, the swap, the embedder it is bound to.

The one way for a bootstrap, a rollback and a move off damage alike. The node's lock is held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activator.pointer import Occasion, Pointer, change_of, swap
from controller import clock, settings
from index.verification import VerifiedGeneration
from manifests.embedder_override import is_overridden
from manifests.errors import GenctlError, HomeMissing, TrustStateCorrupt
from manifests.receipts import ReceiptKind
from manifests.record import ControlRecord, GenerationEntry
from replicator.repair_events import emit

if TYPE_CHECKING:
    from controller.node import NodeHome
    from index.embedding import Embedder

UNACCOUNTED = "found active without a receipt"


@dataclass(frozen=True, slots=True)
class Proven:
    """A verified generation that has passed the gate, and what its queries are embedded with."""

    verified: VerifiedGeneration
    entry: GenerationEntry
    embedder: Embedder
    override_reason: str | None

    @property
    def bound(self) -> settings.NodeEmbedder:
        """What a node that serves it is bound to."""
        return settings.NodeEmbedder(name=self.embedder.name, dimensions=self.embedder.dimensions)


def prove(
    verified: VerifiedGeneration,
    record: ControlRecord,
    entry: GenerationEntry,
    choose_embedder: Callable[[], Embedder],
) -> Proven:
    """Pass the gate with the embedder that the node may use; what does not pass is told.

    Raises:
        CommitRangeGap, EmbedderMismatch, ActivationFailed: see :func:`activator.gate.pass_gate`.
    """
    from activator.gate import pass_gate

    try:
        embedder = choose_embedder()
        pass_gate(verified, record, entry, embedder)
    except GenctlError as error:
        emit(
            "generation_activation_failed",
            generation_id=entry.generation_id,
            commit_seq=entry.high_seq,
            error=error.name,
            message=error.message,
        )
        raise
    override = record.override_of(entry.generation_id)
    allowed = override is not None and is_overridden(record, verified.manifest)
    return Proven(verified, entry, embedder, override.reason if override and allowed else None)


def serve(
    node: NodeHome,
    proven: Proven,
    kind: ReceiptKind,
    reason: str | None = None,
    *,
    held_back: str | None = None,
) -> Pointer:
    """Move the pointer to a proven generation and bind the node to its embedder.

    Raises:
        DiskFull, DiskError: the disk refuses; what was active goes on serving.
    """
    if node.settings.embedder is None:
        bind(node, proven)
    if proven.override_reason is not None and node.settings.embedder != proven.bound:
        reason = "; ".join(filter(None, (reason, f"embedder override: {proven.override_reason}")))
    occasion = occasion_now(node, kind, reason)
    active = swap(node.home, proven.verified, proven.entry, occasion, held_back=held_back)
    # The pointer first: a node that is killed here is let answer by the override, and bound by its
    # next bootstrap. The other way round it would be bound to what its active generation is not.
    bind(node, proven)
    emit(
        "generation_activation_succeeded",
        generation_id=proven.entry.generation_id,
        commit_seq=proven.entry.high_seq,
        kind=kind,
    )
    return active.pointer


def bind(node: NodeHome, proven: Proven) -> None:
    """Have the node keep to the embedder of a generation that has passed the gate.

    Raises:
        DiskFull, DiskError: the disk refuses.
        BadSetting: ``node.json`` cannot be read any more.
    """
    bound = proven.bound
    if node.settings.embedder != bound:
        # Somebody may have edited the rest of it since this process read it.
        saved = settings.load(
            node.home / settings.NODE_FILE, settings.NodeSettings, "a node's home"
        )
        settings.save(node.home / settings.NODE_FILE, saved.model_copy(update={"embedder": bound}))
        node.settings = node.settings.model_copy(update={"embedder": bound})


def account_for(node: NodeHome, pointer: Pointer) -> None:
    """Leave a receipt of a pointer that has none: of a home made before there were receipts.

    Raises:
        DiskFull, DiskError: the disk refuses.
    """
    occasion = occasion_now(node, "activate", UNACCOUNTED)
    change = change_of(pointer, pointer, occasion)
    last = node.audit.last_of("pointer")
    if last is None or change.after not in {last.before, last.after}:
        node.audit.append(change)


def occasion_now(node: NodeHome, kind: ReceiptKind, reason: str | None) -> Occasion:
    """An occasion that happens now, under the record that was last accepted."""
    return Occasion(kind, clock.now().isoformat(), record_version(node), reason)


def record_version(node: NodeHome) -> int | None:
    """The version of the record for a receipt; ``None`` if there is none or it is not known.

    It is for people who compare: where the trust state is damaged, a change that mends it must not
    be refused for that.
    """
    try:
        return node.trust().known_version()
    except (TrustStateCorrupt, HomeMissing):
        return None
