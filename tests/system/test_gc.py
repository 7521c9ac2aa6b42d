"""``genctl gc`` and ``genctl fsck``, as an operator meets them: real processes on real files."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller import clock, collection
from controller.writer import WriterHome
from durable import files
from manifests.errors import ClockSuspect
from store.folder import FolderStore
from store.leases import new_lease, write_lease
from tests.support.collection import keys_of, set_collection
from tests.support.process import Genctl, Warm
from tests.system.world import (
    ask,
    bootstrap,
    copy_homes,
    documents,
    files_of,
    ids,
    ingest,
    release,
    release_into_two_stores,
)

GENERATIONS = 5


@pytest.fixture(scope="module")
def template(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Five generations in two stores, the last of them active and served by the node n."""
    genctl = Genctl(warm, tmp_path_factory.mktemp("template"))
    made = release_into_two_stores(genctl, GENERATIONS)
    bootstrap(genctl)
    return genctl.folder, made


@pytest.fixture
def genctl(warm: Warm, tmp_path: Path, template: tuple[Path, list[str]]) -> Genctl:
    """Runs each command in its own process, in a copy of the template."""
    copy_homes(template[0], tmp_path / "copy")
    return Genctl(warm, tmp_path / "copy")


@pytest.fixture
def released(template: tuple[Path, list[str]]) -> list[str]:
    """The ids of the five generations."""
    return template[1]


def gc(genctl: Genctl, *options: object) -> Any:
    return genctl("gc", "w", "--json", *options).ok().json


def fsck(genctl: Genctl) -> Any:
    return genctl("fsck", "w", "--json").ok().json


def home_bytes(genctl: Genctl) -> int:
    """The bytes of a home's generations, each file once, whatever its names."""
    found = {
        path.stat().st_ino: path.stat().st_size
        for folder in ("artifacts", "generations", "symbols")
        for path in (genctl.folder / "w" / folder).rglob("*")
        if path.is_file()
    }
    return sum(found.values())


def test_without_a_policy_everything_published_is_kept(genctl: Genctl, released: list[str]) -> None:
    report = gc(genctl)
    assert report["dropped"] == []
    assert list(report["kept"]) == released
    assert not report["record_moved"]
    assert report["freed_bytes"] == 0


def test_a_dry_run_changes_nothing_and_tells_what_the_collection_then_does(
    genctl: Genctl, released: list[str]
) -> None:
    set_collection(genctl.folder / "w", keep_last=1)
    before = files_of(genctl.folder)
    planned = gc(genctl, "--dry-run")
    genctl("gc", "w", "--dry-run").ok()
    assert files_of(genctl.folder) == before
    assert planned["dropped"] == released[:3]
    assert planned["kept"] == {
        released[3]: ["the one that a rollback goes to"],
        released[4]: ["active", "newest", "last 1"],
    }
    done = gc(genctl)
    assert done["dropped"] == planned["dropped"]
    assert done["home"] == planned["home"]
    for kind in ("symbols", "manifests"):
        for one, other in zip(planned["stores"], done["stores"], strict=True):
            assert one["garbage"][kind] == other["garbage"][kind]


def test_what_is_dropped_is_gone_for_good_and_the_bytes_are_those_that_were_freed(
    genctl: Genctl, released: list[str]
) -> None:
    set_collection(genctl.folder / "w", keep_last=1)
    stores, before = files_of(genctl.folder), home_bytes(genctl)
    report = gc(genctl)
    gone = stores.keys() - files_of(genctl.folder).keys()
    in_stores = sum(stores[name][2] for name in gone if name.startswith(("s/", "t/")))
    assert report["freed_bytes"] == in_stores + before - home_bytes(genctl) > 0
    listed = [each["generation_id"] for each in genctl("generations", "w", "--json").ok().json]
    assert listed == released[3:]
    for command in (("activate", "w", released[0]), ("publish", "w", released[0])):
        genctl(*command).refused(3)
    genctl("rollback", "w", "--to", released[0], "--reason", "x").refused(3, "GenerationCollected")
    assert fsck(genctl)["missing"] == []
    assert ids(ask(genctl, "n", "own3", "--mode", "lexical")) == ["d3"]
    assert bootstrap(genctl, "fresh")["generation_id"] == released[4]
    # A rollback and a new generation go on from there.
    genctl("rollback", "w", "--reason", "back").ok()
    assert bootstrap(genctl)["generation_id"] == released[3]
    ingest(genctl, documents(6, 6), 1)
    newest = release(genctl)
    assert bootstrap(genctl)["generation_id"] == newest
    assert fsck(genctl)["missing"] == []


def test_run_again_it_finds_nothing_to_do_and_moves_no_record(
    genctl: Genctl, released: list[str]
) -> None:
    set_collection(genctl.folder / "w", keep_last=1)
    gc(genctl)
    before = files_of(genctl.folder / "s")
    again = gc(genctl)
    assert (again["dropped"], again["record_moved"], again["freed_bytes"]) == ([], False, 0)
    assert files_of(genctl.folder / "s") == before


def test_what_somebody_may_be_uploading_is_left_for_the_time_of_grace(
    genctl: Genctl, released: list[str]
) -> None:
    stray = "symbols/ab/" + "ab" * 32 + "/00"
    for store in ("s", "t"):
        FolderStore(genctl.folder / store).put_if_absent(stray, [b"from nowhere"])
    set_collection(genctl.folder / "w", keep_last=1, grace_hours=1)
    report = gc(genctl)
    assert len(report["dropped"]) == 3, "what was published until now has no grace"
    assert stray in keys_of(WriterHome(genctl.folder / "w").store())
    assert all(each["young"]["objects"] >= 1 for each in report["stores"])
    told = gc(genctl, "--explain", stray)
    assert (told["kept_by"], told["verdict"]) == (
        [],
        "nothing keeps it; it is left until it is 1 hours old",
    )
    set_collection(genctl.folder / "w", keep_last=1)
    assert gc(genctl, "--explain", "ab" * 32)["verdict"].startswith("nothing keeps it: ")
    gc(genctl)
    assert stray not in keys_of(WriterHome(genctl.folder / "w").store())


def test_explain_names_what_keeps_each_thing(genctl: Genctl, released: list[str]) -> None:
    set_collection(genctl.folder / "w", keep_last=1)
    ingest(genctl, documents(9, 9), 1)
    built = genctl("build", "w", "--json").ok().json["generation_id"]
    writer = WriterHome(genctl.folder / "w")
    unpublished = {"name": built, "reasons": ["built here, not published yet"]}
    assert gc(genctl, "--explain", built)["kept_by"] == [unpublished]
    of_dropped, of_active = writer.manifest(released[0]), writer.manifest(released[4])
    needed = {each.blake3 for each in of_active.artifacts}
    shared = next(each for each in of_dropped.artifacts if each.blake3 in needed)
    told = gc(genctl, "--explain", shared.blake3)
    assert {"name": released[4], "reasons": ["active", "newest", "last 1"]} in told["kept_by"]
    assert released[0] not in [each["name"] for each in told["kept_by"]]
    assert released[0] in told["what"]
    # Those that only dropped generations have.
    kept = {a.blake3 for g in (*released[3:], built) for a in writer.manifest(g).artifacts}
    gone = next(each for each in of_dropped.artifacts if each.blake3 not in kept)
    for asked in (
        gone.blake3,
        released[0],
        writer.current().signed.record.published[0].manifest_id,
    ):
        told = gc(genctl, "--explain", asked)
        assert (told["kept_by"], told["verdict"]) == (
            [],
            "nothing keeps it: the next collection deletes it",
        )
    key = f"symbols/{shared.blake3[:2]}/{shared.blake3}/00"
    assert released[4] in [each["name"] for each in gc(genctl, "--explain", key)["kept_by"]]
    assert gc(genctl, "--explain", "metadata/timestamp.json")["kept_by"]
    genctl("gc", "w", "--explain", "0" * 64).refused(3, "NothingOfThatName")
    genctl("gc", "w", "--explain", "../x").refused(3, "NothingOfThatName")
    unknown = "g000000000099-" + "0" * 12
    genctl("gc", "w", "--explain", unknown).refused(3, "NothingOfThatName")
    genctl("gc", "w", "--explain", key, "--dry-run").refused(2)
    gc(genctl)
    assert "was collected" in gc(genctl, "--explain", released[0])["verdict"]


def test_a_lease_keeps_its_generation_until_it_ends_and_goes_itself_some_time_after(
    genctl: Genctl, released: list[str]
) -> None:
    set_collection(genctl.folder / "w", keep_last=1)
    writer = WriterHome(genctl.folder / "w")
    lease = new_lease(released[1], "backup", "a test", clock.now(), timedelta(hours=1))
    write_lease(writer.store().stores[1], lease)
    over = new_lease(
        released[0], "reader", "a test", clock.now() - timedelta(hours=2), timedelta(hours=1)
    )
    unknown = new_lease(
        "g000000000099-" + "0" * 12, "reader", "a test", clock.now(), timedelta(hours=1)
    )
    write_lease(writer.store().stores[0], over)
    write_lease(writer.store().stores[0], unknown)
    report = gc(genctl)
    assert report["dropped"] == [released[0], released[2]]
    assert report["kept"][released[1]] == [f"lease of backup until {lease.expires_at}"]
    assert report["leases"]["expired"] == [over.key]
    assert report["leases"]["of_unknown_generations"] == [unknown.key]
    left = keys_of(writer.store())
    assert {lease.key, unknown.key} <= left
    assert over.key not in left
    assert fsck(genctl)["missing"] == []


def test_an_ended_lease_of_what_is_retained_stays_for_it_may_be_renewed_at_any_moment(
    genctl: Genctl, released: list[str]
) -> None:
    set_collection(genctl.folder / "w", keep_last=1)
    store = WriterHome(genctl.folder / "w").store().stores[0]
    long_ago = clock.now() - timedelta(days=20)
    of_retained = new_lease(released[-1], "backup", "a test", long_ago, timedelta(hours=1))
    of_dropped = new_lease(released[0], "backup", "a test", long_ago, timedelta(hours=1))
    for each in (of_retained, of_dropped):
        write_lease(store, each)
    gc(genctl)
    assert of_retained.key in keys_of(store)
    assert of_dropped.key not in keys_of(store)


@pytest.mark.parametrize("wrong", ["behind the record", "far from the store's"])
def test_row_23_by_a_clock_that_cannot_be_right_nothing_is_collected(
    genctl: Genctl, released: list[str], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    set_collection(genctl.folder / "w", keep_last=1)
    writer, real = WriterHome(genctl.folder / "w"), clock.now()
    before = keys_of(writer.store())
    if wrong == "behind the record":
        monkeypatch.setattr(clock, "now", lambda: real - timedelta(hours=2))
    else:
        monkeypatch.setattr(collection, "server_time", lambda _: real - timedelta(days=60))
    with pytest.raises(ClockSuspect):
        collection.collect(writer, lambda _: lambda _: None)
    assert keys_of(writer.store()) == before


def test_a_lease_planted_for_the_end_of_time_stops_nobody(
    genctl: Genctl, released: list[str]
) -> None:
    end = "9999-12-31T23:59:59Z"
    planted = new_lease(released[0], "thief", "", clock.now(), timedelta(0)).model_copy(
        update={"taken_at": end, "expires_at": end}
    )
    set_collection(genctl.folder / "w", keep_last=1)
    write_lease(WriterHome(genctl.folder / "w").store().stores[0], planted)
    assert released[0] in gc(genctl)["dropped"]
    genctl("lease", "list", "w").ok()


def test_fsck_names_what_is_missing_and_a_scrub_puts_it_back(
    genctl: Genctl, released: list[str]
) -> None:
    assert fsck(genctl)["missing"] == []
    manifest = next((genctl.folder / "t" / "targets" / "manifests").iterdir())
    symbol = next(path for path in (genctl.folder / "s" / "symbols").rglob("*") if path.is_file())
    manifest.unlink()
    symbol.write_bytes(symbol.read_bytes()[:-1])
    failed = genctl("fsck", "w", "--json")
    failed.refused(6, "PartsMissing", "runbooks/parts-missing.md")
    found = json.loads(failed.out)["missing"]
    assert {(each["where"], each["key"]) for each in found} == {
        (str(genctl.folder / "t"), str(manifest.relative_to(genctl.folder / "t"))),
        (str(genctl.folder / "s"), str(symbol.relative_to(genctl.folder / "s"))),
    }
    genctl("scrub", "w").ok()
    assert fsck(genctl)["missing"] == []


def test_fsck_names_what_is_missing_in_the_home(genctl: Genctl, released: list[str]) -> None:
    writer = WriterHome(genctl.folder / "w")
    artifact = writer.manifest(released[0]).artifacts[0]
    writer.residence.artifact_path(artifact.blake3).unlink()
    failed = genctl("fsck", "w", "--json")
    failed.refused(6, "PartsMissing")
    assert [each["key"] for each in json.loads(failed.out)["missing"]] == [
        f"artifacts/{artifact.blake3}"
    ]
    genctl("scrub", "w").ok()
    assert fsck(genctl)["missing"] == []


def test_what_genctl_never_wrote_is_told_and_left_alone(
    genctl: Genctl, released: list[str]
) -> None:
    strange = ["readme.txt", "symbols/zz/odd", "metadata/notes.json", "targets/x.json"]
    for key in strange:
        path = genctl.folder / "s" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not genctl's")
    (genctl.folder / "w" / "artifacts" / "odd").write_text("not genctl's")
    set_collection(genctl.folder / "w", keep_last=1)
    report = gc(genctl)
    assert len(report["dropped"]) == 3
    assert sorted(report["stores"][0]["unknown"]["keys"]) == sorted(strange)
    assert all((genctl.folder / "s" / key).exists() for key in strange)
    found = fsck(genctl)
    assert sorted(found["stores"][0]["unknown"]["keys"]) == sorted(strange)
    assert found["home"]["unknown"] == ["artifacts/odd"]


def test_temporary_files_of_killed_writers_are_no_objects_and_are_not_told(
    genctl: Genctl, released: list[str]
) -> None:
    """A young one may still be written (docs/adr/0024)."""
    leftover = genctl.folder / "s" / "symbols" / ".tmp-abc"
    leftover.write_text("half")
    assert fsck(genctl)["stores"][0]["unknown"]["objects"] == 0


def test_a_collection_leaves_receipts_that_the_trail_accounts_for(
    genctl: Genctl, released: list[str]
) -> None:
    set_collection(genctl.folder / "w", keep_last=1)
    gc(genctl)
    trail = genctl("audit", "w", "--json").ok().json
    kinds = [each["kind"] for each in trail["receipts"]]
    assert kinds[-2:] == ["collect", "collect"]


def test_a_home_that_is_none_and_a_node_are_refused(genctl: Genctl, released: list[str]) -> None:
    for command in ("gc", "fsck"):
        genctl(command, "nowhere").refused(3, "HomeMissing")
        genctl(command, "n").refused(3, "HomeMissing")


def test_a_compaction_under_way_holds_a_collection_off(genctl: Genctl, released: list[str]) -> None:
    folder = genctl.folder / "w" / "merges"
    files.make_folder(folder)
    with files.locked(folder / "lock", "test"):
        genctl("gc", "w").refused(4, "HomeLocked")
        genctl("gc", "w", "--dry-run").ok()
