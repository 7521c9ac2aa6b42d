"""Yesterday's record is put back into the store: the writer refuses it, the runbook mends it."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.support.process import ROOT, Genctl
from tests.system.world import ask, bootstrap, documents, ids, ingest, release, writer_home


def steps() -> list[list[str]]:
    """The commands of runbooks/trust.md for this, of the home w and the node n."""
    text = (ROOT / "runbooks" / "trust.md").read_text()
    section = text.partition("\n## RecordPutBack")[2].partition("\n## ")[0]
    lines = re.findall(r"^ {4}genctl (.*)", section, re.MULTILINE)
    assert lines
    return [line.replace("HOME", "w").replace("NODE", "n").split() for line in lines]


@pytest.fixture
def went_back(genctl: Genctl) -> Genctl:
    """The node n follows a rollback, and the store shows the record from before it."""
    writer_home(genctl)
    for first, last in ((1, 3), (4, 5)):
        ingest(genctl, documents(first, last), 5)
        release(genctl)
    record = genctl.folder / "s" / "metadata" / "timestamp.json"
    shutil.copy(record, genctl.folder / "old")
    genctl("rollback", "w", "--reason", "it is harmful").ok()
    bootstrap(genctl)
    shutil.copy(genctl.folder / "old", record)
    return genctl


def test_a_rollback_is_not_undone_by_the_operators_own_keys(went_back: Genctl) -> None:
    genctl = went_back
    ingest(genctl, documents(6, 7), 5)
    for command in (
        ["keys", "refresh", "w"],
        ["keys", "refresh", "w", "--every", "20m"],
        ["release", "w"],
        ["keys", "rotate", "w", "online"],
        ["rollback", "w", "--reason", "it is harmful"],
        ["gc", "w"],
        ["gc", "w", "--dry-run"],
        ["fsck", "w"],
    ):
        genctl(*command).refused(6, "RecordPutBack", "version 5", "version 6", "runbooks/trust.md")
    audit = genctl("audit", "w").refused(6, "RecordPutBack", "version 5")
    assert "never took place" not in audit.out
    assert genctl("status", "w", "--json").ok().json["record_state"].startswith("RecordPutBack")
    for step in steps():
        genctl(*step).ok()
    assert sorted(ids(ask(genctl, "n", "common"))) == ["d1", "d2", "d3"]
    status = genctl("status", "w", "--json").ok().json
    assert (status["record_kind"], status["record_state"]) == ("rollback", "ok")
    genctl("audit", "w").ok()
    release(genctl)
    bootstrap(genctl)
    assert "d7" in ids(ask(genctl, "n", "common"))


def test_an_audit_names_a_mark_that_is_damaged(went_back: Genctl) -> None:
    path = went_back.folder / "w" / "signed_last.json"
    path.write_bytes(b"{}")
    went_back("audit", "w").refused(6, "SignedLastCorrupt", "signed_last.json")
    went_back("scrub", "w").refused(6, "SignedLastCorrupt")
