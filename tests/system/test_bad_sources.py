"""A node that serves one generation and fetches the next from stores and peers that misbehave.

For each fault: the named error or outcome, queries that go on, the active generation unchanged
until a whole new one is here, the event, and the catch-up once the fault is gone.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from controller import clock, wiring
from controller.commands.serve import peer_application_of
from controller.node import NodeHome
from controller.node_scrub import scrub
from controller.scrub_pass import Stopped
from controller.writer import WriterHome
from manifests.errors import (
    BodyMismatch,
    ExpansionExceeded,
    GenctlError,
    LengthExceeded,
    ObjectMissing,
    StoreUnavailable,
    TransferDeadline,
)
from manifests.generation import parse_manifest
from query.request import Request
from store.patience import DEFAULT_PATIENCE, Patience
from store.signed import LIMITS_BYTES
from tests.support import http_faults as faults
from tests.support.corpus import upserts
from tests.support.homes import add, copy_with_store, flip, largest, make_node, make_writer
from tests.support.http_faults import Answer, Asked, Fault, FaultyServer, Line, Origin, proxy_to
from tests.support.serving import serving
from tests.support.watching import Events, asking, hearing
from tests.system.world import copy

DIMENSIONS = 128
BUCKET = "bucket"
TIMESTAMP = r"/timestamp\.json$"
SNAPSHOT = r"/\d+\.snapshot\.json$"
MANIFEST = r"/targets/manifests/"
SYMBOLS = r"/symbols/"
ARTIFACTS = r"/objects/artifacts/"
PAGE = b"<html>Log in to the wireless network</html>" * 20
ACTIVATED = "generation_activation_succeeded"
FIRST, SECOND = "unique7", "unique5007"
HURRIED: dict[Fault, Patience] = {
    faults.drip: Patience(grace_s=0.8, min_bytes_per_s=1 << 20),
    faults.silent: Patience(silence_s=0.4),
}
"""Short only in what ends the fault, so that a pause of the machine is not taken for another."""


@dataclass(frozen=True)
class World:
    """A node that has the first of two generations; its one store, behind a faulty server."""

    node: NodeHome
    store: Path
    server: FaultyServer
    pauses_s: list[float]
    patience: list[Patience]
    asked: list[str]
    """The paths of the requests that came while a fault was to be met."""

    @contextmanager
    def meeting(
        self, pattern: str, fault: Fault, server: FaultyServer | None = None
    ) -> Iterator[None]:
        """Requests whose path has the pattern meet the fault; only a slow one makes impatient."""
        server = server or self.server
        server.seen.clear()
        server.always = where(pattern, fault)
        if fault in HURRIED:
            self.patience.append(HURRIED[fault])
        try:
            yield
        finally:
            server.always = None
            self.patience[1:] = []
            self.asked[:] = [urlsplit(each.path).path for each in server.seen]

    def asked_for(self, pattern: str) -> int:
        """How many of them have the pattern."""
        return sum(re.search(pattern, path) is not None for path in self.asked)

    def again(self, **changed: object) -> NodeHome:
        """The node as a new process finds it, with some of its settings changed."""
        path = self.node.home / "node.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
        return NodeHome(self.node.home)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> WriterHome:
    """Two generations; ``node`` has the first, ``current`` both."""
    writer = make_writer(tmp_path_factory.mktemp("made"), dimensions=DIMENSIONS)
    add(writer, upserts(range(20)))
    make_node(writer)
    make_node(writer, "current")
    add(writer, upserts(range(5000, 5800)))
    NodeHome(writer.home.parent / "current").bootstrap()
    cuts = {artifact.symbols.k for artifact in writer.built()[1].artifacts}
    assert cuts == {1, 5}, "artifacts with a table, and without"
    return writer


@pytest.fixture
def world(made: WriterHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    pauses_s: list[float] = []
    for name in ("BACKOFF", "BUSY_BACKOFF"):
        patient = replace(getattr(clock, name), sleep=pauses_s.append, jitter=lambda: 0.0)
        monkeypatch.setattr(clock, name, patient)
    patience = [DEFAULT_PATIENCE]
    monkeypatch.setattr(wiring, "_patience", lambda *_: patience[-1])
    store = copy_with_store(made, tmp_path).home.parent / "store"
    copy(made.home.parent / "node", tmp_path / "node")
    with FaultyServer(bucket_of(store)) as server:
        world = World(NodeHome(tmp_path / "node"), store, server, pauses_s, patience, [])
        url = f"s3://{BUCKET}?endpoint={server.url}&region=us-east-1"
        yield replace(world, node=world.again(stores=[url]))


@pytest.fixture
def peer(made: WriterHome) -> Iterator[FaultyServer]:
    """A peer with both generations, behind a faulty server."""
    current = NodeHome(made.home.parent / "current")
    with serving(peer_application_of(current)) as url, FaultyServer(proxy_to(url)) as server:
        yield server


def bucket_of(store: Path) -> Origin:
    """What an S3 server answers to reads of a bucket that has the objects of a folder store."""

    def origin(asked: Asked) -> Answer:
        path = urlsplit(asked.path).path
        file = store / path.removeprefix(f"/{BUCKET}/")
        objects = {path: file.read_bytes()} if file.is_file() else {}
        return faults.holding(objects)(asked)

    return origin


def where(pattern: str, fault: Fault) -> Fault:
    """The fault for requests whose path has the pattern, a proper answer for all others."""

    def chosen(line: Line) -> None:
        if re.search(pattern, urlsplit(line.asked.path).path):
            fault(line)
        else:
            line.send(line.proper())

    return chosen


def unlimited(line: Line) -> None:
    """Whatever range is asked for: the object has it, and so much more."""
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", line.asked.headers["Range"])
    assert wanted is not None
    start, end = int(wanted[1]), int(wanted[2])
    header = {"Content-Range": f"bytes {start}-{end}/{1 << 50}", "ETag": '"endless"'}
    line.send(Answer(206, header, b" " * (end - start + 1)))


def without_end(line: Line) -> None:
    """The proper answer, of no stated length, and then other bytes without an end."""
    answer = line.proper()
    line.write_head(replace(answer, headers={**answer.headers, "Content-Length": ""}))
    line.write(answer.body)
    line.hang_up()
    for _ in line.pauses(0):
        line.write(faults.BLOCK)


def flipped(answer: Answer) -> Answer:
    """The same length, one byte different; errors are left as they are."""
    if answer.status != 206:
        return answer
    middle = len(answer.body) // 2
    changed = bytes([answer.body[middle] ^ 1])
    return replace(answer, body=answer.body[:middle] + changed + answer.body[middle + 1 :])


compressed = faults.with_headers(Content_Encoding="gzip")


def hit(node: NodeHome, text: str) -> str | None:
    hits = node.query(node.reader(), Request(text=text, mode="lexical")).hits
    return hits[0].id if hits else None


@contextmanager
def undisturbed(node: NodeHome) -> Iterator[Events]:
    """Queries go on while the block runs, and whatever it does the node serves what it served."""
    pointer, state = node.pointer(), node.state()
    with hearing() as events, asking(node, FIRST) as answers:
        yield events
    assert set(answers) == {"d7"}
    found = NodeHome(node.home)
    assert (found.pointer(), found.state()) == (pointer, state)
    assert found.residence.resident_ids() == [pointer.active.generation_id]
    assert hit(found, FIRST) == "d7"
    assert hit(found, SECOND) != "d5007"


def catch_up(node: NodeHome) -> None:
    """With the fault gone, a bootstrap brings what was published, and nothing before it is lost."""
    assert node.bootstrap().activated
    assert (hit(node, FIRST), hit(node, SECOND)) == ("d7", "d5007")


def refused(
    world: World, pattern: str, fault: Fault, error: type[GenctlError]
) -> tuple[GenctlError, Events]:
    """What a bootstrap that meets the fault ends with, and the events; later it succeeds."""
    with (
        undisturbed(world.node) as events,
        world.meeting(pattern, fault),
        pytest.raises(GenctlError) as caught,
    ):
        world.node.bootstrap()
    assert caught.type is error, caught.value
    catch_up(world.node)
    return caught.value, events


def last_byte_asked(world: World, pattern: str) -> int:
    """The furthest byte of the objects with these names that was asked for."""
    return max(
        int(asked.headers["Range"].rsplit("-", 1)[1])
        for asked in world.server.seen
        if re.search(pattern, asked.path) and "Range" in asked.headers
    )


# --- the store ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "role"), [(TIMESTAMP, "timestamp"), (SNAPSHOT, "snapshot")])
def test_row_25_endless_metadata_is_not_read_past_its_limit(
    world: World, name: str, role: str
) -> None:
    refused(world, name, unlimited, LengthExceeded)
    assert last_byte_asked(world, name) <= LIMITS_BYTES[role], "counted from 0"


def test_row_25_an_endless_body_of_symbols_is_read_to_the_end_of_what_was_asked(
    world: World,
) -> None:
    with (
        hearing() as events,
        asking(world.node, FIRST) as answers,
        world.meeting(SYMBOLS, without_end),
    ):
        report = world.node.bootstrap()
    assert report.activated
    assert report.brought.tally.damaged_symbols == 0
    assert set(answers) == {"d7"}
    assert events.names == [ACTIVATED]


@pytest.mark.parametrize("name", [TIMESTAMP, MANIFEST])
def test_row_27_compressed_metadata_is_not_expanded(world: World, name: str) -> None:
    refused(world, name, compressed, ExpansionExceeded)


def test_row_27_compressed_symbols_are_not_expanded(world: World) -> None:
    _, events = refused(world, SYMBOLS, compressed, ExpansionExceeded)
    assert {facts["error"] for facts in events.of("source_demoted")} == {"ExpansionExceeded"}


def test_row_28_metadata_that_drips_ends_with_the_reads_deadline(world: World) -> None:
    refused(world, SNAPSHOT, faults.drip, TransferDeadline)


def test_row_28_a_store_whose_symbols_drip_is_demoted(world: World) -> None:
    error, events = refused(world, SYMBOLS, faults.drip, TransferDeadline)
    (demoted,) = events.of("source_demoted")
    assert (demoted["kind"], demoted["error"]) == ("store", "TransferDeadline")
    assert demoted["source"] == error.facts.get("store", demoted["source"])


OUTAGES = [
    faults.s3_error(500, "InternalError"),
    faults.s3_error(503, "SlowDown"),
    faults.status(429),
    faults.silent,
    faults.closed,
]
OUTAGE_NAMES = ["500", "503", "429", "timeout", "closed"]


@pytest.mark.parametrize("fault", OUTAGES, ids=OUTAGE_NAMES)
def test_row_50_a_store_whose_record_cannot_be_read_is_asked_again_with_growing_pauses(
    world: World, fault: Fault
) -> None:
    refused(world, TIMESTAMP, fault, StoreUnavailable)
    assert world.pauses_s == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert world.asked_for(TIMESTAMP) == 6


@pytest.mark.parametrize("fault", OUTAGES, ids=OUTAGE_NAMES)
def test_row_50_a_store_whose_symbols_cannot_be_read_is_asked_again_and_then_left_alone(
    world: World, fault: Fault
) -> None:
    _, events = refused(world, SYMBOLS, fault, StoreUnavailable)
    assert {0.2, 0.4, 0.8, 1.6, 3.2} <= set(world.pauses_s)
    (demoted,) = events.of("source_demoted")
    assert (demoted["kind"], demoted["error"]) == ("store", "StoreUnavailable")


def test_row_50_an_outage_that_ends_while_the_store_is_asked_again_is_not_noticed(
    world: World,
) -> None:
    with hearing() as events, asking(world.node, FIRST) as answers:
        world.server.plan(*(fault for fault in OUTAGES if fault is not faults.silent))
        assert world.node.bootstrap().activated
    assert world.pauses_s
    assert set(answers) == {"d7"}
    assert events.names == [ACTIVATED]


BROKEN = [faults.cut_after(100), faults.cut_after(0), faults.status(200, PAGE)]
BROKEN_NAMES = ["cut in its body", "cut before it", "a page of something else"]


@pytest.mark.parametrize("fault", BROKEN, ids=BROKEN_NAMES)
@pytest.mark.parametrize("name", [SNAPSHOT, MANIFEST])
def test_row_51_metadata_that_is_not_what_was_asked_for_is_a_mismatch(
    world: World, fault: Fault, name: str
) -> None:
    refused(world, name, fault, BodyMismatch)
    assert world.asked_for(name) in {3, 6}, "an answer that broke off is asked for at once"


@pytest.mark.parametrize("fault", BROKEN, ids=BROKEN_NAMES)
def test_row_51_symbols_that_are_not_what_was_asked_for_are_a_mismatch(
    world: World, fault: Fault
) -> None:
    _, events = refused(world, SYMBOLS, fault, BodyMismatch)
    (demoted,) = events.of("source_demoted")
    assert (demoted["kind"], demoted["error"]) == ("store", "BodyMismatch")


def test_row_52_a_manifest_that_the_store_has_lost_is_named(world: World) -> None:
    error, _ = refused(world, MANIFEST, faults.status(404), ObjectMissing)
    assert str(error.facts["key"]).startswith("targets/manifests/")


@pytest.mark.parametrize("name", [TIMESTAMP, SNAPSHOT, MANIFEST, SYMBOLS])
def test_row_52_what_one_store_has_lost_another_gives(world: World, name: str) -> None:
    (faulty,) = world.node.settings.stores
    node = world.again(stores=[faulty, str(world.store)])
    with (
        hearing() as events,
        asking(node, FIRST) as answers,
        world.meeting(name, faults.status(404)),
    ):
        report = node.bootstrap()
    assert report.activated
    assert report.brought.tally.damaged_symbols == 0
    assert set(answers) == {"d7"}
    assert events.names == [ACTIVATED]
    catch_up_is_done(node)


@pytest.mark.parametrize(
    "fault",
    [faults.status(429), faults.silent, faults.cut_after(100), faults.drip],
    ids=["429", "timeout", "cut in its body", "drips"],
)
def test_row_28_row_50_row_51_another_store_makes_up_for_one_that_fails(
    world: World, fault: Fault
) -> None:
    (faulty,) = world.node.settings.stores
    node = world.again(stores=[faulty, str(world.store)])
    with (
        hearing() as events,
        asking(node, FIRST) as answers,
        world.meeting(SYMBOLS, fault),
    ):
        report = node.bootstrap()
    assert report.activated
    assert report.brought.tally.repaired_chunks == 0
    assert set(answers) == {"d7"}
    assert {facts["source"] for facts in events.of("source_demoted")} <= {faulty}
    catch_up_is_done(node)


def catch_up_is_done(node: NodeHome) -> None:
    assert not node.bootstrap().activated
    assert (hit(node, FIRST), hit(node, SECOND)) == ("d7", "d5007")


# --- peers ----------------------------------------------------------------------------------------


def from_a_bad_peer(world: World, peer: FaultyServer, fault: Fault) -> tuple[NodeHome, Events]:
    """A bootstrap with a peer whose artifacts meet the fault; the store gives what it does not."""
    node = world.again(peers=[peer.url])
    with (
        hearing() as events,
        asking(node, FIRST) as answers,
        world.meeting(ARTIFACTS, fault, peer),
    ):
        report = node.bootstrap()
    assert report.activated
    assert report.brought.tally.store_bytes > 0
    assert report.brought.tally.damaged_symbols == 0
    assert set(answers) == {"d7"}
    catch_up_is_done(node)
    return node, events


def is_shunned(node: NodeHome, peer: FaultyServer) -> bool:
    return node.healths[peer.url].state(time.monotonic()) == "open"


def test_a_sound_peer_leaves_no_symbol_to_the_store(world: World, peer: FaultyServer) -> None:
    node = world.again(peers=[peer.url])
    with hearing() as events, world.meeting(SYMBOLS, faults.status(404)):
        assert node.bootstrap().activated
    assert events.names == [ACTIVATED]
    assert not is_shunned(node, peer)
    catch_up_is_done(node)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.endless, "BodyMismatch"),
        (compressed, "ExpansionExceeded"),
        (faults.drip, "TransferDeadline"),
        (faults.status(500), "StoreUnavailable"),
        (faults.status(503), "SourceBusy"),
        (faults.status(429), "SourceBusy"),
        (faults.silent, "StoreUnavailable"),
        (faults.cut_after(100), "BodyMismatch"),
        (faults.status(200, PAGE), "BodyMismatch"),
    ],
    ids=[
        "row 25 endless",
        "row 27 compressed",
        "row 28 drips",
        "row 50 500",
        "row 50 503",
        "row 50 429",
        "row 50 timeout",
        "row 51 cut",
        "row 51 another page",
    ],
)
def test_rows_25_27_28_50_51_a_bad_peer_is_demoted_and_the_store_gives_the_rest(
    world: World, peer: FaultyServer, fault: Fault, error: str
) -> None:
    node, events = from_a_bad_peer(world, peer, fault)
    assert is_shunned(node, peer)
    (demoted,) = events.of("source_demoted")
    assert (demoted["kind"], demoted["source"]) == ("peer", peer.url)
    assert demoted["error"] == error


def test_row_52_a_peer_that_has_nothing_is_not_blamed(world: World, peer: FaultyServer) -> None:
    world.again(limits={"reads_at_once": 1})
    node, events = from_a_bad_peer(world, peer, faults.status(404))
    assert not is_shunned(node, peer)
    assert events.names == [ACTIVATED]
    assert set(Counter(path for path in world.asked if ARTIFACTS in path).values()) == {1}


def test_row_53_a_lying_peer_is_named_and_its_breaker_opens(
    world: World, peer: FaultyServer
) -> None:
    node, events = from_a_bad_peer(world, peer, faults.changed(flipped))
    assert is_shunned(node, peer)
    assert {facts["peer"] for facts in events.of("peer_corrupt")} == {peer.url}
    assert events.of("source_demoted") == []
    asked = len(peer.seen)
    for artifact in node.residence.artifacts.iterdir():
        artifact.unlink()
    report = node.bootstrap()
    assert report.brought.tally.peer_bytes == 0
    assert len(peer.seen) == asked, "a breaker that is open outlives a transfer"


def test_row_53_a_bootstrap_names_the_peers_that_lied(world: World, peer: FaultyServer) -> None:
    node = world.again(peers=[peer.url])
    with world.meeting(ARTIFACTS, faults.changed(flipped), peer):
        assert node.bootstrap().brought.tally.corrupt_peers == (peer.url,)


def test_row_50_a_scrub_that_mends_from_a_silent_store_ends_when_it_is_told(world: World) -> None:
    generation_id = world.node.pointer().active.generation_id
    manifest = parse_manifest(world.node.residence.manifest_bytes(generation_id))
    flip(world.node.residence.artifact_path(largest(manifest.artifacts).blake3))
    world.server.always = where(SYMBOLS, faults.silent)
    ending, ended = threading.Event(), threading.Event()

    def run() -> None:
        with pytest.raises(Stopped):
            scrub(world.node, ending=ending)
        ended.set()

    scrubbing = threading.Thread(target=run)
    scrubbing.start()
    end_s = time.monotonic() + DEFAULT_PATIENCE.silence_s
    while not any(re.search(SYMBOLS, each.path) for each in world.server.seen):
        assert time.monotonic() < end_s
    ending.set()
    scrubbing.join(DEFAULT_PATIENCE.silence_s / 2)
    assert ended.is_set()
    assert world.node.state().state == "healthy"
    world.server.always = None
    assert scrub(world.node, ending=threading.Event()).found.mended_artifacts == 1
