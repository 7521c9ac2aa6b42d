"""Files in a home that are not what they were: refused by name, mended where they can be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.process import Genctl
from tests.system.world import ask, bootstrap, documents, ids, ingest, release, writer_home


@pytest.fixture
def served(genctl: Genctl) -> Genctl:
    """Two generations; the node n serves the second."""
    writer_home(genctl)
    ingest(genctl, documents(1, 8), 10)
    release(genctl)
    bootstrap(genctl)
    ingest(genctl, [*documents(5, 12, "second"), {"id": "d1", "op": "delete"}], 10)
    release(genctl)
    bootstrap(genctl)
    return genctl


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x40]) + data[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: data[:0],
    "torn": lambda data: data[: len(data) // 2],
    "flipped": flip,
    "longer": lambda data: data + b"\n{}",
    "zeros": lambda data: bytes(len(data)),
}


def only(folder: Path, pattern: str) -> Path:
    """The newest generation's file."""
    return max(folder.glob(pattern))


def damage(path: Path, how: str) -> None:
    path.write_bytes(DAMAGE[how](path.read_bytes()))


@pytest.mark.parametrize("how", DAMAGE)
def test_row_42_a_damaged_pointer_is_refused_and_set_anew_by_a_bootstrap(
    served: Genctl, how: str
) -> None:
    damage(served.folder / "n" / "active.json", how)
    served("query", "n", "common").refused(6, "PointerCorrupt", "runbooks/", "bootstrap")
    served("node", "status", "n").refused(6, "PointerCorrupt")
    served("node", "rollback", "n").refused(6, "PointerCorrupt")
    assert bootstrap(served)["new_bytes"] == 0, "all that is intact is kept"
    assert ids(ask(served, "n", "own12", "--mode", "lexical")) == ["d12"]


@pytest.mark.parametrize("how", DAMAGE)
def test_row_01_02_a_damaged_manifest_is_refused_and_fetched_by_a_bootstrap(
    served: Genctl, how: str
) -> None:
    damage(only(served.folder / "n" / "generations", "g*/manifest.json"), how)
    name = "ManifestHashMismatch" if how in {"flipped", "zeros"} else "ManifestLengthMismatch"
    served("query", "n", "common").refused(6, name, "runbooks/")
    bootstrap(served)
    assert ids(ask(served, "n", "own12", "--mode", "lexical")) == ["d12"]


@pytest.mark.parametrize("how", DAMAGE)
def test_row_62_a_damaged_artifact_is_refused_and_fetched_by_a_bootstrap(
    served: Genctl, how: str
) -> None:
    files = only(served.folder / "n" / "generations", "g*") / "files"
    for pattern in ("lexical/meta.json", "lexical/*.store", "vectors/*", "tombstones/*", "heads/*"):
        path = only(files, pattern)
        damage(path, how)
        name = str(path.relative_to(files))
        served("query", "n", "common").refused(6, "ArtifactHashMismatch", name, "runbooks/")
        report = bootstrap(served)
        assert report["new_bytes"] > 0
    assert ids(ask(served, "n", "own12", "--mode", "lexical")) == ["d12"]


def test_row_62_a_damaged_artifact_of_the_generation_before_is_mended_too(served: Genctl) -> None:
    """The generations share it as one file, so a bootstrap has to mend it in both."""
    files = sorted((served.folder / "n" / "generations").glob("g*"))
    path = files[0] / "files" / "vectors" / "000000000000.usearch"
    assert path.samefile(files[1] / "files" / "vectors" / "000000000000.usearch")
    damage(path, "flipped")
    past = ["query", "n", "own2", "--as-of-commit-seq", 1, "--mode", "lexical", "--json"]
    served(*past).refused(6, "ArtifactHashMismatch")
    bootstrap(served)
    assert ids(ask(served, "n", "own12", "--mode", "lexical")) == ["d12"]
    assert ids(served(*past).ok().json) == ["d2"]
    served("node", "rollback", "n").ok()
    assert ids(ask(served, "n", "own2", "--mode", "lexical")) == ["d2"]


def test_row_62_a_missing_or_linked_artifact_is_refused_and_fetched(served: Genctl) -> None:
    files = only(served.folder / "n" / "generations", "g*") / "files"
    path = only(files, "heads/*")
    path.unlink()
    served("query", "n", "common").refused(6, "ArtifactHashMismatch", "is missing")
    path.symlink_to(served.folder / "w" / "settings.json")
    served("query", "n", "common").refused(6, "ArtifactHashMismatch")
    bootstrap(served)
    assert not path.is_symlink()
    assert ids(ask(served, "n", "own12", "--mode", "lexical")) == ["d12"]


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_damaged_cached_metadata_does_not_stop_the_newest_reads_and_is_renewed(
    served: Genctl, role: str, how: str
) -> None:
    path = served.folder / "n" / "trust" / f"{role}.json"
    damage(path, how)
    assert ids(ask(served, "n", "own12", "--mode", "lexical")) == ["d12"]
    line = ["query", "n", "own2", "--as-of-commit-seq", 1, "--json"]
    if how != "longer":
        served(*line).refused(6, "TrustStateCorrupt")
    bootstrap(served)
    assert served(*line).ok().json["commit_seq"] == 1


@pytest.mark.parametrize("how", DAMAGE)
def test_row_16_a_damaged_high_water_mark_stops_activation_and_not_serving(
    served: Genctl, how: str
) -> None:
    damage(served.folder / "n" / "trust" / "high_water.json", how)
    served("node", "bootstrap", "n").refused(6, "TrustStateCorrupt", "high_water.json", "runbooks/")
    assert ids(ask(served, "n", "own12", "--mode", "lexical")) == ["d12"]


def test_row_14_15_an_older_record_is_refused_also_after_the_cache_is_lost(served: Genctl) -> None:
    timestamp = served.folder / "s" / "metadata" / "timestamp.json"
    old = timestamp.read_bytes()
    ingest(served, documents(20, 21), 10)
    release(served)
    bootstrap(served)
    timestamp.write_bytes(old)
    for lost in ((), ("timestamp", "snapshot", "targets")):
        for role in lost:
            (served.folder / "n" / "trust" / f"{role}.json").unlink()
        served("node", "bootstrap", "n").refused(6, "MetadataRollback")
        assert ids(ask(served, "n", "own20", "--mode", "lexical")) == ["d20"]


@pytest.mark.parametrize("how", ["empty", "torn", "flipped", "zeros"])
def test_damaged_signed_metadata_in_the_store_is_refused_and_the_node_serves_on(
    served: Genctl, how: str
) -> None:
    ingest(served, documents(20, 21), 10)
    release(served)
    metadata = served.folder / "s" / "metadata"
    newest = json.loads((metadata / "timestamp.json").read_bytes())["signed"]["meta"]
    version = newest["snapshot.json"]["version"]
    for name in ("timestamp.json", f"{version}.snapshot.json"):
        saved = (metadata / name).read_bytes()
        damage(metadata / name, how)
        for command in (["node", "bootstrap", "n"], ["status", "w"], ["rollback", "w"]):
            more = ["--reason", "x"] if command[0] == "rollback" else []
            served(*command, *more).refused(6, "runbooks/")
        assert ids(ask(served, "n", "own12", "--mode", "lexical")) == ["d12"]
        (metadata / name).write_bytes(saved)
    bootstrap(served)
    assert ids(ask(served, "n", "own20", "--mode", "lexical")) == ["d20"]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_artifact_in_the_writers_home_is_not_built_upon(served: Genctl, how: str) -> None:
    files = only(served.folder / "w" / "generations", "g*") / "files"
    path = only(files, "vectors/*")
    saved = path.read_bytes()
    damage(path, how)
    ingest(served, documents(20, 21), 10)
    name = str(path.relative_to(files))
    served("build", "w").refused(6, "ArtifactHashMismatch", name, "runbooks/")
    path.write_bytes(saved)
    release(served)
    bootstrap(served)
    assert ids(ask(served, "n", "own20", "--mode", "lexical")) == ["d20"]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_manifest_in_the_writers_home_is_refused_by_name(
    served: Genctl, how: str
) -> None:
    path = only(served.folder / "w" / "generations", "g*/manifest.json")
    damage(path, how)
    generation_id = path.parent.name
    for command in (["show", "w", generation_id], ["generations", "w"], ["release", "w"]):
        served(*command).refused(6, "runbooks/")
    assert ids(ask(served, "n", "own12", "--mode", "lexical")) == ["d12"]


@pytest.mark.parametrize("how", ["flipped", "zeros", "torn", "empty"])
def test_what_rots_between_build_and_publish_is_never_signed(genctl: Genctl, how: str) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 8), 10)
    genctl("build", "w").ok()
    files = only(genctl.folder / "w" / "generations", "g*") / "files"
    damage(only(files, "vectors/*"), how)
    refused = genctl("release", "w")
    assert refused.code == 6, refused
    assert genctl("status", "w", "--json").ok().json["published"] is None


@pytest.mark.parametrize("how", ["flipped", "zeros"])
def test_row_64_damage_in_the_middle_of_the_log_is_named(genctl: Genctl, how: str) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 40), 2)
    log = only(genctl.folder / "w" / "log", "*.log")
    saved = log.read_bytes()
    damage(log, how)
    for command in (["ingest", "w", "ingest.jsonl"], ["build", "w"], ["status", "w"]):
        genctl(*command).refused(6, "LogCorrupt", log.name, "offset", "runbooks/")
    log.write_bytes(saved)
    release(genctl)


def test_row_63_a_torn_end_of_the_log_is_cut_and_what_was_acknowledged_is_there(
    genctl: Genctl,
) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 4), 2)
    log = only(genctl.folder / "w" / "log", "*.log")
    with log.open("ab") as file:
        file.write(b"\x90\x01\x00\x00half a record")
    assert genctl("status", "w", "--json").ok().json["log_commit_seq"] == 2
    assert ingest(genctl, documents(5, 6), 2) == 3
    release(genctl)
    bootstrap(genctl)
    assert len(ids(ask(genctl, "n", "common"))) == 6
