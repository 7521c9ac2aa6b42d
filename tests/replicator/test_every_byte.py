"""Every single-byte flip of what a node reads: refused by name, believed never; and row 62.

The files of a small generation lie in a store in memory. Each flip goes through the functions that
a bootstrap calls, and some of each kind through whole bootstraps of a node that serves an older
one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tantivy
import usearch.index
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization.json import JSONSerializer

from controller.new_node import open_node
from controller.node import NodeHome
from index import lexical, vector_shard
from manifests.errors import (
    ArtifactHashMismatch,
    GenctlError,
    ManifestHashMismatch,
    Unrepairable,
)
from manifests.generation import parse_manifest
from manifests.names import metadata_key
from query.request import Request
from replicator.bring import manifest_of
from replicator.trust import TrustedRecord, has_accepted
from store.memory import MemoryStore
from store.signed import trusted_root
from store.spread import SpreadStore
from tests.support.corpus import upserts
from tests.support.flips import MASKS, flips
from tests.support.homes import TestableWriter, add, flip, make_writer

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
METADATA = {
    "timestamp": "UnsignedRecord",
    "snapshot": "UnsignedRecord",
    "targets": "UnsignedRecord",
    "root": "BadRootRotation",
}
"""What each flip of a role's metadata in the store is refused as."""


class MemoryNode(NodeHome):
    """A node whose store is in memory."""

    front: MemoryStore

    def stores(self) -> SpreadStore:
        """The store in memory, whatever the settings name."""
        return SpreadStore([self.front])


@dataclass
class World:
    """A store in memory with two generations, and the home of a node that serves the first.

    The root that nodes are given has a successor there, which that node has not seen.
    """

    writer: TestableWriter
    store: MemoryStore
    served: Path

    def serving(self, name: str) -> MemoryNode:
        """A node that serves the first generation, and has not heard of anything later."""
        home = self.served.with_name(name)
        shutil.copytree(self.served, home)
        node = MemoryNode(home)
        node.front = self.store
        return node

    def fresh(self, name: str) -> MemoryNode:
        """A node that knows nothing but the first root."""
        return memory_node(self.writer, self.store, name)

    def body(self, key: str) -> bytes:
        return self.store._objects[key]

    def put(self, key: str, body: bytes) -> None:
        self.store._objects[key] = body

    def newest(self, role: str) -> str:
        """The key of a role's newest metadata file."""
        names = [key for key in self.store._objects if key.endswith(f".{role}.json")]
        return max(names, key=lambda key: int(key.split("/")[1].split(".")[0]))

    def manifest_key(self) -> str:
        (key,) = [key for key in self.store._objects if ".g000000000002-" in key]
        return key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory: a refusal is noted on the disk each time, thousands of times here."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path_factory.mktemp("world")
        return
    made = Path(tempfile.mkdtemp(prefix="genctl-", dir=memory))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    writer = make_writer(folder)
    add(writer, upserts(range(3)))
    store = MemoryStore()
    copy_into(store, folder / "store")
    serving = memory_node(writer, store, "serving")
    serving.bootstrap()
    add(writer, upserts(range(3, 5)))
    copy_into(store, folder / "store")
    put_next_root(writer, store)
    return World(writer, store, serving.home)


def copy_into(store: MemoryStore, folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            store._objects[path.relative_to(folder).as_posix()] = path.read_bytes()


def memory_node(writer: TestableWriter, store: MemoryStore, name: str) -> MemoryNode:
    home = writer.home.parent / name
    open_node(home, writer.settings.stores, writer.home / "root.json")
    node = MemoryNode(home)
    node.front = store
    return node


def put_next_root(writer: TestableWriter, store: MemoryStore) -> None:
    """The same keys and thresholds once more, as version 2."""
    root = Metadata[Root].from_bytes((writer.home / "root.json").read_bytes())
    pem = (writer.home / "keys/root.pem").read_bytes()
    root.signed.version = 2
    root.sign(CryptoSigner(load_pem_private_key(pem, None)))
    body = root.to_bytes(JSONSerializer(compact=True))
    store._objects[metadata_key("2.root.json")] = body


def some(whole: bytes) -> list[bytes]:
    """A few of the flips: at the start, in the middle, at the end."""
    every = list(flips(whole))
    size = len(whole)
    return [every[place] for place in (0, size // 2, size - 1, size, size * 3 // 2, 2 * size - 1)]


def refresh(node: MemoryNode) -> TrustedRecord:
    """What a bootstrap begins with."""
    return node.trust().refresh(node.stores())


def name_of_refusal(node: MemoryNode) -> str:
    try:
        refresh(node)
    except GenctlError as error:
        return error.name
    return "accepted"


def check_bootstraps(world: World, node: MemoryNode, key: str, name: str) -> None:
    """Whole bootstraps of a node that serves are refused so; it goes on as it was."""
    whole = world.body(key)
    before = node.pointer()
    reader = node.reader()
    for damaged in some(whole):
        world.put(key, damaged)
        with pytest.raises(GenctlError) as caught:
            node.bootstrap()
        assert caught.value.name == name
        assert node.pointer() == before
        assert NodeHome(node.home).pointer() == before
        answer = node.query(reader, Request(text="unique2", mode="lexical"))
        assert [hit.id for hit in answer.hits] == ["d2"]
    world.put(key, whole)


@pytest.mark.parametrize("role", METADATA)
def test_every_flip_of_the_stores_metadata_is_refused_by_name(world: World, role: str) -> None:
    key = metadata_key("timestamp.json") if role == "timestamp" else world.newest(role)
    whole = world.body(key)
    node = world.fresh(f"fresh-{role}")
    found: Counter[str] = Counter()
    try:
        for damaged in flips(whole):
            world.put(key, damaged)
            found[name_of_refusal(node)] += 1
            assert not has_accepted(node.home / "trust")
    finally:
        world.put(key, whole)
    assert found == {METADATA[role]: len(MASKS) * len(whole)}
    check_bootstraps(world, world.serving(f"serving-{role}"), key, METADATA[role])


def test_every_flip_of_a_nodes_root_of_trust_is_refused_by_name(world: World) -> None:
    node = world.serving("serving-anchor")
    path = node.home / "root.json"
    whole = path.read_bytes()
    for damaged in flips(whole):
        with pytest.raises(GenctlError) as caught:
            trusted_root(damaged)
        assert caught.value.name == "UnsignedRecord"
    before = node.pointer()
    try:
        for damaged in some(whole):
            path.write_bytes(damaged)
            with pytest.raises(GenctlError) as caught:
                node.bootstrap()
            assert caught.value.name == "UnsignedRecord"
            assert node.pointer() == before
    finally:
        path.write_bytes(whole)


def test_row_1_every_flip_of_the_stores_manifest_is_a_hash_mismatch(world: World) -> None:
    key = world.manifest_key()
    whole = world.body(key)
    node = world.fresh("fresh-manifest")
    trusted = refresh(node)
    entry = trusted.record.active_entry()
    try:
        for damaged in flips(whole):
            world.put(key, damaged)
            with pytest.raises(ManifestHashMismatch):
                manifest_of(entry, trusted, node.residence)
    finally:
        world.put(key, whole)
    assert manifest_of(entry, trusted, node.residence).generation_id == entry.generation_id
    serving = world.serving("serving-manifest")
    check_bootstraps(world, serving, key, "ManifestHashMismatch")
    assert len(serving.quarantine.entries()) == len(some(whole))


def test_a_flip_in_every_symbols_table_of_a_generation_stops_what_needs_one(world: World) -> None:
    """Through a whole bootstrap: with the data of each first symbol flipped too, all of it does."""
    node = world.serving("serving-symbols")
    before, saved = node.pointer(), dict(world.store._objects)
    symbols = [key for key in saved if key.startswith("symbols/")]
    try:
        for key in symbols:
            body = bytearray(saved[key])
            body[-1] ^= 1
            body[0] ^= key.endswith("/00")
            world.put(key, bytes(body))
        with pytest.raises(Unrepairable):
            node.bootstrap()
        assert node.pointer() == before
    finally:
        world.store._objects.update(saved)


def test_row_62_no_library_opens_a_file_of_a_generation_of_which_one_byte_is_wrong(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = world.serving("serving-files")
    active = node.pointer().active.generation_id
    opened: list[str] = []

    class Tantivy:
        Index = Spy(tantivy.Index, "open", opened)

        def __getattr__(self, name: str) -> Any:
            return getattr(tantivy, name)

    monkeypatch.setattr(lexical, "tantivy", Tantivy())
    monkeypatch.setattr(vector_shard, "Index", Spy(usearch.index.Index, "restore", opened))
    request = Request(text="unique2", mode="hybrid")
    node.query(node.reader(), request)
    assert sorted(set(opened)) == ["open", "restore"], "the spies see what is opened"
    opened.clear()
    manifest = parse_manifest(node.residence.manifest_bytes(active))
    assert {each.kind for each in manifest.artifacts} == {"heads", "lexical", "vectors"}
    for artifact in manifest.artifacts:
        path = node.residence.folder(active) / artifact.name
        size_bytes = path.stat().st_size
        for offset in sorted({0, size_bytes // 3, size_bytes // 2, size_bytes - 1}):
            flip(path, offset)
            with pytest.raises(ArtifactHashMismatch):
                node.query(node.reader(), request)
            flip(path, offset)
        whole = path.read_bytes()
        for crafted in (b"", whole[:-1], whole + b"\0", bytes(size_bytes)):
            path.write_bytes(crafted)
            with pytest.raises(ArtifactHashMismatch):
                node.query(node.reader(), request)
        path.write_bytes(whole)
    assert opened == []
    node.query(node.reader(), request)
    assert opened


class Spy:
    """Stands for a library's class and notes when one of its functions is called."""

    def __init__(self, behind: Any, watched: str, calls: list[str]) -> None:
        self._behind = behind
        self._watched = watched
        self._calls = calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._calls.append("made")
        return self._behind(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == self._watched:
            self._calls.append(name)
        return getattr(self._behind, name)
