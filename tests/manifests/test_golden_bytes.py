from __future__ import annotations

import pytest

from manifests.canonical import parse_document, to_canonical
from manifests.errors import ManifestMalformed
from manifests.generation import parse_manifest, seal
from manifests.record import SCHEMA_VERSION, ControlRecord
from tests.manifests import samples
from tests.manifests.regenerate import FOLDER, collecting, golden_bytes


def test_the_canonical_bytes_are_those_that_were_committed() -> None:
    expected = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert golden_bytes() == expected, "see tests/manifests/regenerate.py"


def test_the_committed_manifests_are_read_as_what_was_written() -> None:
    data = (FOLDER / "generation_manifest.v2.json").read_bytes()
    assert parse_manifest(data) == samples.merged_manifest()
    before_merges = (FOLDER / "generation_manifest.v1.json").read_bytes()
    assert parse_manifest(before_merges) == seal(samples.body(schema_version=1))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_record_of_each_schema_is_read_and_written_as_such(version: int) -> None:
    data = (FOLDER / f"control_record.v{version}.json").read_bytes()
    record = parse_document(data, ControlRecord, SCHEMA_VERSION)
    assert record.schema_version == version
    assert to_canonical(record) == data
    assert (record == collecting()) == (version == 3)


@pytest.mark.parametrize(("has", "says"), [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)])
def test_row_3_a_record_of_one_schema_that_says_it_is_of_another_is_refused(
    has: int, says: int
) -> None:
    data = (FOLDER / f"control_record.v{has}.json").read_bytes()
    other = data.replace(b'"schema_version":%d' % has, b'"schema_version":%d' % says)
    assert other != data
    with pytest.raises(ManifestMalformed):
        parse_document(other, ControlRecord, SCHEMA_VERSION)


def test_a_generation_id_starts_with_its_commit_and_sorts_by_it() -> None:
    ids = [entry.generation_id for entry in samples.entries(1, 9, 10, 99, 1000, 10**11)]
    assert ids == sorted(ids)
    assert ids[1].startswith("g000000000009-")
