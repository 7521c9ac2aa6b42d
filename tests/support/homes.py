"""Writers' homes and nodes in a folder of the test's own, made of the production parts."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from controller.new_home import init_home
from controller.new_node import open_node
from controller.node import NodeHome
from controller.settings import WriterSettings
from controller.writer import WriterHome
from manifests.generation import ArtifactFile, GenerationManifest, Quantization
from manifests.record import GenerationEntry
from store.folder import FolderStore
from store.port import Store
from store.spread import SpreadStore
from tests.support.corpus import DIMENSIONS, Operation

_input_numbers = itertools.count(1)


class TestableWriter(WriterHome):
    """A writer's home whose store a test can put something in front of."""

    __test__ = False
    front: Store | None = None

    def store(self) -> SpreadStore:
        """The front if there is one, else the stores of the settings."""
        return SpreadStore([self.front]) if self.front else super().store()


def make_writer(
    folder: Path,
    *,
    embedder: str = "hashing",
    dimensions: int = DIMENSIONS,
    quantization: Quantization = "f32",
    name: str = "writer",
) -> TestableWriter:
    """A new home ``folder/name`` with its store in ``folder/store``."""
    init_home(
        folder / name,
        WriterSettings(
            shard="main",
            stores=(str(folder / "store"),),
            embedder=embedder,
            dimensions=dimensions,
            quantization=quantization,
        ),
    )
    return TestableWriter(folder / name)


def commit(writer: WriterHome, operations: Sequence[Operation], commits: int = 1) -> int:
    """Append the operations as so many commits of one size; the log's last commit_seq."""
    path = writer.home.parent / f"input-{next(_input_numbers)}.jsonl"
    path.write_text("".join(json.dumps(operation) + "\n" for operation in operations), "utf-8")
    size, rest = divmod(len(operations), commits)
    assert rest == 0, "not so many commits of one size"
    return writer.ingest([path], format_name=None, commit_size=size).commit_seq


def release(writer: WriterHome) -> GenerationEntry:
    """Build, publish and activate everything the log holds."""
    generation_id = writer.build().manifest.generation_id
    writer.publish(generation_id)
    writer.activate(generation_id)
    return writer.current().signed.record.entry(generation_id)


def add(writer: WriterHome, operations: Sequence[Operation], commits: int = 1) -> GenerationEntry:
    """Commit and release."""
    commit(writer, operations, commits)
    return release(writer)


def built(writer: WriterHome, operations: Sequence[Operation]) -> GenerationManifest:
    """Commit and build; nothing is published."""
    commit(writer, operations)
    return writer.build().manifest


def new_node(writer: WriterHome, name: str = "node") -> NodeHome:
    """A node beside the writer's home that has fetched nothing yet."""
    return open_node(writer.home.parent / name, writer.settings.stores, writer.home / "root.json")


def make_node(writer: WriterHome, name: str = "node") -> NodeHome:
    """A node that serves what the writer released."""
    node = new_node(writer, name)
    node.bootstrap()
    return node


def copy_of(writer: TestableWriter, name: str) -> TestableWriter:
    """A second writer with the same keys, log and store: what an operator's mistake makes."""
    shutil.copytree(writer.home, writer.home.parent / name)
    return TestableWriter(writer.home.parent / name)


def copy_with_store(writer: WriterHome, folder: Path) -> TestableWriter:
    """The same writer and its store once more, in a world of their own."""
    shutil.copytree(writer.settings.stores[0], folder / "store")
    shutil.copytree(writer.home, folder / "writer")
    copied = TestableWriter(folder / "writer")
    copied.settings = copied.settings.model_copy(update={"stores": (str(folder / "store"),)})
    return copied


def copy_with_node(made: Path, folder: Path) -> tuple[TestableWriter, NodeHome]:
    """The writer, the node and the stores of ``made`` once more, in ``folder``."""
    shutil.copytree(made, folder)
    for name in ("writer/settings.json", "node/node.json"):
        path = folder / name
        path.write_text(path.read_text("utf-8").replace(str(made), str(folder)), "utf-8")
    return TestableWriter(folder / "writer"), NodeHome(folder / "node")


def artifacts_of(writer: WriterHome, place: int = 1) -> list[ArtifactFile]:
    """The artifacts of one of the generations that were built, in their order."""
    return list(writer.built()[place].artifacts)


def only_of(writer: WriterHome, place: int) -> list[ArtifactFile]:
    """The artifacts of one of two generations that the other does not have."""
    other = {each.blake3 for each in artifacts_of(writer, 1 - place)}
    return [each for each in artifacts_of(writer, place) if each.blake3 not in other]


def largest(artifacts: Sequence[ArtifactFile]) -> ArtifactFile:
    """The artifact of most bytes."""
    return max(artifacts, key=lambda each: each.size_bytes)


def symbols_of(writer: WriterHome, artifact: ArtifactFile) -> Path:
    """The folder of an artifact's symbols in the first store, a folder."""
    store = Path(writer.settings.stores[0])
    return store / "symbols" / artifact.blake3[:2] / artifact.blake3


def store_of(writer: WriterHome) -> FolderStore:
    """The folder store itself, whatever stands in front of it."""
    return FolderStore(Path(writer.settings.stores[0]))


def flip(path: Path, offset: int = 0, mask: int = 0xFF) -> None:
    """Change one byte of a file in place, never cutting it: somebody may have it mapped."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))
