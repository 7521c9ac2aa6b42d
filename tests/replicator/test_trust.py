"""What a node refuses to believe; whatever it refuses, it goes on serving what it had."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Timestamp
from tuf.api.serialization.json import JSONSerializer

from builder.keys import ROOT, TARGETS, load_key_file, no_passphrase
from controller import clock
from controller.new_node import open_node
from controller.node import NodeHome
from controller.writer import WriterHome
from manifests.errors import (
    FreezeSuspected,
    GenctlError,
    ManifestHashMismatch,
    ManifestLengthMismatch,
    MetadataRollback,
    NothingPublished,
    ObjectMissing,
    StoreUnavailable,
    TrustError,
    TrustStateCorrupt,
    UnsignedRecord,
)
from query.request import Request
from tests.support.corpus import upserts
from tests.support.homes import TestableWriter, add, flip, make_node, make_writer, new_node


@dataclass
class World:
    """A writer that released two generations, a node that serves the first, the first's store."""

    writer: TestableWriter
    node: NodeHome
    store: Path
    old_store: Path

    @property
    def metadata(self) -> Path:
        return self.store / "metadata"

    def newest(self, role: str) -> Path:
        """The store's file of a versioned role."""
        versions = [int(path.name.split(".")[0]) for path in self.metadata.glob(f"*.{role}.json")]
        return self.metadata / f"{max(versions)}.{role}.json"

    def restore_old_store(self) -> None:
        shutil.rmtree(self.store)
        shutil.copytree(self.old_store, self.store)


@pytest.fixture
def world(tmp_path: Path) -> World:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(5)))
    node = make_node(writer)
    shutil.copytree(tmp_path / "store", tmp_path / "old-store")
    add(writer, upserts(range(5, 9)))
    return World(writer, node, tmp_path / "store", tmp_path / "old-store")


def refused(node: NodeHome, error: type[GenctlError]) -> GenctlError:
    """Bootstrap is refused with ``error``; pointer and answers are what they were."""
    before = node.pointer()
    with pytest.raises(error) as caught:
        node.bootstrap()
    assert caught.value.name == error.__name__
    assert NodeHome(node.home).pointer() == before
    answer = NodeHome(node.home).query(node.reader(), Request(text="unique3", mode="lexical"))
    assert answer.generation_id == before.active.generation_id
    assert answer.hits[0].id == "d3"
    return caught.value


def sign(metadata: Metadata[Timestamp], *signers: CryptoSigner) -> bytes:
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))


def test_a_healthy_store_is_believed(world: World) -> None:
    assert world.node.bootstrap().activated


def test_a_record_is_remembered_and_read_again_without_the_store(world: World) -> None:
    shutil.rmtree(world.store)
    record = NodeHome(world.node.home).record()
    assert record.active == world.node.pointer().active.generation_id


def test_row_9_a_timestamp_of_an_unknown_key_is_unsigned(world: World) -> None:
    path = world.metadata / "timestamp.json"
    metadata = Metadata[Timestamp].from_bytes(path.read_bytes())
    path.write_bytes(sign(metadata, CryptoSigner.generate_ed25519()))
    refused(world.node, UnsignedRecord)


def test_row_9_a_timestamp_signed_by_another_role_is_unsigned(world: World) -> None:
    path = world.metadata / "timestamp.json"
    metadata = Metadata[Timestamp].from_bytes(path.read_bytes())
    keys = world.writer.home / "keys"
    held = [load_key_file(keys / f"{role}.pem", no_passphrase) for role in (TARGETS, ROOT)]
    path.write_bytes(sign(metadata, *held))
    refused(world.node, UnsignedRecord)


def test_row_9_a_timestamp_without_signatures_is_unsigned(world: World) -> None:
    path = world.metadata / "timestamp.json"
    path.write_bytes(sign(Metadata[Timestamp].from_bytes(path.read_bytes())))
    refused(world.node, UnsignedRecord)


def test_row_9_a_node_with_another_root_believes_nothing(world: World, tmp_path: Path) -> None:
    stranger = make_writer(tmp_path / "elsewhere")
    node = open_node(tmp_path / "stranger", [str(world.store)], stranger.home / "root.json")
    with pytest.raises(UnsignedRecord):
        node.bootstrap()
    with pytest.raises(NothingPublished):
        node.pointer()
    assert node.residence.resident_ids() == []


@pytest.mark.parametrize("root", [b"", b"{}", b"not json", b'{"signed":{},"signatures":[]}'])
def test_row_9_what_is_no_root_anchors_nothing(world: World, tmp_path: Path, root: bytes) -> None:
    (tmp_path / "root.json").write_bytes(root)
    with pytest.raises(UnsignedRecord):
        open_node(tmp_path / "new", [str(world.store)], tmp_path / "root.json")


def test_row_9_a_root_changed_by_one_byte_anchors_nothing(world: World, tmp_path: Path) -> None:
    data = (world.writer.home / "root.json").read_bytes()
    (tmp_path / "root.json").write_bytes(data.replace(b'"threshold":1', b'"threshold":2'))
    with pytest.raises(UnsignedRecord):
        open_node(tmp_path / "new", [str(world.store)], tmp_path / "root.json")


def test_no_changed_byte_of_any_signed_file_is_believed(world: World) -> None:
    files = [world.metadata / "timestamp.json", world.newest("snapshot"), world.newest("targets")]
    before = world.node.pointer()
    for path in files:
        size_bytes = path.stat().st_size
        for offset in range(0, size_bytes, max(1, size_bytes // 40)):
            flip(path, offset, 0x01)
            with pytest.raises(TrustError):
                world.node.bootstrap()
            flip(path, offset, 0x01)
    assert world.node.pointer() == before
    assert world.node.bootstrap().activated


def test_row_14_an_older_record_is_a_rollback(world: World) -> None:
    world.node.bootstrap()
    world.restore_old_store()
    refused(world.node, MetadataRollback)


def test_row_15_an_older_record_is_a_rollback_even_if_the_cache_was_lost(world: World) -> None:
    world.node.bootstrap()
    mark = (world.node.home / "trust/high_water.json").read_bytes()
    shutil.rmtree(world.node.home / "trust")
    (world.node.home / "trust").mkdir()
    (world.node.home / "trust/high_water.json").write_bytes(mark)
    world.restore_old_store()
    error = refused(world.node, MetadataRollback)
    assert error.facts["offered_version"] == 3
    assert error.facts["known_version"] == 5
    assert (world.node.home / "trust/high_water.json").read_bytes() == mark


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"schema_version":1,"snapshot":0}', b"\xff"])
def test_row_16_a_damaged_high_water_mark_stops_everything_but_serving(
    world: World, damage: bytes
) -> None:
    path = world.node.home / "trust/high_water.json"
    path.write_bytes(damage)
    refused(world.node, TrustStateCorrupt)
    assert path.read_bytes() == damage


def test_row_17_an_expired_record_is_a_freeze_and_the_next_signature_ends_it(world: World) -> None:
    current = world.writer.current()
    past = clock.now() - timedelta(days=30)
    world.writer.repository().commit(current, current.signed.record, past)
    error = refused(world.node, FreezeSuspected)
    assert error.runbook == "freeze"
    # The writer reads and replaces an expired record; only activation needs a fresh one.
    current = world.writer.current()
    world.writer.repository().commit(current, current.signed.record, clock.now())
    assert world.node.bootstrap().activated


def test_row_17_a_fresh_node_does_not_start_on_an_expired_record(world: World) -> None:
    current = world.writer.current()
    past = clock.now() - timedelta(days=30)
    world.writer.repository().commit(current, current.signed.record, past)
    node = new_node(world.writer, "fresh")
    with pytest.raises(FreezeSuspected):
        node.bootstrap()
    with pytest.raises(NothingPublished):
        node.pointer()


def test_row_18_old_targets_under_a_new_snapshot_are_refused(world: World) -> None:
    newest = world.newest("targets")
    newest.write_bytes((world.metadata / "3.targets.json").read_bytes())
    refused_kind(world, TrustError)


def test_row_18_an_old_snapshot_under_a_new_timestamp_is_refused(world: World) -> None:
    newest = world.newest("snapshot")
    newest.write_bytes((world.metadata / "3.snapshot.json").read_bytes())
    refused_kind(world, TrustError)


def test_row_13_another_roles_metadata_is_refused(world: World) -> None:
    timestamp = world.metadata / "timestamp.json"
    for other in (
        world.newest("snapshot"),
        world.newest("targets"),
        world.metadata / "1.root.json",
    ):
        timestamp.write_bytes(other.read_bytes())
        refused_kind(world, TrustError)


def refused_kind(world: World, kind: type[GenctlError]) -> None:
    before = world.node.pointer()
    with pytest.raises(kind):
        world.node.bootstrap()
    assert world.node.pointer() == before
    assert (
        world.node.query(world.node.reader(), Request(text="unique3", mode="lexical")).hits[0].id
        == "d3"
    )


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda _: b"", ManifestLengthMismatch),
        (lambda data: data[:-1], ManifestLengthMismatch),
        (lambda data: data + b"\n", ManifestLengthMismatch),
        (lambda data: data * 1000, ManifestLengthMismatch),
        (lambda data: b"\0" * len(data), ManifestHashMismatch),
        (lambda data: data.replace(b'"low_seq":2', b'"low_seq":1'), ManifestHashMismatch),
    ],
    ids=["empty", "cut", "longer", "much longer", "zeros", "edited"],
)
def test_row_1_row_2_a_manifest_that_the_store_changed_is_never_used(
    world: World, damage: Callable[[bytes], bytes], error: type[GenctlError]
) -> None:
    (path,) = (world.store / "targets/manifests").glob("*.g000000000002-*.json")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    refused(world.node, error)
    path.write_bytes(whole)
    assert world.node.bootstrap().activated


def test_row_52_a_manifest_that_the_store_lost_is_missing_until_it_is_published_again(
    world: World,
) -> None:
    (path,) = (world.store / "targets/manifests").glob("*.g000000000002-*.json")
    path.unlink()
    refused(world.node, ObjectMissing)
    world.writer.publish(None)
    assert world.node.bootstrap().activated


@pytest.mark.parametrize("name", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("data", [None, b"", b"{}", b"\xff" * 100])
def test_a_damaged_cache_is_said_to_be_corrupt_and_renewed_by_a_bootstrap(
    world: World, name: str, data: bytes | None
) -> None:
    path = world.node.home / f"trust/{name}.json"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(TrustStateCorrupt):
        world.node.record()
    assert (
        world.node.query(world.node.reader(), Request(text="unique3", mode="lexical")).hits[0].id
        == "d3"
    )
    assert world.node.bootstrap().activated
    assert world.node.record().active == world.node.pointer().active.generation_id


def test_row_22_a_rollback_takes_a_newer_record_that_says_so(world: World) -> None:
    world.node.bootstrap()
    newer = world.node.pointer().active
    world.writer.rollback(None, "wrong answers")
    world.node.bootstrap()
    assert world.node.pointer().active.high_seq == 1
    assert world.node.pointer().previous == newer
    assert world.node.record().kind == "rollback"


def test_a_store_that_is_not_there_changes_nothing(world: World) -> None:
    shutil.rmtree(world.store)
    refused(world.node, StoreUnavailable)


def test_a_home_that_released_nothing_is_nothing_published(tmp_path: Path) -> None:
    writer: WriterHome = make_writer(tmp_path)
    node = new_node(writer)
    with pytest.raises(NothingPublished):
        node.bootstrap()
