"""Symbols are sent several at a time, each checked just before, and none after a failure."""

from __future__ import annotations

import base64
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from builder.publish import UPLOADS_AT_ONCE, WAITING_UPLOADS
from controller.writer_scrub import scrub as scrub_stores
from manifests.errors import ArtifactHashMismatch, StoreUnavailable
from manifests.generation import Artifact
from store.port import ObjectInfo
from tests.replicator.transfers import guarded
from tests.support.corpus import upserts
from tests.support.faulty_store import FaultyStore
from tests.support.homes import TestableWriter, built, flip, make_node, make_writer, store_of

MIB = 1 << 20


class WatchedStore(FaultyStore):
    """Counts the symbols that are being put, and can hold them back until several are."""

    def __init__(self, writer: TestableWriter, together: int = 1) -> None:
        super().__init__(store_of(writer))
        self._together = threading.Barrier(together)
        self._counting = threading.Lock()
        self._at_once = 0
        self.begun = 0
        self.most_at_once = 0

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        if not key.startswith("symbols/"):
            return super().put_if_absent(key, parts)
        with self._counting:
            self.begun += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self._together.wait(timeout=60)
            return super().put_if_absent(key, parts)
        finally:
            with self._counting:
                self._at_once -= 1


def assert_a_node_gets_it(writer: TestableWriter) -> None:
    latest = writer.built()[-1]
    writer.activate(latest.generation_id)
    assert make_node(writer).pointer().active.generation_id == latest.generation_id


@pytest.fixture
def large(tmp_path: Path) -> tuple[TestableWriter, Artifact]:
    """A built generation with one artifact of ten source and two repair symbols."""
    writer = make_writer(tmp_path)
    payload = base64.b64encode(random.Random(1).randbytes(MIB)).decode()
    manifest = built(writer, [{"id": "large", "text": "large", "fields": {"payload": payload}}])
    artifact = max(manifest.artifacts, key=lambda each: each.size_bytes)
    assert artifact.symbols.m == 12
    return writer, artifact


def test_symbols_of_one_artifact_are_sent_at_the_same_time(
    large: tuple[TestableWriter, Artifact],
) -> None:
    writer, _ = large
    symbols = sum(artifact.symbols.m for artifact in writer.built()[0].artifacts)
    together = 4
    assert symbols % together == 0, "the last ones would wait for others that never come"
    writer.front = store = WatchedStore(writer, together)
    writer.publish(None)
    assert together <= store.most_at_once <= UPLOADS_AT_ONCE
    assert store.begun == symbols


def test_after_a_failure_no_other_upload_is_begun(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    for number in range(4):
        built(writer, upserts(range(10 * number, 10 * number + 10)))
    writer.publish(writer.built()[0].generation_id)
    generations = writer.built()[1:]
    symbols = sum(a.symbols.m for a in generations[0].artifacts)
    assert symbols > UPLOADS_AT_ONCE
    writer.front = store = WatchedStore(writer)
    store.fail_at = 0
    with pytest.raises(StoreUnavailable):
        writer.publish(None)
    assert store.begun <= UPLOADS_AT_ONCE + WAITING_UPLOADS
    writer.front = None
    assert len(writer.current().signed.record.published) == 1


def test_progress_comes_to_the_bytes_that_were_announced(
    large: tuple[TestableWriter, Artifact],
) -> None:
    writer, _ = large
    announced: list[int] = []
    seen: list[int] = []

    def on_start(size_bytes: int) -> Callable[[int], None]:
        announced.append(size_bytes)
        return seen.append

    writer.publish(None, on_start)
    assert announced == [sum(seen)]
    assert len(seen) == sum(artifact.symbols.m for artifact in writer.built()[0].artifacts)


@pytest.mark.parametrize("offset", [0, MIB])
def test_a_damaged_artifact_is_not_published(
    large: tuple[TestableWriter, Artifact], offset: int
) -> None:
    writer, artifact = large
    flip(writer.residence.artifact_path(artifact.blake3), offset)
    with pytest.raises(ArtifactHashMismatch):
        writer.publish(None)
    assert writer.current().signed.record.published == ()
    # What was sent of it before the damage was come upon is what was signed.
    flip(writer.residence.artifact_path(artifact.blake3), offset)
    writer.publish(None)
    assert_a_node_gets_it(writer)


def test_a_missing_or_cut_artifact_is_not_published(
    large: tuple[TestableWriter, Artifact],
) -> None:
    writer, artifact = large
    path = writer.residence.artifact_path(artifact.blake3)
    kept = path.rename(path.with_name("kept"))
    with pytest.raises(ArtifactHashMismatch):
        writer.publish(None)
    path.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(ArtifactHashMismatch):
        writer.publish(None)
    path.unlink()
    os.mkfifo(path)
    with guarded(), pytest.raises(ArtifactHashMismatch):
        writer.publish(None)
    assert writer.current().signed.record.published == ()


class Forgetful(FaultyStore):
    """A store that says of each symbol both that it is not there and that it is."""

    def stat(self, key: str) -> ObjectInfo | None:
        return None if key.startswith("symbols/") else super().stat(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return (found for found in super().list(prefix) if not found.key.startswith("symbols/"))


def test_a_store_that_contradicts_itself_is_not_called_whole(
    large: tuple[TestableWriter, Artifact],
) -> None:
    writer, _ = large
    writer.publish(None)
    writer.front = Forgetful(store_of(writer))
    with pytest.raises(StoreUnavailable, match="because it is there"):
        writer.publish(None)
    with pytest.raises(StoreUnavailable, match="because it is there"):
        scrub_stores(writer, lambda _: lambda _: None)


@pytest.mark.parametrize("name", ["10", "11", "table"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "pipe"])
def test_damaged_repair_symbols_are_made_again(
    large: tuple[TestableWriter, Artifact], name: str, damage: str
) -> None:
    writer, artifact = large
    path = writer.home / "symbols" / artifact.blake3 / name
    if damage == "flip":
        flip(path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
        if damage == "pipe":
            os.mkfifo(path)
    with guarded():
        writer.publish(None)
    # Published again, the store is compared with symbols made anew, byte by byte.
    (report,) = writer.publish(None)
    assert report.already_published
    assert report.uploaded_objects == 0
    assert_a_node_gets_it(writer)
