"""`genctl node plan` says what the bootstrap after it moves, and moves nothing itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from controller.commands.scrub import plan as plan_command
from controller.commands.serve import peer_application_of
from controller.node import NodeHome
from controller.node_plan import ASSUMED_BYTES_PER_S, plan
from controller.throughput import MEASURED_FROM_BYTES, last_throughput, record_throughput
from controller.writer import WriterHome
from manifests.errors import SizeRefused
from replicator.tally import FetchTally
from tests.support.corpus import upserts
from tests.support.homes import add, copy_with_store, make_writer, new_node
from tests.support.process import Genctl
from tests.support.serving import serving
from tests.system.world import files_of, seeded

DIMENSIONS = 256
PAGE_SIZE_BYTES = 4096


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> WriterHome:
    home = make_writer(tmp_path_factory.mktemp("plan"), dimensions=DIMENSIONS)
    add(home, upserts(range(2000)))
    return home


@pytest.fixture
def copied(writer: WriterHome, tmp_path: Path) -> WriterHome:
    """The writer and its store, of this test alone."""
    return copy_with_store(writer, tmp_path)


def check(node: NodeHome) -> FetchTally:
    """Plan, bootstrap, and compare what was foreseen with what was moved."""
    before = files_of(node.home / "artifacts") | files_of(node.home / "incoming")
    foreseen = plan(node).forecast
    assert files_of(node.home / "artifacts") | files_of(node.home / "incoming") == before
    brought = node.bootstrap().brought
    tally = brought.tally
    moved = {url: size_bytes for url, size_bytes in tally.sources.items() if size_bytes}
    assert {each.url: each.size_bytes for each in foreseen.sources if each.size_bytes} == moved
    assert foreseen.fetch_bytes == tally.fetched_bytes
    assert foreseen.resume_bytes == tally.resumed_bytes
    assert foreseen.rebuilt_bytes == tally.repaired_bytes
    assert foreseen.reuse_bytes == brought.plan.reuse_bytes
    assert plan(node).forecast.fetch_bytes == 0
    return tally


def test_a_fresh_node_and_then_a_catch_up(copied: WriterHome) -> None:
    node = new_node(copied)
    whole = check(node)
    add(copied, upserts([5000]))
    assert 0 < check(node).fetched_bytes < whole.fetched_bytes


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_row_29_symbols_lost_as_far_as_is_survived(copied: WriterHome, seed: int) -> None:
    chance = seeded(seed)
    store = Path(copied.settings.stores[0])
    for artifact in copied.built()[0].artifacts:
        k, m = artifact.symbols.k, artifact.symbols.m
        for number in chance.sample(range(m), m - k):
            (store / f"symbols/{artifact.blake3[:2]}/{artifact.blake3}/{number:02d}").unlink()
    assert check(new_node(copied)).repaired_bytes > 0


def test_an_interrupted_fetch_is_resumed(copied: WriterHome) -> None:
    node = new_node(copied)
    largest = max(copied.built()[0].artifacts, key=lambda each: each.size_bytes)
    whole = copied.residence.artifact_path(largest.blake3).read_bytes()
    (node.home / "incoming").mkdir()
    (node.home / "incoming" / largest.blake3).write_bytes(whole[: len(whole) * 2 // 3])
    assert check(node).resumed_bytes > 0


def test_what_arrived_behind_a_lost_symbol_does_not_hide_the_room_for_the_rest(
    copied: WriterHome,
) -> None:
    node = new_node(copied)
    whole_bytes = plan(node).forecast.disk_peak_bytes
    largest = max(copied.built()[0].artifacts, key=lambda each: each.size_bytes)
    data = copied.residence.artifact_path(largest.blake3).read_bytes()
    (node.home / "incoming").mkdir()
    with (node.home / "incoming" / largest.blake3).open("wb") as arrived:
        arrived.seek(len(data) * 2 // 3)
        arrived.write(data[len(data) * 2 // 3 :])
    needed_bytes = plan(node).forecast.disk_peak_bytes
    assert whole_bytes * 2 // 3 - PAGE_SIZE_BYTES <= needed_bytes < whole_bytes
    usage = shutil.disk_usage(node.home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed_bytes // 2))
        told = CliRunner().invoke(plan_command, [str(node.home)], catch_exceptions=False).output
        assert "That is too little room" in told
        with pytest.raises(SizeRefused):
            node.bootstrap()
    assert check(node).resumed_bytes > 0


def test_two_peers_of_which_one_is_behind(copied: WriterHome) -> None:
    behind, current = new_node(copied, "behind"), new_node(copied, "current")
    behind.bootstrap()
    add(copied, upserts([5000]))
    current.bootstrap()
    with (
        serving(peer_application_of(behind)) as first,
        serving(peer_application_of(current)) as second,
    ):
        node = new_node(copied)
        path = node.home / "node.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"peers": [first, second]}))
        tally = check(NodeHome(node.home))
    assert tally.store_bytes == 0
    assert set(tally.sources) >= {first, second}


def test_a_peer_that_is_gone_is_named_and_does_without(copied: WriterHome) -> None:
    node = new_node(copied)
    with serving(peer_application_of(node)) as url:
        pass
    path = node.home / "node.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peers": [url]}))
    node = NodeHome(node.home)
    peer, _ = plan(node).forecast.sources
    assert (peer.kind, peer.url, peer.size_bytes) == ("peer", url, 0)
    assert peer.refusal
    assert check(node).peer_bytes == 0


def test_the_estimate_says_what_it_stands_on(copied: WriterHome) -> None:
    node = new_node(copied)
    fetch_bytes = plan(node).forecast.fetch_bytes
    assert plan(node).estimate.seconds == fetch_bytes / ASSUMED_BYTES_PER_S
    assert plan(node).estimate.basis == "assumed 100 MB/s"
    record_throughput(node.home, MEASURED_FROM_BYTES - 1, 1.0)
    assert last_throughput(node.home) is None
    record_throughput(node.home, MEASURED_FROM_BYTES, 2.0)
    assert plan(node).estimate.basis == "measured 4.2 MB/s"
    assert plan(node).estimate.seconds == fetch_bytes / (MEASURED_FROM_BYTES / 2)
    path = node.home / "node.json"
    limits = {"store_bytes_per_s": 1_000_000}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"limits": limits}))
    limited = plan(NodeHome(node.home)).estimate
    assert limited.basis == "limited by store_bytes_per_s, 1.0 MB/s"
    assert limited.seconds == fetch_bytes / 1_000_000


def test_a_damaged_measurement_is_none(tmp_path: Path) -> None:
    (tmp_path / "throughput.json").write_bytes(b"{")
    assert last_throughput(tmp_path) is None


def test_the_command_prints_the_plan_for_people_and_for_programs(
    copied: WriterHome, in_folder: Callable[[Path], Genctl]
) -> None:
    node = new_node(copied)
    genctl = in_folder(node.home.parent)
    document: dict[str, Any] = genctl("node", "plan", "node", "--json").ok().json
    assert document["fetch_bytes"] == document["store_bytes"] > document["peer_bytes"] == 0
    assert document["fetch_bytes"] == sum(each["bytes"] for each in document["sources"])
    assert document["fetch_bytes"] - document["table_bytes"] == document["generation_bytes"]
    assert document["disk_peak_bytes"] < document["disk_free_bytes"]
    told = genctl("node", "plan", "node").ok().out
    assert "from stores" in told
    assert all(len(line) <= 80 for line in told.splitlines() if str(node.home.parent) not in line)
    bootstrapped = genctl("node", "bootstrap", "node", "--json").ok().json
    assert bootstrapped["fetched_bytes"] == document["fetch_bytes"]
    told = genctl("node", "plan", "node").ok().out
    assert "Nothing to fetch" in told
    assert all(len(line) <= 80 for line in told.splitlines())
    assert genctl("node", "plan", "node", "--json").ok().json["fetch_bytes"] == 0


def test_row_30_what_cannot_be_had_is_said_before_anything_moves(
    copied: WriterHome, in_folder: Callable[[Path], Genctl]
) -> None:
    node = new_node(copied)
    artifact = copied.built()[0].artifacts[0]
    shutil.rmtree(
        Path(copied.settings.stores[0]) / "symbols" / artifact.blake3[:2] / artifact.blake3
    )
    genctl = in_folder(node.home.parent)
    planned = genctl("node", "plan", "node", "--json")
    assert (planned.code, planned.error["error"]) == (6, "Unrepairable")
    assert planned.error["facts"]["artifact_id"] == artifact.blake3
    (lost,) = planned.json["unrepairable"]
    assert (lost["artifact"], lost["artifact_id"]) == (artifact.name, artifact.blake3)
    told = genctl("node", "plan", "node").refused(6, "Unrepairable")
    first, second, *_ = told.out.splitlines()
    assert first == "A bootstrap would fail:"
    assert second.startswith(f"  cannot be had: {artifact.name}: ")
    genctl("node", "bootstrap", "node").refused(6, "Unrepairable")


def test_a_new_node_is_planned_with_the_options_of_its_bootstrap(
    copied: WriterHome, in_folder: Callable[[Path], Genctl]
) -> None:
    genctl = in_folder(copied.home.parent)
    store = ["--store", copied.settings.stores[0]]
    genctl("node", "plan", "fresh").refused(3, "BadSetting", "--root")
    options = [*store, "--root", "writer/root.json", "--peer", "http://127.0.0.1:1"]
    planned = genctl("node", "plan", "fresh", *options, "--json").ok().json
    peer, _ = planned["sources"]
    assert (peer["url"], peer["bytes"]) == ("http://127.0.0.1:1", 0)
    assert peer["unavailable"]
    assert not list((copied.home.parent / "fresh").glob("generations/*"))
    brought = genctl("node", "bootstrap", "fresh", "--json").ok().json
    assert brought["fetched_bytes"] == planned["fetch_bytes"] > 0
    assert genctl("node", "status", "fresh", "--json").ok().json["peers"] == [peer["url"]]
    assert peer["url"] in genctl("node", "status", "fresh").ok().out


def test_a_plan_with_other_peers_changes_nothing_at_a_node(
    copied: WriterHome, in_folder: Callable[[Path], Genctl]
) -> None:
    genctl = in_folder(copied.home.parent)
    settings = new_node(copied).home / "node.json"
    before = settings.read_bytes()
    planned = genctl("node", "plan", "node", "--peer", "http://127.0.0.1:1", "--json").ok().json
    assert "http://127.0.0.1:1" in [each["url"] for each in planned["sources"]]
    assert settings.read_bytes() == before


def test_a_bootstrap_tells_where_its_bytes_came_from(
    copied: WriterHome, in_folder: Callable[[Path], Genctl]
) -> None:
    genctl = in_folder(copied.home.parent)
    first = new_node(copied, "first")
    first.bootstrap()
    largest = max(copied.built()[0].artifacts, key=lambda each: each.size_bytes)
    whole = copied.residence.artifact_path(largest.blake3).read_bytes()
    for name in ("told", "counted"):
        incoming = new_node(copied, name).home / "incoming"
        incoming.mkdir()
        (incoming / largest.blake3).write_bytes(whole[: len(whole) * 2 // 3])
    with serving(peer_application_of(first)) as url:
        told = genctl("node", "bootstrap", "told", "--peer", url).ok().out
        line = ["node", "bootstrap", "counted", "--peer", url, "--json"]
        counted = genctl(*line).ok().json
    assert "from peers), reused 0 B, resumed " in told
    assert counted["peer_bytes"] > 0
    assert counted["fetched_bytes"] == counted["peer_bytes"] + counted["store_bytes"]
    assert counted["sources"][url] == counted["peer_bytes"]
    assert sum(counted["sources"].values()) == counted["fetched_bytes"]
    assert 0 < counted["resumed_bytes"] < largest.size_bytes
