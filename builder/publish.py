"""Publish a built generation: symbols first, then the signed record that names it.

Every step can be run again: objects are named by content and created only where they are absent,
and a generation that the record already names is not signed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from builder.repository import CurrentState, Repository
from builder.shelf import Shelf
from index.residence import Residence
from manifests.generation import ArtifactFile, GenerationManifest, parse_manifest
from manifests.names import manifest_target, symbol_key
from manifests.record import ControlRecord, entry_of, with_published
from store.port import Store
from symbols.encode import object_parts
from symbols.geometry import from_manifest

UPLOADS_AT_ONCE = 4

Progress = Callable[[int], None]
"""Called with the number of bytes that were just dealt with."""


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What a publish sent and what the store already had."""

    generation_id: str
    already_published: bool
    uploaded_artifacts: int
    uploaded_objects: int
    uploaded_bytes: int
    reused_artifacts: int


class Publisher:
    """Publishes generations of one writer's home to its store."""

    def __init__(
        self, residence: Residence, shelf: Shelf, store: Store, repository: Repository
    ) -> None:
        self._residence = residence
        self._shelf = shelf
        self._store = store
        self._repository = repository

    def size_bytes_to_send(self, generation_ids: Sequence[str], record: ControlRecord) -> int:
        """How many bytes of symbols publishing these generations takes at most."""
        sent = self._sent(record)
        due = {
            artifact.blake3: artifact
            for generation_id in generation_ids
            for artifact in self._manifest(generation_id).artifacts
            if artifact.blake3 not in sent
        }
        return sum(
            from_manifest(artifact.size_bytes, artifact.symbols).stored_size_bytes
            for artifact in due.values()
        )

    def publish(self, generation_id: str, now: datetime, progress: Progress) -> PublishReport:
        """Upload what is missing and sign the record that names the generation.

        Raises:
            GenerationUnknown: it was not built here.
            CommitRangeGap: a generation before it was not published yet.
            WriterFenced: another writer moved the record first.
            StoreUnavailable, DiskFull, DiskError: the store or the disk failed.
        """
        current = self._repository.current()
        record = current.signed.record
        data = self._residence.manifest_bytes(generation_id)
        manifest = parse_manifest(data)
        total = len(manifest.artifacts)
        if any(entry.generation_id == generation_id for entry in record.published):
            self._clear_shelf(manifest)
            return PublishReport(generation_id, True, 0, 0, 0, total)
        successor = with_published(record, entry_of(manifest, data))
        sent_before = self._sent(record)
        to_send = [a for a in manifest.artifacts if a.blake3 not in sent_before]
        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            sent = list(pool.map(lambda artifact: self._send(artifact, progress), to_send))
        self._repository.commit(current, successor, now, [(manifest_target(generation_id), data)])
        self._clear_shelf(manifest)
        return PublishReport(
            generation_id,
            False,
            uploaded_artifacts=len(to_send),
            uploaded_objects=sum(objects for objects, _ in sent),
            uploaded_bytes=sum(sent_bytes for _, sent_bytes in sent),
            reused_artifacts=total - len(to_send),
        )

    def _send(self, artifact: ArtifactFile, progress: Progress) -> tuple[int, int]:
        encoded = self._shelf.take(artifact)
        objects, sent_bytes = 0, 0
        for number in range(encoded.geometry.m):
            key = symbol_key(artifact.blake3, number)
            size_bytes = encoded.geometry.object_size_bytes(number)
            found = self._store.stat(key)
            if found is not None and found.size_bytes != size_bytes:
                # Truncated by something that is not genctl; the whole object must take its place.
                self._store.delete(key)
                found = None
            if found is None and self._store.put_if_absent(key, object_parts(encoded, number)):
                objects, sent_bytes = objects + 1, sent_bytes + size_bytes
            progress(size_bytes)
        return objects, sent_bytes

    def _sent(self, record: ControlRecord) -> set[str]:
        """The ids of all artifacts that published generations have put in the store."""
        return {
            artifact.blake3
            for entry in record.published
            for artifact in self._manifest(entry.generation_id).artifacts
        }

    def _manifest(self, generation_id: str) -> GenerationManifest:
        return parse_manifest(self._residence.manifest_bytes(generation_id))

    def _clear_shelf(self, manifest: GenerationManifest) -> None:
        for artifact in manifest.artifacts:
            self._shelf.drop(artifact)


def pending(current: CurrentState, resident: list[str], up_to: str) -> list[str]:
    """The built generations up to ``up_to`` that the record does not name yet, oldest first."""
    named = {entry.generation_id for entry in current.signed.record.published}
    return [g for g in resident if g not in named and g <= up_to]
