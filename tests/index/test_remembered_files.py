"""What a writer remembers of the files that it has hashed, and when it reads them again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from index import verification
from index.remembered_files import FILE, RememberedFiles
from index.verification import check_artifact
from manifests.errors import ArtifactHashMismatch
from manifests.generation import ArtifactFile
from manifests.identifiers import content_id
from tests.manifests import samples
from tests.support.corpus import upserts
from tests.support.homes import TestableWriter, built, commit, flip, make_writer

DATA = b"what was found intact" * 100


@pytest.fixture
def artifact(tmp_path: Path) -> ArtifactFile:
    (tmp_path / "artifact").write_bytes(DATA)
    return samples.lexical().model_copy(
        update={"size_bytes": len(DATA), "blake3": content_id(DATA)}
    )


def remembered(home: Path, artifact: ArtifactFile) -> RememberedFiles:
    """What the next command knows after one that has read the artifact."""
    seen = RememberedFiles(home)
    check_artifact(home / "artifact", artifact, seen)
    seen.save({artifact.blake3})
    return RememberedFiles(home)


def refuse_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(verification, "file_id", refuse)


def test_a_file_that_did_not_change_is_not_read_by_the_next_command(
    tmp_path: Path, artifact: ArtifactFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = remembered(tmp_path, artifact)
    refuse_to_read(monkeypatch)
    check_artifact(tmp_path / "artifact", artifact, seen)
    os.link(tmp_path / "artifact", tmp_path / "other name")
    check_artifact(tmp_path / "other name", artifact, seen)


def test_row_62_a_file_that_changed_is_read_again(tmp_path: Path, artifact: ArtifactFile) -> None:
    seen = remembered(tmp_path, artifact)
    path = tmp_path / "artifact"
    flip(path, 7)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ArtifactHashMismatch):
        check_artifact(path, artifact, seen)
    path.unlink()
    path.write_bytes(DATA[:-1] + b"x")
    os.utime(path, ns=(2, 2))
    with pytest.raises(ArtifactHashMismatch):
        check_artifact(path, artifact, seen)


def test_what_is_not_kept_is_forgotten(tmp_path: Path, artifact: ArtifactFile) -> None:
    seen = remembered(tmp_path, artifact)
    assert seen.digests == {artifact.blake3}
    seen.save(set())
    assert RememberedFiles(tmp_path).digests == set()


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[[", b'[[[1,2,3],"x"]]', b"[[[1,2,3,4],5]]", b"\xff", b"null"]
)
def test_a_damaged_memory_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE).write_bytes(data)
    assert RememberedFiles(tmp_path).digests == set()


def reading(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []
    original = verification.file_id

    def noted(path: Path) -> str:
        read.append(path)
        return original(path)

    monkeypatch.setattr(verification, "file_id", noted)
    return read


def test_a_build_reads_none_of_the_artifacts_that_it_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make_writer(tmp_path)
    before = built(writer, upserts(range(50)))
    commit(writer, upserts([50]))
    read = reading(monkeypatch)
    after = TestableWriter(writer.home).build().manifest
    new = {a.name for a in after.artifacts} - {a.name for a in before.artifacts}
    names = {"/".join(path.parts[-2:]) for path in read}
    assert names == {*new, "lexical/meta.json"}


def test_row_62_a_damaged_parent_is_not_built_upon_although_it_was_remembered(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path)
    for artifact in built(writer, upserts(range(50))).artifacts:
        commit(writer, upserts([60]))
        path = writer.residence.artifact_path(artifact.blake3)
        flip(path)
        with pytest.raises(ArtifactHashMismatch):
            TestableWriter(writer.home).build()
        flip(path)
