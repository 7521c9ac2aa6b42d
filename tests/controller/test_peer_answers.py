"""What a peer answers, and what it has no answer to."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.peer_service import requested_range
from manifests.identifiers import content_id
from store.peer import PeerStore
from tests.support.serving import (
    SECRET,
    Home,
    ask,
    ask_raw,
    connect,
    serving,
    status_of,
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home that no test changes."""
    return Home(tmp_path_factory.mktemp("kept") / "home")


@pytest.fixture(scope="module")
def kept_url(kept: Home) -> Iterator[str]:
    with serving(kept.application()) as url:
        yield url


def test_an_object_is_served_whole_with_its_id_as_the_etag(kept: Home, kept_url: str) -> None:
    for key, data in ((kept.artifact, kept.data), (kept.table, b"table")):
        status, headers, body = ask(kept_url, f"/v1/objects/{key}")
        assert (status, body) == (200, data)
        assert headers["etag"] == f'"{content_id(data)}"'
        assert headers["content-length"] == str(len(data))
        assert headers["accept-ranges"] == "bytes"
        assert "content-range" not in headers


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-2559", 0, 2559),
        ("bytes=100-199", 100, 199),
        ("bytes=2559-2559", 2559, 2559),
        ("bytes=2500-9999999999999999999", 2500, 2559),
        ("bytes=2500-", 2500, 2559),
    ],
)
def test_a_range_is_served(kept: Home, kept_url: str, asked: str, first: int, last: int) -> None:
    status, headers, body = ask(kept_url, f"/v1/objects/{kept.artifact}", Range=asked)
    assert (status, body) == (206, kept.data[first : last + 1])
    assert headers["content-range"] == f"bytes {first}-{last}/2560"
    assert headers["content-length"] == str(last + 1 - first)


@pytest.mark.parametrize("asked", ["bytes=2560-2560", "bytes=2560-", "bytes=9999999999999999999-"])
def test_a_range_past_the_end_is_not_satisfiable(kept: Home, kept_url: str, asked: str) -> None:
    status, headers, _ = ask(kept_url, f"/v1/objects/{kept.artifact}", Range=asked)
    assert status == 416
    assert headers["content-range"] == "bytes */2560"


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=", "bytes=-", "bytes=-5", "bytes=5-3", "bytes=1-2,4-5", "bytes= 1-2",
     "bytes=a-b", "bytes=1-2 ", "items=1-2", "bytes=+1-2", "bytes=1-" + "9" * 5_000],
)  # fmt: skip
def test_a_range_of_another_form_is_no_range(header: str | None) -> None:
    assert requested_range(header, 10) is None


def test_nothing_of_an_empty_object_can_be_asked_for() -> None:
    assert requested_range("bytes=0-5", 0) == range(0)
    assert requested_range("bytes=0-", 0) == range(0)


def test_a_head_has_no_body(kept: Home, kept_url: str) -> None:
    request = f"HEAD /v1/objects/{kept.artifact} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, _, body = ask_raw(kept_url, request.encode()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 2560" in head
    assert body == b""
    assert ask(kept_url, f"/v1/objects/{'artifacts/' + '0' * 64}", "HEAD")[0] == 404


def test_one_connection_serves_many_requests(kept: Home, kept_url: str) -> None:
    with contextlib.closing(connect(kept_url)) as connection:
        for start in range(0, 2560, 100):
            connection.request(
                "GET",
                f"/v1/objects/{kept.artifact}",
                headers={"Range": f"bytes={start}-{start + 99}"},
            )
            assert connection.getresponse().read() == kept.data[start : start + 100]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_peer_is_read_only(kept: Home, kept_url: str, method: str) -> None:
    for path in (f"/v1/objects/{kept.artifact}", "/v1/objects", "/v1/health"):
        assert ask(kept_url, path, method)[0] == 405
    assert status_of(kept_url, kept.artifact) == 200


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/objects/",
        "/v1/objects/artifacts",
        "/v1/objects/artifacts/",
        "/v1/objects/node.json",
        "/v1/objects/generations",
        "/v1/objects/artifacts/node.json",
        "/v1/objects/../node.json",
        "/v1/objects/artifacts/../node.json",
        "/v1/objects/artifacts/%2e%2e/node.json",
        "/v1/objects/artifacts%2f..%2fnode.json",
        "/v1/objects/%2e%2e%2fhome/node.json",
        "/v1/objects/artifacts/..%2fnode.json",
        "/v1/objects//etc/passwd",
        "/v1/objects/%2fetc%2fpasswd",
        "/v1/objects/artifacts/%00",
        "/v1/objects/artifacts/%ff%fe",
        "/v1/objects/artifacts/" + "A" * 64,
        "/v1/objects/artifacts/" + "0" * 63,
        "/v1/objects/artifacts/" + "0" * 64 + "%0a",
        "/v1/objects/artifacts/.tmp-" + "0" * 59,
        "/v1/objects/symbols/" + "0" * 64,
        "/v1/objects/artifacts/" + "0" * 64,
        "/docs",
        "/openapi.json",
        "//v1/health",
        "http://elsewhere/v1/objects/node.json",
    ],
)
def test_nothing_else_is_there(kept: Home, kept_url: str, target: str) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = ask_raw(kept_url, request.encode())
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert SECRET not in answer


def test_an_encoded_character_stands_for_itself(kept: Home, kept_url: str) -> None:
    encoded = kept.artifact.replace("a", "%61")
    assert ask(kept_url, f"/v1/objects/{encoded}")[2] == kept.data


def test_links_folders_and_pipes_are_not_there(home: Home, url: str) -> None:
    made: dict[str, Callable[[Path], None]] = {
        "a1": lambda path: path.symlink_to(home.folder / "node.json"),
        "a2": lambda path: path.symlink_to(home.folder / home.artifact),
        "a3": lambda path: path.symlink_to("nowhere"),
        "a4": lambda path: path.mkdir(),
        "a5": os.mkfifo,
    }
    for digits, make in made.items():
        key = f"artifacts/{digits * 32}"
        make(home.folder / key)
        assert status_of(url, key) == 404, digits
    assert [info.key for info in PeerStore(url).list("")] == [home.artifact, home.table]


def test_the_listing_holds_what_can_be_had(home: Home, url: str) -> None:
    (home.folder / "artifacts" / ".tmp-x").write_bytes(b"half")
    (home.folder / "artifacts" / "name").write_bytes(b"other")
    keys = sorted([home.artifact, home.table, *(home.put("tables", bytes([n])) for n in range(9))])
    listed = list(PeerStore(url).list(""))
    assert [info.key for info in listed] == keys
    for info in listed:
        assert len(ask(url, f"/v1/objects/{info.key}")[2]) == info.size_bytes
    for prefix in ("tables/", "tab", "artifacts/" + home.artifact[10:14], "tables/0", "x"):
        wanted = [key for key in keys if key.startswith(prefix)]
        assert [info.key for info in PeerStore(url).list(prefix)] == wanted


def test_a_home_without_tables_yet_lists_its_artifacts(home: Home, url: str) -> None:
    (home.folder / home.table).unlink()
    (home.folder / "tables").rmdir()
    assert [info.key for info in PeerStore(url).list("")] == [home.artifact]
    assert status_of(url, home.table) == 404


@pytest.mark.parametrize("prefix", ["../", "/", "..", "%00", "artifacts/../"])
def test_a_prefix_that_no_key_can_have_is_refused(kept_url: str, prefix: str) -> None:
    status, _, body = ask(kept_url, f"/v1/objects?prefix={prefix}")
    assert status == 400
    assert json.loads(body)["error"] == "BadSetting"


def test_what_is_no_http_is_refused(kept_url: str) -> None:
    assert ask_raw(kept_url, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert ask(kept_url, "/v1/health")[0] == 200
