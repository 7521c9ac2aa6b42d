"""Settings refuse what cannot be used, naming the field, and last unchanged on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.settings import (
    NODE_FILE,
    WRITER_FILE,
    NodeLimits,
    NodeSettings,
    WriterSettings,
    load,
    made,
    save,
)
from manifests.errors import BadSetting


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    node = NodeSettings(
        stores=("/a", "s3://bucket/prefix?endpoint=http://[::1]:80"),
        peers=("http://one:7420", "http://[::1]:7420"),
        limits=NodeLimits(store_bytes_per_s=1 << 20, reads_at_once=1),
    )
    save(tmp_path / NODE_FILE, node)
    assert load(tmp_path / NODE_FILE, NodeSettings, "a node") == node


def test_a_node_takes_all_it_can_get_and_is_careful_with_its_disk_by_default() -> None:
    limits = NodeSettings(stores=("/a",)).limits
    assert limits == NodeLimits()
    assert limits.store_bytes_per_s is limits.peer_bytes_per_s is limits.serve_bytes_per_s is None
    assert limits.scrub_bytes_per_s == 20 << 20


@pytest.mark.parametrize("stores", [(), ("/a", "/b", "/a")])
def test_stores_are_one_at_least_and_none_twice(stores: tuple[str, ...]) -> None:
    with pytest.raises(BadSetting, match="stores"):
        made(NodeSettings, stores=stores)
    with pytest.raises(BadSetting, match="stores"):
        made(WriterSettings, shard="main", stores=stores, embedder="hashing", dimensions=8)


@pytest.mark.parametrize(
    "peer",
    [
        "",
        "host:7420",
        "//host:7420",
        "http://host",
        "http://:7420",
        "http://host:0",
        "http://host:port",
        "http://host:65536",
        "http://[::1:7420",
        "https://host:7420",
        "http://user:word@host:7420",
        "http://host:7420/",
        "http://host:7420/v1",
        "http://host:7420?",
        "http://host:7420#x",
        " http://host:7420",
    ],
)
def test_a_peer_is_a_host_and_a_port(peer: str) -> None:
    with pytest.raises(BadSetting, match=r"peers\.1"):
        made(NodeSettings, stores=("/a",), peers=("http://host:7420", peer))


@pytest.mark.parametrize(
    "peer",
    [
        "http://user:hunter2@host:7420",
        "https://user:hunter2@host:7420",
        "http://host:7420?token=hunter2",
        "http://user:hunter2",  # a port that is no number
        "http://user:hunter2\u2100@host:7420",  # no form of a host's name
        "user:hunter2@host",
        "//user:hunter2@host:7420",
    ],
)
def test_a_refused_peer_keeps_its_password_to_itself(tmp_path: Path, peer: str) -> None:
    with pytest.raises(BadSetting) as given:
        made(NodeSettings, stores=("/a",), peers=(peer,))
    path = tmp_path / NODE_FILE
    path.write_text(json.dumps({"schema_version": 1, "stores": ["/a"], "peers": [peer]}))
    with pytest.raises(BadSetting) as read:
        load(path, NodeSettings, "a node")
    for caught in (given, read):
        assert caught.value.facts == {"field": "peers.0"}
        assert "hunter2" not in caught.value.message


def test_a_store_that_is_named_twice_keeps_its_password_to_itself() -> None:
    with pytest.raises(BadSetting, match="number 2 is named twice") as caught:
        made(NodeSettings, stores=("file://user:hunter2@/a",) * 2)
    assert "hunter2" not in caught.value.message


def test_a_refused_value_that_is_no_url_is_shown() -> None:
    with pytest.raises(BadSetting, match=r"shard '\.\./up'"):
        made(WriterSettings, shard="../up", stores=("/a",), embedder="hashing", dimensions=8)


def test_a_peer_is_named_once() -> None:
    with pytest.raises(BadSetting, match="named twice"):
        made(NodeSettings, stores=("/a",), peers=("http://host:1", "http://host:1"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("store_bytes_per_s", 1023),
        ("peer_bytes_per_s", 0),
        ("serve_bytes_per_s", (1 << 40) + 1),
        ("min_bytes_per_s", 0),
        ("min_bytes_per_s", None),
        ("scrub_bytes_per_s", -1),
        ("reads_at_once", 0),
        ("reads_at_once", 65),
        ("serve_reads_at_once", 0),
        ("serve_reads_at_once", 257),
        ("reads_at_once", "6"),
        ("reads_at_once", 6.5),
        ("colour", 1),
    ],
)
def test_a_limit_out_of_bounds_is_refused_by_its_name(
    tmp_path: Path, field: str, value: object
) -> None:
    path = tmp_path / NODE_FILE
    path.write_text(json.dumps({"schema_version": 1, "stores": ["/a"], "limits": {field: value}}))
    with pytest.raises(BadSetting, match=rf"limits\.{field}"):
        load(path, NodeSettings, "a node")


@pytest.mark.parametrize("file", [WRITER_FILE, NODE_FILE])
def test_a_home_of_before_several_stores_is_refused_by_the_field(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    writer = {"shard": "main", "embedder": "hashing", "dimensions": 8}
    before = {"schema_version": 1, "store": "/a"} | (writer if file == WRITER_FILE else {})
    path.write_text(json.dumps(before))
    with pytest.raises(BadSetting, match="store"):
        load(path, WriterSettings if file == WRITER_FILE else NodeSettings, "a home")
