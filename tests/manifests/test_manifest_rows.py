"""Rows 1 to 8 of the fault table, as far as bytes and rules go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from manifests.canonical import canonical_bytes, to_canonical
from manifests.errors import (
    ActivationFailed,
    CommitRangeGap,
    EmbedderMismatch,
    ManifestHashMismatch,
    ManifestIdentityMismatch,
    ManifestIncomplete,
    ManifestLengthMismatch,
    ManifestMalformed,
    SchemaTooNew,
)
from manifests.generation import (
    Artifact,
    Counts,
    EmbedderRecord,
    GenerationManifest,
    GoldenEmbedding,
    parse_manifest,
    seal,
)
from manifests.identifiers import content_id
from manifests.invariants import (
    OpenedCounts,
    check_complete,
    check_counts,
    check_embedder,
    check_lineage,
)
from manifests.record import GenerationEntry, accept_manifest, entry_of
from manifests.vectors import vector_to_text
from tests.manifests import samples
from tests.support.corpus import delete, upserts
from tests.support.homes import add, make_writer

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The manifest of a generation that was really built: two shards and tombstones."""
    writer = make_writer(tmp_path_factory.mktemp("real"))
    add(writer, upserts(range(5)))
    add(writer, [delete(1), *upserts([7])])
    return writer.residence.manifest_bytes(writer.residence.resident_ids()[-1])


def entry_for(data: bytes) -> GenerationEntry:
    return entry_of(parse_manifest(data), data)


def signed(edit: Edit, source: GenerationManifest | None = None) -> tuple[bytes, GenerationEntry]:
    """Edited manifest bytes, and an entry that vouches for exactly them: a careless signer."""
    manifest = source or samples.manifest()
    document = manifest.model_dump(mode="json")
    edit(document)
    data = canonical_bytes(document)
    entry = entry_of(manifest, to_canonical(manifest)).model_copy(
        update={"manifest_id": content_id(data), "manifest_size_bytes": len(data)}
    )
    return data, entry


def vouched(data: bytes) -> GenerationEntry:
    whole = to_canonical(samples.manifest())
    return entry_for(whole).model_copy(
        update={"manifest_id": content_id(data), "manifest_size_bytes": len(data)}
    )


def test_a_real_manifest_is_accepted_and_written_back_the_same(real: bytes) -> None:
    manifest = accept_manifest(real, entry_for(real), "main")
    assert to_canonical(manifest) == real
    check_complete(manifest)
    assert (manifest.counts.documents, manifest.counts.tombstones) == (5, 1)


def test_row_1_every_flipped_byte_is_a_hash_mismatch(real: bytes) -> None:
    entry = entry_for(real)
    for mask in (0x01, 0x80, 0xFF):
        damaged = bytearray(real)
        for offset in range(len(real)):
            damaged[offset] ^= mask
            with pytest.raises(ManifestHashMismatch):
                accept_manifest(bytes(damaged), entry, "main")
            damaged[offset] ^= mask


def test_row_2_every_truncated_or_longer_manifest_is_a_length_mismatch(real: bytes) -> None:
    entry = entry_for(real)
    for length in range(len(real)):
        with pytest.raises(ManifestLengthMismatch):
            accept_manifest(real[:length], entry, "main")
    with pytest.raises(ManifestLengthMismatch) as caught:
        accept_manifest(real + b"\n", entry, "main")
    assert caught.value.facts["generation_id"] == entry.generation_id


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b'"rows":7', b'"rows":7,"rows":7'),
        lambda data: data.replace(b'"rows":7', b'"rows":NaN'),
        lambda data: data.replace(b'"rows":7', b'"rows":7.0'),
        lambda data: data.replace(b'"rows":7', b'"rows":' + b"[" * 50 + b"]" * 50),
        lambda data: data.replace("日".encode(), b"\xe6\x97"),
        lambda data: data.replace(b'"rows":7', b'"rows": 7'),
        lambda data: data.replace("日".encode(), b"\\u65e5"),
        lambda data: data[:-1],
        lambda data: b"[" + data + b"]",
    ],
    ids=["duplicate", "nan", "float", "deep", "utf8", "space", "escape", "cut", "list"],
)
def test_row_3_a_signed_but_not_canonical_manifest_is_malformed(
    damage: Callable[[bytes], bytes],
) -> None:
    whole = to_canonical(samples.manifest())
    data = damage(whole)
    assert data != whole
    with pytest.raises(ManifestMalformed):
        accept_manifest(data, vouched(data), "main")


FIELD_EDITS: list[tuple[str, Edit]] = [
    ("surprise", lambda d: d.update(surprise=1)),
    ("counts", lambda d: d.pop("counts")),
    ("counts.rows", lambda d: d["counts"].update(rows="7")),
    ("counts.rows", lambda d: d["counts"].update(rows=True)),
    ("counts", lambda d: d["counts"].update(rows=6)),
    ("counts.documents", lambda d: d["counts"].update(documents=-1)),
    ("commits", lambda d: d["commits"].update(low_seq=10)),
    ("commits", lambda d: d["commits"].update(low_seq=2)),
    ("commits.head_commit_id", lambda d: d["commits"].update(head_commit_id="A" * 64)),
    ("shard", lambda d: d.update(shard="Main")),
    ("shard", lambda d: d.update(shard="main\n")),
    ("activation", lambda d: d["activation"].update(invariants=d["activation"]["invariants"][1:])),
    ("activation", lambda d: d["activation"].update(invariants=[])),
    ("artifacts.0", lambda d: d["artifacts"][0].update(kind="surprise")),
    ("artifacts.0", lambda d: d["artifacts"][0].pop("kind")),
    ("size_bytes", lambda d: d["artifacts"][0].update(size_bytes=0)),
    ("symbols", lambda d: d["artifacts"][0]["symbols"].update(m=1)),
    ("symbols", lambda d: d["artifacts"][0]["symbols"].update(k=2)),
    ("embedder.dimensions", lambda d: d["embedder"].update(dimensions=0)),
    ("generation_id", lambda d: d.update(generation_id="../../g")),
]


@pytest.mark.parametrize(("field", "edit"), FIELD_EDITS)
def test_row_3_a_manifest_of_another_form_is_malformed_naming_the_field(
    field: str, edit: Edit
) -> None:
    data, entry = signed(edit)
    with pytest.raises(ManifestMalformed) as caught:
        accept_manifest(data, entry, "main")
    assert field in str(caught.value.facts["field"])


def test_row_4_a_newer_schema_is_refused_naming_both_versions() -> None:
    data, entry = signed(lambda d: d.update(schema_version=3, of_the_future=[]))
    with pytest.raises(SchemaTooNew) as caught:
        accept_manifest(data, entry, "main")
    assert caught.value.facts == {"found_version": 3, "known_version": 2}
    assert "3" in caught.value.message
    assert "2" in caught.value.message


def test_row_3_before_there_were_merges_no_row_was_dropped() -> None:
    merged = Counts(documents=4, rows=8, tombstones=3)
    with pytest.raises(ValidationError):
        samples.body(schema_version=1, counts=merged)
    assert seal(samples.body(counts=merged)).counts.dropped == 1


@pytest.mark.parametrize("version", [0, -1, "1", None])
def test_row_4_a_version_that_never_was_is_malformed(version: object) -> None:
    data, entry = signed(lambda d: d.update(schema_version=version))
    with pytest.raises(ManifestMalformed):
        accept_manifest(data, entry, "main")


def test_row_5_a_manifest_of_another_generation_is_an_identity_mismatch() -> None:
    other = to_canonical(seal(samples.body(high_seq=10)))
    entry = vouched(other)
    with pytest.raises(ManifestIdentityMismatch):
        accept_manifest(other, entry, "main")


def test_row_5_a_manifest_of_another_shard_is_an_identity_mismatch() -> None:
    data = to_canonical(seal(samples.body(shard="other")))
    with pytest.raises(ManifestIdentityMismatch):
        accept_manifest(data, entry_for(data), "main")


def test_row_5_an_id_that_its_content_does_not_have_is_an_identity_mismatch() -> None:
    data, entry = signed(lambda d: d.update(built_at="2024-05-06T07:08:10+00:00"))
    with pytest.raises(ManifestIdentityMismatch):
        accept_manifest(data, entry, "main")


def without(name: str) -> tuple[Artifact, ...]:
    return tuple(artifact for artifact in samples.ARTIFACTS if artifact.name != name)


def plus(artifact: Artifact) -> tuple[Artifact, ...]:
    return tuple(sorted((*samples.ARTIFACTS, artifact), key=lambda each: each.name))


@pytest.mark.parametrize(
    "artifacts",
    [
        *(
            without(artifact.name)
            for artifact in samples.ARTIFACTS
            if artifact.name != "lexical/0123456789abcdef.idx"
        ),
        plus(samples.heads(7, 1)),
        plus(samples.heads(6, 1)),
        plus(samples.vectors(7, 1)),
        plus(samples.vectors(3, 2)),
        plus(samples.tombstones(8, 1)),
        (*without("vectors/000000000005.usearch"), samples.vectors(5, 1)),
        (*without("vectors/000000000005.usearch"), samples.vectors(5, 2, dimensions=5)),
        (),
    ],
)
def test_row_6_missing_and_extra_artifacts_are_incomplete(artifacts: tuple[Artifact, ...]) -> None:
    manifest = seal(samples.body(artifacts=artifacts))
    with pytest.raises(ManifestIncomplete) as caught:
        check_complete(manifest)
    assert caught.value.facts["generation_id"] == manifest.generation_id


def test_row_6_a_complete_list_passes_and_an_index_of_no_document_too() -> None:
    check_complete(samples.manifest())
    check_complete(samples.merged_manifest())
    check_complete(seal(samples.body(schema_version=1)))
    empty = Counts(documents=0, rows=0, tombstones=0)
    check_complete(seal(samples.body(artifacts=(samples.lexical(),), counts=empty)))


@pytest.mark.parametrize(
    "change",
    [{"low_seq": 2}, {"high_seq": 8}, {"parent_generation_id": "g000000000001-0123456789ab"}],
)
def test_row_7_commits_other_than_the_record_says_are_a_gap(change: dict[str, Any]) -> None:
    data = to_canonical(samples.manifest())
    with pytest.raises(CommitRangeGap):
        accept_manifest(data, entry_for(data).model_copy(update=change), "main")


@pytest.mark.parametrize("low_seq", [10, 12])
def test_row_7_a_record_with_a_gap_or_an_overlap_does_not_pass_the_lineage(low_seq: int) -> None:
    record = samples.record(10, 20, 30)
    first, second, third = record.published
    torn = record.model_copy(
        update={"published": (first, second.model_copy(update={"low_seq": low_seq}), third)}
    )
    for entry in torn.published[1:]:
        with pytest.raises(CommitRangeGap):
            check_lineage(torn, entry)
    check_lineage(torn, first)


def test_row_7_a_record_with_another_parent_does_not_pass_the_lineage() -> None:
    record = samples.record(10, 20, 30)
    first, second, third = record.published
    grafted = third.model_copy(update={"parent_generation_id": first.generation_id})
    torn = record.model_copy(update={"published": (first, second, grafted)})
    with pytest.raises(CommitRangeGap):
        check_lineage(torn, grafted)
    for entry in record.published:
        check_lineage(record, entry)


def golden(*vector: float, text: str = "café — 日本語") -> tuple[GoldenEmbedding, ...]:
    return (GoldenEmbedding(text=text, vector=vector_to_text(vector)),)


@pytest.mark.parametrize(
    ("field", "node"),
    [
        ("name", samples.EMBEDDER.model_copy(update={"name": "another"})),
        ("revision", samples.EMBEDDER.model_copy(update={"revision": content_id(b"newer")})),
        ("dimensions", samples.EMBEDDER.model_copy(update={"dimensions": 5})),
        ("golden", samples.EMBEDDER.model_copy(update={"golden": ()})),
        ("golden", samples.EMBEDDER.model_copy(update={"golden": golden(0.5, -0.5, 0.5, 0.5)})),
        ("golden", samples.EMBEDDER.model_copy(update={"golden": golden(0.5, -0.5, 0.5, -0.4998)})),
        (
            "golden",
            samples.EMBEDDER.model_copy(update={"golden": golden(0.5, -0.5, 0.5, -0.5, text="x")}),
        ),
    ],
)
def test_row_8_embedder_drift_is_a_mismatch_naming_the_field(
    field: str, node: EmbedderRecord
) -> None:
    with pytest.raises(EmbedderMismatch) as caught:
        check_embedder(samples.manifest(), node)
    assert caught.value.facts["field"] == field


def test_row_8_another_machines_arithmetic_is_no_drift() -> None:
    check_embedder(samples.manifest(), samples.EMBEDDER)
    near = samples.EMBEDDER.model_copy(update={"golden": golden(0.50004, -0.5, 0.49996, -0.5)})
    check_embedder(samples.manifest(), near)


@pytest.mark.parametrize(("documents", "live"), [(3, 4), (4, 3), (5, 4), (4, 5), (0, 0)])
def test_counts_other_than_the_manifests_fail_the_activation(documents: int, live: int) -> None:
    with pytest.raises(ActivationFailed):
        check_counts(samples.manifest(), OpenedCounts(documents, live))
    check_counts(samples.manifest(), OpenedCounts(4, 4))
