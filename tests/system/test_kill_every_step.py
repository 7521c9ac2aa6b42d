"""Rows 34–38 and 43: every command killed before every change it makes to the disk, then run again.

A world is prepared once a command. For each step n the world is restored, the command is killed
before its n-th change and run again in a fresh process, and the result is compared with that of an
undisturbed run.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import Finished, Genctl, Warm, environment
from tests.system.world import bootstrap, copy, documents, ingest, release, write, writer_home

COVERED_AT_BOTH_ENDS = 30
STRIDE = 16
HOME_PARTS = (".", "log", "artifacts", "generations", "incoming")
TELLING_STEPS = {"rename", "link", "truncate"}

KEPT = (
    *("commit_seq", "documents", "low_seq", "high_seq", "published", "active", "activated"),
    *("held_back", "hits", "mode", "record_kind", "log_commit_seq", "reason"),
)

NAMES = ("active", "built", "published", "previous", "record_active")

Prepare = Callable[[Genctl], None]


@dataclass(frozen=True)
class Case:
    """A command, what it starts from, and how to look at what it left."""

    prepare: Prepare
    command: list[str]
    look: list[list[str]]
    tidies: bool = True
    """Whether running it again removes the temporary files of a run that was killed."""
    serving: list[int] = field(default_factory=list)
    """The commit_seqs that the node n may answer from in between, if it served before."""


def empty(genctl: Genctl) -> None:
    write(genctl.folder / "more.jsonl", documents(1, 4))


def initialised(genctl: Genctl) -> None:
    writer_home(genctl)
    write(genctl.folder / "more.jsonl", [*documents(1, 9), {"id": "d2", "op": "delete"}])


def served(genctl: Genctl) -> None:
    """One generation, released and on the node n; the commit after it is in the log."""
    writer_home(genctl)
    ingest(genctl, documents(1, 4), 10)
    release(genctl)
    bootstrap(genctl, "n")
    ingest(genctl, [*documents(4, 6, "second"), {"id": "d1", "op": "delete"}], 10)


def built(genctl: Genctl) -> None:
    served(genctl)
    genctl("build", "w").ok()


def published(genctl: Genctl) -> None:
    built(genctl)
    genctl("publish", "w").ok()
    name_second(genctl)


def name_second(genctl: Genctl) -> None:
    """``second`` in the commands below stands for the second generation's id."""
    listed = genctl("generations", "w", "--json").ok().json
    (genctl.folder / "second").write_text(listed[-1]["generation_id"])


def activated(genctl: Genctl) -> None:
    served(genctl)
    release(genctl)


def followed(genctl: Genctl) -> None:
    activated(genctl)
    bootstrap(genctl, "n")


INIT = ["init", "w", "--store", "s", "--dimensions", "256", "--json"]
INGEST = ["ingest", "w", "more.jsonl", "--commit-size", "2", "--json"]
RELEASE = ["release", "w", "--json"]
STATUS = ["status", "w", "--json"]
BUILT = ["generations", "w", "--json"]
NODE = ["node", "status", "n", "--json"]
FOLLOW = ["node", "bootstrap", "n", "--store", "s", "--root", "w/root.json", "--json"]
FRESH = ["node", "bootstrap", "fresh", "--store", "s", "--root", "w/root.json", "--json"]
ASK = ["query", "n", "common", "--mode", "lexical", "-k", "100", "--json"]
ASK_FRESH = ["query", "fresh", *ASK[2:]]
ON_FRESH = [FRESH, ASK_FRESH]

CASES = {
    "init": Case(empty, INIT, [STATUS, INGEST, RELEASE, *ON_FRESH]),
    "ingest": Case(initialised, INGEST, [STATUS, RELEASE, *ON_FRESH]),
    "build": Case(served, ["build", "w", "--json"], [STATUS, BUILT, RELEASE, *ON_FRESH, FOLLOW]),
    "publish": Case(built, ["publish", "w", "--json"], [STATUS, BUILT, RELEASE, *ON_FRESH, FOLLOW]),
    "activate": Case(published, ["activate", "w", "SECOND", "--json"], [STATUS, BUILT, *ON_FRESH]),
    "rollback": Case(
        activated, ["rollback", "w", "--reason", "x", "--json"], [STATUS, BUILT, *ON_FRESH, FOLLOW]
    ),
    "bootstrap-fresh": Case(activated, FRESH, [ASK_FRESH, ["node", "status", "fresh", "--json"]]),
    "bootstrap-catch-up": Case(activated, FOLLOW, [NODE], serving=[1, 2]),
    "node-rollback": Case(
        followed,
        ["node", "rollback", "n", "--json"],
        [NODE],
        tidies=False,
        serving=[2, 1],
    ),
}


class World:
    """A prepared folder that can be restored, always in the same place."""

    def __init__(self, genctl: Genctl, template: Path, prepare: Prepare) -> None:
        self.genctl = genctl
        self._live, self._template = genctl.folder, template
        self._live.mkdir()
        prepare(genctl)
        copy(self._live, template)

    def restore(self) -> None:
        shutil.rmtree(self._live)
        copy(self._template, self._live)

    def words(self, command: list[str]) -> list[str]:
        """The command with the second generation's id in place."""
        second = self._live / "second"
        name = second.read_text() if second.exists() else ""
        return [name if word == "SECOND" else word for word in command]


@pytest.fixture
def worlds(mark: str, memory_folder: Path) -> Iterator[Callable[[Prepare], list[World]]]:
    """Two places to work in at once."""
    with Warm(environment(mark)) as one, Warm(environment(mark)) as other:

        def make(prepare: Prepare) -> list[World]:
            return [
                World(Genctl(warm, memory_folder / f"live{n}"), memory_folder / f"kept{n}", prepare)
                for n, warm in enumerate((one, other))
            ]

        yield make


def chosen(steps: list[tuple[str, str]]) -> Iterator[int]:
    """The first and last steps, those that make a name appear, and a stride through the rest."""
    last = len(steps) - COVERED_AT_BOTH_ENDS
    for number, (step, _) in enumerate(steps):
        ends = number < COVERED_AT_BOTH_ENDS or number >= last
        if ends or step in TELLING_STEPS or number % STRIDE == 0:
            yield number
    yield len(steps)


def essence(finished: list[Finished]) -> list[Any]:
    """What must be equal: not times, not ids that carry a time, not what resuming saved."""
    return [_essence(each.ok().json) for each in finished]


def _essence(document: Any) -> Any:
    if isinstance(document, list):
        return [_essence(each) for each in document]
    found = {key: document[key] for key in KEPT if key in document}
    for key in ("generation_id", "held_back", *NAMES):
        if isinstance(document.get(key), str):
            found[key] = document[key].partition("-")[0]
    for key in ("resident", "retained"):
        if key in document:
            found[key] = [each.partition("-")[0] for each in document[key]]
    return found


@pytest.mark.parametrize("name", CASES)
def test_row_43_a_command_killed_at_any_step_and_run_again_ends_as_if_undisturbed(
    worlds: Callable[[Prepare], list[World]], name: str
) -> None:
    case = CASES[name]
    places = worlds(case.prepare)
    genctl = places[0].genctl
    undisturbed = genctl.killed_at(-1, *places[0].words(case.command))
    result = undisturbed.finished[0].ok().json
    wanted = essence(genctl.warm.fork(genctl.folder, case.look).finished)
    steps = list(chosen(undisturbed.steps))

    def kill_some(number: int) -> list[tuple[int, int | None]]:
        return [(step, kill(case, places[number], step)) for step in steps[number :: len(places)]]

    def kill(case: Case, place: World, step: int) -> int | None:
        """Kill, run again and compare; the commit_seq that the node n served in between."""
        where = f"killed at {step}: {[*undisturbed.steps, None][step]}"
        genctl, command = place.genctl, place.words(case.command)
        place.restore()
        genctl.killed_at(step, *command)
        commands = [*([ASK] if case.serving else []), command, *case.look]
        finished = genctl.warm.fork(genctl.folder, commands).finished
        assert len(finished) == len(commands), where
        served = finished.pop(0).ok().json["commit_seq"] if case.serving else None
        check_result(finished.pop(0), result, where)
        assert essence(finished) == wanted, where
        if case.tidies:
            assert leftovers(genctl.folder) == [], where
        return served

    with ThreadPoolExecutor(len(places)) as pool:
        parts = list(pool.map(kill_some, range(len(places))))
    if case.serving:
        served = [seq for _, seq in sorted(itertools.chain(*parts)) if seq is not None]
        assert list(dict.fromkeys(served)) == case.serving, "before the swap and after it"
        assert served == sorted(served, reverse=case.serving[0] > case.serving[1])


def leftovers(folder: Path) -> list[str]:
    """Temporary files where homes keep what counts; the store and the shelf wait for a GC."""
    places = [folder / home / part for home in ("w", "n", "fresh") for part in HOME_PARTS]
    return [str(path) for place in places for path in place.glob(".tmp-*")]


def check_result(finished: Finished, wanted: dict[str, Any], where: str) -> None:
    """Running the command again reports the same, or that it had been done."""
    assert finished.code == 0, (where, finished)
    found = finished.json
    assert found.keys() == wanted.keys(), where
    for key in ("commit_seq", "documents", "low_seq", "high_seq", "reason", "home"):
        assert found.get(key) == wanted.get(key), (where, json.dumps(found))
    assert number_of(found.get("held_back")) == number_of(wanted.get("held_back")), where


def number_of(generation_id: object) -> str:
    """The commit_seq in a generation's id; the rest differs from build to build."""
    return str(generation_id).partition("-")[0]
