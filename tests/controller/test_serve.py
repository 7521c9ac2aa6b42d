"""The life of a server, and of the ``genctl node serve`` processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from activator.state import Damage
from controller import serve as serve_module
from controller.commands.serve import peer_application_of
from controller.degraded import demote
from controller.node import NodeHome
from controller.node_scrub import background
from controller.serve import PeerProtocol, open_listener, serve, url_of
from manifests.errors import ArtifactHashMismatch, BadSetting, HomeMissing
from manifests.identifiers import content_id
from manifests.names import symbol_key
from manifests.record import GenerationEntry
from query.request import Request
from store.peer import PeerStore
from tests.support.homes import add, flip, make_node, make_writer, new_node
from tests.support.process import Console, environment
from tests.support.serving import (
    DEADLINE_S,
    LARGE_BYTES,
    Home,
    ask,
    connect,
    eventually,
    rest,
    serving,
    stalled,
    status_of,
)


@pytest.mark.parametrize(
    "listen",
    ["", "7420", ":7420", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
     "127.0.0.1:-1", "127.0.0.1:\u0667", "[]:1"],
)  # fmt: skip
def test_an_address_of_another_form_is_refused(listen: str) -> None:
    with pytest.raises(BadSetting, match="HOST:PORT"):
        open_listener(listen)


@pytest.mark.parametrize("listen", ["192.0.2.1:0", "name.invalid:0", "a..b:0"])
def test_an_address_that_is_not_ours_is_refused(listen: str) -> None:
    with pytest.raises(BadSetting, match="--listen"):
        open_listener(listen)


def test_answers_do_not_wait_for_acknowledgements(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = PeerProtocol.connection_made

    def connection_made(self: PeerProtocol, transport: asyncio.Transport) -> None:
        connection = transport.get_extra_info("socket")
        made.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        real(self, transport)

    monkeypatch.setattr(PeerProtocol, "connection_made", connection_made)
    with serving(home.application()) as url:
        assert status_of(url, home.artifact) == 200
    assert made == [1]


def test_a_port_that_is_taken_is_refused_by_name() -> None:
    with open_listener("127.0.0.1:0") as taken:
        address = url_of(taken).removeprefix("http://")
        with pytest.raises(BadSetting, match=address):
            open_listener(address)


def test_a_background_task_that_fails_ends_the_serving_and_the_others(home: Home) -> None:
    told: list[bool] = []

    def failing(_: threading.Event) -> None:
        raise ArithmeticError

    with open_listener("127.0.0.1:0") as listener, pytest.raises(ArithmeticError):
        serve(
            home.application(),
            listener,
            [lambda ending: told.append(ending.wait(DEADLINE_S)), failing],
            lambda: None,
        )
    assert told == [True]


def test_an_answer_that_does_not_end_in_time_is_dropped_at_the_end(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_module, "FINISH_TIMEOUT_S", 0.2)
    large = home.put_large()
    received: list[int] = []
    begun = threading.Event()

    with open_listener("127.0.0.1:0") as listener:
        url = url_of(listener)

        def reader_then_end(ending: threading.Event) -> None:
            with stalled(url, large) as response:
                begun.set()
                assert ending.wait(DEADLINE_S)
                received.append(rest(response))

        def ends(_: threading.Event) -> None:
            assert begun.wait(DEADLINE_S)
            raise ArithmeticError

        with pytest.raises(ArithmeticError):
            serve(home.application(), listener, [reader_then_end, ends], lambda: None)
    assert received
    assert received[0] < LARGE_BYTES


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer and two nodes that serve its generation."""
    folder = tmp_path_factory.mktemp("world")
    writer = make_writer(folder)
    add(writer, [{"id": f"d{n}", "text": "word"} for n in range(20)])
    for name in ("first", "second"):
        large = make_node(writer, name).home / "artifacts" / ("1a" * 32)
        with large.open("wb") as file:
            file.truncate(LARGE_BYTES)
    new_node(writer, "empty")
    return folder


@contextlib.contextmanager
def serving_node(world: Path, node: str, *options: str) -> Iterator[tuple[Any, str]]:
    """A running ``genctl node serve`` and its URL."""
    console = Console(world, environment(str(os.getpid())))
    with console.start(
        "node", "serve", node, "--listen", "127.0.0.1:0", "--json", *options
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """The exit code and what was printed on stderr."""
    _, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, err


def test_a_node_serves_until_it_is_interrupted(world: Path) -> None:
    with serving_node(world, "first") as (process, url):
        status, _, body = ask(url, "/v1/health")
        assert status == 200
        health = json.loads(body)
        assert health["status"] == "serving"
        assert health["commit_seq"] == 1
        assert health["generation_id"].startswith("g")
        process.send_signal(signal.SIGINT)
        assert ended(process) == (0, b"")


def test_the_peers_of_a_node_get_what_it_verified(world: Path) -> None:
    with serving_node(world, "first") as first, serving_node(world, "second") as second:
        assert first[1] != second[1]
        listings = []
        for _, url in (first, second):
            store = PeerStore(url)
            listings.append(list(store.list("artifacts/")))
            for info in listings[-1]:
                if info.size_bytes < LARGE_BYTES:
                    data = store.get(info.key, length=info.size_bytes)
                    assert info.key == f"artifacts/{content_id(data)}"
        assert len(listings[0]) > 3
        assert listings[0] == listings[1]


def test_a_node_that_is_told_to_end_finishes_the_answers_under_way(world: Path) -> None:
    with serving_node(world, "first") as (process, url):
        with stalled(url, f"artifacts/{'1a' * 32}") as response:
            process.terminate()

            def refuses() -> bool:
                try:
                    with contextlib.closing(connect(url)) as connection:
                        connection.connect()
                except ConnectionError:
                    return True
                return False

            eventually(refuses)
            assert process.poll() is None
            assert rest(response) == LARGE_BYTES
        assert ended(process) == (0, b"")


def test_a_node_that_is_told_twice_drops_the_answers_under_way(world: Path) -> None:
    with (
        serving_node(world, "first") as (process, url),
        stalled(url, f"artifacts/{'1a' * 32}") as response,
    ):
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == (0, b"")
        assert rest(response) < LARGE_BYTES


def test_a_node_that_holds_nothing_yet_serves_that(world: Path) -> None:
    with serving_node(world, "empty") as (process, url):
        health = json.loads(ask(url, "/v1/health")[2])
        assert health == {"status": "serving", "generation_id": None, "commit_seq": None}
        assert list(PeerStore(url).list("")) == []
        process.terminate()
        assert ended(process) == (0, b"")


def damage_of(entry: GenerationEntry) -> Damage:
    return Damage(
        artifact="heads/0",
        artifact_id="0" * 64,
        generation_ids=(entry.generation_id,),
        error="Unrepairable",
        message="says the test",
    )


def test_row_33_a_node_that_refuses_its_active_generation_answers_from_none(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    active = add(writer, [{"id": "d", "text": "word"}])
    node = make_node(writer)
    with serving(peer_application_of(node)) as url:
        assert json.loads(ask(url, "/v1/health")[2])["generation_id"] == active.generation_id
        demote(NodeHome(node.home), damage_of(active))
        with pytest.raises(ArtifactHashMismatch):
            node.query(node.reader(), Request(text="word", mode="lexical"))
        health = json.loads(ask(url, "/v1/health")[2])
        assert health == {"status": "serving", "generation_id": None, "commit_seq": None}


def test_row_42_a_node_whose_pointer_is_damaged_says_so(world: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(world / "empty", tmp_path / "node")
    (copied / "active.json").write_bytes(b"")
    with serving(peer_application_of(NodeHome(copied))) as url:
        status, _, body = ask(url, "/v1/health")
        assert status == 500
        assert json.loads(body)["error"] == "PointerCorrupt"
        assert list(PeerStore(url).list("")) == []


def test_row_33_a_server_older_than_the_first_bootstrap_falls_back_all_the_same(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path)
    held = new_node(writer)
    older = add(writer, [{"id": f"d{n}", "text": f"word{n}"} for n in range(20)])
    NodeHome(held.home).bootstrap()
    newer = add(writer, [{"id": f"e{n}", "text": f"word{n}"} for n in range(20)])
    NodeHome(held.home).bootstrap()
    known = {each.blake3 for each in writer.manifest(older.generation_id).artifacts}
    artifact = next(
        each for each in writer.manifest(newer.generation_id).artifacts if each.blake3 not in known
    )
    flip(held.home / "artifacts" / artifact.blake3)
    shutil.rmtree((Path(writer.settings.stores[0]) / symbol_key(artifact.blake3, 0)).parent)
    ending = threading.Event()
    scrubbing = threading.Thread(target=background(held), args=[ending])
    scrubbing.start()
    try:
        eventually(lambda: held.state().demoted_from is not None)
    finally:
        ending.set()
        scrubbing.join(DEADLINE_S)
    assert not scrubbing.is_alive()
    assert held.state().demoted_from == newer.generation_id
    assert held.pointer().active == older


def test_what_is_wrong_with_the_settings_is_not_taken_for_damage(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    early = new_node(writer)
    add(writer, [{"id": "d", "text": "word"}])
    NodeHome(early.home).bootstrap()
    newer = add(writer, [{"id": "e", "text": "word"}])
    NodeHome(early.home).bootstrap()
    with pytest.raises(HomeMissing):
        demote(early, damage_of(newer))
    assert early.pointer().active == newer


def test_the_limits_of_the_settings_are_kept(world: Path) -> None:
    node = NodeHome(world / "second")
    limits = node.settings.limits.model_copy(
        update={"serve_reads_at_once": 1, "serve_bytes_per_s": 1_000}
    )
    node.settings = node.settings.model_copy(update={"limits": limits})
    with (
        serving(peer_application_of(node)) as url,
        stalled(url, f"artifacts/{'1a' * 32}") as response,
    ):
        assert status_of(url, f"artifacts/{'0' * 64}") == 503
        # What does not have to wait: a second's worth.
        assert len(response.read(1_000)) == 1_000


def test_serving_is_refused_by_name_where_it_cannot_be(world: Path) -> None:
    console = Console(world, environment(str(os.getpid())))
    console("node", "serve", "nowhere").refused(3, "HomeMissing", "nowhere")
    with serving_node(world, "first") as (_, url):
        address = url.removeprefix("http://")
        console("node", "serve", "second", "--listen", address).refused(3, "BadSetting", address)
