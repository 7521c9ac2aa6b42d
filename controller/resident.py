"""A generation that is in a home, be it a writer's or a node's, verified and ready to be opened."""

from __future__ import annotations

from pathlib import Path

from controller import settings
from controller.node import NodeHome
from controller.writer import WriterHome
from index.verification import VerifiedGeneration, verify_generation


def open_resident(home: Path, generation_id: str) -> VerifiedGeneration:
    """Verify a generation of this home, every byte of it.

    At a writer, against the manifest that it made; at a node, against the record that it believes.

    Raises:
        HomeMissing: ``home`` is neither kind of home.
        GenerationUnknown: the generation is not in it.
        GenerationNotPublished: the node's record does not name it.
        ArtifactHashMismatch, ManifestError, TrustStateCorrupt: it is damaged.
    """
    if (home / settings.NODE_FILE).exists():
        node = NodeHome(home)
        node.residence.manifest_bytes(generation_id)  # what is not here is unknown, published or no
        record = node.record()
        return node.residence.reopen(record.entry(generation_id), record.shard)
    writer = WriterHome(home)
    manifest = writer.manifest(generation_id)
    return verify_generation(manifest, writer.residence.folder(generation_id))
