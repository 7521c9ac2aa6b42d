"""Settings that make no sense, homes that are something else, stores that are not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.process import Console, Genctl, environment
from tests.system.world import (
    ask,
    bootstrap,
    documents,
    files_of,
    ids,
    ingest,
    release,
    writer_home,
)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--dimensions", "0"], 3),
        (["--dimensions", "-3"], 3),
        (["--dimensions", "10000000"], 3),
        (["--dimensions", "many"], 2),
        (["--embedder", "psychic"], 3),
        (["--quantization", "b1"], 2),
        (["--shard", ""], 3),
        (["--shard", "../up"], 3),
        (["--shard", "Main"], 3),
        (["--shard", "a" * 300], 3),
        (["--store", ""], 3),
        (["--store", "gopher://example.org/x"], 3),
        (["--store", "file://elsewhere/x"], 3),
        (["--store", "a-file"], 3),
        (["--store", "s", "--store", "s"], 3),
        (["--store", "s", "--store", "./s"], 3),
        (["--store", "s", "--store", "a-file"], 3),
        (["--store", "s", "--store", "w/s"], 3),
    ],
)
def test_a_nonsensical_init_is_refused_and_leaves_no_home(
    genctl: Genctl, more: list[str], code: int
) -> None:
    (genctl.folder / "a-file").write_text("mine")
    store = [] if "--store" in more else ["--store", "s"]
    told = genctl("init", "w", *store, *more).refused(code)
    assert told.out == ""
    assert not (genctl.folder / "w").exists()
    assert (genctl.folder / "a-file").read_text() == "mine"
    genctl("status", "w").refused(3, "HomeMissing")


def test_a_home_that_holds_other_things_is_refused_and_left_alone(genctl: Genctl) -> None:
    (genctl.folder / "w").mkdir()
    (genctl.folder / "w" / "thesis.txt").write_text("mine")
    (genctl.folder / "f").write_text("mine")
    for home in ("w", "f"):
        genctl("init", home, "--store", "s").refused(3, "HomeOccupied", home)
        genctl("node", "bootstrap", home, "--store", "s", "--root", "f").refused(3, "HomeOccupied")
    assert [path.name for path in (genctl.folder / "w").iterdir()] == ["thesis.txt"]
    genctl("init", "f/under", "--store", "s2").refused(3, "HomeOccupied")


def test_a_home_is_not_made_again_with_other_settings(genctl: Genctl) -> None:
    writer_home(genctl)
    before = (genctl.folder / "w" / "settings.json").read_bytes()
    for more in (["--dimensions", 64], ["--shard", "other"], ["--embedder", "precomputed"]):
        genctl("init", "w", "--store", "s", *more).refused(3, "HomeOccupied", "settings.json")
    genctl("init", "w", "--store", "s2", "--dimensions", 256).refused(3, "HomeOccupied")
    assert (genctl.folder / "w" / "settings.json").read_bytes() == before


def test_an_init_that_failed_is_corrected_by_the_next(tmp_path: Path, mark: str) -> None:
    credentials = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    genctl = Console(tmp_path, environment(mark) | credentials)
    closed = "s3://bucket?endpoint=http://127.0.0.1:1"
    genctl("init", "w", "--store", closed, "--dimensions", 32).refused(5, "StoreUnavailable")
    path = tmp_path / "w" / "settings.json"
    assert json.loads(path.read_text())["stores"] == [closed]
    genctl("init", "w", "--store", "s", "--dimensions", 64).ok()
    settings = json.loads(path.read_text())
    assert (settings["stores"], settings["dimensions"]) == ([str(tmp_path / "s")], 64)
    genctl("init", "w", "--store", "s2", "--dimensions", 64).refused(3, "HomeOccupied")
    assert json.loads(path.read_text()) == settings


def test_commits_keep_the_settings_they_were_made_with(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 2), 5)
    shutil.rmtree(genctl.folder / "w" / "keys")
    (genctl.folder / "w" / "root.json").unlink()
    genctl("init", "w", "--store", "s2", "--dimensions", 64).refused(3, "HomeOccupied")


def test_one_folder_or_bucket_is_not_two_stores(genctl: Genctl) -> None:
    bucket = "s3://bucket/p?endpoint=http://127.0.0.1:1"
    (genctl.folder / "s").mkdir()
    (genctl.folder / "link").symlink_to("s")
    writer_home(genctl, store="other")
    for first, second in (("s", "link"), (bucket, f"{bucket}&region=elsewhere")):
        stores = ["--store", first, "--store", second]
        genctl("init", "new", *stores).refused(3, "BadSetting", "one and the same")
        node = ["node", "bootstrap", "n", *stores, "--root", "w/root.json"]
        genctl(*node).refused(3, "BadSetting", "one and the same")
    assert not (genctl.folder / "new").exists()
    assert not (genctl.folder / "n").exists()
    assert list((genctl.folder / "s").iterdir()) == []


def test_a_store_is_one_writers(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 2), 5)
    first = release(genctl)
    genctl("init", "other", "--store", "s").refused(3, "HomeOccupied", "another writer")
    bootstrap(genctl)
    assert ask(genctl, "n", "common")["generation_id"] == first


def test_a_store_of_another_writer_is_refused_as_one_of_several_and_left_alone(
    genctl: Genctl,
) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 2), 5)
    first = release(genctl)
    before = files_of(genctl.folder / "s")
    stores = ["--store", "s2", "--store", "s", "--store", "s3"]
    genctl("init", "other", *stores).refused(3, "HomeOccupied", "another writer")
    genctl("init", "own", "--store", "s4", "--dimensions", 256).ok()
    path = genctl.folder / "own" / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(
        json.dumps(settings | {"stores": [*settings["stores"], str(genctl.folder / "s")]})
    )
    ingest(genctl, documents(1, 2), 5, home="own")
    genctl("release", "own").refused(3, "HomeOccupied", str(genctl.folder / "s"))
    genctl("keys", "refresh", "own").refused(3, "HomeOccupied", str(genctl.folder / "s"))
    after = files_of(genctl.folder / "s")
    assert {key: after[key] for key in before} == before
    bootstrap(genctl)
    assert ask(genctl, "n", "common")["generation_id"] == first


def test_peers_come_and_go_and_stores_stay(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 2), 5)
    release(genctl)
    line = ["node", "bootstrap", "n", "--store", "s", "--root", "w/root.json"]
    for peer in ("https://host:1", "host:1", "http://host:1/", ""):
        genctl(*line, "--peer", peer).refused(3, "BadSetting", "peers.0")
    assert not (genctl.folder / "n").exists()
    genctl(*line).ok()

    def known() -> tuple[list[str], list[str]]:
        settings = json.loads((genctl.folder / "n" / "node.json").read_text())
        assert settings["embedder"]["dimensions"] == 256
        return settings["stores"], settings["peers"]

    store = str(genctl.folder / "s")
    peers = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    words = [word for peer in peers for word in ("--peer", peer)]
    for command, expected in (
        ([*line, *words], peers),
        (["node", "bootstrap", "n"], peers),
        (["node", "bootstrap", "n", "--peer", peers[1]], peers[1:]),
    ):
        genctl(*command).ok()
        assert known() == ([store], expected)
    genctl("node", "bootstrap", "n", "--peer", "x").refused(3, "BadSetting", "peers.0")
    (genctl.folder / "s2").mkdir()
    for stores in (["s2"], ["s", "s2"], ["s2", "s"]):
        words = [word for each in stores for word in ("--store", each)]
        genctl("node", "bootstrap", "n", *words).refused(3, "BadSetting", "node.json")
    assert known() == ([store], peers[1:])


def test_a_node_is_not_made_without_knowing_whom_to_trust(genctl: Genctl) -> None:
    writer_home(genctl)
    root = genctl.folder / "w" / "root.json"
    line = ["node", "bootstrap", "n"]
    genctl(*line).refused(3, "--store", "--root")
    genctl(*line, "--store", "s").refused(3, "--root")
    genctl(*line, "--root", root).refused(3, "--store")
    genctl(*line, "--store", "s", "--root", "missing.json").refused(3, "missing.json")
    genctl(*line, "--store", "s", "--root", ".").refused(3)
    assert not (genctl.folder / "n").exists()
    genctl("query", "n", "x").refused(3, "HomeMissing")
    genctl("node", "status", "n").refused(3, "HomeMissing")
    genctl("node", "rollback", "n").refused(3, "HomeMissing")
    for command in (
        ["scrub"],
        ["plan"],
        ["bootstrap"],
        ["bootstrap", "--store", "s", "--root", root],
    ):
        told = genctl("node", command[0], "w", *command[1:])
        told.refused(3, "HomeMissing", "w is a writer's home")


@pytest.mark.parametrize(
    "root", [b"", b"{}", b"\xff", b"not json", b'{"signed": {}, "signatures": []}', b"[1]", b"null"]
)
def test_row_09_a_root_that_is_none_is_refused(genctl: Genctl, root: bytes) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 2), 5)
    release(genctl)
    (genctl.folder / "bad.json").write_bytes(root)
    line = ["node", "bootstrap", "n", "--store", "s", "--root", "bad.json"]
    genctl(*line).refused(6, "UnsignedRecord", "bad.json is no root of trust", "root.json")
    assert not (genctl.folder / "n").exists()
    bootstrap(genctl)
    for command in ("bootstrap", "plan", "repin"):
        told = genctl("node", command, "n", "--root", "bad.json")
        told.refused(6, "UnsignedRecord", "bad.json is no root of trust", "root.json")


def test_row_09_the_root_of_another_writer_is_refused(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 2), 5)
    release(genctl)
    writer_home(genctl, home="other", store="other-store")
    line = ["node", "bootstrap", "n", "--store", "s", "--root"]
    told = genctl(*line, "other/root.json")
    assert told.code == 6, told
    assert "Traceback" not in told.err
    genctl("query", "n", "x").refused(4, "NothingPublished")
    genctl(*line, "w/root.json").ok()
    genctl(*line, "other/root.json").refused(3, "another root")
    assert bootstrap(genctl, "right")["activated"]
    genctl("node", "bootstrap", "right", "--store", "other-store").refused(3, "other-store")
    assert ids(ask(genctl, "right", "own1", "--mode", "lexical")) == ["d1"]


def test_a_store_that_is_not_there_is_a_matter_of_retry(genctl: Genctl) -> None:
    writer_home(genctl)
    line = ["node", "bootstrap", "n", "--store", "nowhere", "--root", "w/root.json"]
    genctl(*line).refused(5, "StoreUnavailable", "nowhere")
    assert not (genctl.folder / "nowhere").exists()
    (genctl.folder / "nowhere").mkdir()
    genctl(*line).refused(5, "StoreUnavailable", "nowhere")


def test_an_empty_store_is_a_matter_of_waiting(genctl: Genctl) -> None:
    writer_home(genctl)
    line = ["node", "bootstrap", "n", "--store", "s", "--root", "w/root.json"]
    genctl(*line).refused(4, "NothingPublished")
    genctl("query", "n", "x").refused(4, "NothingPublished")
    genctl("release", "w").refused(3, "NothingToBuild")
    genctl("publish", "w").refused(3, "GenerationUnknown")
    ingest(genctl, documents(1, 2), 5)
    genctl("build", "w").ok()
    genctl("publish", "w").ok()
    genctl(*line).refused(4, "NothingPublished")
    release(genctl)
    genctl(*line).ok()


def test_generations_that_nobody_knows_are_refused(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 2), 5)
    known = genctl("build", "w", "--json").ok().json["generation_id"]
    genctl("activate", "w", known).refused(3, "GenerationNotPublished", known)
    for name in ("g000000000009-000000000000", "nonsense", "", "../../w"):
        for command in (["show"], ["publish"], ["activate"]):
            told = genctl(command[0], "w", name)
            if not (command == ["publish"] and not name):
                told.refused(3)
        if name:
            genctl("rollback", "w", "--to", name, "--reason", "x").refused(3)


def test_a_lost_store_stops_the_writer_and_not_the_node(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 2), 5)
    release(genctl)
    bootstrap(genctl)
    (genctl.folder / "s").rename(genctl.folder / "away")
    assert ingest(genctl, documents(3, 4), 5) == 2, "ingestion needs no store"
    genctl("build", "w").ok()
    for command in (["publish"], ["release"], ["status"], ["generations"]):
        genctl(*command, "w").refused(5, "StoreUnavailable")
    genctl("node", "bootstrap", "n").refused(5, "StoreUnavailable")
    assert ids(ask(genctl, "n", "own1", "--mode", "lexical")) == ["d1"]
    (genctl.folder / "away").rename(genctl.folder / "s")
    release(genctl)
    bootstrap(genctl)
    assert ids(ask(genctl, "n", "own3", "--mode", "lexical")) == ["d3"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"null", b"[]", b'{"store": 5}', b"NOT YOURS", b'{"colour": 1}'],
)
@pytest.mark.parametrize("file", ["w/settings.json", "n/node.json"])
def test_damaged_settings_are_refused_by_name(genctl: Genctl, file: str, content: bytes) -> None:
    (genctl.folder / "w").mkdir()
    (genctl.folder / "n").mkdir()
    path = genctl.folder / file
    path.write_bytes(content)
    commands = {
        "w": [["status", "w"], ["release", "w"], ["init", "w", "--store", "s"]],
        "n": [["query", "n", "x"], ["node", "status", "n"], ["node", "bootstrap", "n"]],
    }
    for command in commands[file[0]]:
        genctl(*command).refused(3, "BadSetting", path.name)
    assert path.read_bytes() == content


def test_a_newer_settings_file_is_refused(genctl: Genctl) -> None:
    writer_home(genctl)
    path = genctl.folder / "w" / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"schema_version": 2}))
    genctl("status", "w").refused(3, "BadSetting", "schema_version")


def test_private_keys_that_others_can_read_are_refused(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 2), 5)
    key: Path = genctl.folder / "w" / "keys" / "targets.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    key.chmod(0o644)
    genctl("release", "w").refused(3, "BadSetting", "chmod 600")
    key.chmod(0o600)
    saved = key.read_bytes()
    key.write_bytes(saved[:40])
    genctl("release", "w").refused(3, "BadSetting", "targets.pem")
    key.write_bytes(saved)
    release(genctl)
