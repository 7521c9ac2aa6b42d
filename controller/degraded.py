"""What a node does about damage that it cannot mend: it reads none of it, and says so.

The generation that is damaged is refused by name. If it was the active one and an older one that
may be gone back to (:mod:`controller.going_back`) is here and intact, the pointer moves there, and
back once the damage is gone.
What changes the state is called with the node's lock held.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from activator import state
from activator.state import Damage, NodeState
from controller import activation
from controller.going_back import steps_back
from manifests.errors import (
    ActivationFailed,
    ArtifactHashMismatch,
    DiskError,
    EmbedderMismatch,
    GenerationUnknown,
    ManifestError,
    NothingPublished,
    PointerCorrupt,
    TrustError,
)
from manifests.record import GenerationEntry
from replicator.repair_events import emit

if TYPE_CHECKING:
    from controller.node import NodeHome

_NOT_PROVEN = (
    GenerationUnknown,
    ManifestError,
    ArtifactHashMismatch,
    DiskError,
    EmbedderMismatch,
    ActivationFailed,
)
"""What a generation that is damaged, or does not pass the gate, raises when it is to be served."""


def demote(node: NodeHome, damage: Damage) -> None:
    """Take note of damage that could not be mended, and serve no generation that has it.

    Raises:
        DiskFull, DiskError: the disk refuses.
        HomeMissing: the settings that ``node`` has are from before its first bootstrap.
    """
    known = node.state()
    others = tuple(each for each in known.damage if each.artifact_id != damage.artifact_id)
    everything = (*others, damage)
    damaged_ids = {each for known_damage in everything for each in known_damage.generation_ids}
    # The pointer first: whoever asks meanwhile is answered from one generation or the other.
    left = _serve_older(node, damaged_ids)
    before, _ = state.move(node.home, everything, known.demoted_from or left)
    if before.state == "healthy":
        emit("read_degraded_mode_entered", **damage.model_dump(mode="json"))


def found_intact(node: NodeHome, artifact_ids: AbstractSet[str]) -> None:
    """Take note that these artifacts are whole, if it was known otherwise."""
    known = node.state()
    left = tuple(each for each in known.damage if each.artifact_id not in artifact_ids)
    _move(node, left, known.demoted_from)


def activated(node: NodeHome) -> None:
    """Take note that the node serves what it should: it is not demoted from anything."""
    _move(node, node.state().damage, None)


def go_back(node: NodeHome) -> None:
    """Serve the generation again that the node was demoted from, if it is whole by now.

    Raises:
        GenctlError: it is not; the node serves what it served.
    """
    known = node.state()
    if known.demoted_from is None or known.damage_of(known.demoted_from) is not None:
        return
    pointer, record = node.pointer(), node.record()
    entry = record.entry(known.demoted_from)
    if (
        entry in record.retained_entries()
        and entry.generation_id != pointer.held_back
        and pointer.active.high_seq < entry.high_seq <= record.active_entry().high_seq
    ):
        proven = _proven(node, entry)
        activation.serve(node, proven, "return", held_back=pointer.held_back)
    activated(node)


def refuse_damaged(known: NodeState, generation_id: str) -> None:
    """Refuse to read a generation that has damage, even if it was opened before that was found.

    Raises:
        ArtifactHashMismatch: it has.
    """
    damage = known.damage_of(generation_id)
    if damage is not None:
        raise ArtifactHashMismatch(
            f"{generation_id} is not read: {damage.artifact} is damaged on this node's disk and "
            f"could not be mended ({damage.error}). Run `genctl node repair` here when what it "
            "lacked is back",
            generation_id=generation_id,
            artifact=damage.artifact,
            artifact_id=damage.artifact_id,
        ).with_runbook("degraded")


def _serve_older(node: NodeHome, damaged_ids: AbstractSet[str]) -> str | None:
    """Move the pointer off a damaged generation, if there is somewhere to go; which one it left."""
    try:
        pointer, record = node.pointer(), node.record()
        wanted = record.active_entry()
    except (NothingPublished, PointerCorrupt, TrustError):
        return None  # nothing is served, or nothing that could be checked
    active = pointer.active
    if active.generation_id not in damaged_ids:
        # Perhaps a scrub was killed between this function and the note of what it did.
        is_left = wanted.high_seq > active.high_seq and wanted.generation_id in damaged_ids
        return wanted.generation_id if is_left else None
    resident = node.residence.resident_ids()
    for entry in steps_back(record, pointer, resident):
        if entry.generation_id in damaged_ids or entry.generation_id not in resident:
            continue
        try:
            proven = _proven(node, entry)
        except _NOT_PROVEN:
            continue  # damaged too, which the scrub comes to
        reason = f"{active.generation_id} is damaged"
        activation.serve(node, proven, "demote", reason, held_back=pointer.held_back)
        return active.generation_id
    return None


def _proven(node: NodeHome, entry: GenerationEntry) -> activation.Proven:
    node.embedder()  # a node that is not bound to one is not bound here
    record = node.record()
    return node.prove(node.residence.reopen(entry, record.shard), record, entry)


def _move(node: NodeHome, damage: tuple[Damage, ...], demoted_from: str | None) -> None:
    before, after = state.move(node.home, damage, demoted_from)
    if (before.state, after.state) == ("read-degraded", "healthy"):
        emit("read_degraded_mode_exited", **_facts(before))


def _facts(before: NodeState) -> dict[str, object]:
    return {
        "artifacts": [each.artifact for each in before.damage],
        "demoted_from": before.demoted_from,
    }
