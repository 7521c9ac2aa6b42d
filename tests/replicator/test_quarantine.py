"""What a node refuses is remembered by its content; rows 1 to 7, 24 and 32 of the fault table."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.node import NodeHome
from controller.node_status import status_of
from durable.bulk_file import BulkFile
from manifests.canonical import to_canonical
from manifests.errors import (
    ArtifactHashMismatch,
    BadSymbolSet,
    CommitRangeGap,
    GenctlError,
    ManifestHashMismatch,
    ManifestIdentityMismatch,
    ManifestIncomplete,
    ManifestLengthMismatch,
    ManifestMalformed,
    QuarantineCorrupt,
    SchemaTooNew,
    UnsafeArtifactName,
)
from manifests.generation import SCHEMA_VERSION, GenerationManifest, HeadsArtifact, parse_manifest
from manifests.identifiers import content_id
from manifests.record import GenerationEntry, entry_of
from replicator.quarantine import Quarantine
from symbols.geometry import describe
from tests.replicator.careless import (
    edited,
    newest,
    resealed,
    sign,
    with_other_symbols,
)
from tests.replicator.encoded import encoded_artifact, fetch_from
from tests.support.corpus import upserts
from tests.support.homes import TestableWriter, add, make_node, make_writer, new_node
from tests.support.watching import Events, asking, hearing

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
EVENT = "generation_quarantined"
ONE, TWO = content_id(b"one"), content_id(b"two")


@dataclass
class World:
    """A writer that released commits 1 and 2-3; a node that serves the first, and its events."""

    writer: TestableWriter
    node: NodeHome
    events: Events

    @property
    def store(self) -> Path:
        return Path(self.writer.settings.stores[0])

    @property
    def manifest_file(self) -> Path:
        """The store's copy of the newest generation's manifest, as the writer made it."""
        (path,) = (self.store / "targets/manifests").glob("*.g000000000003-*.json")
        return path

    def loses(self, *folders: str) -> None:
        """Take these out of the store: who asks for something there misses it."""
        for folder in folders:
            shutil.rmtree(self.store / folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    writer = make_writer(folder)
    add(writer, upserts(range(5)))
    make_node(writer)
    add(writer, upserts(range(5, 9)), commits=2)
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Iterator[World]:
    # Homes know their store by its path: each test has the folder to itself, and puts it back.
    shutil.copytree(made, tmp_path / "saved", symlinks=True)
    with hearing() as events:
        yield World(TestableWriter(made / "writer"), NodeHome(made / "node"), events)
    shutil.rmtree(made)
    shutil.copytree(tmp_path / "saved", made, symlinks=True)


def refused(world: World, error: type[GenctlError]) -> GenctlError:
    """A bootstrap is refused so while a reader goes on; pointer and resident files stay."""
    node = NodeHome(world.node.home)
    before, resident = node.pointer(), node.residence.resident_ids()
    with asking(node, "unique3") as answers, pytest.raises(error) as caught:
        node.bootstrap()
    assert caught.value.name == error.__name__
    assert set(answers) == {"d3"}
    assert NodeHome(node.home).pointer() == before
    assert node.residence.resident_ids() == resident
    return caught.value


def check_remembered(world: World, error: GenctlError, content_hash: str) -> None:
    """It is in quarantine, whoever asks, and was told once as critical."""
    (entry,) = Quarantine(world.node.home).entries()
    assert (entry.content_hash, entry.error, entry.seen) == (content_hash, error.name, 1)
    assert status_of(NodeHome(world.node.home))["quarantined"] == 1
    (facts,) = world.events.of(EVENT)
    assert facts["content_hash"] == content_hash
    assert facts["error"] == error.name
    assert facts["severity"] == "critical"
    assert facts["message"]
    assert facts["kept"] is True


UNSIGNED_BYTES: list[tuple[str, Callable[[bytes], bytes], type[GenctlError]]] = [
    ("row 1 a bit", lambda data: bytes([data[0] ^ 1]) + data[1:], ManifestHashMismatch),
    ("row 1 zeros", lambda data: b"\0" * len(data), ManifestHashMismatch),
    ("row 2 empty", lambda _: b"", ManifestLengthMismatch),
    ("row 2 cut", lambda data: data[:-1], ManifestLengthMismatch),
    ("row 2 longer", lambda data: data + b"\n", ManifestLengthMismatch),
    (
        "row 3 a duplicate key",
        lambda data: data.replace(b'"low_seq":2', b'"low_seq":2,"low_seq":2'),
        ManifestLengthMismatch,
    ),
    ("row 3 not UTF-8", lambda data: b"\xff" * len(data), ManifestHashMismatch),
]


@pytest.mark.parametrize(
    ("damage", "error"), [case[1:] for case in UNSIGNED_BYTES], ids=[c[0] for c in UNSIGNED_BYTES]
)
def test_rows_1_to_3_wrong_bytes_are_told_of_once_and_do_not_keep_the_right_ones_out(
    world: World, damage: Callable[[bytes], bytes], error: type[GenctlError]
) -> None:
    path = world.manifest_file
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    refusal = refused(world, error)
    # No more than a byte beyond the signed length is read, of however long a body.
    content_hash = content_id(damage(whole)[: len(whole) + 1])
    assert refusal.facts["content_hash"] == content_hash
    check_remembered(world, refusal, content_hash)
    refused(world, error)
    (entry,) = Quarantine(world.node.home).entries()
    assert entry.seen == 2
    assert entry.first_seen <= entry.last_seen
    assert len(world.events.of(EVENT)) == 1
    path.write_bytes(whole)
    assert NodeHome(world.node.home).bootstrap().activated
    assert Quarantine(world.node.home).clear(content_hash) == (entry,)
    assert status_of(NodeHome(world.node.home))["quarantined"] == 0


Lie = Callable[[TestableWriter], tuple[GenerationEntry, bytes]]
"""What a record says of the newest generation, and the bytes that it vouches for."""


def sealed_lie(**changes: object) -> Lie:
    """A manifest with other fields, under the entry that goes with it, or that of its original."""

    def make(writer: TestableWriter) -> tuple[GenerationEntry, bytes]:
        manifest = resealed(newest(writer), **changes)
        return entry_of(manifest, to_canonical(manifest)), to_canonical(manifest)

    return make


def lie(change: Callable[[GenerationManifest], bytes]) -> Lie:
    """Other bytes, under the entry of the newest generation."""

    def make(writer: TestableWriter) -> tuple[GenerationEntry, bytes]:
        manifest = newest(writer)
        return entry_of(manifest, to_canonical(manifest)), change(manifest)

    return make


def replaced(old: bytes, new: bytes) -> Lie:
    def change(manifest: GenerationManifest) -> bytes:
        data = to_canonical(manifest)
        assert old in data
        return data.replace(old, new)

    return lie(change)


def named(name: str) -> Lie:
    """The first artifact has this name."""
    return lie(lambda found: edited(found, lambda d: d["artifacts"][0].update(name=name)))


def without(name: str) -> Lie:
    def make(writer: TestableWriter) -> tuple[GenerationEntry, bytes]:
        left = tuple(each for each in newest(writer).artifacts if not each.name.startswith(name))
        assert len(left) < len(newest(writer).artifacts)
        return sealed_lie(artifacts=left)(writer)

    return make


def with_twice_the_heads(writer: TestableWriter) -> tuple[GenerationEntry, bytes]:
    artifacts = newest(writer).artifacts
    head = next(each for each in artifacts if isinstance(each, HeadsArtifact))
    more = head.model_copy(update={"name": f"{head.name}.more"})
    return sealed_lie(artifacts=tuple(sorted((*artifacts, more), key=lambda a: a.name)))(writer)


def with_impossible_symbols(writer: TestableWriter) -> tuple[GenerationEntry, bytes]:
    first, *others = newest(writer).artifacts
    symbols = first.symbols.model_copy(update={"symbol_size_bytes": 1})
    return sealed_lie(artifacts=(first.model_copy(update={"symbols": symbols}), *others))(writer)


def of_commits(**changes: object) -> Lie:
    """A manifest of other commits than the record, which has 2 to 3, says."""

    def make(writer: TestableWriter) -> tuple[GenerationEntry, bytes]:
        commits = newest(writer).commits
        entry, data = sealed_lie(commits=commits.model_copy(update=changes))(writer)
        told = {"low_seq": commits.low_seq, "parent_generation_id": commits.parent_generation_id}
        return entry.model_copy(update=told), data

    return make


SIGNED_LIES: list[tuple[str, Lie, type[GenctlError]]] = [
    ("3 duplicate key", replaced(b'"low_seq":2', b'"low_seq":2,"low_seq":2'), ManifestMalformed),
    ("3 NaN", replaced(b'"low_seq":2', b'"low_seq":NaN'), ManifestMalformed),
    ("3 nesting", replaced(b'"low_seq":2', b'"low_seq":' + b"[" * 5000), ManifestMalformed),
    ("3 not UTF-8", replaced(b'"shard":"main"', b'"shard":"\xff\xfe"'), ManifestMalformed),
    ("3 surrogate", replaced(b'"main"', b'"main","\\ud800":1,"\\ud800":1'), ManifestMalformed),
    ("3 a letter", lie(lambda _: b"x"), ManifestMalformed),
    ("3 impossible symbols", with_impossible_symbols, ManifestMalformed),
    (
        "5 not its own id",
        lie(lambda found: edited(found, lambda d: d.update(built_at="then"))),
        ManifestIdentityMismatch,
    ),
    (
        "5 another generation",
        lie(lambda found: to_canonical(resealed(found, built_at="then"))),
        ManifestIdentityMismatch,
    ),
    ("5 another shard", sealed_lie(shard="other"), ManifestIdentityMismatch),
    ("6 no artifact", sealed_lie(artifacts=()), ManifestIncomplete),
    ("6 no vectors", without("vectors/"), ManifestIncomplete),
    ("6 no text index", without("lexical/meta.json"), ManifestIncomplete),
    ("6 heads twice", with_twice_the_heads, ManifestIncomplete),
    ("7 a gap", of_commits(low_seq=3), CommitRangeGap),
    ("7 an overlap", of_commits(low_seq=1, parent_generation_id=None), CommitRangeGap),
    ("24 dots", named("../../trust/root.json"), UnsafeArtifactName),
    ("24 absolute", named("/etc/passwd"), UnsafeArtifactName),
    ("24 NUL", named("lexical/a\0b"), UnsafeArtifactName),
    ("24 reserved", named("lexical/con.idx"), UnsafeArtifactName),
]


@pytest.mark.parametrize(
    ("make", "error"),
    [case[1:] for case in SIGNED_LIES],
    ids=[f"row {case[0]}" for case in SIGNED_LIES],
)
def test_rows_3_5_6_7_and_24_a_signed_manifest_that_cannot_be_is_not_fetched_again(
    world: World, make: Lie, error: type[GenctlError]
) -> None:
    entry, data = make(world.writer)
    sign(world.writer, entry, data)
    check_kept_out(world, error, content_id(data), "targets/manifests", "symbols")


def test_row_4_a_newer_schema_is_told_of_once_and_looked_at_again_each_time(world: World) -> None:
    manifest = newest(world.writer)
    data = edited(manifest, lambda d: d.update(schema_version=SCHEMA_VERSION + 1))
    sign(world.writer, entry_of(manifest, to_canonical(manifest)), data)
    refusal = refused(world, SchemaTooNew)
    assert refusal.facts["found_version"] == SCHEMA_VERSION + 1
    assert refusal.facts["known_version"] == SCHEMA_VERSION
    check_remembered(world, refusal, content_id(data))
    refused(world, SchemaTooNew)
    (entry,) = Quarantine(world.node.home).entries()
    assert (entry.seen, entry.is_refused) == (2, False)
    assert len(world.events.of(EVENT)) == 1
    world.node.quarantine.refuse([content_id(data)])


def check_kept_out(world: World, error: type[GenctlError], content_hash: str, *lost: str) -> None:
    """Refused, remembered, refused again without a look at the store; cleared, looked at again."""
    refusal = refused(world, error)
    check_remembered(world, refusal, content_hash)
    world.loses(*lost)
    again = refused(world, error)
    assert again.facts["quarantined"] == content_hash
    assert f"genctl node quarantine clear {world.node.home} {content_hash[:12]}" in again.message
    assert len(world.events.of(EVENT)) == 1
    (entry,) = Quarantine(world.node.home).entries()
    assert entry.seen == 1
    assert Quarantine(world.node.home).clear(content_hash) == (entry,)
    with pytest.raises(GenctlError) as caught:
        NodeHome(world.node.home).bootstrap()
    assert "quarantined" not in caught.value.facts


@pytest.mark.parametrize(("kept", "size_bytes"), [("heads/", 700), ("lexical/", 70_000)])
def test_row_32_an_artifact_that_its_signed_symbols_are_not_of_is_not_fetched_again(
    world: World, tmp_path: Path, kept: str, size_bytes: int
) -> None:
    manifest = newest(world.writer)
    resident = newest_at(world.node).artifacts
    new = [each for each in manifest.artifacts if each not in resident]
    chosen = next(each for each in new if each.name.startswith(kept))
    other = random.Random(32).randbytes(size_bytes)
    forged = with_other_symbols(world.writer, tmp_path, chosen, other)
    artifacts = tuple(forged if each is chosen else each for each in manifest.artifacts)
    entry, data = sealed_lie(artifacts=artifacts)(world.writer)
    sign(world.writer, entry, data)
    refusal = refused(world, ArtifactHashMismatch)
    assert refusal.facts["artifact"] == chosen.name
    assert refusal.facts["sources"] == str(world.store)
    check_remembered(world, refusal, chosen.blake3)
    (remembered,) = Quarantine(world.node.home).entries()
    assert remembered.facts["sources"] == str(world.store)
    assert not (world.node.home / "incoming" / chosen.blake3).exists()
    assert not world.node.residence.artifact_path(chosen.blake3).exists()
    Quarantine(world.node.home).clear()
    world.events.told.clear()
    check_kept_out(world, ArtifactHashMismatch, chosen.blake3, "symbols")


def newest_at(node: NodeHome) -> GenerationManifest:
    (resident,) = node.residence.resident_ids()
    return parse_manifest(node.residence.manifest_bytes(resident))


def test_row_32_what_is_here_and_intact_is_served_whatever_is_in_quarantine(world: World) -> None:
    for artifact in newest_at(world.node).artifacts:
        Quarantine(world.node.home).add(artifact.blake3, "ArtifactHashMismatch", "no", NOW)
    refused_names = {each.blake3 for each in newest_at(world.node).artifacts}
    assert refused_names
    node = NodeHome(world.node.home)
    assert node.bootstrap().activated
    assert node.pointer().active.high_seq == 3


def test_row_31_symbols_of_two_artifacts_under_one_signed_table_are_divergent(
    tmp_path: Path,
) -> None:
    for name in ("one", "two", "node"):
        (tmp_path / name).mkdir()
    one = encoded_artifact(tmp_path / "one", 50_000, 5, 6, seed=1)
    two = encoded_artifact(tmp_path / "two", 50_000, 5, 6, seed=2)
    table_of_five = one.geometry.table_offset(5, 0)
    table = one.objects[0][-one.geometry.table_size_bytes :][:table_of_five]
    table += two.objects[0][-two.geometry.table_size_bytes :][table_of_five:]
    bodies = [*one.objects[:5], two.objects[5]]
    mixed = one.store(
        {number: body[: -len(table)] + table for number, body in enumerate(bodies) if number != 2}
        | {2: None}
    )
    artifact = one.artifact.model_copy(update={"symbols": describe(one.geometry, table)})
    with pytest.raises(BadSymbolSet) as caught:
        fetch_from(artifact, tmp_path / "node", [mixed])
    assert caught.value.facts["content_hash"] == artifact.blake3
    assert list((tmp_path / "node/incoming").iterdir()) == []


def test_a_fault_of_the_disk_is_not_taken_for_the_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node").mkdir()
    one = encoded_artifact(tmp_path, 50_000, 5, 6)
    finish = BulkFile.finish

    def finish_and_rot(file: BulkFile, size_bytes: int) -> None:
        file.patch(20_000, b"rot")
        finish(file, size_bytes)

    monkeypatch.setattr(BulkFile, "finish", finish_and_rot)
    with pytest.raises(ArtifactHashMismatch) as caught:
        fetch_from(one.artifact, tmp_path / "node", [one.store({3: None})])
    assert "content_hash" not in caught.value.facts


def test_the_right_bytes_of_one_manifest_offered_for_another_are_not_kept_out(
    world: World,
) -> None:
    """Whoever writes to the store cannot have a good manifest refused by showing it too early."""
    record = world.writer.current().signed.record
    first, second = record.published
    (early,) = (world.store / "targets/manifests").glob(f"*.{first.generation_id}.json")
    whole = early.read_bytes()
    early.write_bytes(world.manifest_file.read_bytes())
    fresh = new_node(world.writer, "fresh")
    world.writer.rollback(first.generation_id, "a test")
    with pytest.raises(ManifestLengthMismatch):
        fresh.bootstrap()
    (entry,) = fresh.quarantine.entries()
    assert not entry.is_refused
    early.write_bytes(whole)
    world.writer.activate(second.generation_id)
    assert fresh.bootstrap().pointer.active == second


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b"[]", b"{" * 100_000])
def test_a_damaged_file_stops_fetching_by_name_and_neither_serving_nor_status(
    world: World, damage: bytes
) -> None:
    node = NodeHome(world.node.home)
    node.quarantine.add(ONE, "ManifestIncomplete", "no", NOW)
    path = node.home / "quarantine.json"
    path.write_bytes(damage)
    error = refused(world, QuarantineCorrupt)
    assert error.runbook == "divergence"
    assert "genctl node quarantine clear" in error.message
    assert path.read_bytes() == damage
    status = status_of(node)
    assert status["quarantined"] is None
    assert status["quarantine_damage"] == error.message
    assert node.quarantine.add(TWO, "ForkDetected", "two of them", NOW), "told, though not kept"
    assert world.events.of(EVENT)[-1]["kept"] is False
    with pytest.raises(QuarantineCorrupt):
        node.quarantine.clear(ONE)
    assert node.quarantine.clear() == ()
    assert node.bootstrap().activated
