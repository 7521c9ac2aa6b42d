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
from builder.reachable import ArtifactLists, Reach, Root
from controller.writer import WriterHome
from manifests.errors import GenctlError
from manifests.generation import ArtifactFile, parse_manifest
from manifests.identifiers import GenerationId, content_id, high_seq_of
from manifests.names import manifest_target, target_key
from manifests.record import ControlRecord, GenerationEntry, accept_manifest
from manifests.retention import Retention
from store.leases import FoundLeases

UNPUBLISHED = "built here, not published yet"
WAITING_MERGE = "waits for the next build"


@dataclass(frozen=True, slots=True)
class Rooted:
    """Which generations stay and which leave, and what that reaches.

    ``leaving`` are the generations in the home that nothing keeps, with their artifacts as far as
    their manifests can be read.
    """

    reach: Reach
    leaving: Mapping[GenerationId, tuple[ArtifactFile, ...]]


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
    record: ControlRecord,
    kept: Retention,
    leases: Mapping[GenerationId, list[str]],
) -> Rooted:
    """The roots once the record drops what is not kept; every manifest is read once.

    Args:
        writer: the home, in which all that the record publishes was built.
        record: as it is before.
        kept: which of its generations are retained, and why.
        leases: by generation, in words; what is leased stays also where the record drops it.

    Raises:
        ManifestError: a manifest of what stays is damaged.
    """
    lists = ArtifactLists()
    roots, leaving = [], {}
    entries = {entry.generation_id: entry for entry in record.published}
    for generation_id in writer.residence.resident_ids():
        data = writer.residence.manifest_bytes(generation_id)
        reasons = kept.kept.get(generation_id, tuple(leases.get(generation_id, ())))
        is_published = generation_id in entries
        if is_published:
            _accept(data, entries[generation_id], record.shard)
        elif reasons or not _was_collected(record, generation_id):
            parse_manifest(data)
            reasons = reasons or (UNPUBLISHED,)
        if not reasons:
            artifacts = lists.read(data) if is_published else _readable_artifacts(data)
            leaving[generation_id] = artifacts
            continue
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
    return Rooted(Reach(roots), leaving)


def _accept(data: bytes, entry: GenerationEntry, shard: str) -> None:
    """Refuse a manifest that is not the published one; what was signed needs no second reading."""
    if content_id(data) != entry.manifest_id:
        accept_manifest(data, entry, shard)


def _was_collected(record: ControlRecord, generation_id: GenerationId) -> bool:
    high_seq = high_seq_of(generation_id)
    return any(span.low_seq <= high_seq <= span.high_seq for span in record.collected)


def _readable_artifacts(manifest: bytes) -> tuple[ArtifactFile, ...]:
    """The artifacts of a generation that leaves; one that is damaged leaves all the same."""
    with contextlib.suppress(GenctlError):
        return parse_manifest(manifest).artifacts
    return ()


def manifest_key(generation_id: GenerationId, manifest: bytes) -> str:
    """Where a store has this manifest."""
    return target_key(manifest_target(generation_id), hashlib.sha256(manifest).hexdigest())
