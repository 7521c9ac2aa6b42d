"""Publish a built generation: symbols first, then the signed record that names it.

Every step can be run again: objects are named by content and created only where they are absent,
and a generation that the record already names is not signed twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from builder.presence import Missing, refuse_missing
from builder.repository import CurrentState, Repository
from builder.shelf import Shelf
from index.residence import MANIFEST_FILE, Residence
from manifests.errors import DiskError, StoreUnavailable, WriterFenced
from manifests.generation import ArtifactFile, GenerationManifest, parse_manifest
from manifests.identifiers import GenerationId, high_seq_of
from manifests.names import manifest_target, symbol_key
from manifests.record import ControlRecord, GenerationEntry, entry_of
from manifests.record_changes import with_published
from store.port import ObjectInfo, Store
from symbols.encode import Encoded
from symbols.geometry import from_manifest

UPLOADS_AT_ONCE = 8
WAITING_UPLOADS = 8
"""So many symbols are ready to be sent next; what comes after them is not looked at yet."""
COMPARED_BYTES = 1 << 20

IsGood = Callable[[ObjectInfo, Sequence[memoryview]], bool]
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


class Sent(NamedTuple):
    """A symbol that the store did not have."""

    artifact_id: str
    size_bytes: int


class Publisher:
    """Publishes generations of one writer's home to its store.

    ``signed_here`` gives the ids of the generations in the record that the home signed last: one of
    those that is not in the home was lost, and is not another home's.
    """

    def __init__(
        self,
        residence: Residence,
        shelf: Shelf,
        store: Store,
        repository: Repository,
        signed_here: Callable[[], Collection[GenerationId]],
    ) -> None:
        self._residence = residence
        self._shelf = shelf
        self._store = store
        self._repository = repository
        self._signed_here = signed_here

    def check_own(self, record: ControlRecord) -> None:
        """Refuse to go on from a record that another home has moved.

        Raises:
            WriterFenced: the record names a generation that was not built here.
        """
        resident = set(self._residence.resident_ids())
        absent = [each for each in record.published if each.generation_id not in resident]
        signed_here = self._signed_here() if absent else ()
        for entry in absent:
            if entry.generation_id not in signed_here:
                raise WriterFenced(
                    f"the record names {entry.generation_id}, which was not built in this home: "
                    "another home writes to this shard. Go on there, or restore this one from it",
                    generation_id=entry.generation_id,
                )

    def refuse_lost(self, entries: Iterable[GenerationEntry]) -> None:
        """Refuse to go on from generations that the home has lost; contents are not read.

        Raises:
            PartsMissing: one is not there, or has no manifest.
        """
        generations = self._residence.generations
        refuse_missing(
            [
                Missing(str(generations.parent), f"{generations.name}/{each}", "it was lost")
                for each in (entry.generation_id for entry in entries)
                if not (generations / each / MANIFEST_FILE).is_file()
            ]
        )

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

    def publish(
        self, generation_id: str, now: Callable[[], datetime], progress: Progress
    ) -> PublishReport:
        """Upload what is missing and sign the record that names the generation.

        ``now`` is asked again once all is sent: nobody could read the generation before.

        One that is published already is compared with the store, manifest and symbols, and what
        was lost or damaged there is sent again.

        Raises:
            ArtifactHashMismatch: an artifact is damaged in the writer's home.
            GenerationUnknown: it was not built here.
            PartsMissing: the home lost a published generation.
            GenerationCollected: it was published once, and is retained no more.
            WriterFenced: another home writes to this shard, or moved the record first, or symbols
                that were sent, or had been there, are gone from the store.
            CollectionUnderWay: another home collects, or was killed while it did.
            CommitRangeGap: a generation before it was not published yet.
            StoreUnavailable, DiskFull, DiskError: the store or the disk failed.
        """
        current = self._repository.current()
        record = current.signed.record
        self.check_own(record)
        self.refuse_lost(record.published)
        data = self._residence.manifest_bytes(generation_id)
        manifest = parse_manifest(data)
        if any(entry.generation_id == generation_id for entry in record.published):
            return _report(
                manifest, self.restore([generation_id], progress), already_published=True
            )
        if record.published and manifest.commits.high_seq <= record.published[-1].high_seq:
            record.entry(generation_id)  # refuses what was collected
        entry = entry_of(manifest, data)
        with_published(record, entry, now())  # refuses before anything is sent
        sent_before = self._sent(record)
        to_send = [a for a in manifest.artifacts if a.blake3 not in sent_before]
        sent = self._send_all(to_send, self._is_whole, progress)
        self._refuse_if_collected(to_send)
        time = now()
        successor = with_published(record, entry, time)
        self._repository.commit(current, successor, time, [(manifest_target(generation_id), data)])
        self._clear_shelf(manifest.artifacts)
        return _report(manifest, sent, already_published=False)

    def restore(
        self, generation_ids: Sequence[str], progress: Progress, *, but: Collection[str] = ()
    ) -> list[Sent]:
        """Compare published generations with the store, manifests and every symbol.

        What is lost or damaged there is sent again. Artifacts that generations share are read once;
        those whose ids are in ``but`` are left out. Raises what :meth:`publish` does.
        """
        artifacts: dict[str, ArtifactFile] = {}
        for generation_id in generation_ids:
            data = self._residence.manifest_bytes(generation_id)
            self._repository.restore_target(manifest_target(generation_id), data)
            artifacts |= {artifact.blake3: artifact for artifact in parse_manifest(data).artifacts}
        compared = [each for each in artifacts.values() if each.blake3 not in but]
        sent = self._send_all(compared, self._is_same, progress)
        self._clear_shelf(compared)
        return sent

    def send_ahead(self, artifacts: Sequence[ArtifactFile], progress: Progress) -> int:
        """Send what the store lacks of ``artifacts``; how many bytes that was.

        Nothing refers to the symbols yet, so a collection may delete them again; the publish that
        names them looks for each, and sends what is not there. Raises what :meth:`publish` does.
        """
        return sum(sent.size_bytes for sent in self._send_all(artifacts, self._is_whole, progress))

    def _send_all(
        self, artifacts: Sequence[ArtifactFile], is_good: IsGood, progress: Progress
    ) -> list[Sent]:
        """Send what the store lacks of the artifacts, several symbols at a time, of one or many.

        The next artifact is made ready meanwhile; after a failure no other symbol is begun.
        """
        sent: list[Sent] = []
        under_way: set[Future[Sent | None]] = set()
        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            try:
                for artifact in artifacts:
                    encoded = self._shelf.take(artifact)
                    for number in range(encoded.geometry.m):
                        if len(under_way) == UPLOADS_AT_ONCE + WAITING_UPLOADS:
                            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                            sent += _results(done)
                        under_way.add(
                            pool.submit(self._send, artifact, encoded, number, is_good, progress)
                        )
                sent += _results(as_completed(under_way))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return sent

    def _refuse_if_collected(self, artifacts: Sequence[ArtifactFile]) -> None:
        """Refuse to sign for symbols that somebody has deleted since they were sent, or seen.

        A collection that moved the record before this publish read it may still be deleting what it
        found unreachable, and that may be what an earlier attempt had sent. Artifacts of the newest
        published generation are not looked at: nothing deletes those without moving the record.
        A listing an artifact, whatever the number of its symbols.
        """
        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            are_whole = pool.map(self._is_stored, artifacts)
            gone = [a for a, is_whole in zip(artifacts, are_whole, strict=True) if not is_whole]
        if gone:
            raise WriterFenced(
                f"symbols of {len(gone)} artifacts ({gone[0].name} is one) were deleted from "
                f"{self._store.url} while they were published; nothing of this attempt is visible. "
                "Wait until no collection is under way, then run the command again",
                store=self._store.url,
                artifact=gone[0].name,
            )

    def _is_stored(self, artifact: ArtifactFile) -> bool:
        """Whether the store lists all symbols of the artifact in their full length."""
        geometry = from_manifest(artifact.size_bytes, artifact.symbols)
        folder, slash, _ = symbol_key(artifact.blake3, 0).rpartition("/")
        sizes = {found.key: found.size_bytes for found in self._store.list(folder + slash)}
        return all(
            sizes.get(symbol_key(artifact.blake3, number)) == geometry.object_size_bytes(number)
            for number in range(geometry.m)
        )

    def _send(
        self,
        artifact: ArtifactFile,
        encoded: Encoded,
        number: int,
        is_good: IsGood,
        progress: Progress,
    ) -> Sent | None:
        """Send one symbol, read and checked just before, unless a good one is there."""
        key = symbol_key(artifact.blake3, number)
        size_bytes = encoded.geometry.object_size_bytes(number)
        parts = self._shelf.object_parts(artifact, encoded, number)
        needed = self._needed(key, parts, is_good)
        created = needed and self._store.put_if_absent(key, parts)
        if needed and not created:
            self._look_again(key, parts, is_good)
        progress(size_bytes)
        return Sent(artifact.blake3, size_bytes) if created else None

    def _look_again(self, key: str, parts: Sequence[memoryview], is_good: IsGood) -> None:
        """Refuse an object that was not there, cannot be made since it is, and is not good."""
        found = self._store.stat(key)
        if found is None or not is_good(found, parts):
            raise StoreUnavailable(
                f"{self._store.url} refuses {key} because it is there, and does not show it as it "
                "was sent: something between here and the store keeps old answers, or somebody "
                "writes to it meanwhile. Look into that, then run the command again",
                store=self._store.url,
                key=key,
            )

    def _needed(self, key: str, parts: Sequence[memoryview], is_good: IsGood) -> bool:
        """Whether the object has to be sent; one that is bad or unreadable is removed first."""
        with contextlib.suppress(DiskError):
            found = self._store.stat(key)
            if found is None:
                return True
            if is_good(found, parts):
                return False
        self._store.delete(key)
        return True

    @staticmethod
    def _is_whole(found: ObjectInfo, parts: Sequence[memoryview]) -> bool:
        """Whether the object has its full length: enough for what only genctl writes."""
        return found.size_bytes == sum(map(len, parts))

    def _is_same(self, found: ObjectInfo, parts: Sequence[memoryview]) -> bool:
        """Whether the object is the same, byte for byte."""
        if not self._is_whole(found, parts):
            return False
        offset = 0
        for part in parts:
            for start in range(0, len(part), COMPARED_BYTES):
                piece = part[start : start + COMPARED_BYTES]
                if self._store.get(found.key, offset=offset + start, length=len(piece)) != piece:
                    return False
            offset += len(part)
        return True

    def _sent(self, record: ControlRecord) -> set[str]:
        """The ids of the artifacts of the newest published generation, which are in the store.

        None if that is no longer retained: then they may have been collected. Older ones need not
        be looked at: what a build reuses, it has from its parent.
        """
        readable = record.retained_entries()
        return {
            artifact.blake3
            for entry in record.published[-1:]
            if entry in readable
            for artifact in self._manifest(entry.generation_id).artifacts
        }

    def _manifest(self, generation_id: str) -> GenerationManifest:
        return parse_manifest(self._residence.manifest_bytes(generation_id))

    def _clear_shelf(self, artifacts: Iterable[ArtifactFile]) -> None:
        for artifact in artifacts:
            self._shelf.drop(artifact)


def _results(done: Iterable[Future[Sent | None]]) -> list[Sent]:
    """What was sent, or the first error."""
    return [sent for each in done if (sent := each.result()) is not None]


def _report(
    manifest: GenerationManifest, sent: Sequence[Sent], *, already_published: bool
) -> PublishReport:
    uploaded_artifacts = len({each.artifact_id for each in sent})
    return PublishReport(
        manifest.generation_id,
        already_published,
        uploaded_artifacts=uploaded_artifacts,
        uploaded_objects=len(sent),
        uploaded_bytes=sum(each.size_bytes for each in sent),
        reused_artifacts=len(manifest.artifacts) - uploaded_artifacts,
    )


def pending(current: CurrentState, resident: list[str], up_to: str) -> list[str]:
    """The built generations up to ``up_to`` that the record does not name yet, oldest first."""
    # What is older than the newest one and not named was collected.
    newest = [high_seq_of(each.generation_id) for each in current.signed.record.published[-1:]]
    return [g for g in resident if g <= up_to and all(high_seq_of(g) > seq for seq in newest)]
