"""The manifests of published generations: as a writer's home has them, or the stores.

A home that lost some gets them back from its stores, whose signed metadata names each by its hash.
"""

from __future__ import annotations

from builder.presence import NOT_THERE
from controller.writer import WriterHome
from index.residence import MANIFEST_FILE
from manifests.errors import DiskError, GenerationUnknown, ManifestError
from manifests.generation import parse_manifest
from manifests.identifiers import GenerationId, content_id
from manifests.names import manifest_target, target_key
from manifests.record import ControlRecord, GenerationEntry, accept_manifest
from store.signed import SignedState
from store.spread import read_copy


class ManifestsHere:
    """The manifests in a writer's home, compared with what ``record`` publishes."""

    def __init__(self, writer: WriterHome, record: ControlRecord) -> None:
        self._residence = writer.residence
        self._shard = record.shard
        self._entries = {entry.generation_id: entry for entry in record.published}

    def get(self, generation_id: GenerationId) -> bytes | str:
        """The bytes of a manifest as the home has it, or in words how it is missing.

        That of a published generation is the one that was signed; another one can be read.
        """
        entry = self._entries.get(generation_id)
        try:
            data = self._residence.manifest_bytes(generation_id)
            if entry is None:
                parse_manifest(data)
            elif content_id(data) != entry.manifest_id:  # what was signed needs no second reading
                accept_manifest(data, entry, self._shard)
        except GenerationUnknown:
            return NOT_THERE
        except (ManifestError, DiskError) as error:
            return f"{error.name}: {error.message}"
        return data


def manifest_place(writer: WriterHome, generation_id: GenerationId) -> str:
    """What is missing of a generation whose manifest is: that, or its whole folder."""
    folder = writer.residence.folder(generation_id).parent
    place = folder / MANIFEST_FILE if folder.is_dir() else folder
    return str(place.relative_to(writer.home))


def manifest_in_stores(
    writer: WriterHome, signed: SignedState, entry: GenerationEntry
) -> bytes | None:
    """The manifest of ``entry`` as a store has it; ``None`` if none has the one that was signed.

    Raises:
        StoreUnavailable, DiskError: a store does not answer, and no other has it.
    """
    path = manifest_target(entry.generation_id)
    if path not in signed.targets.targets:
        return None
    key = target_key(path, signed.targets.targets[path].hashes["sha256"])
    found = read_copy(
        writer.store(),
        lambda store: store.get(key, length=entry.manifest_size_bytes + 1),
        lambda data: content_id(data) == entry.manifest_id,
    )
    if found is None or content_id(found[1]) != entry.manifest_id:
        return None
    return found[1]
