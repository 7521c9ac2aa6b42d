"""Row 37: SIGKILL at moments nobody chose, in a fetch that takes its time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from symbols.geometry import Geometry
from tests.support.process import Genctl
from tests.system.world import ask, documents, ids, ingest, release, seeded

DIMENSIONS = 512
DOCUMENTS = 1_100
STORE_BYTES_PER_S = 1 << 20
"""A generation of more than 2 MiB takes a second or two to come."""
ROUNDS = 20
LONGEST_S = 0.8


@dataclass(frozen=True)
class World:
    """A node ``slow`` with the first of two generations; how the second one's artifacts are cut."""

    genctl: Genctl
    artifacts: dict[str, Geometry]
    whole_bytes: int

    @property
    def folder(self) -> Path:
        return self.genctl.folder

    def good_bytes(self, node: Path) -> int:
        """How much of the new artifacts is in a node's folder, chunk by chunk as it should be."""
        total = 0
        for artifact_id, geometry in self.artifacts.items():
            right = (self.folder / "w/artifacts" / artifact_id).read_bytes()
            found = max(
                (
                    path.read_bytes()
                    for path in (node / "artifacts" / artifact_id, node / "incoming" / artifact_id)
                    if path.exists()
                ),
                key=len,
                default=b"",
            )
            for number in range(geometry.k):
                for chunk in range(geometry.chunk_count(number)):
                    offset, length = geometry.chunk_source_range(number, chunk)
                    if found[offset : offset + length] == right[offset : offset + length]:
                        total += length
        return total


def with_vectors(low: int, high: int) -> list[dict[str, Any]]:
    chance = seeded(37)
    return [
        {**each, "vector": [chance.randrange(-99, 100) for _ in range(DIMENSIONS)]}
        for each in documents(low, high)
    ]


def artifacts_of(genctl: Genctl, generation_id: str) -> dict[str, Geometry]:
    shown = genctl("show", "w", generation_id, "--json").ok().json["artifacts"]
    return {
        each["blake3"]: Geometry(
            each["size_bytes"],
            each["symbols"]["k"],
            each["symbols"]["m"],
            each["symbols"]["chunk_size_bytes"],
        )
        for each in shown
    }


@pytest.fixture(scope="module")
def world(in_folder: Callable[[Path], Genctl], tmp_path_factory: pytest.TempPathFactory) -> World:
    genctl = in_folder(tmp_path_factory.mktemp("interrupted"))
    genctl(
        *("init", "w", "--store", "s", "--embedder", "precomputed"),
        *("--dimensions", DIMENSIONS, "--quantization", "f32"),
    ).ok()
    ingest(genctl, with_vectors(1, 1), 1)
    first = release(genctl)
    genctl("node", "bootstrap", "slow", "--store", "s", "--root", "w/root.json").ok()
    ingest(genctl, with_vectors(2, DOCUMENTS), DOCUMENTS - 1)
    second = release(genctl)
    shutil.copytree(genctl.folder / "slow", genctl.folder / "whole")
    report = genctl("node", "bootstrap", "whole", "--json").ok().json
    old = artifacts_of(genctl, first).keys()
    new = {k: v for k, v in artifacts_of(genctl, second).items() if k not in old}
    settings = genctl.folder / "slow/node.json"
    slowed = json.loads(settings.read_text())
    slowed["limits"]["store_bytes_per_s"] = STORE_BYTES_PER_S
    settings.write_text(json.dumps(slowed))
    assert report["fetched_bytes"] > 2 * STORE_BYTES_PER_S
    return World(genctl, new, report["fetched_bytes"])


def test_row_37_a_fetch_killed_at_any_moment_goes_on_with_what_had_arrived(world: World) -> None:
    genctl, chance = world.genctl, seeded(38)
    kept, killed = [], 0
    for number in range(ROUNDS):
        name = f"n{number}"
        node = genctl.folder / name
        shutil.copytree(genctl.folder / "slow", node)
        forked = genctl.killed_after(chance.uniform(0.05, LONGEST_S), "node", "bootstrap", name)
        killed += forked.killed
        assert len(ids(ask(genctl, name, "common", "--mode", "lexical"))) in (1, 1000)
        kept.append(world.good_bytes(node))
        shutil.copy(genctl.folder / "whole/node.json", node)
        report = genctl("node", "bootstrap", name, "--json").ok().json
        assert report["fetched_bytes"] <= world.whole_bytes - kept[-1]
        assert len(ids(ask(genctl, name, "common", "--mode", "lexical"))) == 1000
        for artifact_id in world.artifacts:
            right = (genctl.folder / "w/artifacts" / artifact_id).read_bytes()
            assert (node / "artifacts" / artifact_id).read_bytes() == right
        assert list((node / "incoming").iterdir()) == []
        shutil.rmtree(node)
    assert killed > ROUNDS // 2
    assert max(kept) > STORE_BYTES_PER_S // 2, "something had arrived when some were killed"


def test_row_37_a_fetch_killed_again_and_again_comes_to_its_end(world: World) -> None:
    """Each attempt keeps what those before it brought, so the attempts may all be too short."""
    genctl = world.genctl
    shutil.copytree(genctl.folder / "slow", genctl.folder / "again")
    seen = [world.good_bytes(genctl.folder / "again")]
    for _ in range(30):
        forked = genctl.killed_after(0.25, "node", "bootstrap", "again")
        seen.append(world.good_bytes(genctl.folder / "again"))
        if not forked.killed:
            break
    else:
        genctl("node", "bootstrap", "again").ok()
    assert seen == sorted(seen), "nothing that had arrived was lost"
    assert len(ids(ask(genctl, "again", "common", "--mode", "lexical"))) == 1000
