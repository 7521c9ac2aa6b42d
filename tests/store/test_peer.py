"""Reading from a peer: the contract against a real server, and what only this backend does."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from fastapi import FastAPI, Response

from controller.peer_service import Opened, peer_application
from controller.serve import url_of
from manifests.errors import BadSetting, BodyMismatch, StoreUnavailable
from manifests.identifiers import content_id
from store.folder import FolderStore
from store.peer import MAX_LISTED, PeerStore
from store.port import ObjectInfo, Store
from tests.store.contract import Holding, ReadingContract
from tests.support.serving import serving


class FolderOffer:
    """Everything in a folder store, under any key."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._store = FolderStore.create(root)

    def open(self, key: str) -> Opened | None:
        path = self._root / key
        if not path.is_file():
            return None
        return Opened(
            os.open(path, os.O_RDONLY), path.stat().st_size, content_id(path.read_bytes())
        )

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)


@pytest.fixture(scope="module")
def folder_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], str]]:
    """One server for all tests; each points it at its own folder."""
    offers: list[FolderOffer] = []

    class Current:
        def open(self, key: str) -> Opened | None:
            return offers[-1].open(key)

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            return offers[-1].list(prefix)

    def point(root: Path) -> str:
        offers.append(FolderOffer(root))
        return url

    with serving(peer_application(Current(), dict, 8, None)) as url:
        yield point


@pytest.fixture
def holding(folder_peer: Callable[[Path], str], tmp_path: Path) -> Holding:
    def fill(objects: Mapping[str, bytes]) -> Store:
        url = folder_peer(tmp_path / "store")
        behind = FolderStore(tmp_path / "store")
        for key, data in objects.items():
            assert behind.put_if_absent(key, [data])
        return PeerStore(url)

    return fill


class TestContract(ReadingContract):
    pass


def test_a_peer_takes_no_writes(holding: Holding) -> None:
    store = holding({"key": b"x"})
    with pytest.raises(BadSetting, match="read-only"):
        store.put_if_absent("new", [b"x"])
    with pytest.raises(BadSetting, match="read-only"):
        store.compare_and_swap("new", b"x", None)
    with pytest.raises(BadSetting, match="read-only"):
        store.delete("key")
    assert list(store.list("")) == [ObjectInfo("key", 1)]


def test_the_version_is_the_etag(holding: Holding) -> None:
    found = holding({"key": b"data"}).get_versioned("key", limit_bytes=10)
    assert found is not None
    assert found.version == content_id(b"data")


class Numbered:
    """So many objects, all empty of content."""

    def __init__(self, count: int) -> None:
        self.infos = [ObjectInfo(f"n/{number:06d}", number) for number in range(count)]

    def open(self, key: str) -> Opened | None:
        return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(info for info in self.infos if info.key.startswith(prefix))


@pytest.mark.parametrize("count", [MAX_LISTED, MAX_LISTED + 1, 2 * MAX_LISTED + 1])
def test_a_listing_in_parts_is_whole_and_in_order(count: int) -> None:
    offer = Numbered(count)
    with serving(peer_application(offer, dict, 1, None)) as url:
        assert list(PeerStore(url).list("n/")) == offer.infos
        assert list(PeerStore(url).list("n/0000")) == offer.infos[:100]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "<html>welcome</html>",
        '{"objects": [], "more": true}',
        '{"objects": [{"key": "other", "size_bytes": 1}], "more": false}',
        '{"objects": [{"key": "a/b", "size_bytes": "1"}], "more": false}',
        '{"objects": [{"key": "a/b", "size_bytes": 1}], "more": true}',
        '{"objects": [{"key": "a/c", "size_bytes": 1}, {"key": "a/b", "size_bytes": 1}], "more": true}',  # noqa: E501
    ],
)
def test_row_51_a_listing_that_is_none_is_a_mismatch(body: str) -> None:
    application = FastAPI()

    @application.get("/v1/objects")
    def listing() -> Response:
        return Response(body, headers={"ETag": '"x"'})

    with serving(application) as url, pytest.raises(BodyMismatch, match="listing"):
        list(PeerStore(url).list("a/"))


def test_something_else_than_a_peer_has_no_listing() -> None:
    with serving(FastAPI()) as url, pytest.raises(StoreUnavailable, match="no peer"):
        list(PeerStore(url).list(""))


def test_a_peer_may_be_reached_under_a_path(tmp_path: Path) -> None:
    FolderStore.create(tmp_path).put_if_absent("a/b", [b"data"])
    front = FastAPI()
    front.mount("/peers/first", peer_application(FolderOffer(tmp_path), dict, 1, None))
    with serving(front) as url:
        store = PeerStore(f"{url}/peers/first/")
        assert store.url == f"{url}/peers/first"
        assert store.get("a/b", length=10) == b"data"
        assert list(store.list("a/")) == [ObjectInfo("a/b", 4)]


def test_row_50_a_peer_that_does_not_answer_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = url_of(free)
    store = PeerStore(url)
    with pytest.raises(StoreUnavailable):
        store.stat("key")
    with pytest.raises(StoreUnavailable):
        list(store.list(""))


def test_row_50_a_busy_peer_is_unavailable(tmp_path: Path) -> None:
    FolderStore.create(tmp_path).put_if_absent("key", [b"data"])
    with serving(peer_application(FolderOffer(tmp_path), dict, 0, None)) as url:
        with pytest.raises(StoreUnavailable) as caught:
            PeerStore(url).get("key", length=4)
        assert caught.value.facts["status"] == 503


@pytest.mark.parametrize(
    "url",
    ["", "host:7420", "http://", "http://:80", "http://host:port", "http://host:0", "ftp://host",
     "http://host?a=b", "http://host#a", "http://ho st", "http://host/\n", "http://[", "file:///a",
     "http://user:hunter2@host", "http://hunter2@host", "http://höst"],
)  # fmt: skip
def test_a_url_that_cannot_be_a_peers_is_refused_and_kept_quiet(url: str) -> None:
    with pytest.raises(BadSetting, match="http://host:port") as caught:
        PeerStore(url)
    assert "hunter2" not in str(caught.value) + repr(caught.value.facts)
