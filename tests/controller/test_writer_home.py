"""What a writer's home promises beyond its parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from controller.new_home import init_home
from manifests.errors import CommitRangeGap, HomeMissing, HomeOccupied, ObjectMissing
from manifests.generation import VectorArtifact
from manifests.names import manifest_target, symbol_key, target_key
from manifests.record_changes import is_rolled_back
from tests.support.homes import TestableWriter, add, built, commit, flip, make_node, make_writer

FOX = {"id": "fox", "text": "a fox"}
OWL = {"id": "owl", "text": "an owl"}


@pytest.fixture
def writer(tmp_path: Path) -> TestableWriter:
    return make_writer(tmp_path)


def test_a_rollback_for_the_same_reason_is_the_same_rollback(writer: TestableWriter) -> None:
    first, _, third = (add(writer, [{"id": str(n), "text": "word"}]) for n in range(3))
    second = writer.rollback(None, "bad words")
    assert writer.rollback(None, "bad words") == second
    assert writer.current().signed.record.active == second != third.generation_id
    assert writer.rollback(None, "still bad") == first.generation_id


def test_a_rollback_is_known_until_something_newer_is_published(writer: TestableWriter) -> None:
    add(writer, [FOX])
    second = add(writer, [OWL])
    assert not is_rolled_back(writer.current().signed.record, second.generation_id)
    writer.rollback(None, "no owls")
    assert is_rolled_back(writer.current().signed.record, second.generation_id)
    add(writer, [{"id": "bee", "text": "a bee"}])
    assert not is_rolled_back(writer.current().signed.record, second.generation_id)


def test_publishing_again_mends_what_the_store_lost_or_damaged(writer: TestableWriter) -> None:
    entry = add(writer, [FOX, OWL])
    store = Path(writer.settings.stores[0])
    manifest = writer.manifest(entry.generation_id)
    lost, bent, *_ = manifest.artifacts
    for number in range(2):
        (store / symbol_key(lost.blake3, number)).unlink()
        flip(store / symbol_key(bent.blake3, number), 3)
    path = manifest_target(entry.generation_id)
    target = writer.current().signed.targets.targets[path]
    (store / target_key(path, target.hashes["sha256"])).unlink()

    (report,) = writer.publish(entry.generation_id)
    assert report.already_published
    assert report.uploaded_objects == 4
    assert make_node(writer).pointer().active == entry
    (again,) = writer.publish(entry.generation_id)
    assert again.uploaded_objects == 0


def test_a_log_that_the_latest_generation_was_not_built_from_is_refused(
    writer: TestableWriter,
) -> None:
    add(writer, [FOX])
    shutil.rmtree(writer.home / "log")
    commit(writer, [OWL])
    with pytest.raises(CommitRangeGap, match="lost, cut or replaced"):
        writer.build()


def test_init_again_takes_the_root_that_the_store_has(writer: TestableWriter) -> None:
    root = (writer.home / "root.json").read_bytes()
    (writer.home / "root.json").unlink()
    assert not init_home(writer.home, writer.settings)
    assert (writer.home / "root.json").read_bytes() == root


def test_a_store_that_lost_its_record_is_not_given_an_empty_one(writer: TestableWriter) -> None:
    add(writer, [FOX])
    timestamp = Path(writer.settings.stores[0]) / "metadata" / "timestamp.json"
    timestamp.unlink()
    with pytest.raises(ObjectMissing):
        init_home(writer.home, writer.settings)
    assert not timestamp.exists()


def test_a_home_whose_init_was_refused_takes_no_documents_until_it_is_finished(
    tmp_path: Path,
) -> None:
    taken = make_writer(tmp_path / "taken")
    wanted = taken.settings.model_copy(update={"shard": "other"})
    with pytest.raises(HomeOccupied):
        init_home(tmp_path / "home", wanted)
    refused = TestableWriter(tmp_path / "home")
    for attempt in (lambda: commit(refused, [FOX]), refused.build):
        with pytest.raises(HomeMissing, match="init` was refused"):
            attempt()
    free = wanted.model_copy(update={"stores": (str(tmp_path / "free"),)})
    assert init_home(refused.home, free)
    home = TestableWriter(refused.home)
    entry = add(home, [FOX])
    assert home.current().signed.record.active == entry.generation_id


def test_what_was_built_before_the_first_record_was_signed_does_not_stop_init(
    writer: TestableWriter,
) -> None:
    commit(writer, [FOX])
    writer.build()
    shutil.rmtree(writer.settings.stores[0])
    writer.signed_last.path.unlink()  # as if init had been stopped before it signed
    assert init_home(writer.home, writer.settings)
    writer.publish(writer.built()[-1].generation_id)


def test_refreshing_signs_the_same_record_anew(writer: TestableWriter) -> None:
    add(writer, [FOX])
    before = writer.current().signed
    after = writer.refresh().signed
    assert after.record == before.record
    assert after.timestamp.version == before.timestamp.version + 1


def test_many_new_vectors_make_two_shards_and_the_same_ones_the_same_files(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    documents = [
        {"id": f"d{n}", "vector": vector.tolist()}
        for n, vector in enumerate(random.standard_normal((2_001, 8)))
    ]
    ids = []
    homes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        home = make_writer(tmp_path / name, embedder="precomputed", dimensions=8)
        homes.append(home)
        shards = built(home, documents).of_kind(VectorArtifact)
        assert [(shard.first_row, shard.vectors) for shard in shards] == [
            (0, 1_001),
            (1_001, 1_000),
        ]
        ids.append([shard.blake3 for shard in shards])
    assert ids[0] == ids[1]
    assert len(built(homes[0], documents[:2_000]).of_kind(VectorArtifact)) == 3
