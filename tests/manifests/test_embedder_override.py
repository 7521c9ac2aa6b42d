"""Row 8: what a signed override is, and which readers understand it."""

from __future__ import annotations

import pytest

from manifests.canonical import parse_document, to_canonical
from manifests.embedder_override import is_overridden, with_embedder_override
from manifests.errors import (
    GenerationCollected,
    GenerationNotPublished,
    ManifestMalformed,
    SchemaTooNew,
)
from manifests.generation import EmbedderRecord, GenerationManifest, seal
from manifests.identifiers import content_id
from manifests.record import SCHEMA_VERSION, ControlRecord
from manifests.record_changes import with_active, with_rollback
from tests.manifests import samples
from tests.manifests.regenerate import FOLDER

OTHER = EmbedderRecord(name="other", revision=content_id(b"other"), dimensions=4, golden=())
V1 = (FOLDER / "control_record.v1.json").read_bytes()
V2 = (FOLDER / "control_record.v2.json").read_bytes()


def manifests(*embedders: EmbedderRecord) -> list[GenerationManifest]:
    """Of generations that follow one another and end at the commits 10, 20 …"""
    made: list[GenerationManifest] = []
    for number, embedder in enumerate(embedders):
        parent = made[-1].generation_id if made else None
        low_seq, high_seq = number * 10 + 1, number * 10 + 10
        made.append(
            seal(samples.body(low_seq=low_seq, high_seq=high_seq, parent=parent, embedder=embedder))
        )
    return made


def recorded(made: list[GenerationManifest]) -> ControlRecord:
    from manifests.record import entry_of
    from manifests.record_changes import with_published

    record = ControlRecord(shard="main", kind="publish", writer_epoch=1)
    for each in made:
        record = with_published(record, entry_of(each, to_canonical(each)), samples.NOW)
    return with_active(record, made[-1].generation_id)


def test_a_record_of_the_first_schema_is_read_and_stays_one_until_it_is_given_an_override() -> None:
    record = parse_document(V1, ControlRecord, SCHEMA_VERSION)
    assert (record.schema_version, record.embedder_overrides) == (1, ())
    forward = with_active(record, record.published[2].generation_id)
    assert b'"schema_version":1' in to_canonical(forward)
    assert b"embedder_overrides" not in to_canonical(forward)
    (manifest,) = manifests(OTHER)
    named = manifest.model_copy(update={"generation_id": record.published[0].generation_id})
    overridden = with_embedder_override(record, named, [], "why")
    assert b'"schema_version":3' in to_canonical(overridden)
    assert parse_document(to_canonical(overridden), ControlRecord, SCHEMA_VERSION) == overridden


def test_row_4_a_genctl_that_knows_no_overrides_refuses_a_record_that_may_have_them() -> None:
    with pytest.raises(SchemaTooNew) as caught:
        parse_document(V2, ControlRecord, 1)
    assert caught.value.facts == {"found_version": 2, "known_version": 1}
    with pytest.raises(SchemaTooNew):
        parse_document(
            V2.replace(b'"schema_version":2', b'"schema_version":4'), ControlRecord, SCHEMA_VERSION
        )


@pytest.mark.parametrize(
    "damaged",
    [
        V1.replace(b'"canary":null,', b'"canary":null,"embedder_overrides":[],'),
        V2.replace(b'"schema_version":2', b'"schema_version":1'),
        V1.replace(b'"schema_version":1', b'"schema_version":2'),
        V1.replace(b'"schema_version":1', b'"schema_version":0'),
        V2.replace(b'"dimensions":4', b'"dimensions":0'),
        V2.replace(b'"reason":"a new model",', b""),
    ],
)
def test_row_3_fields_that_are_not_of_the_schema_are_refused(damaged: bytes) -> None:
    assert damaged not in (V1, V2)
    with pytest.raises(ManifestMalformed):
        parse_document(damaged, ControlRecord, SCHEMA_VERSION)


def test_an_override_covers_the_way_back_and_nothing_that_comes_later() -> None:
    first, second, third, fourth = made = manifests(
        samples.EMBEDDER, samples.EMBEDDER, OTHER, OTHER
    )
    record = recorded(made)
    overridden = with_embedder_override(record, third, made, "a new model")
    assert [is_overridden(overridden, each) for each in made] == [True, True, True, False]
    assert overridden.override_of(fourth.generation_id) is None
    assert {each.reason for each in overridden.embedder_overrides} == {"a new model"}
    way_back = overridden.override_of(first.generation_id)
    assert way_back is not None
    assert (way_back.name, way_back.revision) == ("hashing", samples.EMBEDDER.revision)
    assert with_embedder_override(overridden, third, made, "a new model") is overridden
    assert overridden.override_of(second.generation_id) is not None


def test_a_new_reason_replaces_the_old_one_of_that_generation_alone() -> None:
    made = manifests(samples.EMBEDDER, OTHER)
    once = with_embedder_override(recorded(made), made[1], made, "one")
    twice = with_embedder_override(once, made[1], made, "two")
    assert [each.reason for each in twice.embedder_overrides] == ["one", "two"]


def test_only_what_is_published_and_retained_can_be_overridden() -> None:
    made = manifests(samples.EMBEDDER, OTHER, OTHER)
    record = recorded(made[:2])
    with pytest.raises(GenerationNotPublished):
        with_embedder_override(record, made[2], made, "why")
    collected = record.model_copy(update={"retained": record.retained[1:]})
    with pytest.raises(GenerationCollected):
        with_embedder_override(collected, made[0], made, "why")
    overridden = with_embedder_override(collected, made[1], made, "why")
    assert [each.generation_id for each in overridden.embedder_overrides] == [made[1].generation_id]


def test_a_rollback_is_still_one_after_an_override() -> None:
    made = manifests(samples.EMBEDDER, OTHER)
    rolled = with_rollback(recorded(made), made[0].generation_id, "wrong answers")
    overridden = with_embedder_override(rolled, made[1], made, "why")
    assert (overridden.kind, overridden.reason, overridden.active) == (
        "rollback",
        "wrong answers",
        made[0].generation_id,
    )
