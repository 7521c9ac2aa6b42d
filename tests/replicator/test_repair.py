"""A node bootstraps from a store that lost or damaged symbols: rows 29, 30 and 62."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from controller.node import NodeHome
from controller.writer import WriterHome
from manifests.errors import ArtifactHashMismatch, ManifestHashMismatch, Unrepairable
from manifests.generation import ArtifactFile, GenerationManifest
from manifests.names import symbol_key
from query.request import Request
from replicator.tally import FetchTally
from tests.support.corpus import upserts
from tests.support.homes import add, copy_with_store, flip, make_writer, new_node

DIMENSIONS = 256


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> WriterHome:
    """3,000 documents, whose vectors are some 3.5 MB, and then one more."""
    home = make_writer(tmp_path_factory.mktemp("repair"), dimensions=DIMENSIONS)
    add(home, upserts(range(3000)))
    return home


@pytest.fixture
def copied(writer: WriterHome, tmp_path: Path) -> WriterHome:
    """The writer and its store, of this test alone."""
    return copy_with_store(writer, tmp_path)


@pytest.fixture
def manifest(writer: WriterHome) -> GenerationManifest:
    return writer.built()[0]


def symbol_path(writer: WriterHome, artifact: ArtifactFile, number: int) -> Path:
    return Path(writer.settings.stores[0]) / symbol_key(artifact.blake3, number)


def damage(path: Path, how: str) -> None:
    match how:
        case "lost":
            path.unlink()
        case "flipped":
            flip(path, 20)
        case "cut":
            path.write_bytes(path.read_bytes()[:10])


def artifacts_of(home: WriterHome | NodeHome) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.residence.artifacts.iterdir()}


def ask(node: NodeHome, text: str = "unique7") -> str:
    return node.query(node.reader(), Request(text=text, mode="lexical")).hits[0].id


def test_the_large_artifact_survives_two_of_twelve_and_every_other_one(
    manifest: GenerationManifest,
) -> None:
    cuts = {a.name: (a.symbols.k, a.symbols.m) for a in manifest.artifacts}
    assert cuts["vectors/000000000000.usearch"] == (10, 12)
    assert set(cuts.values()) >= {(1, 2), (5, 6), (10, 12)}


def test_a_healthy_store_gives_the_writers_bytes_and_repairs_nothing(
    writer: WriterHome, manifest: GenerationManifest
) -> None:
    node = new_node(writer, "healthy")
    brought = node.bootstrap().brought
    assert artifacts_of(node) == artifacts_of(writer)
    assert brought.tally.fetched_bytes > brought.plan.fetch_bytes
    assert (brought.tally.damaged_symbols, brought.tally.repaired_chunks) == (0, 0)
    assert brought.plan.fetch_bytes == manifest.size_bytes
    again = node.bootstrap().brought
    assert (again.tally, again.plan.fetch) == (FetchTally(), ())
    assert again.plan.reuse_bytes == manifest.size_bytes


@pytest.mark.parametrize("how", ["lost", "flipped", "cut"])
@pytest.mark.parametrize("seed", [1, 2])
def test_row_29_every_artifact_damaged_as_far_as_it_survives_is_repaired(
    copied: WriterHome, manifest: GenerationManifest, how: str, seed: int
) -> None:
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)
    repaired = 0
    for artifact in manifest.artifacts:
        k, m = artifact.symbols.k, artifact.symbols.m
        numbers = chance.sample(range(m), m - k)
        repaired += any(number < k for number in numbers)
        for number in numbers:
            damage(symbol_path(copied, artifact, number), how)
    node = new_node(copied)
    report = node.bootstrap()
    assert report.activated
    assert artifacts_of(node) == artifacts_of(copied)
    assert report.brought.tally.repaired_artifacts == repaired > 0
    assert ask(node) == "d7"


def test_row_30_one_symbol_more_is_unrepairable_and_the_active_generation_answers(
    copied: WriterHome, manifest: GenerationManifest
) -> None:
    node = new_node(copied)
    node.bootstrap()
    before = node.pointer()
    add(copied, upserts([5000]))
    latest = copied.built()[-1]
    known = {artifact.blake3 for artifact in manifest.artifacts}
    new = [artifact for artifact in latest.artifacts if artifact.blake3 not in known]
    assert new
    assert len(new) < len(latest.artifacts)
    for artifact in new:
        # What a failed attempt fetched is kept, so each attempt is a node's first.
        shutil.copytree(node.home, node.home / f"../without-{artifact.blake3}")
        behind = NodeHome(node.home / f"../without-{artifact.blake3}")
        paths = [symbol_path(copied, artifact, number) for number in range(artifact.symbols.m)]
        bodies = [path.read_bytes() for path in paths]
        for path in paths[: artifact.symbols.m - artifact.symbols.k + 1]:
            path.write_bytes(b"<html>an error page</html>")
        with pytest.raises(Unrepairable) as caught:
            behind.bootstrap()
        assert caught.value.facts["artifact"] == artifact.name
        assert behind.pointer() == before
        assert ask(NodeHome(behind.home)) == "d7"
        assert behind.residence.resident_ids() == [before.active.generation_id]
        for path, body in zip(paths, bodies, strict=True):
            path.write_bytes(body)
    assert node.bootstrap().activated
    assert ask(node, "unique5000") == "d5000"


def test_row_30_a_store_without_any_symbol_changes_nothing(copied: WriterHome) -> None:
    node = new_node(copied)
    shutil.rmtree(Path(copied.settings.stores[0]) / "symbols")
    with pytest.raises(Unrepairable):
        node.bootstrap()
    assert node.residence.resident_ids() == []
    assert list(node.residence.artifacts.iterdir()) == []


def test_row_33_rot_in_the_active_artifacts_is_repaired_by_the_next_bootstrap(
    copied: WriterHome, manifest: GenerationManifest
) -> None:
    node = new_node(copied)
    node.bootstrap()
    folder = node.residence.folder(manifest.generation_id)
    for artifact in manifest.artifacts:
        flip(folder / artifact.name, artifact.size_bytes // 2)
        report = node.bootstrap()
        assert [each.name for each in report.brought.plan.fetch] == [artifact.name]
        assert artifacts_of(node) == artifacts_of(copied)
        assert ask(NodeHome(node.home)) == "d7"


def test_a_store_that_lost_too_much_is_mended_by_publishing_again(
    copied: WriterHome, manifest: GenerationManifest
) -> None:
    paths = [
        symbol_path(copied, artifact, number)
        for artifact in manifest.artifacts
        for number in range(artifact.symbols.m)
    ]
    whole = [path.read_bytes() for path in paths]
    hows = ("lost", "flipped", "cut")
    for number, path in enumerate(paths):
        damage(path, hows[number % 3])
    node = new_node(copied)
    with pytest.raises(Unrepairable):
        node.bootstrap()
    (report,) = copied.publish(manifest.generation_id)
    assert report.already_published
    assert report.uploaded_objects == len(paths)
    assert [path.read_bytes() for path in paths] == whole
    assert node.bootstrap().activated
    (report,) = copied.publish(manifest.generation_id)
    assert report.uploaded_objects == 0


def test_a_damaged_manifest_on_the_node_is_renewed_by_the_next_bootstrap(
    copied: WriterHome, manifest: GenerationManifest
) -> None:
    node = new_node(copied)
    node.bootstrap()
    path = node.residence.generations / manifest.generation_id / "manifest.json"
    whole = path.read_bytes()
    flip(path, 100)
    with pytest.raises(ManifestHashMismatch):
        ask(NodeHome(node.home))
    node.bootstrap()
    assert path.read_bytes() == whole
    assert ask(NodeHome(node.home)) == "d7"


def test_row_62_a_damaged_file_of_the_active_generation_is_refused_at_the_first_query(
    copied: WriterHome, manifest: GenerationManifest
) -> None:
    node = new_node(copied)
    node.bootstrap()
    flip(node.residence.folder(manifest.generation_id) / "lexical/meta.json", 3)
    with pytest.raises(ArtifactHashMismatch):
        ask(NodeHome(node.home))
