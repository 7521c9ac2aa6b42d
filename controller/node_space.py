"""The space of a node: generations nobody needs here go, the least recently used of them first.

The active generation stays, and with it the one that was served before and the one that a rollback
goes to, and one that it was rolled back or demoted from. What else is collected goes at once, and
what is revoked; of the rest, what is more than ``old_generations_max_bytes``, or than the disk
has room for when another generation comes. A generation that a reader in any process has open is
passed over. The pointer never waits for any of this; whoever opens an old generation that is just
going waits for its rename, and not for the removal of its files.

What a fetch has brought of the generation that is to be active, before it was killed, stays for the
next one.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from controller import degraded
from controller.going_back import steps_back
from controller.occupancy import Occupancy, Resident
from durable import files
from index import in_use
from index.residence import MANIFEST_FILE
from manifests.errors import GenctlError, GenerationUnknown, ManifestError, NothingPublished
from manifests.generation import GenerationManifest, parse_manifest
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
        max_bytes: what they may, in their settings or for another generation to have room.
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


def make_room(node: NodeHome, coming: GenerationManifest, bytes_to_free: int) -> SpaceReport | None:
    """Have old generations go until so much more is free, or none is left that may go.

    A failure is logged. The node's lock is held.

    Args:
        node: the node.
        coming: a generation that is to be fetched; none of its artifacts that are here goes.
        bytes_to_free: how much more should be free.

    Returns:
        ``None`` where it is not known what may go: the node serves nothing yet, or is damaged.
    """
    try:
        return _collect(node, coming=coming, bytes_to_free=bytes_to_free)
    except NothingPublished:
        return None
    except GenctlError as error:
        _log.warning("old generations were left alone: %s: %s", error.name, error.message)
        return None


def joined(*reports: SpaceReport | None) -> SpaceReport | None:
    """What went one time after the other, as one report; ``None`` if there was none."""
    known = [each for each in reports if each is not None]
    if not known:
        return None
    return replace(
        known[-1],
        evicted=tuple(evicted for each in known for evicted in each.evicted),
        orphan_bytes=sum(each.orphan_bytes for each in known),
    )


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


def _collect(
    node: NodeHome,
    spared: Collection[str] = (),
    *,
    coming: GenerationManifest | None = None,
    bytes_to_free: int = 0,
    dry_run: bool = False,
) -> SpaceReport:
    kept = _kept(node) | set(spared)
    residence, record = node.residence, node.record()
    resident = residence.resident_ids()
    opened_ns = {each: in_use.last_opened_ns(residence.folder(each).parent) for each in resident}
    parts = {each: _parts(residence, each) for each in resident}
    if coming is not None:
        # As if it were here: what it shares is needed, and so is what was fetched of it before.
        kept.add(coming.generation_id)
        parts[coming.generation_id] = {each.blake3: each.size_bytes for each in coming.artifacts}
        opened_ns.setdefault(coming.generation_id, 0)
    unwanted = {each: DAMAGED for each, named in parts.items() if named is None}
    unwanted |= _unwanted(record, parts)
    orphans = _orphans(residence, record, parts)
    occupancy = Occupancy(
        [Resident(each, opened_ns[each], named or {}) for each, named in parts.items()], kept
    )
    orphan_bytes = sum(orphans.values())
    max_bytes = node.settings.old_generations_max_bytes
    if bytes_to_free:
        max_bytes = max(0, min(max_bytes, occupancy.old_bytes + orphan_bytes - bytes_to_free))
    evicted: list[Evicted] = []
    leaving: set[str] = set()
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
            left = None if dry_run else residence.set_aside(generation_id)
        if left is not None:
            _remove(node, left)
        leaving |= (parts.pop(generation_id) or {}).keys()
        freed_bytes = occupancy.remove(generation_id)
        evicted.append(Evicted(generation_id, reason or LEAST_RECENT, freed_bytes))
    if not dry_run:
        gone = _orphans(residence, record, parts, leaving)
        for artifact_id in gone:
            residence.discard(artifact_id)
        degraded.found_intact(node, gone.keys())
    return SpaceReport(tuple(evicted), tuple(used), orphan_bytes, occupancy.old_bytes, max_bytes)


def _kept(node: NodeHome) -> set[str]:
    """The generations that a node is not without, as far as they can be read at all."""
    pointer, record = node.pointer(), node.record()
    readable = {entry.generation_id for entry in record.retained_entries()}
    kept = readable & {pointer.held_back, node.state().demoted_from}
    steps = steps_back(record, pointer, node.residence.resident_ids())
    # What was served before was signed when it was: it needs no newer record to be gone back to.
    before = [] if pointer.previous is None else [pointer.previous]
    kept |= {entry.generation_id for entry in (*before, *steps[:1])} - set(record.revoked)
    return kept | {pointer.active.generation_id}


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


def _orphans(
    residence: Residence,
    record: ControlRecord,
    parts: Mapping[str, Mapping[str, int] | None],
    leaving: Collection[str] = (),
) -> dict[str, int]:
    """The artifacts that none of these generations names, and their bytes.

    None, where that of one is not known. Where the one that is to be active is still to come, only
    those of generations that are ``leaving``: others a fetch may have brought that was killed.
    """
    is_here = record.active in parts
    named: set[str] = set()
    for each in parts.values():
        if each is None:
            return {}
        named |= each.keys()
    return {
        artifact_id: size_bytes
        for artifact_id, size_bytes in residence.kept_artifacts()
        if artifact_id not in named and (is_here or artifact_id in leaving)
    }


def _remove(node: NodeHome, left: Path) -> None:
    """Remove a generation that was set aside; what was known to be wrong with its manifest goes."""
    try:
        manifest_id = content_id(files.read_file(left / MANIFEST_FILE))
    except OSError:
        manifest_id = ""
    files.remove_tree(left)
    degraded.found_intact(node, {manifest_id})
