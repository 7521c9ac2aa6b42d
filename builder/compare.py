"""Two generations compared: documents by id and content, bytes by artifact (pure).

Rows, segments and shards are not compared: a merge changes them and no document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from index.contents import Fingerprint
from manifests.generation import Artifact, EmbedderRecord, GenerationManifest


@dataclass(frozen=True, slots=True)
class DocumentChanges:
    """What became of the documents: ids in order, and of the changed ones which parts changed."""

    added: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]
    removed: tuple[str, ...]
    unchanged: int

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class KindBytes:
    """Artifacts of one kind: those both generations have, only the later, only the earlier."""

    shared_bytes: int = 0
    new_bytes: int = 0
    gone_bytes: int = 0
    shared_artifacts: int = 0
    new_artifacts: int = 0
    gone_artifacts: int = 0


@dataclass(frozen=True, slots=True)
class ArtifactChanges:
    """Which artifacts came and went, by content and not by name, and their bytes by kind."""

    by_kind: Mapping[str, KindBytes]
    new: tuple[Artifact, ...]
    gone: tuple[Artifact, ...]

    @property
    def total(self) -> KindBytes:
        """All kinds together."""
        each = self.by_kind.values()
        return KindBytes(
            **{name: sum(getattr(kind, name) for kind in each) for name in KindBytes.__slots__}
        )


def compare_documents(
    before: Mapping[str, Fingerprint], after: Mapping[str, Fingerprint]
) -> DocumentChanges:
    """What has to be added, changed and removed to get from ``before`` to ``after``."""
    common = before.keys() & after.keys()
    changed = {
        identity: tuple(
            part
            for part, old, new in zip(
                Fingerprint._fields, before[identity], after[identity], strict=True
            )
            if old != new
        )
        for identity in sorted(common)
        if before[identity] != after[identity]
    }
    return DocumentChanges(
        added=tuple(sorted(after.keys() - common)),
        changed=changed,
        removed=tuple(sorted(before.keys() - common)),
        unchanged=len(common) - len(changed),
    )


def compare_artifacts(before: GenerationManifest, after: GenerationManifest) -> ArtifactChanges:
    """Which bytes the two generations share, and which only one of them has."""
    old, new = _by_content(before.artifacts), _by_content(after.artifacts)
    came = tuple(artifact for key, artifact in new.items() if key not in old)
    went = tuple(artifact for key, artifact in old.items() if key not in new)
    shared = [artifact for key, artifact in new.items() if key in old]
    kinds = sorted({artifact.kind for artifact in (*came, *went, *shared)})
    by_kind: dict[str, KindBytes] = {
        kind: KindBytes(
            *(_bytes_of(kind, those) for those in (shared, came, went)),
            *(sum(each.kind == kind for each in those) for those in (shared, came, went)),
        )
        for kind in kinds
    }
    return ArtifactChanges(by_kind, came, went)


def compare_embedders(
    before: EmbedderRecord, after: EmbedderRecord
) -> dict[str, tuple[object, object]]:
    """What is recorded otherwise of the embedders: before and after, by field; golden by text.

    Where this is not empty, vectors of the two generations cannot be compared with one another.
    """
    fields = ("name", "revision", "dimensions")
    found: dict[str, tuple[object, object]] = {
        name: (getattr(before, name), getattr(after, name))
        for name in fields
        if getattr(before, name) != getattr(after, name)
    }
    old = {golden.text: golden.vector for golden in before.golden}
    new = {golden.text: golden.vector for golden in after.golden}
    other = sorted(text for text in old.keys() | new.keys() if old.get(text) != new.get(text))
    if other:
        found["golden"] = (
            [text for text in other if text in old],
            [text for text in other if text in new],
        )
    return found


def _by_content(artifacts: Iterable[Artifact]) -> dict[tuple[str, str], Artifact]:
    return {(artifact.kind, artifact.blake3): artifact for artifact in artifacts}


def _bytes_of(kind: str, artifacts: Iterable[Artifact]) -> int:
    return sum(artifact.size_bytes for artifact in artifacts if artifact.kind == kind)
