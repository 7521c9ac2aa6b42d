"""Rot and losses in the stores and in the writer's home: found, mended, or named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.new_home import init_home
from controller.node import NodeHome
from controller.settings import WriterSettings
from controller.writer import WriterHome
from controller.writer_scrub import scrub as scrub_stores
from manifests.errors import ManifestHashMismatch
from query.request import Request
from tests.support.corpus import upserts
from tests.support.homes import (
    add,
    artifacts_of,
    copy_with_store,
    flip,
    largest,
    make_node,
    make_writer,
    only_of,
    symbols_of,
)
from tests.support.process import Genctl
from tests.support.watching import asking

DIMENSIONS = 256


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> WriterHome:
    """Two generations; most of the first is in the second."""
    home = make_writer(tmp_path_factory.mktemp("scrub"), dimensions=DIMENSIONS)
    add(home, upserts(range(2000)))
    add(home, upserts([5000]))
    return home


@pytest.fixture
def writer(made: WriterHome, tmp_path: Path) -> WriterHome:
    return copy_with_store(made, tmp_path)


def ask(node: NodeHome, text: str) -> str:
    return node.query(node.reader(), Request(text=text, mode="lexical")).hits[0].id


@pytest.fixture
def mirrored(tmp_path: Path) -> WriterHome:
    """A writer with three stores and two generations, and a node that has the first."""
    init_home(
        tmp_path / "writer",
        WriterSettings(
            shard="main",
            stores=tuple(str(tmp_path / f"s{number}") for number in range(3)),
            embedder="hashing",
            dimensions=DIMENSIONS,
        ),
    )
    writer = WriterHome(tmp_path / "writer")
    add(writer, upserts(range(20)))
    make_node(writer)
    add(writer, upserts([5000]))
    return writer


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_whole_stores_are_read_and_nothing_is_sent(writer: WriterHome) -> None:
    store = Path(writer.settings.stores[0])
    before = contents(store)
    (found,) = scrub_stores(writer, lambda _: lambda _: None).stores
    held = [key for key in before if key.startswith("symbols/")]
    assert found.objects >= len(held)
    assert found.read_bytes >= sum(len(before[key]) for key in held)
    assert (found.lost, found.damaged, found.recreated) == (0, 0, 0)
    assert contents(store) == before


def test_lost_and_damaged_objects_are_made_again(writer: WriterHome) -> None:
    store = Path(writer.settings.stores[0])
    before = contents(store)
    symbols = sorted(key for key in before if key.startswith("symbols/"))
    lost = [*symbols[::7], *(k for k in before if k.startswith("targets/manifests/"))]
    damaged = [key for key in symbols[3::7] if key not in lost]
    for key in [*lost, "metadata/1.root.json"]:
        (store / key).unlink()
    for place, key in enumerate(damaged):
        body = before[key]
        flip(store / key, len(body) - 1 if place % 2 else 0)  # the table's last byte, or the first
    (found,) = scrub_stores(writer, lambda _: lambda _: None).stores
    assert contents(store) == before
    assert found.lost == len(lost) + 1
    assert found.damaged == len(damaged)
    assert found.recreated == found.lost + found.damaged
    assert contents(store) == before
    (again,) = scrub_stores(writer, lambda _: lambda _: None).stores
    assert again.recreated == 0


def test_a_damaged_root_in_the_only_store_is_put_back_from_the_home(writer: WriterHome) -> None:
    store = Path(writer.settings.stores[0])
    before = contents(store)
    flip(store / "metadata" / "1.root.json", 60)
    (found,) = scrub_stores(writer, lambda _: lambda _: None).stores
    assert (found.lost, found.damaged) == (0, 1)
    assert contents(store) == before


def test_a_damaged_artifact_of_the_writer_is_mended_from_the_stores_first(
    writer: WriterHome,
) -> None:
    store = Path(writer.settings.stores[0])
    artifact, other = largest(artifacts_of(writer)), only_of(writer, 1)[0]
    before = contents(store)
    held = {each.name: each.read_bytes() for each in writer.residence.artifacts.iterdir()}
    flip(writer.residence.artifact_path(artifact.blake3), 5)
    writer.residence.artifact_path(other.blake3).unlink()
    (symbols_of(writer, artifact) / "01").unlink()
    report = scrub_stores(writer, lambda _: lambda _: None)
    assert report.mended_artifacts == 2
    assert contents(store) == before
    assert {each.name: each.read_bytes() for each in writer.residence.artifacts.iterdir()} == held
    add(writer, upserts([7000]))


def test_what_both_the_writer_and_the_stores_lost_is_named(
    writer: WriterHome, in_folder: Callable[[Path], Genctl]
) -> None:
    artifact = largest(artifacts_of(writer))
    flip(writer.residence.artifact_path(artifact.blake3), 5)
    shutil.rmtree(symbols_of(writer, artifact))
    path = writer.home / "settings.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"stores": list(writer.settings.stores)})
    )
    genctl = in_folder(writer.home.parent)
    genctl("scrub", "writer").refused(6, "Unrepairable", artifact.name)


def test_row_30_artifacts_that_cannot_be_mended_do_not_keep_the_others_from_it(
    writer: WriterHome, in_folder: Callable[[Path], Genctl]
) -> None:
    store = Path(writer.settings.stores[0])
    hopeless, mendable, lost = sorted(artifacts_of(writer), key=lambda a: -a.size_bytes)[:3]
    also_hopeless = only_of(writer, 0)[0]
    before = contents(store)
    paths = {a: writer.residence.artifact_path(a.blake3) for a in (hopeless, mendable)}
    whole = paths[mendable].read_bytes()
    for artifact in (hopeless, also_hopeless, mendable):
        flip(writer.residence.artifact_path(artifact.blake3), 5)
    gone = {a: contents(symbols_of(writer, a)) for a in (hopeless, also_hopeless)}
    for artifact in gone:
        shutil.rmtree(symbols_of(writer, artifact))
    (symbols_of(writer, lost) / "00").unlink()
    settings = writer.home / "settings.json"
    stores = {"stores": list(writer.settings.stores)}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | stores))
    genctl = in_folder(writer.home.parent)

    told = genctl("scrub", "writer", "--json")
    assert told.error["error"] == "Unrepairable"
    assert told.code == 6
    assert len(told.json["unmended"]) == 2
    assert told.json["mended_artifacts"] == 1
    assert paths[mendable].read_bytes() == whole
    away = {
        str((symbols_of(writer, a) / name).relative_to(store)) for a in gone for name in gone[a]
    }
    assert contents(store) == {key: body for key, body in before.items() if key not in away}

    again = genctl("scrub", "writer").refused(6, "Unrepairable")
    assert "2 parts lost or damaged" in again.out
    assert hopeless.name in again.out
    assert also_hopeless.name in again.out
    for artifact, held in gone.items():
        symbols_of(writer, artifact).mkdir()
        for name, body in held.items():
            (symbols_of(writer, artifact) / name).write_bytes(body)
    assert genctl("scrub", "writer", "--json").ok().json["unmended"] == []
    assert contents(store) == before


def test_three_stores_are_told_apart_and_made_whole(mirrored: WriterHome) -> None:
    stores = [Path(url) for url in mirrored.settings.stores]
    before = [contents(store) for store in stores]
    symbols = [sorted(key for key in held if key.startswith("symbols/")) for held in before]
    (stores[1] / symbols[1][0]).unlink()
    flip(stores[2] / symbols[2][0])
    (stores[2] / "metadata" / "timestamp.json").unlink()
    first, second, third = scrub_stores(mirrored, lambda _: lambda _: None).stores
    assert [contents(store) for store in stores] == before
    assert (first.lost, first.damaged, first.recreated) == (0, 0, 0)
    assert (second.lost, second.damaged, second.recreated) == (1, 0, 1)
    assert (third.lost, third.damaged, third.recreated) == (1, 1, 2)
    assert [each.url for each in (first, second, third)] == list(map(str, stores))


def in_the_way(path: Path, kind: str, away: Path) -> None:
    """Have a folder or a link stand where an object was."""
    path.rename(away)
    if kind == "folder":
        path.mkdir()
        (path / "somebody's").write_text("notes")
    elif kind == "link":
        path.symlink_to(away)
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_a_device_in_the_place_of_a_symbol_gives_way(
    writer: WriterHome, tmp_path: Path, kind: str
) -> None:
    store = Path(writer.settings.stores[0])
    before = contents(store)
    symbols = sorted(key for key in before if key.startswith("symbols/"))[::5]
    for number, key in enumerate(symbols):
        in_the_way(store / key, kind, tmp_path / f"away-{number}")
    (store / symbols[0]).with_name("01").unlink(missing_ok=True)
    report = scrub_stores(writer, lambda _: lambda _: None)
    assert report.failures == ()
    assert contents(store) == before
    assert not any((store / key).is_symlink() for key in before)
    for number, key in enumerate(symbols):
        assert (tmp_path / f"away-{number}").read_bytes() == before[key], "what it led to is left"


def test_folders_in_the_place_of_symbols_are_named_and_all_else_is_mended(
    writer: WriterHome, tmp_path: Path, in_folder: Callable[[Path], Genctl]
) -> None:
    store = Path(writer.settings.stores[0])
    before = contents(store)
    symbols = sorted(key for key in before if key.startswith("symbols/"))
    blocked, lost = [symbols[0], symbols[-3]], symbols[1::7]
    for number, key in enumerate(blocked):
        in_the_way(store / key, "folder", tmp_path / f"away-{number}")
    for key in lost:
        (store / key).unlink()
    settings = writer.home / "settings.json"
    stores = {"stores": list(writer.settings.stores)}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | stores))
    genctl = in_folder(writer.home.parent)

    told = genctl("scrub", "writer", "--json")
    assert (told.code, told.error["error"]) == (6, "ObjectObstructed")
    (found,) = told.json["stores"]
    assert len(found["obstructions"]) == len(blocked)
    for key, line in zip(blocked, found["obstructions"], strict=True):
        assert str(store / key) in line
    assert (found["lost"], found["damaged"]) == (len(lost), 0)
    assert told.json["unmended"] == []
    kept = {f"{key}/somebody's": b"notes" for key in blocked}
    rest = {key: body for key, body in before.items() if key not in blocked}
    assert contents(store) == rest | kept

    again = genctl("scrub", "writer").refused(6, "2 symbols could not be sent", "runbooks/disk")
    assert all(str(store / key) in again.out for key in blocked)
    for key in blocked:
        shutil.rmtree(store / key)
    assert genctl("scrub", "writer", "--json").ok().json["stores"][0]["lost"] == 2
    assert contents(store) == before


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("scrub", "timestamp.json"),
        ("scrub", "*[0-9].snapshot.json"),
        ("scrub", "*[0-9].targets.json"),
        ("scrub", "1.root.json"),
        # Every command that signs brings up the copies first, and must not copy damage.
        ("publish", "timestamp.json"),
        ("publish", "1.root.json"),
    ],
)
def test_signed_metadata_that_rots_in_the_first_store_is_mended_from_a_copy(
    mirrored: WriterHome, in_folder: Callable[[Path], Genctl], name: str, command: str
) -> None:
    """Meanwhile nodes take a copy from another store, and go on serving."""
    stores = [Path(url) for url in mirrored.settings.stores]
    before = [contents(store) for store in stores]
    newest = max((stores[0] / "metadata").glob(name), key=lambda path: int_of(path.name))
    for offset in (-200, -4):
        flip(newest, newest.stat().st_size + offset)
    node = NodeHome(mirrored.home.parent / "node")
    with asking(node) as answers:
        assert node.bootstrap().activated
    assert set(answers) <= {"d7", "d5000"}
    genctl = in_folder(mirrored.home.parent)
    genctl(command, "writer").ok()
    assert [contents(store) for store in stores] == before
    node.bootstrap()
    assert ask(node, "unique5000") == "d5000"


def int_of(name: str) -> int:
    number = name.partition(".")[0]
    return int(number) if number.isdecimal() else 0


def test_a_manifest_that_rots_in_every_store_is_mended_from_the_home(
    mirrored: WriterHome,
) -> None:
    stores = [Path(url) for url in mirrored.settings.stores]
    before = [contents(store) for store in stores]
    for store in stores:
        for path in (store / "targets" / "manifests").iterdir():
            flip(path, 20)
    node = NodeHome(mirrored.home.parent / "node")
    pointer = node.pointer()
    with asking(node) as answers, pytest.raises(ManifestHashMismatch):
        node.bootstrap()
    assert set(answers) == {"d7"}
    assert node.pointer() == pointer
    report = scrub_stores(mirrored, lambda _: lambda _: None)
    assert [contents(store) for store in stores] == before
    assert all(each.damaged > 0 for each in report.stores)
    assert node.bootstrap().activated


def test_a_record_of_which_nothing_is_left_stops_what_signs_and_a_scrub_puts_it_back(
    mirrored: WriterHome, in_folder: Callable[[Path], Genctl]
) -> None:
    stores = [Path(url) for url in mirrored.settings.stores]
    record = stores[0] / "metadata" / "timestamp.json"
    whole = record.read_bytes()
    record.write_bytes(bytes(len(whole)))
    genctl = in_folder(mirrored.home.parent)
    for command in (["publish", "writer"], ["keys", "refresh", "writer"]):
        genctl(*command).refused(6, "UnsignedRecord", str(stores[0]), "store-lost")
    for store in stores[1:]:
        assert (store / "metadata" / "timestamp.json").read_bytes() == whole
    assert genctl("scrub", "writer", "--json").ok().json["record_put_back"]
    assert record.read_bytes() == whole
    (mirrored.home / "signed_last.json").unlink()
    record.write_bytes(bytes(len(whole)))
    genctl("scrub", "writer").refused(6, "UnsignedRecord", str(stores[0]), "store-lost")
