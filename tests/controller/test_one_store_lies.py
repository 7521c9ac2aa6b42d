"""One of three stores lies about what it has a copy of: nobody is stopped whom a lost one is not.

Rows 1, 12, 13 and 24 of the fault table, where two stores of three are as they should be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from builder.published_roots import publish_root
from controller.new_home import init_home
from controller.new_node import open_node
from controller.node import NodeHome
from controller.settings import WriterSettings
from manifests.errors import BadRootRotation, UnsignedRecord
from store.signed import trusted_root
from tests.replicator.shards import signed
from tests.support.corpus import DIMENSIONS, upserts
from tests.support.homes import TestableWriter, add, copy_with_node

COUNT = 3
NEXT_ROOT = "metadata/2.root.json"


@dataclass
class World:
    writer: TestableWriter
    node: NodeHome

    def store(self, number: int) -> Path:
        return Path(self.writer.settings.stores[number])

    def targets(self) -> str:
        """Where the newest targets are in a store."""
        return f"metadata/{self.writer.current().signed.targets.version}.targets.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    init_home(
        folder / "writer",
        WriterSettings(
            shard="main",
            stores=tuple(str(folder / f"s{number}") for number in range(COUNT)),
            embedder="hashing",
            dimensions=DIMENSIONS,
        ),
    )
    writer = TestableWriter(folder / "writer")
    add(writer, upserts(range(3)))
    open_node(folder / "node", writer.settings.stores, writer.home / "root.json").bootstrap()
    add(writer, upserts(range(3, 6)))
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> World:
    """The node is one generation behind; all in a folder of the test's own."""
    return World(*copy_with_node(made, tmp_path / "world"))


def forged_root(world: World) -> bytes:
    """Version 2, signed by nobody whom version 1 names."""
    root = trusted_root(world.writer.root_bytes())
    thief = CryptoSigner.generate_ed25519()
    root.version = 2
    for role in list(root.roles):
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        root.add_key(thief.public_key, role)
    return signed(root, thief)


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.parametrize("what", ["timestamp", "targets", "snapshot"])
@pytest.mark.parametrize("garbage", [b"{}", b"", b"not JSON", bytes(20_000)], ids=len)
def test_row_12_metadata_that_one_store_has_damaged_is_taken_from_another(
    world: World, number: int, what: str, garbage: bytes
) -> None:
    metadata = world.store(number) / "metadata"
    name = "timestamp.json" if what == "timestamp" else f"*.{what}.json"
    for path in metadata.glob(name):
        path.write_bytes(garbage)
    assert world.node.bootstrap().activated


@pytest.mark.parametrize("number", range(COUNT))
def test_row_1_a_manifest_that_one_store_has_damaged_is_taken_from_another(
    world: World, number: int
) -> None:
    for path in (world.store(number) / "targets/manifests").iterdir():
        path.write_bytes(b"x")
    assert world.node.bootstrap().activated
    assert world.node.quarantine.entries() == ()


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.parametrize("is_forged", [False, True])
def test_row_24_a_root_that_one_store_made_up_stops_neither_nodes_nor_the_writer(
    world: World, number: int, is_forged: bool
) -> None:
    made_up = forged_root(world) if is_forged else b"{}"
    (world.store(number) / NEXT_ROOT).write_bytes(made_up)
    assert world.node.bootstrap().activated
    world.writer.refresh()
    add(world.writer, upserts(range(6, 9)))
    assert NodeHome(world.node.home).bootstrap().activated
    world.writer.store().mend("")
    others = [world.store(other) / NEXT_ROOT for other in range(COUNT) if other != number]
    assert not any(path.exists() for path in others), "what one store made up is not spread"


def test_row_24_a_root_that_every_store_made_up_is_refused_with_its_place(world: World) -> None:
    for number in range(COUNT):
        (world.store(number) / NEXT_ROOT).write_bytes(b"{}")
    place = re.escape(f"{NEXT_ROOT} in {world.store(0)}")
    with pytest.raises(BadRootRotation, match=place):
        world.node.bootstrap()
    with pytest.raises(UnsignedRecord, match=place):
        world.writer.refresh()
    (world.store(1) / NEXT_ROOT).unlink()
    assert world.node.bootstrap().activated
    world.writer.refresh()


def test_row_12_what_every_store_has_damaged_is_refused_with_the_first_ones_name(
    world: World,
) -> None:
    name = world.targets()
    for number in range(COUNT):
        (world.store(number) / name).write_bytes(b"{}")
    with pytest.raises(UnsignedRecord):
        world.node.bootstrap()
    (world.store(2) / name).write_bytes(b"not JSON")
    (world.store(0) / name).unlink()
    (world.store(1) / name).write_bytes(b"not JSON either")
    with pytest.raises(UnsignedRecord, match=re.escape(f"{name} in {world.store(1)}")):
        world.node.bootstrap()


@pytest.mark.parametrize("number", range(COUNT))
def test_row_24_a_new_root_is_not_put_beside_one_that_the_first_store_made_up(
    world: World, number: int
) -> None:
    root = trusted_root(world.writer.root_bytes())
    root.version = 2
    true = signed(
        root, *[key for key in world.writer.keys("root") if isinstance(key, CryptoSigner)]
    )
    paths = [world.store(each) / NEXT_ROOT for each in range(COUNT)]
    paths[number].write_bytes(b"{}")
    if number == 0:
        with pytest.raises(UnsignedRecord, match=re.escape(f"{NEXT_ROOT} in {world.store(0)}")):
            publish_root(world.writer.store(), true)
        assert [path.exists() for path in paths] == [True, False, False]
        paths[0].unlink()
    publish_root(world.writer.store(), true)
    assert [path.read_bytes() for path in paths] == [true] * COUNT
    paths[number].write_bytes(b"{}")
    world.writer.refresh()
    assert [path.read_bytes() for path in paths] == [true] * COUNT
    assert world.node.bootstrap().activated


@pytest.mark.parametrize("number", range(COUNT))
def test_row_24_a_root_of_another_shard_in_one_store_stops_nobody(
    world: World, number: int
) -> None:
    """The same holders have signed it."""
    root = trusted_root(world.writer.root_bytes())
    root.version = 2
    root.unrecognized_fields["shard"] = "other"
    keys = [key for key in world.writer.keys("root") if isinstance(key, CryptoSigner)]
    (world.store(number) / NEXT_ROOT).write_bytes(signed(root, *keys))
    assert world.node.bootstrap().activated
    world.writer.refresh()
    assert trusted_root(world.writer.root_bytes()).version == 1
