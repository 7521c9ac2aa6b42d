"""Nothing unverified is opened: row 62, and what residence does about damage."""

from __future__ import annotations

import mmap
import os
import shutil
from pathlib import Path

import pytest

from controller.writer import WriterHome
from index import snapshot as snapshot_module
from index import verification
from index.residence import Residence
from index.snapshot import Snapshot
from index.verification import (
    ReadFiles,
    StreamedArtifact,
    VerifiedGeneration,
    check_artifact,
    file_id,
    verify_generation,
)
from manifests.canonical import to_canonical
from manifests.errors import (
    ArtifactHashMismatch,
    GenerationUnknown,
    ManifestError,
    ManifestIncomplete,
)
from manifests.generation import ArtifactFile, GenerationManifest
from manifests.identifiers import content_id
from manifests.record import entry_of
from tests.replicator.encoded import encoded_artifact
from tests.support.corpus import delete, upserts
from tests.support.crashes import killed_at
from tests.support.homes import built, flip, make_writer


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> WriterHome:
    home = make_writer(tmp_path_factory.mktemp("verify"))
    built(home, upserts(range(6)))
    built(home, [delete(2), *upserts([4], 1)])
    return home


@pytest.fixture
def home(writer: WriterHome, tmp_path: Path) -> Residence:
    """A copy of the artifacts and generations, of this test alone."""
    for name in ("artifacts", "generations"):
        shutil.copytree(writer.residence.artifacts.parent / name, tmp_path / name)
    return Residence(tmp_path)


@pytest.fixture
def manifest(writer: WriterHome) -> GenerationManifest:
    return writer.built()[-1]


@pytest.fixture(autouse=True)
def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a native index in these tests is an error."""

    def refuse(*_: object) -> None:
        raise AssertionError("a native library was about to open a file")

    monkeypatch.setattr(snapshot_module, "LexicalIndex", refuse)
    monkeypatch.setattr(snapshot_module, "VectorShard", refuse)


def refuse_all(home: Residence, manifest: GenerationManifest, artifact: str) -> None:
    data = to_canonical(manifest)
    with pytest.raises(ArtifactHashMismatch) as caught:
        Snapshot(verify_generation(manifest, home.folder(manifest.generation_id)))
    assert caught.value.facts["artifact"] == artifact
    with pytest.raises(ArtifactHashMismatch):
        Snapshot(home.reopen(entry_of(manifest, data), "main"))


def test_row_62_every_flipped_byte_of_every_artifact_is_refused_before_opening(
    home: Residence, manifest: GenerationManifest
) -> None:
    folder = home.folder(manifest.generation_id)
    assert manifest.counts.tombstones == 2
    for artifact in manifest.artifacts:
        path = folder / artifact.name
        stride = max(1, artifact.size_bytes // 150)
        for offset in {*range(0, artifact.size_bytes, stride), artifact.size_bytes - 1}:
            flip(path, offset, 1 << offset % 8)
            with pytest.raises(ArtifactHashMismatch) as caught:
                Snapshot(verify_generation(manifest, folder))
            assert caught.value.facts["artifact"] == artifact.name
            flip(path, offset, 1 << offset % 8)
    verify_generation(manifest, folder)


@pytest.mark.parametrize(
    "damage",
    ["empty", "shorter", "longer", "missing", "symlink", "symlink to itself", "folder", "pipe"],
)
def test_row_62_every_other_damage_is_refused_before_opening(
    home: Residence, manifest: GenerationManifest, damage: str
) -> None:
    folder = home.folder(manifest.generation_id)
    for artifact in manifest.artifacts:
        path = folder / artifact.name
        data = path.read_bytes()
        path.unlink()
        match damage:
            case "empty":
                path.write_bytes(b"")
            case "shorter":
                path.write_bytes(data[:-1])
            case "longer":
                path.write_bytes(data + b"\0")
            case "symlink":
                path.symlink_to(home.artifact_path(artifact.blake3))
            case "symlink to itself":
                path.symlink_to(path)
            case "folder":
                path.mkdir()
            case "pipe":
                os.mkfifo(path)
        refuse_all(home, manifest, artifact.name)
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(data)
    verify_generation(manifest, folder)


def test_row_62_two_files_in_each_others_place_are_refused(
    home: Residence, manifest: GenerationManifest
) -> None:
    folder = home.folder(manifest.generation_id)
    first, second = (folder / artifact.name for artifact in manifest.artifacts[:2])
    shutil.move(first, folder / "aside")
    shutil.move(second, first)
    shutil.move(folder / "aside", second)
    refuse_all(home, manifest, manifest.artifacts[0].name)


def test_nobody_else_makes_a_verified_generation(
    home: Residence, manifest: GenerationManifest
) -> None:
    folder = home.folder(manifest.generation_id)
    for maker in (None, object(), True, "", VerifiedGeneration):
        with pytest.raises(TypeError):
            VerifiedGeneration(maker, manifest, folder)


def test_row_6_an_incomplete_list_is_not_verified(
    home: Residence, manifest: GenerationManifest
) -> None:
    short = manifest.model_copy(update={"artifacts": manifest.artifacts[:-1]})
    with pytest.raises(ManifestIncomplete):
        verify_generation(short, home.folder(manifest.generation_id))


def test_reopening_what_is_not_here_says_so(home: Residence, manifest: GenerationManifest) -> None:
    entry = entry_of(manifest, to_canonical(manifest))
    shutil.rmtree(home.generations / manifest.generation_id)
    with pytest.raises(GenerationUnknown):
        home.reopen(entry, "main")


def test_reopening_refuses_every_damage_of_the_manifest(
    home: Residence, manifest: GenerationManifest
) -> None:
    entry = entry_of(manifest, to_canonical(manifest))
    path = home.generations / manifest.generation_id / "manifest.json"
    data = path.read_bytes()
    for damaged in (b"", data[:-1], data + b" ", data.replace(b"main", b"mine")):
        path.write_bytes(damaged)
        with pytest.raises(ManifestError):
            home.reopen(entry, "main")


def test_assembling_repairs_a_damaged_folder_from_the_artifacts(
    home: Residence, manifest: GenerationManifest
) -> None:
    folder = home.folder(manifest.generation_id)
    for artifact in manifest.artifacts:
        path = folder / artifact.name
        path.unlink()
        path.write_bytes(b"\0" * artifact.size_bytes)
        home.assemble(manifest, to_canonical(manifest))
        verify_generation(manifest, folder)
        path.unlink()
        home.assemble(manifest, to_canonical(manifest))
        verify_generation(manifest, folder)


def test_assembling_from_a_damaged_artifact_is_refused(
    home: Residence, manifest: GenerationManifest
) -> None:
    shutil.rmtree(home.generations / manifest.generation_id)
    flip(home.artifact_path(manifest.artifacts[0].blake3))
    with pytest.raises(ArtifactHashMismatch):
        home.assemble(manifest, to_canonical(manifest))


def test_holding_an_artifact_means_holding_it_intact(
    home: Residence, manifest: GenerationManifest
) -> None:
    artifact = manifest.artifacts[0]
    assert home.holds(artifact)
    flip(home.artifact_path(artifact.blake3))
    assert not home.holds(artifact)
    assert not home.holds(artifact)


def test_row_43_a_generation_appears_whole_or_not_at_all(
    home: Residence, manifest: GenerationManifest
) -> None:
    place = home.generations / manifest.generation_id
    others = set(home.resident_ids()) - {manifest.generation_id}
    steps = 0
    while True:
        shutil.rmtree(place, ignore_errors=True)
        killed = killed_at(steps, lambda: home.assemble(manifest, to_canonical(manifest)).manifest)
        if place.exists():
            verify_generation(manifest, home.folder(manifest.generation_id))
            assert home.manifest_bytes(manifest.generation_id) == to_canonical(manifest)
        assert set(home.resident_ids()) - {manifest.generation_id} == others
        home.prepare()
        assert not list(home.generations.glob(".tmp-*"))
        if not killed:
            break
        steps += 1
    assert steps > 20
    assert place.exists()


def small_artifact(folder: Path, data: bytes) -> tuple[Path, ArtifactFile]:
    path = folder / "artifact"
    path.write_bytes(data)
    return path, encoded_artifact(folder, len(data), 1, 2).artifact.model_copy(
        update={"blake3": content_id(data)}
    )


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(verification, "file_id", refuse)


def streamed(artifact: ArtifactFile, *pieces: tuple[int, bytes]) -> StreamedArtifact:
    stream = StreamedArtifact(artifact)
    for offset, data in pieces:
        stream.update(offset, memoryview(data))
    return stream


DATA = bytes(range(256)) * 40


def test_bytes_that_went_by_in_order_need_not_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, artifact = small_artifact(tmp_path, DATA)
    no_reading(monkeypatch)
    seen = ReadFiles()
    streamed(artifact, (0, DATA[:100]), (100, DATA[100:])).confirm(path, seen)
    check_artifact(path, artifact, seen)
    path.rename(tmp_path / "renamed")
    os.link(tmp_path / "renamed", path)
    check_artifact(path, artifact, seen)
    with pytest.raises(AssertionError):
        check_artifact(path, artifact)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(0, DATA[:100])],
        [(100, DATA[100:])],
        [(100, DATA[100:]), (0, DATA[:100])],
        [(0, DATA[:100]), (101, DATA[101:])],
    ],
    ids=["none", "the first only", "the last only", "in another order", "with a gap"],
)
def test_row_62_a_file_whose_bytes_did_not_all_go_by_in_order_is_read(
    tmp_path: Path, pieces: list[tuple[int, bytes]]
) -> None:
    path, artifact = small_artifact(tmp_path, DATA)
    streamed(artifact, *pieces).confirm(path, ReadFiles())
    flip(path, 5000)
    seen = ReadFiles()
    with pytest.raises(ArtifactHashMismatch):
        streamed(artifact, *pieces).confirm(path, seen)
    with pytest.raises(ArtifactHashMismatch):
        check_artifact(path, artifact, seen)


def test_row_32_other_bytes_than_signed_that_went_by_are_refused(tmp_path: Path) -> None:
    path, artifact = small_artifact(tmp_path, DATA)
    other = DATA[:-1] + b"x"
    path.write_bytes(other)
    with pytest.raises(ArtifactHashMismatch):
        streamed(artifact, (0, other)).confirm(path, ReadFiles())


@pytest.mark.parametrize("length", [0, len(DATA) - 1, len(DATA) + 1])
def test_a_file_that_did_not_get_all_that_went_by_is_refused(tmp_path: Path, length: int) -> None:
    path, artifact = small_artifact(tmp_path, DATA)
    path.write_bytes(DATA[:length].ljust(length, b"x"))
    with pytest.raises(ArtifactHashMismatch):
        streamed(artifact, (0, DATA)).confirm(path, ReadFiles())


def test_row_62_a_file_that_changed_since_it_was_seen_is_read_again(tmp_path: Path) -> None:
    path, artifact = small_artifact(tmp_path, DATA)
    seen = ReadFiles()
    check_artifact(path, artifact, seen)
    flip(path, 17)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ArtifactHashMismatch):
        check_artifact(path, artifact, seen)
    path.unlink()
    path.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(ArtifactHashMismatch):
        check_artifact(path, artifact, seen)


def test_a_file_of_several_windows_has_the_hash_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, artifact = small_artifact(tmp_path, DATA * 3)
    monkeypatch.setattr(verification, "WINDOW_SIZE_BYTES", mmap.ALLOCATIONGRANULARITY)
    assert file_id(path) == artifact.blake3
    path.write_bytes(b"")
    assert file_id(path) == content_id(b"")
