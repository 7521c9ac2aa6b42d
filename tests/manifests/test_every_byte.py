"""Every single-byte flip of a manifest and a control record, also where a careless key signed it.

Row 1 says what becomes of a flip that nobody signed. Here the record vouches for the flipped bytes,
so that what is left between them and a node are the rules of the document itself.
"""

from __future__ import annotations

from collections import Counter

import pytest

from manifests.canonical import parse_document, to_canonical
from manifests.errors import (
    CommitRangeGap,
    GenctlError,
    ManifestHashMismatch,
    ManifestIdentityMismatch,
    ManifestMalformed,
    SchemaTooNew,
    UnsafeArtifactName,
)
from manifests.identifiers import content_id
from manifests.record import SCHEMA_VERSION, ControlRecord, accept_manifest, entry_of
from tests.manifests import samples
from tests.support.flips import MASKS, flips


def test_row_1_a_flip_that_the_record_does_not_vouch_for_is_a_hash_mismatch() -> None:
    manifest = samples.manifest()
    whole = to_canonical(manifest)
    for damaged in flips(whole):
        with pytest.raises(ManifestHashMismatch):
            accept_manifest(damaged, entry_of(manifest, whole), manifest.shard)


def test_a_flip_that_the_record_vouches_for_is_refused_by_the_rules_of_the_document() -> None:
    manifest = samples.manifest()
    whole = to_canonical(manifest)
    entry = entry_of(manifest, whole)
    names: Counter[str] = Counter()
    for damaged in flips(whole):
        vouched = entry.model_copy(update={"manifest_id": content_id(damaged)})
        with pytest.raises(
            (
                ManifestMalformed,
                SchemaTooNew,
                ManifestIdentityMismatch,
                CommitRangeGap,
                UnsafeArtifactName,
            )
        ) as caught:
            accept_manifest(damaged, vouched, manifest.shard)
        names[caught.value.name] += 1
    assert names.total() == len(MASKS) * len(whole)
    assert names.keys() >= {"ManifestMalformed", "ManifestIdentityMismatch"}


def test_a_flipped_control_record_is_refused_by_name_or_is_another_record() -> None:
    """It has no hash of its own, since its signature covers it; reading it must be safe all the
    same, for a node reads what a careless key signed."""
    record = samples.record(10, 20)
    whole = to_canonical(record)
    others = 0
    for damaged in flips(whole):
        try:
            read = parse_document(damaged, ControlRecord, SCHEMA_VERSION)
        except GenctlError as error:
            assert error.name in {"ManifestMalformed", "SchemaTooNew"}  # noqa: PT017
        else:
            assert read != record
            assert to_canonical(read) == damaged
            others += 1
    assert others
