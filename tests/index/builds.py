"""Generations built by a writer's home and opened, without a store or a node between."""

from __future__ import annotations

from controller.writer import WriterHome
from index.snapshot import Snapshot
from index.verification import verify_generation
from manifests.generation import GenerationManifest


def opened(writer: WriterHome, manifest: GenerationManifest) -> Snapshot:
    """The snapshot of a built generation."""
    folder = writer.residence.folder(manifest.generation_id)
    return Snapshot(verify_generation(manifest, folder))
