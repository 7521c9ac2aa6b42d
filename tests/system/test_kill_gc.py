"""Rows 39 and 43: a collection killed before any change it makes to the disk, then run again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.collection import set_collection
from tests.support.process import Genctl, Warm
from tests.system.world import ask, bootstrap, copy, documents, ids, ingest, release, writer_home

STRIDE = 3
TELLING_STEPS = {"rename", "link"}
GC = ["gc", "w", "--json"]
FSCK = ["fsck", "w", "--json"]


class World:
    """Four generations released and a fifth built; the last is active, and the node n serves it.

    It can be restored, always in the same place.
    """

    def __init__(self, warm: Warm, folder: Path) -> None:
        self.genctl = Genctl(warm, folder / "live")
        self._live, self._kept = folder / "live", folder / "kept"
        self._live.mkdir()
        writer_home(self.genctl)
        for number in range(1, 5):
            ingest(self.genctl, documents(number, number), 1)
            release(self.genctl)
        bootstrap(self.genctl)
        ingest(self.genctl, documents(5, 5), 1)
        self.genctl("build", "w").ok()
        # What was published has no grace, also if a collection was killed after it dropped it.
        set_collection(self._live / "w", keep_last=1, grace_hours=1)
        copy(self._live, self._kept)

    def restore(self) -> None:
        shutil.rmtree(self._live)
        copy(self._kept, self._live)

    def listed(self) -> list[dict[str, Any]]:
        """The generations that are listed, without when they were published."""
        listed = self.genctl("generations", "w", "--json").ok().json
        return [each | {"published_at": None} for each in listed]

    def keys(self) -> set[str]:
        """The keys of symbols and manifests in the store."""
        store = self._live / "s"
        found = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
        return {key for key in found if key.startswith(("symbols/", "targets/manifests/"))}

    def assert_whole(self, where: str) -> None:
        """All that is listed is there, and a new node gets the active generation."""
        fresh = ["node", "bootstrap", "fresh", "--store", "s", "--root", "w/root.json", "--json"]
        query = ["query", "fresh", "common", "--mode", "lexical", "-k", "100", "--json"]
        done = self.genctl.warm.fork(self._live, [FSCK, fresh, query]).finished
        assert [each.code for each in done] == [0, 0, 0], (where, done)
        assert len(ids(done[2].json)) == 4, where
        assert len(ids(ask(self.genctl, "n", "common"))) == 4, where
        shutil.rmtree(self._live / "fresh")

    def assert_clean(self, where: str) -> None:
        """Nothing is missing in the stores or the home, and nothing is there that is not needed."""
        found = self.genctl(*FSCK).ok().json
        (store,) = found["stores"]
        assert {*store["garbage"], "metadata", "records"} == {"metadata", "records"}, where
        assert store["unknown"]["objects"] == 0, where
        assert found["home"]["bytes"] == 0, where
        assert list(self._live.glob("w/**/.tmp-*")) == [], where


@pytest.fixture
def world(warm: Warm, memory_folder: Path) -> World:
    return World(warm, memory_folder)


def chosen(steps: list[tuple[str, str]]) -> Iterator[int]:
    """The steps that make a name appear, and a stride through the rest."""
    for number, (step, _) in enumerate(steps):
        if step in TELLING_STEPS or number % STRIDE == 0:
            yield number


def test_rows_39_and_43_a_collection_killed_at_any_step_and_run_again_ends_as_if_undisturbed(
    world: World,
) -> None:
    """Every other time, the generation that was built is published before it is run again."""
    genctl = world.genctl
    undisturbed = genctl.killed_at(-1, *GC)
    report = undisturbed.finished[0].ok().json
    assert len(report["dropped"]) == 2
    world.assert_clean("undisturbed")
    wanted = {False: (world.listed(), world.keys())}
    genctl("publish", "w").ok()
    wanted[True] = (world.listed(), world.keys())
    interrupted = 0
    for number, step in enumerate(chosen(undisturbed.steps)):
        where = f"killed at {step}: {undisturbed.steps[step]}"
        world.restore()
        assert genctl.killed_at(step, *GC).killed, where
        world.assert_whole(where)
        does_publish = number % 2 == 1
        if does_publish:
            genctl("publish", "w").ok()
        report = genctl(*GC).ok().json
        interrupted += report["interrupted_before"]
        world.assert_clean(where)
        assert (world.listed(), world.keys()) == wanted[does_publish], where
    assert interrupted > 5, "it was killed between moving the record and ending"


def test_row_39_a_collection_that_was_killed_leaves_the_record_to_it_alone(world: World) -> None:
    """Another home, a copy from before, neither publishes upon it nor ends it."""
    genctl = world.genctl
    steps = genctl.killed_at(-1, *GC).steps
    world.restore()
    copy(genctl.folder / "w", genctl.folder / "w2")
    first_removed = next(n for n, (step, path) in enumerate(steps) if "/s/symbols/" in path)
    assert genctl.killed_at(first_removed, *GC).killed
    genctl("publish", "w2").refused(6, "CollectionUnderWay", "collection")
    assert genctl("gc", "w", "--dry-run", "--json").ok().json["interrupted_before"]
    # What does not publish goes on meanwhile.
    genctl("rollback", "w", "--reason", "meanwhile").ok()
    world.genctl(*GC).ok()
    world.assert_clean("after all")
    genctl("publish", "w2").ok()
