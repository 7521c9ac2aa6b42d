"""What an operator sees of quarantine: real commands, killed at any step, and after restarts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manifests.identifiers import content_id
from tests.replicator.careless import newest, resealed, sign_manifest
from tests.support.homes import TestableWriter
from tests.support.process import Genctl
from tests.system.world import ask, bootstrap, copy, documents, ids, ingest, release, writer_home


@pytest.fixture(scope="module")
def made(in_folder: Callable[[Path], Genctl], tmp_path_factory: pytest.TempPathFactory) -> Genctl:
    """The writer ``w`` released two generations; the node ``n`` serves the first."""
    genctl = in_folder(tmp_path_factory.mktemp("made"))
    writer_home(genctl)
    ingest(genctl, documents(1, 20), 10)
    release(genctl)
    bootstrap(genctl)
    ingest(genctl, documents(21, 30), 10)
    release(genctl)
    return genctl


@pytest.fixture
def world(made: Genctl, tmp_path: Path) -> Iterator[Genctl]:
    """The same folder for each test, put back afterwards: homes know their store by its path."""
    copy(made.folder, tmp_path / "saved")
    yield made
    shutil.rmtree(made.folder)
    copy(tmp_path / "saved", made.folder)


def manifest_file(genctl: Genctl) -> Path:
    (path,) = (genctl.folder / "s/targets/manifests").glob("*.g000000000003-*.json")
    return path


def damage(genctl: Genctl) -> str:
    """Change a byte of the newest manifest in the store; the hash of what it is then."""
    path = manifest_file(genctl)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    return content_id(bytes(data))


def quarantined(genctl: Genctl) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = (
        genctl("node", "quarantine", "list", "n", "--json").ok().json["entries"]
    )
    return entries


def check_serving(genctl: Genctl) -> None:
    assert ids(ask(genctl, "n", "own7", "--mode", "lexical")) == ["d7"]
    status = genctl("node", "status", "n", "--json").ok().json
    assert status["commit_seq"] == 2


def test_row_1_wrong_bytes_are_listed_counted_and_cleared(world: Genctl) -> None:
    genctl = world
    listed = genctl("node", "quarantine", "list", "n").ok()
    assert listed.out == "Nothing is in quarantine.\n"
    whole = manifest_file(genctl).read_bytes()
    content_hash = damage(genctl)
    told = genctl("node", "bootstrap", "n").refused(6, "ManifestHashMismatch", "runbooks/")
    assert told.err.count("genctl: ") == 1
    assert "generation_quarantined" not in told.err, "stderr has one error and nothing else"
    error = genctl("node", "bootstrap", "n", "--json").refused(6).error
    assert error["error"] == "ManifestHashMismatch"
    assert error["facts"]["content_hash"] == content_hash
    (entry,) = quarantined(genctl)
    assert entry["content_hash"] == content_hash
    assert (entry["error"], entry["seen"], entry["refused"]) == ("ManifestHashMismatch", 2, False)
    assert genctl("node", "status", "n", "--json").ok().json["quarantined"] == 1
    shown = genctl("node", "quarantine", "list", "n").ok().out
    assert content_hash[:12] in shown
    assert "ManifestHashMismatch" in shown
    check_serving(genctl)
    manifest_file(genctl).write_bytes(whole)
    assert bootstrap(genctl)["activated"]
    cleared = genctl("node", "quarantine", "clear", "n", content_hash[:12]).ok()
    assert content_hash in cleared.out
    assert quarantined(genctl) == []
    assert genctl("node", "status", "n", "--json").ok().json["quarantined"] == 0


def test_row_6_a_signed_lie_is_refused_unseen_until_it_is_cleared(world: Genctl) -> None:
    genctl = world
    writer = TestableWriter(genctl.folder / "w")
    lie = resealed(newest(writer), artifacts=())
    entry = sign_manifest(writer, lie)
    genctl("node", "bootstrap", "n").refused(6, "ManifestIncomplete")
    (path,) = (genctl.folder / "s/targets/manifests").glob(f"*.{entry.generation_id}.json")
    path.unlink()
    again = genctl("node", "bootstrap", "n").refused(6, "ManifestIncomplete", "quarantine clear n")
    assert "divergence.md" in again.err
    genctl("node", "plan", "n").refused(6, "ManifestIncomplete", "quarantine clear n")
    check_serving(genctl)
    (kept,) = quarantined(genctl)
    assert (kept["content_hash"], kept["refused"]) == (entry.manifest_id, True)
    cleared = genctl("node", "quarantine", "clear", "n", "--json").ok().json["cleared"]
    assert [each["content_hash"] for each in cleared] == [entry.manifest_id]
    genctl("node", "bootstrap", "n").refused(6, "ObjectMissing")


@pytest.mark.parametrize("given", ["", "abc", "z" * 64, "../../x", "\x1b[31m" * 9, "0" * 64])
def test_clearing_what_is_not_there_is_refused_and_forgets_nothing(
    world: Genctl, given: str
) -> None:
    genctl = world
    damage(genctl)
    genctl("node", "bootstrap", "n").refused(6)
    told = genctl("node", "quarantine", "clear", "n", given).refused(3, "NotQuarantined")
    assert "\x1b" not in told.err
    assert len(quarantined(genctl)) == 1


def test_a_folder_that_is_no_node_has_no_quarantine(world: Genctl) -> None:
    for command in ("list", "clear"):
        world("node", "quarantine", command, "w").refused(3, "HomeMissing")
        world("node", "quarantine", command, "nowhere").refused(3, "HomeMissing")


def test_a_damaged_quarantine_stops_fetching_and_neither_serving_nor_status(
    world: Genctl,
) -> None:
    genctl = world
    damage(genctl)
    genctl("node", "bootstrap", "n").refused(6)
    path = genctl.folder / "n/quarantine.json"
    path.write_bytes(path.read_bytes()[:-7])
    genctl("node", "bootstrap", "n").refused(6, "QuarantineCorrupt", "divergence.md")
    genctl("node", "quarantine", "list", "n").refused(6, "QuarantineCorrupt")
    genctl("node", "quarantine", "clear", "n", "0" * 64).refused(6, "QuarantineCorrupt")
    check_serving(genctl)
    assert "damaged" in genctl("node", "status", "n", "--json").ok().json["quarantine_damage"]
    genctl("node", "quarantine", "clear", "n").ok()
    genctl("node", "bootstrap", "n").refused(6, "ManifestHashMismatch")


def test_row_43_a_kill_at_any_step_of_a_refusal_leaves_a_quarantine_that_can_be_read(
    world: Genctl,
) -> None:
    genctl = world
    content_hash = damage(genctl)
    step, seen = 0, 0
    while genctl.killed_at(step, "node", "bootstrap", "n").killed:
        entries = quarantined(genctl)
        assert [entry["content_hash"] for entry in entries] in ([], [content_hash])
        assert all(int(str(entry["seen"])) >= seen for entry in entries)
        seen = int(str(entries[0]["seen"])) if entries else seen
        step += 1
    assert step > 3
    check_serving(genctl)
    assert [entry["content_hash"] for entry in quarantined(genctl)] == [content_hash]
