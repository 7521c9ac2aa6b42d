"""Row 61: a rollback whose target is not here fetches and verifies it before the swap."""

from __future__ import annotations

import shutil

import pytest

from tests.support.homes import flip
from tests.support.process import Genctl
from tests.system.world import ask, bootstrap, documents, ingest, release, writer_home


@pytest.fixture
def node(genctl: Genctl) -> list[str]:
    """Three generations, of which the node has the last one only."""
    writer_home(genctl)
    generation_ids = []
    for number in range(1, 4):
        ingest(genctl, documents(number * 10, number * 10 + 9), 10)
        generation_ids.append(release(genctl))
    bootstrap(genctl)
    return generation_ids


def status(genctl: Genctl) -> tuple[str, list[str]]:
    found = genctl("node", "status", "n", "--json").ok().json
    return found["active"], found["resident"]


def test_row_61_a_signed_rollback_to_a_generation_that_is_not_here(
    genctl: Genctl, node: list[str]
) -> None:
    assert status(genctl) == (node[2], node[2:])
    genctl("rollback", "w", "--to", node[0], "--reason", "wrong").ok()
    report = bootstrap(genctl)
    assert (report["generation_id"], report["activated"]) == (node[0], True)
    assert report["fetched_bytes"] > 0
    assert report["lease"]["store"] == str(genctl.folder / "s")
    assert status(genctl) == (node[0], [node[0], node[2]])
    assert ask(genctl, "n", "common")["commit_seq"] == 1


def test_row_61_a_nodes_own_rollback_to_a_generation_that_is_not_here(
    genctl: Genctl, node: list[str]
) -> None:
    report = genctl("node", "rollback", "n", "--json").ok().json
    assert report == {"generation_id": node[1], "held_back": node[2], "moved": True}
    assert status(genctl) == (node[1], node[1:])
    assert ask(genctl, "n", "common")["commit_seq"] == 2
    assert "was rolled back from it" in genctl("node", "plan", "n").ok().out
    again = genctl("node", "rollback", "n").ok().out
    assert again.startswith(f"Already rolled back: serving {node[1]}.")
    assert f"{node[2]} is held back here until the writer releases a newer" in again


@pytest.mark.parametrize("how", ["signed", "own"])
@pytest.mark.parametrize("harm", ["lost", "wrong", "silent"])
def test_row_61_what_cannot_be_fetched_and_verified_is_not_swapped_to(
    genctl: Genctl, node: list[str], how: str, harm: str
) -> None:
    if how == "signed":
        genctl("rollback", "w", "--reason", "wrong").ok()
    store = genctl.folder / "s"
    shutil.copytree(store, genctl.folder / "kept")
    if harm == "silent":
        shutil.rmtree(store)
    else:
        for path in (store / "symbols").glob("*/*/*"):
            if harm == "lost":
                path.unlink()
            else:
                flip(path)
    line = ["node", "rollback", "n"] if how == "own" else ["node", "bootstrap", "n"]
    code, error = (5, "StoreUnavailable") if harm == "silent" else (6, "Unrepairable")
    genctl(*line).refused(code, error)
    assert status(genctl)[0] == node[2]
    assert ask(genctl, "n", "common")["commit_seq"] == 3
    shutil.rmtree(store, ignore_errors=True)
    (genctl.folder / "kept").rename(store)
    genctl(*line).ok()
    assert status(genctl)[0] == node[1]
    assert ask(genctl, "n", "common")["commit_seq"] == 2


def test_row_61_where_no_older_generation_is_retained_nothing_is_asked_for(
    genctl: Genctl,
) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 3), 10)
    release(genctl)
    bootstrap(genctl)
    shutil.move(genctl.folder / "s", genctl.folder / "away")
    genctl("node", "rollback", "n").refused(4, "NothingPublished")
