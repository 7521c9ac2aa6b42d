"""Where a node goes back to: told from its pointer, the record and what is here (pure).

What it served before comes first: that has proven itself here. What a query of the past brought
changes nothing, as long as no damage leaves only that.
"""

from __future__ import annotations

from collections.abc import Collection

from activator.pointer import Pointer
from manifests.record import ControlRecord, GenerationEntry


def steps_back(
    record: ControlRecord, pointer: Pointer, resident: Collection[str]
) -> list[GenerationEntry]:
    """The generations that a node may go back to from its active one, the best first.

    That is the one that it served before, be it retained or only here still; then those that are
    retained, the newest first. All are older than the active one; what was revoked, or what this
    node or the record has gone back from, is not among them.
    """
    retained = record.retained_entries()
    before = [] if pointer.previous is None else [pointer.previous]
    there = {entry.generation_id for entry in retained} | set(resident)
    unwanted = {*record.revoked, *record.passed_over, *pointer.passed_over}
    steps = [
        entry
        for entry in (*before, *reversed(retained))
        if entry.high_seq < pointer.active.high_seq
        and entry.generation_id in there
        and entry.generation_id not in unwanted
    ]
    return list(dict.fromkeys(steps))
