"""``genctl compact``: what it says; rows 34 and 43: killed at any step, and the build after it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import Genctl, Warm, environment
from tests.system.world import copy, documents, ingest, release, write, writer_home

ENDS = 4
STRIDE = 25

COMPACT = ["compact", "w", "--send", "--json"]
BUILD = ["build", "w", "--json"]
LOOK = [
    ["release", "w", "--json"],
    ["node", "bootstrap", "fresh", "--store", "s", "--root", "w/root.json", "--json"],
    ["query", "fresh", "common", "--mode", "lexical", "-k", "100", "--json"],
]


def with_merges(genctl: Genctl, **merges: int) -> None:
    """Change when the home w merges."""
    path = genctl.folder / "w/settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"merges": merges}))


def due(genctl: Genctl) -> None:
    """A home with three small parts of rows and text, of which two are the most there may be."""
    writer_home(genctl)
    with_merges(genctl, shards=4)
    for number in range(3):
        ingest(genctl, documents(4 * number, 4 * number + 3), 10)
        release(genctl)
    ingest(genctl, [{"id": "d1", "op": "delete"}, *documents(2, 2, "second")], 10)


def waiting(genctl: Genctl) -> None:
    """The same, compacted."""
    due(genctl)
    genctl(*COMPACT).ok()


@pytest.fixture
def live(mark: str, memory_folder: Path) -> Iterator[Genctl]:
    """A place that costs nothing to write to."""
    with Warm(environment(mark)) as warm:
        found = Genctl(warm, memory_folder / "live")
        found.folder.mkdir()
        yield found


def answers(genctl: Genctl) -> tuple[set[str], dict[str, Any]]:
    """After the release: the documents that a fresh node finds, and the newest manifest."""
    finished = genctl.warm.fork(genctl.folder, LOOK).finished
    released, _, found = (each.ok().json for each in finished)
    manifest = json.loads(
        (genctl.folder / f"w/generations/{released['generation_id']}/manifest.json").read_text()
    )
    return {hit["id"] for hit in found["hits"]}, manifest


def parts(manifest: dict[str, Any]) -> tuple[int, int]:
    """How many vector shards and text segments there are."""
    names = [artifact["name"] for artifact in manifest["artifacts"]]
    return (
        sum(name.endswith(".usearch") for name in names),
        sum(name.endswith(".store") for name in names),
    )


@pytest.mark.parametrize(
    ("prepare", "command"), [(due, COMPACT), (waiting, BUILD)], ids=["compact", "build"]
)
def test_row_43_merging_killed_at_any_step_and_run_again_ends_as_if_undisturbed(
    live: Genctl, prepare: Callable[[Genctl], None], command: list[str]
) -> None:
    kept = live.folder.with_name("kept")
    prepare(live)
    copy(live.folder, kept)

    def restored() -> None:
        shutil.rmtree(live.folder)
        copy(kept, live.folder)

    undisturbed = live.killed_at(-1, *command)
    assert undisturbed.finished[0].code == 0, undisturbed.finished[0]
    wanted, manifest = answers(live)
    assert wanted == {f"d{n}" for n in range(12)} - {"d1"}
    assert parts(manifest) == (2, 2)
    steps = undisturbed.steps
    telling = {
        number
        for number, (step, path) in enumerate(steps)
        if step == "rename" and (path.endswith(".json") or "/generations/" in path)
    }
    chosen = {*range(ENDS), *range(0, len(steps), STRIDE), *range(len(steps) - ENDS, len(steps))}
    for number in sorted(chosen | telling):
        restored()
        # Which of several threads makes a folder is chance: the last steps may have other numbers.
        assert live.killed_at(number, *command).killed or number >= len(steps) - ENDS
        finished = live(*command)
        assert finished.code == 0, (steps[number], finished)
        found, manifest = answers(live)
        assert found == wanted, steps[number]
        assert parts(manifest) == (2, 2), steps[number]
        assert not (live.folder / "w/merges/draft").exists()
        assert list((live.folder / "w").glob("*/.tmp-*")) == [], steps[number]


def files_of(home: Path) -> list[Path]:
    """All of its files but the lock that opening an index leaves."""
    return sorted(p for p in home.rglob("*") if p.is_file() and p.name != ".tantivy-meta.lock")


def test_the_plan_is_printed_and_nothing_is_done(genctl: Genctl) -> None:
    due(genctl)
    before = files_of(genctl.folder / "w")
    told = genctl("compact", "w", "--dry-run").ok()
    assert "rows 0 to 3" in told.out
    assert "too many parts" in told.out
    plan = genctl("compact", "w", "--dry-run", "--json").ok().json
    assert [merge["kind"] for merge in plan["merges"]] == ["rows", "text"]
    rows = plan["merges"][0]
    assert rows["parts"] == ["rows 0 to 3", "rows 4 to 7", "rows 8 to 11"]
    assert (rows["documents"], rows["dropped"], rows["reason"]) == (12, 0, "too many parts")
    assert rows["read_bytes"] > 0
    assert plan["waiting"] == 0
    assert files_of(genctl.folder / "w") == before


def test_a_compaction_tells_what_it_did_and_that_the_rest_waits(genctl: Genctl) -> None:
    due(genctl)
    report = genctl(*COMPACT).ok().json
    assert report["written_bytes"] > 0
    assert report["sent_bytes"] > report["written_bytes"]
    again = genctl("compact", "w").ok()
    assert "2 merges" in again.out
    assert "Nothing is due" in again.out
    built = genctl("build", "w", "--json").ok().json
    assert built["documents"] == 11
    assert genctl("compact", "w", "--json").ok().json["waiting"] == 0


def test_all_dead_merges_each_part_with_a_dead_document_and_those_that_wait_anew(
    genctl: Genctl,
) -> None:
    writer_home(genctl)
    for low in (0, 10, 20):
        ingest(genctl, documents(low, low + 9), 10)
        release(genctl)
    ingest(genctl, [{"id": "d1", "op": "delete"}], 10)
    release(genctl)
    assert genctl("compact", "w", "--json").ok().json["merges"] == []
    planned = genctl("compact", "w", "--all-dead", "--dry-run", "--json").ok().json
    assert [(each["kind"], each["dropped"]) for each in planned["merges"]] == [
        ("rows", 1),
        ("text", 1),
    ]
    assert genctl("compact", "w", "--all-dead", "--json").ok().json["written_bytes"] > 0
    assert genctl("compact", "w", "--dry-run", "--json").ok().json["waiting"] == 2
    again = genctl("compact", "w", "--all-dead", "--json").ok().json
    assert (len(again["merges"]), again["waiting"]) == (2, 0)
    ingest(genctl, [{"id": "d11", "op": "delete"}], 10)
    release(genctl)
    left = genctl("compact", "w", "--all-dead", "--dry-run", "--json").ok().json
    assert left["merges"][0]["parts"] == ["rows 10 to 19"]


def test_what_cannot_be_compacted_is_refused_with_what_to_do(genctl: Genctl) -> None:
    genctl("compact", "w").refused(3, "writer's home")
    writer_home(genctl)
    genctl("compact", "w").refused(3, "genctl build")
    genctl("compact", "w", "--max-bytes", "0").refused(2)
    genctl("compact", "w", "--max-bytes", "many").refused(2)
    genctl("init", "w", "--store", "s", "--dimensions", 256).ok()


@pytest.mark.parametrize(
    "merges",
    [
        {"shards": 13},
        {"shards": 1},
        {"shards": "4"},
        {"dead_documents_percent": 0},
        {"dead_documents_percent": 100},
        {"size_ratio": 0},
        {"build_max_bytes": -1},
        {"compact_max_bytes": 1.5},
        {"unknown": 1},
    ],
)
def test_bad_settings_of_merges_are_named(genctl: Genctl, merges: dict[str, Any]) -> None:
    writer_home(genctl)
    with_merges(genctl, **merges)
    genctl("compact", "w").refused(3, f"merges.{next(iter(merges))}")


def test_a_home_and_its_input_can_be_initialised_again_after_merges(genctl: Genctl) -> None:
    waiting(genctl)
    write(genctl.folder / "more.jsonl", documents(20, 21))
    genctl("ingest", "w", "more.jsonl").ok()
    release(genctl)
    path = genctl.folder / "w/settings.json"
    settings = json.loads(path.read_text())
    del settings["merges"]
    path.write_text(json.dumps(settings))
    genctl("init", "w", "--store", "s", "--dimensions", 256).ok()
