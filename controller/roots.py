"""What a collection keeps of a writer's home: roots, and which generations leave.

Roots are what the record goes on to publish, what is leased, what was built here and is not
published yet, and merges that wait for the next build. All else may go.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from builder.prepared_merges import PreparedMerges
from builder.presence import Missing, refuse_missing
from builder.reachable import ArtifactLists, Reach, Root
from controller.published_manifests import ManifestsHere, manifest_in_stores, manifest_place
from controller.writer import WriterHome
from manifests.errors import GenctlError
from manifests.generation import ArtifactFile, parse_manifest
from manifests.identifiers import GenerationId
from manifests.names import manifest_target, target_key
from manifests.retention import Retention
from store.leases import FoundLeases
from store.signed import SignedState

UNPUBLISHED = "built here, not published yet"
WAITING_MERGE = "waits for the next build"


@dataclass(frozen=True, slots=True)
class Rooted:
    """Which generations stay and which leave, and what that reaches.

    Attributes:
        reach: all that the roots reach; of a generation whose manifest the home lost, if a store
            has it.
        leaving: the generations that nothing keeps, with their artifacts as far as their manifests
            can be read.
        lost: generations that stay, and whose manifest the home has not, or damaged.
    """

    reach: Reach
    leaving: Mapping[GenerationId, tuple[ArtifactFile, ...]]
    lost: tuple[Missing, ...]

    def refuse_lost(self) -> None:
        """Refuse to judge by what is reachable, where that is not wholly known.

        Raises:
            PartsMissing: the home lost a generation, or its manifest.
        """
        refuse_missing(self.lost)


def leased(leases: FoundLeases, now: datetime) -> dict[GenerationId, list[str]]:
    """By generation, the leases that count, in words."""
    words: dict[GenerationId, list[str]] = {}
    for lease in leases.leases:
        if not lease.has_expired(now):
            told = f"lease of {lease.holder} until {lease.expires_at}"
            words.setdefault(lease.generation_id, []).append(told)
    return words


def root_all(
    writer: WriterHome,
    signed: SignedState,
    kept: Retention,
    leases: Mapping[GenerationId, list[str]],
) -> Rooted:
    """The roots once the record drops what is not kept; every manifest is read once.

    Args:
        writer: the home, in which all that the record publishes was built.
        signed: the record as it is before, and what leads to it.
        kept: which of its generations are retained, and why.
        leases: by generation, in words; what is leased stays also where the record drops it.

    Raises:
        StoreUnavailable, DiskError: a manifest that the home lost cannot be had just now.
    """
    record = signed.record
    lists = ArtifactLists()
    roots, leaving, lost = [], {}, []
    entries = {entry.generation_id: entry for entry in record.published}
    manifests = ManifestsHere(writer, record)
    for generation_id in sorted({*writer.residence.resident_ids(), *entries}):
        data = manifests.get(generation_id)
        entry = entries.get(generation_id)
        reasons = kept.kept.get(generation_id, tuple(leases.get(generation_id, ())))
        if entry is None and not record.is_collected(generation_id):
            reasons = reasons or (UNPUBLISHED,)
        if isinstance(data, str):
            if reasons:
                place = manifest_place(writer, generation_id)
                lost.append(Missing(str(writer.home), place, data))
            data = (manifest_in_stores(writer, signed, entry) if entry else None) or b""
        if not reasons:
            leaving[generation_id] = lists.read(data) if entry and data else _readable(data)
        elif data:
            roots.append(
                Root(
                    generation_id,
                    reasons,
                    lists.read(data),
                    manifest_key=manifest_key(generation_id, data),
                    is_stored=generation_id in record.retained or generation_id in leases,
                )
            )
    roots += [
        Root(f"merge {merge.id}", (WAITING_MERGE,), merge.artifacts)
        for merge in PreparedMerges(writer.home, writer.residence).all()
    ]
    return Rooted(Reach(roots), leaving, tuple(lost))


def _readable(manifest: bytes) -> tuple[ArtifactFile, ...]:
    """The artifacts of a generation that leaves; one that is damaged leaves all the same."""
    with contextlib.suppress(GenctlError):
        return parse_manifest(manifest).artifacts
    return ()


def manifest_key(generation_id: GenerationId, manifest: bytes) -> str:
    """Where a store has this manifest."""
    return target_key(manifest_target(generation_id), hashlib.sha256(manifest).hexdigest())
