"""Rows 47 and 48: a collection was killed, and another home of its shard does not go past it."""

from __future__ import annotations

import shutil

import pytest

from tests.support.collection import set_collection
from tests.support.process import Genctl
from tests.system.world import ask, bootstrap, copy, documents, ids, ingest, release, writer_home

GC = ["gc", "w", "--json"]


@pytest.fixture
def released(genctl: Genctl, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three generations of the home w, of which a collection that was killed drops the first.

    The home w2 is a copy from before that, and has built a fourth.
    """
    writer_home(genctl)
    released = []
    for number in (1, 2, 3):
        ingest(genctl, documents(number, number), 1)
        released.append(release(genctl))
    set_collection(genctl.folder / "w", keep_last=1)
    copy(genctl.folder / "w", genctl.folder / "w2")
    ingest(genctl, documents(4, 4), 1, home="w2")
    genctl("build", "w2").ok()
    kept = tmp_path_factory.mktemp("kept")
    for name in ("w", "s"):
        copy(genctl.folder / name, kept / name)
    steps = genctl.killed_at(-1, *GC).steps
    for name in ("w", "s"):
        shutil.rmtree(genctl.folder / name)
        copy(kept / name, genctl.folder / name)
    removal = next(n for n, (_, path) in enumerate(steps) if "/s/symbols/" in path)
    assert genctl.killed_at(removal, *GC).killed
    return released


def test_beside_a_killed_collection_of_another_home_nothing_is_published_or_collected(
    genctl: Genctl, released: list[str]
) -> None:
    for command in (["publish", "w2"], ["release", "w2"], ["gc", "w2"], ["gc", "w2"]):
        refused = genctl(*command).refused(6, "CollectionUnderWay", "collection-under-way.md")
        assert "--take-over" in refused.err
    error = genctl("publish", "w2", "--json").refused(6).error
    assert set(error["facts"]) == {"collecting"}
    assert bootstrap(genctl)["generation_id"] == released[2]
    # The home that began it ends it, and then the other goes on.
    assert genctl(*GC).ok().json["interrupted_before"]
    genctl("publish", "w2").ok()


def test_who_knows_that_the_other_home_is_lost_takes_its_collection_over(
    genctl: Genctl, released: list[str]
) -> None:
    (genctl.folder / "w").rename(genctl.folder / "lost")
    assert genctl("gc", "w2", "--take-over", "--json").ok().json["interrupted_before"]
    assert genctl("fsck", "w2", "--json").ok().json["missing"] == []
    fourth = release(genctl, "w2")
    assert bootstrap(genctl, home="w2")["generation_id"] == fourth
    assert len(ids(ask(genctl, "n", "common"))) == 4
    # Back again, the first finds that the record went on without it.
    (genctl.folder / "lost").rename(genctl.folder / "w")
    genctl("gc", "w").refused(5, "WriterFenced")
    assert genctl("fsck", "w2", "--json").ok().json["missing"] == []
