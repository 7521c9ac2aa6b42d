"""Golden bytes: ``python -m tests.manifests.regenerate`` writes them, the tests want no difference.

A difference means that existing manifests and records hash to something else: a new schema version.
"""

from __future__ import annotations

from pathlib import Path

from manifests.canonical import to_canonical
from manifests.generation import seal
from manifests.identifiers import content_id
from manifests.receipts import BrokenLine, Receipt
from manifests.record import ControlRecord, EmbedderOverride
from manifests.record_changes import with_active, with_published, with_revoked, with_rollback
from manifests.retained import with_collection_begun, with_pin, with_tag
from tests.manifests import samples

FOLDER = Path(__file__).parent / "golden"
RECEIPT = Receipt(
    kind="rollback",
    document="pointer",
    time="2024-05-06T07:08:09+00:00",
    generation_id=samples.manifest().generation_id,
    manifest_id=content_id(b"manifest"),
    high_seq=9,
    record_version=4,
    reason="wrong answers",
    before=content_id(b"before"),
    after=content_id(b"after"),
    sequence=3,
    cut_bytes=7,
    broken=BrokenLine(line=2, blake3=content_id(b"damage")),
)


def collecting() -> ControlRecord:
    """A record that has something in each of its fields but for an override and a canary."""
    *entries, newest = samples.entries(10, 20, 30, 40, 50, 60)
    record = samples.record(10, 20, 30, 40, 50)
    first, second, third, _, fifth = (each.generation_id for each in entries)
    record = with_published(record, newest, samples.NOW)
    record = with_rollback(with_active(record, newest.generation_id), fifth, "it is slow")
    record = with_pin(with_tag(record, "blue", third), third, "what the paper cites")
    record = with_revoked(record, fifth, "it leaks")
    return with_collection_begun(record, {first, second}, content_id(b"a collection"))


def golden_bytes() -> dict[str, bytes]:
    """The content of every golden file, by its name."""
    record = samples.record(10, 20, 30, active=20)
    older = record.model_copy(update={"schema_version": 1})
    override = EmbedderOverride(
        generation_id=record.published[1].generation_id,
        name=samples.EMBEDDER.name,
        revision=samples.EMBEDDER.revision,
        dimensions=samples.EMBEDDER.dimensions,
        reason="a new model",
    )
    overridden = record.model_copy(update={"schema_version": 2, "embedder_overrides": (override,)})
    return {
        "generation_manifest.v1.json": to_canonical(seal(samples.body(schema_version=1))),
        "generation_manifest.v2.json": to_canonical(samples.merged_manifest()),
        "control_record.v1.json": to_canonical(older),
        "control_record.v2.json": to_canonical(overridden),
        "control_record.v3.json": to_canonical(collecting()),
        "receipt.v1.json": to_canonical(RECEIPT),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in golden_bytes().items():
        (FOLDER / name).write_bytes(data)
