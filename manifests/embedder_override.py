"""The rule of embedder overrides: which generations may follow on nodes with another embedder.

A node is bound to the embedder of the first generation that it activated and refuses others, since
vectors of two embedders cannot be compared. An override is a signed statement about one generation:
it may be activated all the same, by nodes that can make its embedder themselves; they are bound to
that one from then on. It never lets a query be embedded with something else than the index was.
"""

from __future__ import annotations

from collections.abc import Iterable

from manifests.generation import EmbedderRecord, GenerationManifest
from manifests.record import ControlRecord, EmbedderOverride
from manifests.record_changes import as_newest_schema, readable_entry


def with_embedder_override(
    record: ControlRecord,
    manifest: GenerationManifest,
    others: Iterable[GenerationManifest],
    reason: str,
) -> ControlRecord:
    """The next record that lets nodes with another embedder activate a generation.

    Nodes that follow are bound to its embedder from then on. So the retained generations before it
    that have another embedder get an override too, and are gone back to by the same rule. What the
    record did last, and why, stays: a rollback is still one.

    Args:
        record: the record before.
        manifest: the generation's.
        others: the manifests of the other generations, as far as they are here.
        reason: why, for whoever reads the record.

    Raises:
        GenerationNotPublished: it was never published.
        GenerationCollected: it is no longer retained.
        GenerationRevoked: it was revoked.
    """
    entry = readable_entry(record, manifest.generation_id)
    older = {e.generation_id for e in record.retained_entries() if e.high_seq < entry.high_seq}
    overrides = {each.generation_id: each for each in record.embedder_overrides}
    way_back = [
        other
        for other in others
        if other.generation_id in older - overrides.keys()
        and _identity(other.embedder) != _identity(manifest.embedder)
    ]
    for each in (manifest, *way_back):
        overrides[each.generation_id] = EmbedderOverride(
            generation_id=each.generation_id,
            name=each.embedder.name,
            revision=each.embedder.revision,
            dimensions=each.embedder.dimensions,
            reason=reason,
        )
    signed = tuple(overrides[each] for each in sorted(overrides))
    if signed == record.embedder_overrides:
        return record
    return as_newest_schema(record).model_copy(update={"embedder_overrides": signed})


def _identity(embedder: EmbedderRecord | EmbedderOverride) -> tuple[str, str, int]:
    return embedder.name, embedder.revision, embedder.dimensions


def is_overridden(record: ControlRecord, manifest: GenerationManifest) -> bool:
    """Whether an override was signed for this generation that names the embedder it has."""
    override = record.override_of(manifest.generation_id)
    return override is not None and _identity(override) == _identity(manifest.embedder)
