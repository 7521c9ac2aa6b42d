from manifests.generation import parse_manifest, seal
from tests.manifests import samples
from tests.manifests.regenerate import FOLDER, golden_bytes


def test_the_canonical_bytes_are_those_that_were_committed() -> None:
    expected = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert golden_bytes() == expected, "see tests/manifests/regenerate.py"


def test_the_committed_manifests_are_read_as_what_was_written() -> None:
    data = (FOLDER / "generation_manifest.v2.json").read_bytes()
    assert parse_manifest(data) == samples.merged_manifest()
    before_merges = (FOLDER / "generation_manifest.v1.json").read_bytes()
    assert parse_manifest(before_merges) == seal(samples.body(schema_version=1))


def test_a_generation_id_starts_with_its_commit_and_sorts_by_it() -> None:
    ids = [entry.generation_id for entry in samples.entries(1, 9, 10, 99, 1000, 10**11)]
    assert ids == sorted(ids)
    assert ids[1].startswith("g000000000009-")
