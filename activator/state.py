"""A node's state: whether it can answer from what it should answer from.

=============  ===========  =============
state          change       next state
=============  ===========  =============
healthy        impaired     read-degraded
read-degraded  impaired     read-degraded
read-degraded  whole        healthy
=============  ===========  =============

``NODE/state.json`` keeps the state with its reasons: damage that could not be mended, and the
generation that the node would serve but for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from durable import files
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import ManifestMalformed, SchemaTooNew
from manifests.identifiers import Blake3Hex, GenerationId

STATE_FILE = "state.json"

StateName = Literal["healthy", "read-degraded"]
Change = Literal["impaired", "whole"]

TRANSITIONS: dict[tuple[StateName, Change], StateName] = {
    ("healthy", "impaired"): "read-degraded",
    ("read-degraded", "impaired"): "read-degraded",
    ("read-degraded", "whole"): "healthy",
}


class Damage(Frozen):
    """Damage on the node's disk that could not be mended, and why not."""

    artifact: str
    artifact_id: Blake3Hex
    generation_ids: tuple[GenerationId, ...]
    error: str
    message: str


class NodeState(Frozen):
    """What ``state.json`` holds; without the file a node is healthy.

    ``demoted_from`` is the generation that was active until damage was found in it.
    """

    schema_version: Literal[1] = 1
    state: StateName = "healthy"
    damage: tuple[Damage, ...] = ()
    demoted_from: GenerationId | None = None

    def damage_of(self, generation_id: str) -> Damage | None:
        """Some damage of this generation, if there is any."""
        return next((each for each in self.damage if generation_id in each.generation_ids), None)


class StateFile:
    """The state of one node, read again only when the file was replaced."""

    def __init__(self, home: Path) -> None:
        self._path = home / STATE_FILE
        self._seen: tuple[int, int, int] | None = None
        self._state = NodeState()
        self.fault: str | None = None
        """Why the file could not be read the last time, if it is there."""

    def read(self) -> NodeState:
        """The node's state.

        A file that cannot be read counts as healthy, and :attr:`fault` says so: each file of a
        generation is verified before it is opened all the same, and the next scrub finds the damage
        again.
        """
        try:
            found = self._path.stat()
            identity = (found.st_ino, found.st_size, found.st_mtime_ns)
            if identity != self._seen:
                self._state = parse_document(files.read_file(self._path), NodeState, 1)
                self._seen = identity
            self.fault = None
        except FileNotFoundError:
            self._state, self._seen, self.fault = NodeState(), None, None
        except (OSError, ManifestMalformed, SchemaTooNew) as error:
            self._state, self._seen, self.fault = NodeState(), None, str(error)
        return self._state


def move(
    home: Path, damage: tuple[Damage, ...], demoted_from: GenerationId | None
) -> tuple[NodeState, NodeState]:
    """Bring the node to the state that these are the reasons for; the one before, and that one.

    The caller holds the node's lock. Nothing is written where nothing changes.

    Raises:
        DiskFull, DiskError: the state could not be written; the one before stands.
    """
    before = StateFile(home).read()
    if (before.damage, before.demoted_from) == (damage, demoted_from):
        return before, before
    change: Change = "impaired" if damage or demoted_from else "whole"
    assert (before.state, change) in TRANSITIONS, (before.state, change)  # noqa: S101 - a defect
    after = NodeState(
        state=TRANSITIONS[before.state, change], damage=damage, demoted_from=demoted_from
    )
    files.replace_file(home / STATE_FILE, [to_canonical(after)])
    return before, after
