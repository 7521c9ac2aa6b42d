"""runbooks/key-theft.md, run as it is written: a thief has the targets and the online key."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.support.process import ROOT, Genctl
from tests.system.world import ask, bootstrap, documents, ids, ingest, release, writer_home

RUNBOOK = ROOT / "runbooks" / "key-theft.md"


def commands(heading: str) -> list[list[str]]:
    """The genctl commands under a heading of the runbook, for the home w."""
    text = RUNBOOK.read_text().partition(f"\n## {heading}")[2].partition("\n## ")[0]
    lines = re.findall(r"^ {4,}genctl ([^#\n]*)", text, re.MULTILINE)
    assert lines
    return [line.replace("HOME", "w").replace("NODE", "n").split() for line in lines]


@pytest.fixture(params=["all nodes", "one node"])
def stolen(request: pytest.FixtureRequest, genctl: Genctl) -> list[str]:
    """What a thief signed is in the store; the nodes, of which one or all were deceived."""
    writer_home(genctl)
    ingest(genctl, documents(1, 3), 5)
    release(genctl)
    for node in ("n", "m"):
        bootstrap(genctl, node)
    shutil.copytree(genctl.folder / "w", genctl.folder / "thief")
    ingest(genctl, documents(7, 9), 5, "thief")
    release(genctl, "thief")
    for _ in range(3):
        genctl("keys", "refresh", "thief").ok()
    for node in ("n", "m") if request.param == "all nodes" else ("n",):
        bootstrap(genctl, node)
    assert "d9" in ids(ask(genctl, "n", "common"))
    return ["n", "m"]


def test_after_a_theft_the_runbook_brings_everybody_back(genctl: Genctl, stolen: list[str]) -> None:
    theirs = (genctl.folder / "s" / "metadata" / "timestamp.json").read_bytes()
    for command in commands("What to do, at once"):
        genctl(*command).refused(6, "ForeignRecord", "key-theft")
    genctl("keys", "refresh", "w").refused(6, "ForeignRecord")
    genctl("release", "w").refused(6, "ForeignRecord")
    for command in commands("If the writer refuses to go on"):
        genctl(*command).ok()
    assert (genctl.folder / "w" / "replaced_timestamp.json").read_bytes() == theirs
    for node in stolen:
        genctl("node", "bootstrap", node).ok()
        assert sorted(ids(ask(genctl, node, "common"))) == ["d1", "d2", "d3"]
    ingest(genctl, documents(4, 5), 5)
    release(genctl)
    for node in [*stolen, "fresh"]:
        bootstrap(genctl, node)
        assert sorted(ids(ask(genctl, node, "common"))) == ["d1", "d2", "d3", "d4", "d5"]
    genctl("audit", "w").ok()
    # What the thief can still sign counts for nobody.
    (genctl.folder / "s" / "metadata" / "timestamp.json").write_bytes(theirs)
    genctl("keys", "refresh", "w").refused(6, "UnsignedRecord")
    genctl("node", "bootstrap", "n").refused(6)
    genctl("scrub", "w").ok()
    genctl("keys", "refresh", "w").ok()
    for node in stolen:
        genctl("node", "bootstrap", node).ok()
