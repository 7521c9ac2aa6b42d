"""How many bytes only old generations occupy on a node, and what goes first (pure).

What generations share is counted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resident:
    """One generation that is here.

    Attributes:
        generation_id: which one.
        last_opened_ns: when it was opened last, or came here.
        parts: the bytes of all that it consists of, by content.
    """

    generation_id: str
    last_opened_ns: int
    parts: Mapping[str, int]


class Occupancy:
    """What generations occupy, and less and less as some of them go.

    Attributes:
        old_bytes: what no kept generation has.
    """

    def __init__(self, residents: Sequence[Resident], kept: Collection[str]) -> None:
        """Count; ``kept`` are those whose parts are not old, whoever else has them."""
        self._old = {
            each.generation_id: each for each in residents if each.generation_id not in kept
        }
        self._owners = Counter(part for each in residents for part in each.parts)
        needed = {part for each in residents if each.generation_id in kept for part in each.parts}
        sizes = {part: size for each in self._old.values() for part, size in each.parts.items()}
        self.old_bytes = sum(size for part, size in sizes.items() if part not in needed)

    def least_recent(self) -> list[str]:
        """The generations that are not kept; the one that was opened longest ago first."""
        old = sorted(self._old.values(), key=lambda each: (each.last_opened_ns, each.generation_id))
        return [each.generation_id for each in old]

    def remove(self, generation_id: str) -> int:
        """Have a generation that is not kept gone; how many bytes no other one has."""
        gone = self._old.pop(generation_id)
        self._owners.subtract(gone.parts.keys())
        freed_bytes = sum(size for part, size in gone.parts.items() if not self._owners[part])
        self.old_bytes -= freed_bytes
        return freed_bytes
