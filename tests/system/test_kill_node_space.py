"""Row 39 at a node: what removes generations, killed before each change and run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.process import Genctl, Warm
from tests.system.world import ask, bootstrap, copy, documents, ingest, release, writer_home

COUNT = 5


@pytest.fixture
def genctl(warm: Warm, memory_folder: Path) -> Genctl:
    """Five generations; the node serves the last, has all, and has room for no old one.

    Besides, an artifact that no generation names lies there.
    """
    genctl = Genctl(warm, memory_folder / "live")
    genctl.folder.mkdir()
    writer_home(genctl)
    for number in range(1, COUNT + 1):
        ingest(genctl, documents(number * 10, number * 10 + 9), 10)
        release(genctl)
        bootstrap(genctl)
    path = genctl.folder / "n" / "node.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"old_generations_max_bytes": 0}))
    for folder in ("artifacts", "tables"):
        (genctl.folder / "n" / folder / ("0" * 64)).write_bytes(b"stray")
    copy(genctl.folder, memory_folder / "kept")
    return genctl


def restore(genctl: Genctl) -> None:
    shutil.rmtree(genctl.folder)
    copy(genctl.folder.with_name("kept"), genctl.folder)


def resident(genctl: Genctl) -> list[int]:
    found = genctl("node", "status", "n", "--json").ok().json["resident"]
    return [int(each[1:13]) for each in found]


def test_row_39_a_node_gc_killed_at_any_step_leaves_whole_generations_and_is_finished(
    genctl: Genctl,
) -> None:
    line = ["node", "gc", "n", "--json"]
    undisturbed = genctl.killed_at(-1, *line)
    freed_bytes = undisturbed.finished[0].ok().json["freed_bytes"]
    assert freed_bytes > 0
    assert resident(genctl) == [COUNT - 1, COUNT]
    seen = set()
    for step, (what, path) in enumerate(undisturbed.steps):
        restore(genctl)
        where = f"killed at {step}: {what} {path}"
        assert genctl.killed_at(step, *line).killed, where
        left = resident(genctl)
        seen.add(len(left))
        assert left[-2:] == [COUNT - 1, COUNT], where
        report = genctl("node", "fsck", "n", "--json")
        assert report.code == 0, (where, report)
        assert ask(genctl, "n", "common")["commit_seq"] == COUNT, where
        genctl(*line).ok()
        assert resident(genctl) == [COUNT - 1, COUNT], where
        report = genctl("node", "fsck", "n", "--json").ok().json
        assert (report["missing"], report["orphans"], report["unknown"]) == ([], [], []), where
        assert genctl(*line).ok().json["freed_bytes"] == 0, where
    assert seen == set(range(2, COUNT + 1)), "one generation after the other"


def test_row_39_a_query_of_the_past_killed_while_it_makes_room_is_asked_again(
    genctl: Genctl,
) -> None:
    genctl("node", "gc", "n").ok()
    shutil.rmtree(genctl.folder.with_name("kept"))
    copy(genctl.folder, genctl.folder.with_name("kept"))
    line = ["query", "n", "common", "-k", "100", "--json", "--as-of-commit-seq"]
    genctl(*line, 1).ok()
    undisturbed = genctl.killed_at(-1, *line, 2)
    assert undisturbed.finished[0].ok().json["commit_seq"] == 2
    assert any("forgotten" in path for _, path in undisturbed.steps), "the first made room"
    for step in range(0, len(undisturbed.steps), 5):
        restore(genctl)
        genctl(*line, 1).ok()
        assert genctl.killed_at(step, *line, 2).killed, step
        assert ask(genctl, "n", "common")["commit_seq"] == COUNT, step
        answer = genctl(*line, 2).ok().json
        assert (answer["commit_seq"], len(answer["hits"])) == (2, 20), step
        # What the kill left is made good by whatever comes by with the lock.
        genctl("node", "gc", "n").ok()
        assert resident(genctl) == [COUNT - 1, COUNT], step
        genctl("node", "fsck", "n").ok()
