"""What a writer's home lost or never had: fsck names it, and a scrub takes it back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.writer import WriterHome
from tests.support.collection import set_collection
from tests.support.process import Genctl, Warm
from tests.system.world import (
    copy,
    copy_homes,
    documents,
    files_of,
    ingest,
    release,
    release_into_two_stores,
)

GENERATIONS = 3


@pytest.fixture(scope="module")
def template(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Three generations in two stores."""
    genctl = Genctl(warm, tmp_path_factory.mktemp("template"))
    return genctl.folder, release_into_two_stores(genctl, GENERATIONS)


@pytest.fixture
def genctl(warm: Warm, tmp_path: Path, template: tuple[Path, list[str]]) -> Genctl:
    """Runs each command in its own process, in a copy of the template."""
    copy_homes(template[0], tmp_path / "copy")
    return Genctl(warm, tmp_path / "copy")


@pytest.fixture
def released(template: tuple[Path, list[str]]) -> list[str]:
    """The ids of the three generations."""
    return template[1]


def missing(genctl: Genctl) -> list[dict[str, str]]:
    """What fsck names, which fails for it."""
    failed = genctl("fsck", "w", "--json")
    failed.refused(6, "PartsMissing", "runbooks/parts-missing.md")
    found: list[dict[str, str]] = json.loads(failed.out)["missing"]
    return found


Loss = Callable[[Path], str]


def folder_lost(generation: Path) -> str:
    shutil.rmtree(generation)
    return ""


def manifest_lost(generation: Path) -> str:
    (generation / "manifest.json").unlink()
    return "/manifest.json"


def manifest_damaged(generation: Path) -> str:
    (generation / "manifest.json").write_text("{")
    return "/manifest.json"


@pytest.mark.parametrize(
    ("loss", "place"),
    [(folder_lost, GENERATIONS - 1), (folder_lost, 0), (manifest_lost, 0), (manifest_damaged, 0)],
)
def test_a_lost_generation_is_named_as_such_and_a_scrub_takes_it_back(
    genctl: Genctl, released: list[str], loss: Loss, place: int
) -> None:
    lost = released[place]
    place_lost = loss(genctl.folder / "w" / "generations" / lost)
    assert [(each["where"], each["key"]) for each in missing(genctl)] == [
        ("w", f"generations/{lost}{place_lost}")
    ]
    set_collection(genctl.folder / "w", keep_last=None)
    stores = {name: files_of(genctl.folder / name) for name in ("s", "t")}
    genctl("gc", "w").refused(6, "PartsMissing", lost)
    ingest(genctl, documents(9, 9), 1)
    if loss is not manifest_damaged:
        genctl("release", "w").refused(6, "PartsMissing", lost)
    assert {name: files_of(genctl.folder / name) for name in ("s", "t")} == stores
    report = genctl("scrub", "w", "--json").ok().json
    assert (report["taken_back"], report["unmended"]) == ([lost], [])
    assert genctl("fsck", "w", "--json").ok().json["missing_count"] == 0
    release(genctl)
    genctl("gc", "w").ok()


def test_a_home_that_lost_all_it_built_has_it_again_from_the_stores(
    genctl: Genctl, released: list[str]
) -> None:
    for name in ("generations", "artifacts"):
        shutil.rmtree(genctl.folder / "w" / name)
    assert {each["key"] for each in missing(genctl)} == {f"generations/{g}" for g in released}
    assert genctl("scrub", "w", "--json").ok().json["taken_back"] == released
    assert genctl("fsck", "w", "--json").ok().json["missing_count"] == 0
    ingest(genctl, documents(9, 9), 1)
    release(genctl)


def test_a_lost_file_of_a_generation_is_named_and_a_scrub_tells_that_it_mended_it(
    genctl: Genctl, released: list[str]
) -> None:
    name = WriterHome(genctl.folder / "w").manifest(released[0]).artifacts[0].name
    (genctl.folder / "w" / "generations" / released[0] / "files" / name).unlink()
    key = f"generations/{released[0]}/files/{name}"
    assert [each["key"] for each in missing(genctl)] == [key]
    assert "linked anew" in genctl("scrub", "w").ok().out
    (genctl.folder / "w" / key).unlink()
    assert genctl("scrub", "w", "--json").ok().json["relinked_files"] == 1
    assert genctl("scrub", "w", "--json").ok().json["relinked_files"] == 0
    assert genctl("fsck", "w", "--json").ok().json["missing_count"] == 0


def test_what_no_store_can_give_back_is_named_and_all_else_is_taken_back(
    genctl: Genctl, released: list[str]
) -> None:
    lost = released[0]
    shutil.rmtree(genctl.folder / "w" / "generations" / lost)
    for store in ("s", "t"):
        for path in (genctl.folder / store).glob(f"targets/manifests/*.{lost}.json"):
            path.unlink()
    shutil.rmtree(genctl.folder / "w" / "generations" / released[1])
    failed = genctl("scrub", "w", "--json")
    failed.refused(6, "PartsMissing", lost)
    assert json.loads(failed.out)["taken_back"] == [released[1]]
    # What nobody can have back is given up by name.
    genctl("revoke", "w", lost, "--reason", "lost").ok()
    genctl("gc", "w").ok()
    assert genctl("fsck", "w", "--json").ok().json["missing_count"] == 0


def test_a_generation_of_another_home_is_not_taken_for_lost(
    genctl: Genctl, released: list[str]
) -> None:
    copy(genctl.folder / "w", genctl.folder / "other")
    ingest(genctl, documents(9, 9), 1)
    release(genctl)
    shutil.rmtree(genctl.folder / "other" / "generations" / released[0])
    for command in (("fsck", "other"), ("gc", "other"), ("scrub", "other")):
        genctl(*command).refused(5, "WriterFenced", "another home")


def test_fsck_accounts_for_every_file_of_a_home(genctl: Genctl, released: list[str]) -> None:
    unknown = [
        "stray.txt",
        "tables/zzz",
        "artifacts/odd",
        "symbols/junk/x",
        "merges/x",
        "log/notes",
        f"generations/{released[0]}/extra.bin",
        f"generations/{released[0]}/files/extra",
        "generations/mine/x",
    ]
    orphans = ["artifacts/.tmp-foo", "draft/x", ".tmp-incoming/x", "tables/" + "0" * 64]
    before = genctl("fsck", "w", "--json").ok().json["home"]
    assert (before["unknown"], before["orphans"], before["bytes"]) == ([], [], 0)
    for name in (*unknown, *orphans):
        path = genctl.folder / "w" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    found: Any = genctl("fsck", "w", "--json").ok().json["home"]
    assert sorted(found["unknown"]) == sorted(unknown)
    assert sorted(each["path"] for each in found["orphans"]) == sorted(orphans)
    assert (found["orphan_count"], found["unknown_count"]) == (len(orphans), len(unknown))
    genctl("gc", "w").ok()
    assert all((genctl.folder / "w" / name).exists() for name in unknown), "somebody else's"


def test_what_a_write_that_was_cut_off_left_in_a_store_goes_when_it_is_old(
    genctl: Genctl, released: list[str]
) -> None:
    old, young = (genctl.folder / "s" / "symbols" / f".tmp-{age}" for age in ("old", "young"))
    link = genctl.folder / "s" / ".tmp-link"
    for path in (old, young):
        path.write_text("half")
    link.symlink_to("/")
    os.utime(old, (1, 1))
    set_collection(genctl.folder / "w", keep_last=None)
    told = genctl("fsck", "w", "--json").ok().json["stores"][0]
    assert told["cut_off"] == {"objects": 1, "bytes": 4}
    report = genctl("gc", "w", "--json").ok().json
    assert (report["record_moved"], report["freed_bytes"]) == (False, 4)
    assert (old.exists(), young.exists(), link.is_symlink()) == (False, True, True)
    old.write_text("half")
    os.utime(old, (1, 1))
    set_collection(genctl.folder / "w", keep_last=1)
    report = genctl("gc", "w", "--json").ok().json
    assert report["record_moved"]
    assert not old.exists()


def test_explain_takes_what_commands_print(genctl: Genctl, released: list[str]) -> None:
    genctl("tag", "w", released[0], "stable").ok()
    writer = WriterHome(genctl.folder / "w")
    name = writer.manifest(released[2]).artifacts[0].name
    for asked, keeper in (
        ("stable", released[0]),
        ("2", released[1]),
        (name, released[2]),
        (released[1], released[1]),
    ):
        told = genctl("gc", "w", "--explain", asked, "--json").ok().json
        assert keeper in [each["name"] for each in told["kept_by"]], asked
    set_collection(genctl.folder / "w", keep_last=1)
    ingest(genctl, documents(9, 9), 1)
    newest = release(genctl)
    genctl("gc", "w").ok()
    for asked in (released[1], "2"):
        told = genctl("gc", "w", "--explain", asked, "--json").ok().json
        assert told["kept_by"] == []
        assert "was collected and is gone for good" in told["verdict"]
        assert newest in told["verdict"]
    for asked in ("nothing", "0" * 64, "../x", "99", "symbols/" + "x" * 700):
        genctl("gc", "w", "--explain", asked).refused(3, "NothingOfThatName", "commit's number")


def test_explain_does_not_promise_what_a_collection_would_not_do(
    genctl: Genctl, released: list[str]
) -> None:
    """A little old metadata alone makes no collection due."""
    set_collection(genctl.folder / "w", keep_last=None)
    for number in range(6):
        genctl("tag", "w", released[2], f"t{number}").ok()
    key = "metadata/1.snapshot.json"
    path = genctl.folder / "s" / key
    assert path.exists()
    told = genctl("gc", "w", "--explain", key, "--json").ok().json
    assert "it goes with a collection that has something else to delete" in told["verdict"]
    genctl("gc", "w").ok()
    assert path.exists(), "as it said"
    set_collection(genctl.folder / "w", keep_last=1)
    assert (
        genctl("gc", "w", "--explain", key, "--json")
        .ok()
        .json["verdict"]
        .startswith("nothing keeps it: the next collection")
    )
    genctl("gc", "w").ok()
    assert not path.exists(), "as it said"
