"""A generation that is in a home, be it a writer's or a node's, verified and ready to be opened."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from controller import settings
from controller.node import NodeHome
from controller.writer import WriterHome
from index import in_use
from index.in_use import HeldGeneration
from index.verification import verify_generation
from manifests.errors import HomeMissing, OperatorError, RetryError
from manifests.record import ControlRecord


def open_resident(home: Path, generation_id: str) -> HeldGeneration:
    """Hold a generation of this home and verify it, every byte of it.

    At a writer, against the manifest that it made; at a node, against the record that it believes.

    Raises:
        HomeMissing: ``home`` is neither kind of home.
        GenerationUnknown: the generation is not in it.
        GenerationCollected: it is not in it any more, by the record that is known there.
        GenerationRevoked: it was revoked, by the same record, whether or not it is here.
        GenerationNotPublished: the node's record does not name it.
        ArtifactHashMismatch, ManifestError, TrustStateCorrupt: it is damaged.
    """
    if (home / settings.NODE_FILE).exists():
        node = NodeHome(home)
        _refuse(node, generation_id, node.record)
        record = node.record()
        hold = in_use.hold(node.residence.folder(generation_id).parent)
        return HeldGeneration(
            node.residence.reopen(record.entry(generation_id), record.shard), hold
        )
    writer = WriterHome(home)
    _refuse(writer, generation_id, lambda: writer.current().signed.record)
    manifest = writer.manifest(generation_id)
    folder = writer.residence.folder(generation_id)
    hold = in_use.hold(folder.parent)
    return HeldGeneration(verify_generation(manifest, folder), hold)


def _refuse(
    home: NodeHome | WriterHome, generation_id: str, record: Callable[[], ControlRecord]
) -> None:
    """Refuse what was revoked, and what is not here; the record, if there is one, may tell why."""
    is_here = generation_id in home.residence.resident_ids()
    with contextlib.suppress(RetryError, OperatorError, HomeMissing):
        known = record()
        known.refuse_revoked(generation_id)
        if not is_here:
            known.refuse_collected(generation_id)
    if not is_here:
        home.residence.manifest_bytes(generation_id)
