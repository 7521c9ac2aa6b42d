"""What a node serves and holds, and what it cannot say because a file of its home is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from activator.pointer import PointerFile
from activator.state import STATE_FILE, StateFile
from controller.going_back import steps_back
from manifests.errors import QuarantineCorrupt, TrustError

if TYPE_CHECKING:
    from activator.pointer import Pointer
    from controller.node import NodeHome
    from manifests.record import ControlRecord
    from replicator.quarantine import Quarantine


UNKNOWN = "unknown"
"""The state of a node whose file of it cannot be read."""


def status_of(node: NodeHome) -> dict[str, object]:
    """What the node serves and holds, as ``genctl node status --json`` prints it.

    Raises:
        PointerCorrupt: its pointer is damaged.
        HomeMissing: its root of trust cannot be read.
    """
    pointer = PointerFile(node.home).read()
    record = _record_if_sound(node)
    resident = node.residence.resident_ids()
    state_file = StateFile(node.home)
    state = state_file.read()
    quarantined, quarantine_damage = _quarantined(node.quarantine)
    return {
        "state": state.state if state_file.fault is None else UNKNOWN,
        "demoted_from": state.demoted_from,
        "damage": [
            f"{each.artifact} ({each.artifact_id[:12]}…): {each.error}: {each.message}"
            for each in state.damage
        ]
        or _state_fault(node, state_file.fault),
        "quarantined": quarantined,
        "quarantine_damage": quarantine_damage,
        "stores": list(node.settings.stores),
        "shard": pointer.shard if pointer else None,
        "active": pointer.active.generation_id if pointer else None,
        "commit_seq": pointer.active.high_seq if pointer else None,
        "previous": pointer.previous.generation_id if pointer and pointer.previous else None,
        "previous_is_here": pointer.previous.generation_id in resident
        if pointer and pointer.previous
        else None,
        "rollback_target": _rollback_target(record, pointer, resident),
        "held_back": pointer.held_back if pointer else None,
        "resident": resident,
        "record_active": record.active if record else None,
        "retained": [e.generation_id for e in record.retained_entries()] if record else [],
        **node.trust().state(),
    }


def _rollback_target(
    record: ControlRecord | None, pointer: Pointer | None, resident: list[str]
) -> str | None:
    """Where `genctl node rollback` goes by the last record; ``None`` if it goes nowhere."""
    if record is None or pointer is None or pointer.held_back is not None:
        return None
    steps = steps_back(record, pointer, resident)
    return steps[0].generation_id if steps else None


def _state_fault(node: NodeHome, fault: str | None) -> list[str]:
    if fault is None:
        return []
    advice = f"`genctl node scrub {node.home}` finds it again"
    return [f"{STATE_FILE} cannot be read ({fault}), so known damage is not told: {advice}"]


def _record_if_sound(node: NodeHome) -> ControlRecord | None:
    try:
        return node.record()
    except TrustError:
        return None  # `trust` in the status says why


def _quarantined(quarantine: Quarantine) -> tuple[int | None, str | None]:
    """How much is in quarantine, or why that is not known."""
    try:
        return len(quarantine.entries()), None
    except QuarantineCorrupt as error:
        return None, error.message
