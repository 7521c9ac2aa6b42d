"""Row 57: what a reader has open stays, no swap waits for it, and once killed it holds nothing.

Readers, bootstraps and collections are processes of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import ROOT, Console, Genctl
from tests.system.world import ask, bootstrap, documents, ids, ingest, release, writer_home

COUNT = 4
ROUNDS = 60

ONE_READER = """
import sys
from pathlib import Path
from controller.node import NodeHome
from query.request import Request

node = NodeHome(Path(sys.argv[1]))
reader = node.reader()
request = Request(text="common", mode="lexical", limit=1000)
while True:
    answer = node.query(reader, request, as_of_commit_seq=2)
    print(answer.commit_seq, *sorted(hit.id for hit in answer.hits), flush=True)
    if not sys.stdin.readline():
        break
"""
"""Answers from the second generation, once more for each line that it is given."""

NEW_READERS = """
import sys
from pathlib import Path
from controller.node import NodeHome
from query.request import Request

node = NodeHome(Path(sys.argv[1]))
request = Request(text="common", mode="lexical", limit=1000)
for number in range(int(sys.argv[2])):
    seq = number % int(sys.argv[3]) + 1
    answer = node.query(node.reader(), request, as_of_commit_seq=seq)
    print(seq, answer.commit_seq, len(answer.hits), flush=True)
"""
"""Opens one generation after the other anew."""


@pytest.fixture
def node(genctl: Genctl) -> list[str]:
    """Four generations, of which the node serves the first and has room for no old one."""
    writer_home(genctl)
    generation_ids = []
    for number in range(1, COUNT + 1):
        ingest(genctl, documents(number * 10, number * 10 + 9), 10)
        generation_ids.append(release(genctl))
        if number == 1:
            bootstrap(genctl)
    path = genctl.folder / "n" / "node.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"old_generations_max_bytes": 0}))
    return generation_ids


@contextmanager
def running(
    console: Console, program: str, *arguments: object
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=console.folder,
        env=console._environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def resident(genctl: Genctl) -> list[str]:
    found: list[str] = genctl("node", "status", "n", "--json").ok().json["resident"]
    return found


def gc(genctl: Genctl) -> Any:
    return genctl("node", "gc", "n", "--json").ok().json


def test_row_57_what_is_open_stays_through_swaps_and_collections_until_its_reader_is_killed(
    genctl: Genctl, console: Console, node: list[str]
) -> None:
    with running(console, ONE_READER, "n") as reader:
        assert reader.stdout is not None
        assert reader.stdin is not None
        first = reader.stdout.readline()
        assert first.split()[0] == b"2"
        report = bootstrap(genctl)
        assert report["activated"], "the swap waits for no reader"
        assert ask(genctl, "n", "common")["commit_seq"] == COUNT
        bring_all(genctl)
        for _ in range(3):
            assert gc(genctl)["in_use"] == [node[1]]
            assert resident(genctl) == [node[0], node[1], node[-1]]
            reader.stdin.write(b"again\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == first
        reader.kill()
        reader.wait(60)
        found = gc(genctl)
        assert [each["generation_id"] for each in found["evicted"]] == [node[1]]
        assert found["in_use"] == []
    assert resident(genctl) == [node[0], node[-1]]
    genctl("node", "fsck", "n", "--json").ok()


def bring_all(genctl: Genctl) -> None:
    for number in range(2, COUNT):
        ask(genctl, "n", "common", "--as-of-commit-seq", number)


def test_row_57_who_opens_and_who_removes_never_get_in_each_others_way(
    genctl: Genctl, console: Console, node: list[str]
) -> None:
    bootstrap(genctl)
    with running(console, NEW_READERS, "n", ROUNDS, COUNT) as reader:
        removed = 0
        while reader.poll() is None:
            collected = genctl("node", "gc", "n", "--json")
            if collected.code == 4:
                assert collected.error["error"] == "HomeLocked", "a fetch is under way"
                continue
            removed += len(collected.ok().json["evicted"])
        assert reader.stdout is not None
        answers = [line.split() for line in reader.stdout]
        assert reader.returncode == 0
    expected = [[number % COUNT + 1] * 2 + [(number % COUNT + 1) * 10] for number in range(ROUNDS)]
    assert [[int(word) for word in answer] for answer in answers] == expected
    assert removed > 0
    gc(genctl)
    assert set(resident(genctl)) >= {node[-1]}
    report = genctl("node", "fsck", "n", "--json").ok().json
    assert (report["missing"], report["orphans"], report["unknown"]) == ([], [], [])
    assert len(ids(ask(genctl, "n", "common"))) == COUNT * 10


def test_row_57_the_rollback_target_is_not_removed_from_under_a_rollback(
    genctl: Genctl, node: list[str]
) -> None:
    bootstrap(genctl)
    bring_all(genctl)
    gc(genctl)
    assert resident(genctl) == [node[0], node[-1]], "what was served before it, not what was read"
    shutdown = Path(genctl.folder / "s")
    shutdown.rename(genctl.folder / "away")
    rolled_back = genctl("node", "rollback", "n", "--json").ok().json
    assert rolled_back == {"generation_id": node[0], "held_back": node[-1], "moved": True}
    assert ask(genctl, "n", "common")["commit_seq"] == 1
