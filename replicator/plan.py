"""The fetch plan: what a node has to move to hold a generation (pure)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from manifests.generation import ArtifactFile, GenerationManifest


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """Which artifacts are here already and which come from the store."""

    reuse: tuple[ArtifactFile, ...]
    fetch: tuple[ArtifactFile, ...]

    @property
    def reuse_bytes(self) -> int:
        """Bytes that need not move."""
        return sum(artifact.size_bytes for artifact in self.reuse)

    @property
    def fetch_bytes(self) -> int:
        """Bytes that must move, repair not counted."""
        return sum(artifact.size_bytes for artifact in self.fetch)


def plan_fetch(manifest: GenerationManifest, holds: Callable[[ArtifactFile], bool]) -> FetchPlan:
    """Plan the fetch of ``manifest``; ``holds`` tells whether an artifact is here and intact.

    Artifacts with the same content are one: each id appears once.
    """
    distinct = {artifact.blake3: artifact for artifact in manifest.artifacts}
    reuse: list[ArtifactFile] = []
    fetch: list[ArtifactFile] = []
    for artifact in distinct.values():
        (reuse if holds(artifact) else fetch).append(artifact)
    return FetchPlan(tuple(reuse), tuple(fetch))
