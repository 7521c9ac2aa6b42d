"""A writer's key that signs what no writer would make: the worst that a stolen key can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller import clock
from controller.writer import WriterHome
from manifests.canonical import canonical_bytes, to_canonical
from manifests.generation import ArtifactFile, GenerationBody, GenerationManifest, seal
from manifests.identifiers import content_id
from manifests.names import manifest_target, symbol_key
from manifests.record import GenerationEntry, entry_of
from symbols.encode import encode, object_parts
from symbols.geometry import choose, describe

Edit = Callable[[dict[str, Any]], None]


def newest(writer: WriterHome) -> GenerationManifest:
    """The manifest of the generation that was built last."""
    return writer.manifest(writer.residence.resident_ids()[-1])


def resealed(manifest: GenerationManifest, **changes: object) -> GenerationManifest:
    """The manifest with other fields, and the id that goes with them."""
    fields = {name: getattr(manifest, name) for name in GenerationBody.model_fields}
    return seal(GenerationBody(**fields | changes))


def edited(manifest: GenerationManifest, edit: Edit) -> bytes:
    """Canonical bytes of the manifest after an edit that may leave it without any sense."""
    document = manifest.model_dump(mode="json")
    edit(document)
    return canonical_bytes(document)


def sign(writer: WriterHome, entry: GenerationEntry, data: bytes) -> None:
    """Sign a record whose newest, active generation is ``entry``, with ``data`` for its manifest.

    The manifest's hash and length in the entry become those of ``data``.
    """
    current = writer.current()
    record = current.signed.record
    vouched = entry.model_copy(
        update={"manifest_id": content_id(data), "manifest_size_bytes": len(data)}
    )
    older = [each for each in record.published if each.high_seq < entry.high_seq]
    successor = record.model_copy(
        update={
            "kind": "activate",
            "published": (*older, vouched),
            "retained": (*(each.generation_id for each in older), vouched.generation_id),
            "active": vouched.generation_id,
        }
    )
    target = (manifest_target(vouched.generation_id), data)
    writer.repository().commit(current, successor, clock.now(), [target])


def sign_manifest(writer: WriterHome, manifest: GenerationManifest) -> GenerationEntry:
    """Sign the record that names this manifest, whatever is in it."""
    data = to_canonical(manifest)
    entry = entry_of(manifest, data)
    sign(writer, entry, data)
    return entry


def sign_bytes(writer: WriterHome, data: bytes) -> GenerationEntry:
    """Sign the record that gives the newest generation these bytes for its manifest."""
    manifest = newest(writer)
    whole = to_canonical(manifest)
    sign(writer, entry_of(manifest, whole), data)
    return writer.current().signed.record.active_entry()


def with_other_symbols(
    writer: WriterHome, folder: Path, artifact: ArtifactFile, data: bytes
) -> ArtifactFile:
    """The artifact with a table, and symbols in the store, that are of ``data`` and not of it."""
    geometry = choose(len(data))
    source, repair = folder / "source", folder / "repair"
    source.write_bytes(data)
    repair.mkdir()
    encoded = encode(source, geometry, repair)
    store = writer.store()
    for number in range(geometry.m):
        key = symbol_key(artifact.blake3, number)
        store.delete(key)
        store.put_if_absent(key, [b"".join(object_parts(encoded, number))])
    symbols = describe(geometry, encoded.table)
    return artifact.model_copy(update={"symbols": symbols, "size_bytes": len(data)})
