"""The space of a node: generations nobody needs here go, the least recently used of them first.

The active generation stays, and with it the one that a rollback goes to, and one that the node was
rolled back or demoted from. What is collected or revoked goes at once; of the rest, what is more
than ``old_generations_max_bytes``. A generation that a reader in any process has open is passed
over. The pointer and the readers never wait for any of this.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller import degraded
from controller.occupancy import Occupancy, Resident
from durable import files
from index import in_use
from index.residence import MANIFEST_FILE
from manifests.errors import GenctlError, GenerationUnknown, ManifestError
from manifests.generation import parse_manifest
from manifests.identifiers import content_id
from manifests.record import ControlRecord

if TYPE_CHECKING:
    from controller.node import NodeHome
    from index.residence import Residence

LEAST_RECENT = "least recently used"
DAMAGED = "its manifest is damaged"
_log = logging.getLogger("genctl.space")


@dataclass(frozen=True, slots=True)
class Evicted:
    """A generation that went from this node, why, and how many bytes nothing else here has."""

    generation_id: str
    reason: str
    freed_bytes: int


@dataclass(frozen=True, slots=True)
class SpaceReport:
    """What went, or would go.

    Attributes:
        evicted: in the order in which they went.
        in_use: those that would have gone, but somebody has them open.
        orphan_bytes: what artifacts had that no generation names.
        old_bytes: what only old generations occupy after that.
        max_bytes: what they may.
    """

    evicted: tuple[Evicted, ...]
    in_use: tuple[str, ...]
    orphan_bytes: int
    old_bytes: int
    max_bytes: int

    @property
    def freed_bytes(self) -> int:
        """How much less is occupied for it."""
        return self.orphan_bytes + sum(each.freed_bytes for each in self.evicted)


def gc(node: NodeHome, *, dry_run: bool = False) -> SpaceReport:
    """Have go what nobody needs here; with ``dry_run`` only say what would.

    Raises:
        HomeLocked: another command is at work in the node.
        NothingPublished, PointerCorrupt, TrustStateCorrupt: what is needed here is not known; a
            bootstrap comes first.
        DiskError: the disk refuses.
    """
    with files.locked(node.home / "lock", "collect"):
        if not dry_run:
            node.residence.prepare()
        return _collect(node, dry_run=dry_run)


def keep_within_bounds(node: NodeHome, spared: Collection[str] = ()) -> SpaceReport | None:
    """The same after a fetch, where it is due; a failure is logged. The node's lock is held.

    Args:
        node: the node.
        spared: generations that stay in any case.

    Returns:
        ``None`` where nothing is due.
    """
    try:
        return _collect(node, spared) if _is_due(node, spared) else None
    except GenctlError as error:
        _log.warning("old generations were left alone: %s: %s", error.name, error.message)
        return None


def _is_due(node: NodeHome, spared: Collection[str]) -> bool:
    """Whether something may have to go; told from few files, however many generations are here."""
    residence = node.residence
    resident = residence.resident_ids()
    kept = (_kept(node) | set(spared)) & set(resident)
    if _unwanted(node.record(), resident).keys() - kept:
        return True
    needed = {}
    for generation_id in kept:
        needed.update(_parts(residence, generation_id) or {})
    occupied = sum(size_bytes for _, size_bytes in residence.kept_artifacts())
    with files.translated(residence.generations):
        manifests = residence.generations.glob(f"*/{MANIFEST_FILE}")
        occupied += sum(path.lstat().st_size for path in manifests)
    return occupied - sum(needed.values()) > node.settings.old_generations_max_bytes


def _collect(node: NodeHome, spared: Collection[str] = (), *, dry_run: bool = False) -> SpaceReport:
    residence = node.residence
    kept = _kept(node) | set(spared)
    parts = {each: _parts(residence, each) for each in residence.resident_ids()}
    unwanted = {each: DAMAGED for each, named in parts.items() if named is None}
    unwanted |= _unwanted(node.record(), parts)
    orphans = _unnamed(residence, parts)
    occupancy = Occupancy(
        [
            Resident(each, in_use.last_opened_ns(residence.folder(each).parent), named or {})
            for each, named in parts.items()
        ],
        kept,
    )
    max_bytes = node.settings.old_generations_max_bytes
    evicted: list[Evicted] = []
    used: list[str] = []
    # Those that nobody can want come first, and make room for the others.
    for generation_id in sorted(occupancy.least_recent(), key=lambda each: each not in unwanted):
        reason = unwanted.get(generation_id)
        if reason is None and occupancy.old_bytes <= max_bytes:
            break
        with in_use.unless_held(residence.folder(generation_id).parent) as is_free:
            if not is_free:
                used.append(generation_id)
                continue
            if not dry_run:
                _forget(node, generation_id)
        del parts[generation_id]
        freed_bytes = occupancy.remove(generation_id)
        evicted.append(Evicted(generation_id, reason or LEAST_RECENT, freed_bytes))
    if not dry_run:
        gone = _unnamed(residence, parts)
        for artifact_id in gone:
            residence.discard(artifact_id)
        degraded.found_intact(node, gone.keys())
    return SpaceReport(
        tuple(evicted), tuple(used), sum(orphans.values()), occupancy.old_bytes, max_bytes
    )


def _kept(node: NodeHome) -> set[str]:
    """The generations that a node is not without, as far as they can be read at all."""
    pointer, record = node.pointer(), node.record()
    readable = {entry.generation_id for entry in record.retained_entries()}
    wanted = {pointer.held_back, node.state().demoted_from}
    wanted |= {entry.generation_id for entry in node.older_here(record, pointer)[-1:]}
    return {pointer.active.generation_id} | {
        each for each in wanted if each is not None and each in readable
    }


def _unwanted(record: ControlRecord, resident: Collection[str]) -> dict[str, str]:
    """Those of ``resident`` that the record lets nobody read, and why."""
    readable = {entry.generation_id for entry in record.retained_entries()}
    return {
        each: "revoked" if each in record.revoked else "collected"
        for each in resident
        if each not in readable
    }


def _parts(residence: Residence, generation_id: str) -> dict[str, int] | None:
    """The bytes of a generation's artifacts and of its manifest, by content.

    ``None`` if its manifest is damaged: nobody can open it, nor say which artifacts it needs.
    """
    try:
        data = residence.manifest_bytes(generation_id)
        manifest = parse_manifest(data)
    except (GenerationUnknown, ManifestError) as error:
        _log.warning("%s is damaged: %s: %s", generation_id, error.name, error.message)
        return None
    parts = {artifact.blake3: artifact.size_bytes for artifact in manifest.artifacts}
    return parts | {content_id(data): len(data)}


def _unnamed(residence: Residence, parts: Mapping[str, Mapping[str, int] | None]) -> dict[str, int]:
    """The artifacts that none of these generations names, and their bytes.

    None, where that of one is not known.
    """
    named: set[str] = set()
    for each in parts.values():
        if each is None:
            return {}
        named |= each.keys()
    return {
        artifact_id: size_bytes
        for artifact_id, size_bytes in residence.kept_artifacts()
        if artifact_id not in named
    }


def _forget(node: NodeHome, generation_id: str) -> None:
    """Have a generation gone, and known damage of its manifest with it."""
    try:
        manifest_id = content_id(node.residence.manifest_bytes(generation_id))
    except GenerationUnknown:
        manifest_id = ""
    node.residence.forget(generation_id)
    degraded.found_intact(node, {manifest_id})
