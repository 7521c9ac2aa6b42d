"""Collections of garbage: the real one, and one that drops whatever a test asks for.

The second stands for collectors that retain less than genctl does, as those of older versions may
have: it moves the record by compare-and-swap, then deletes all that this does not need.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from builder.repository import TIMESTAMP_KEY
from controller import clock
from controller.settings import WRITER_FILE
from controller.writer import WriterHome
from manifests.generation import parse_manifest
from manifests.names import CONTROL_TARGET, manifest_target, metadata_key, symbol_key, target_key
from store.port import Store
from store.spread import ROOT_KEY


def reached_by(writer: WriterHome, generation_ids: Sequence[str]) -> set[str]:
    """The keys of the objects that these published generations consist of."""
    targets = writer.current().signed.targets.targets
    keys = set()
    for generation_id in generation_ids:
        path = manifest_target(generation_id)
        keys.add(target_key(path, targets[path].hashes["sha256"]))
        manifest = parse_manifest(writer.residence.manifest_bytes(generation_id))
        keys |= {
            symbol_key(artifact.blake3, number)
            for artifact in manifest.artifacts
            for number in range(artifact.symbols.m)
        }
    return keys


def reached(writer: WriterHome) -> set[str]:
    """The keys of every object that the signed record needs."""
    signed = writer.current().signed
    control = signed.targets.targets[CONTROL_TARGET].hashes["sha256"]
    return reached_by(writer, signed.record.retained) | {
        ROOT_KEY,
        TIMESTAMP_KEY,
        metadata_key(f"{signed.snapshot.version}.snapshot.json"),
        metadata_key(f"{signed.targets.version}.targets.json"),
        target_key(CONTROL_TARGET, control),
    }


def keys_of(store: Store) -> set[str]:
    """Every key in the store but those that prove conditional writes."""
    return {info.key for info in store.list("") if not info.key.startswith("probe/")}


def orphans(writer: WriterHome) -> set[str]:
    """The keys of the objects in the store that the signed record does not need."""
    return keys_of(writer.store()) - reached(writer)


def move_record(writer: WriterHome, keep: Sequence[str]) -> None:
    """Sign a record that retains only ``keep``; who read the one before is fenced from now on.

    Raises:
        WriterFenced: another writer came first; nothing may be deleted.
    """
    repository = writer.repository()
    current = repository.current()
    record = current.signed.record.model_copy(update={"retained": tuple(keep)})
    repository.commit(current, record, clock.now())


def collect(writer: WriterHome, keep: Sequence[str]) -> set[str]:
    """Retain only ``keep`` and delete what the record does not need any more; what was deleted."""
    move_record(writer, keep)
    gone = orphans(writer)
    for key in gone:
        writer.store().delete(key)
    return gone


def set_collection(home: Path, *, keep_last: int | None, grace_hours: int = 0) -> None:
    """Have a home's settings retain so many of the newest generations, and wait for nothing."""
    path = home / WRITER_FILE
    document = json.loads(path.read_text("utf-8"))
    document["retention"]["keep_last"] = keep_last
    document["collection_grace_hours"] = grace_hours
    path.write_text(json.dumps(document), "utf-8")
