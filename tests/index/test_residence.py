"""What leaves a home: generations by one rename, artifacts once nothing names them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from durable import files
from index.residence import Residence
from manifests.canonical import to_canonical
from manifests.errors import GenerationUnknown
from manifests.generation import HeadsArtifact, seal
from manifests.identifiers import content_id
from tests.manifests import samples
from tests.support.crashes import count_steps, killed_at

CONTENTS = [b"%d" % number * 100 for number in range(4)]
IDS = [content_id(data) for data in CONTENTS]


def make(residence: Residence, high_seq: int, numbers: Sequence[int]) -> str:
    """A resident generation of these contents; nothing can be searched in it."""
    artifacts: list[HeadsArtifact] = [
        samples.heads(number, 1).model_copy(
            update={"blake3": IDS[number], "size_bytes": len(CONTENTS[number])}
        )
        for number in numbers
    ]
    manifest = seal(samples.body(high_seq=high_seq, artifacts=tuple(artifacts)))
    folder = residence.folder(manifest.generation_id)
    for artifact, number in zip(artifacts, numbers, strict=True):
        path = residence.artifact_path(artifact.blake3)
        path.write_bytes(CONTENTS[number])
        files.make_folder((folder / artifact.name).parent)
        files.link_file(path, folder / artifact.name)
    manifest_path = residence.generations / manifest.generation_id / "manifest.json"
    files.replace_file(manifest_path, [to_canonical(manifest)])
    return manifest.generation_id


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def residence(home: Path) -> Residence:
    made = Residence(home)
    made.prepare()
    return made


def test_what_is_forgotten_is_resident_no_more_and_its_artifacts_stay(residence: Residence) -> None:
    first, second = make(residence, 1, [0, 1]), make(residence, 2, [1, 2])
    files.remove_tree(residence.set_aside(first))
    files.remove_tree(residence.set_aside(first))
    assert residence.resident_ids() == [second]
    with pytest.raises(GenerationUnknown):
        residence.manifest_bytes(first)
    assert [path for path in residence.generations.iterdir() if path.name != second] == []
    assert [artifact_id for artifact_id, _ in residence.kept_artifacts()] == sorted(IDS[:3])
    assert residence.folder(second).is_dir()


@pytest.mark.parametrize("name", ["..", "", ".tmp-x", "g1", "../generations"])
def test_only_a_generation_can_be_forgotten(residence: Residence, name: str) -> None:
    make(residence, 1, [0])
    with pytest.raises(GenerationUnknown):
        files.remove_tree(residence.set_aside(name))
    assert len(residence.resident_ids()) == 1


def test_a_discarded_artifact_takes_its_table_with_it(residence: Residence) -> None:
    residence.artifact_path(IDS[0]).write_bytes(CONTENTS[0])
    (residence.tables / IDS[0]).write_bytes(b"table")
    residence.discard(IDS[0])
    residence.discard(IDS[0])
    assert residence.kept_artifacts() == []
    assert not (residence.tables / IDS[0]).exists()


def test_row_43_a_generation_forgotten_by_a_killed_process_is_there_whole_or_not_at_all(
    home: Path, residence: Residence
) -> None:
    first = make(residence, 1, [0, 1])
    shutil.copytree(home, home.with_name("kept"))

    def leave() -> None:
        files.remove_tree(residence.set_aside(first))
        for artifact_id, _ in residence.kept_artifacts():
            residence.discard(artifact_id)

    def restore() -> None:
        shutil.rmtree(home)
        shutil.copytree(home.with_name("kept"), home)

    steps = count_steps(leave)
    assert steps > 5
    for step in range(steps):
        restore()
        assert killed_at(step, leave)
        for generation_id in residence.resident_ids():
            found = sorted(path.name for path in residence.folder(generation_id).rglob("*.heads"))
            assert len(found) == 2, step
            assert len(residence.kept_artifacts()) == 2, step
        residence.prepare()
        leave()
        assert residence.resident_ids() == []
        assert residence.kept_artifacts() == []
        assert list(residence.generations.iterdir()) == []
