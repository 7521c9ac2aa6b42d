"""Reading the past by the writer's clock (rows 58 and 59)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import clock
from controller.node import NodeHome
from manifests.errors import (
    BadQuery,
    GenerationCollected,
    GenerationRevoked,
    NothingPublished,
    StoreUnavailable,
)
from manifests.record import ControlRecord, utc_text
from manifests.record_changes import with_active, with_published, with_revoked
from query.request import Answer, Request, point_in_time
from query.resolve import Chosen, resolve
from store.folder import FolderStore
from tests.manifests import samples
from tests.support.corpus import upserts
from tests.support.homes import TestableWriter, add, built, make_node, make_writer

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
WORD = Request(text="unique1", mode="lexical")


def record_at(*times: datetime) -> ControlRecord:
    """Generations that end at commits 10, 20, 30 …, published at ``times``."""
    record = ControlRecord(shard="main", kind="publish", writer_epoch=1)
    for entry, time in zip(
        samples.entries(*range(10, 10 * len(times) + 1, 10)), times, strict=True
    ):
        record = with_published(record, entry, time)
    return with_active(record, record.published[0].generation_id)


def chosen(
    record: ControlRecord, time: datetime, least: int | None = None, as_of: int | None = None
) -> Chosen:
    return resolve(
        record.active_entry,
        lambda: record,
        as_of_commit_seq=as_of,
        as_of_time=time,
        min_commit_seq=least,
        keep_waiting=lambda: False,
    )


HOURLY = record_at(NOON, NOON + HOUR, NOON + 2 * HOUR)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-20T12:00:00Z", NOON),
        ("2026-11-20t12:00:00z", NOON),
        ("2026-11-20 12:00:00Z", NOON),
        ("2026-11-20T12:00:00.000Z", NOON),
        ("2026-11-20T13:30:00+01:30", NOON),
        ("2026-11-19T22:00:00-14:00", NOON),
        ("2026-11-20T12:00:00.5-00:00", NOON + SECOND / 2),
    ],
)
def test_a_time_with_an_offset_is_read(text: str, time: datetime) -> None:
    assert point_in_time(text) == time
    assert point_in_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "yesterday",
        "2026-11-20",
        "2026-11-20T12:00:00",
        "2026-11-20T12:00Z",
        "2026-11-20T12:00:00+01",
        "20261120T120000Z",
        "2026-W47-5T12:00:00Z",
        "2026-13-20T12:00:00Z",
        "2026-11-31T12:00:00Z",
        "2026-11-20T24:00:00Z",
        "2026-11-20T12:00:60Z",
        "12:00:00Z",
        "1763640000",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-11-20T12:00:00Z\n",
        " 2026-11-20T12:00:00Z",
        "\udcff",
        "x" * 100_000,
    ],
)
def test_what_is_no_time_with_an_offset_is_a_bad_query_that_says_what_to_write(text: str) -> None:
    with pytest.raises(BadQuery, match="2026-11-20T12:00:00Z") as caught:
        point_in_time(text)
    assert caught.value.facts["field"] == "as_of_time"
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (NOON, 10),
        (NOON + HOUR - SECOND, 10),
        (NOON + HOUR, 20),
        (NOON + HOUR + SECOND / 2, 20),
        (NOON + 2 * HOUR, 30),
        (NOON + 1_000_000 * HOUR, 30),
        ((NOON + HOUR).astimezone(timezone(-13 * HOUR)), 20),
    ],
)
def test_the_newest_that_was_published_by_then_is_read(time: datetime, expected: int) -> None:
    entry, published_at = chosen(HOURLY, time)
    assert entry.high_seq == expected
    assert published_at == utc_text(NOON + (expected // 10 - 1) * HOUR)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(-5, 60), st.integers(0, 255)
)
def test_what_is_read_was_published_by_then_and_nothing_retained_after_it_was(
    steps: list[int], asked: int, kept: int
) -> None:
    """The writer's clock may go back; what is newer is never told to be older (row 58)."""
    whole = record_at(*(NOON + step * SECOND for step in steps))
    retained = [
        each for place, each in enumerate(whole.retained) if kept >> place & 1
    ] or whole.retained[-1:]
    record = whole.model_copy(update={"retained": tuple(retained)})
    time = NOON + asked * SECOND
    by_then = [g for g in record.retained if record.published_at[g] <= utc_text(time)]
    if by_then:
        entry, published_at = chosen(record, time)
        assert (entry.generation_id, published_at) == (
            by_then[-1],
            record.published_at[by_then[-1]],
        )
    else:
        with pytest.raises(GenerationCollected):
            chosen(record, time)


@pytest.mark.parametrize("time", [NOON - SECOND, datetime(999, 1, 1, tzinfo=UTC)])
def test_row_58_before_the_oldest_retained_names_the_range_in_commits_and_times(
    time: datetime,
) -> None:
    with pytest.raises(GenerationCollected) as caught:
        chosen(HOURLY, time)
    assert caught.value.facts == {
        "as_of_time": utc_text(time),
        "retained_low_seq": 10,
        "retained_high_seq": 30,
        "retained_low_time": "2026-11-20T12:00:00Z",
        "retained_high_time": "2026-11-20T14:00:00Z",
    }
    for word in ("10 to 30", "2026-11-20T12:00:00Z to 2026-11-20T14:00:00Z", utc_text(time)):
        assert word in caught.value.message


def test_row_59_a_revoked_one_is_refused_by_name() -> None:
    withdrawn = HOURLY.published[1].generation_id
    record = with_revoked(HOURLY, withdrawn, "wrong embedder")
    with pytest.raises(GenerationRevoked, match=withdrawn) as caught:
        chosen(record, NOON + HOUR)
    assert caught.value.facts["readable_before"] == record.published[0].generation_id
    assert chosen(record, NOON + 2 * HOUR).entry.high_seq == 30


def test_what_was_published_before_times_were_told_is_not_guessed_at() -> None:
    first, *later = HOURLY.published
    times = {entry.generation_id: HOURLY.published_at[entry.generation_id] for entry in later}
    record = HOURLY.model_copy(update={"published_at": times})
    assert chosen(record, NOON + HOUR).entry == later[0]
    with pytest.raises(BadQuery, match="from 2026-11-20T13:00:00Z on"):
        chosen(record, NOON + HOUR - SECOND)
    untold = HOURLY.model_copy(update={"published_at": {}})
    with pytest.raises(BadQuery, match="--as-of-commit-seq"):
        chosen(untold, NOON + HOUR)
    assert chosen(record, NOON + 2 * HOUR).entry != first


def test_a_shard_without_generations_says_so() -> None:
    with pytest.raises(NothingPublished):
        ControlRecord(shard="main", kind="publish", writer_epoch=1).as_of_time(NOON)


def test_two_points_in_time_are_a_bad_query() -> None:
    with pytest.raises(BadQuery, match="not both"):
        chosen(HOURLY, NOON, as_of=10)


def test_a_minimum_that_this_past_can_never_meet_is_a_bad_query() -> None:
    assert chosen(HOURLY, NOON + HOUR, least=20).entry.high_seq == 20
    with pytest.raises(BadQuery, match="commit 21") as caught:
        chosen(HOURLY, NOON + HOUR, least=21)
    assert caught.value.facts["field"] == "min_commit_seq"


@dataclass
class World:
    """A writer that published at commits 1, 2 and 3, an hour apart, and a node that saw two."""

    writer: TestableWriter
    node: NodeHome
    published: list[datetime]

    def ask(self, time: datetime) -> Answer:
        return self.node.query(self.node.reader(), WORD, as_of_time=time)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    first = clock.now() - 3 * HOUR
    published = [first, first + HOUR, first + 2 * HOUR]
    writer = make_writer(tmp_path_factory.mktemp("by-clock"))
    node = None
    with pytest.MonkeyPatch.context() as patch:
        for number, time in enumerate(published):
            patch.setattr(clock, "now", lambda time=time: time)
            add(writer, upserts(range(3), number))
            if number < 2:
                node = make_node(writer)
    assert node is not None
    return World(writer, node, published)


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """A node of the test's own, as it was left when it had seen two generations."""
    shutil.copytree(made.node.home, tmp_path / "node")
    return World(made.writer, NodeHome(tmp_path / "node"), made.published)


def test_an_answer_tells_when_its_generation_was_published(world: World) -> None:
    answer = world.ask(world.published[1] - SECOND)
    assert answer.commit_seq == 1
    assert answer.published_at == utc_text(world.published[0])
    assert answer.generation_id == world.node.record().published[0].generation_id


def test_a_read_by_time_is_what_a_read_by_its_commit_is(world: World) -> None:
    for commit_seq, time in enumerate(world.published, 1):
        by_time = world.ask(time)
        by_commit = world.node.query(world.node.reader(), WORD, as_of_commit_seq=commit_seq)
        assert by_time.commit_seq == by_commit.commit_seq == commit_seq
        assert by_time.hits == by_commit.hits


def test_the_store_is_asked_for_times_that_the_record_may_not_know(world: World) -> None:
    pointer = world.node.pointer()
    assert len(world.node.record().published) == 2
    assert world.ask(world.published[1] - SECOND).commit_seq == 1
    assert len(world.node.record().published) == 2, "the record here tells all until then"
    assert world.ask(world.published[2]).commit_seq == 3
    assert len(world.node.record().published) == 3
    assert world.node.pointer() == pointer, "reading the past activates nothing"


@pytest.mark.parametrize("later", [timedelta(0), SECOND, HOUR, 24 * 365 * HOUR])
def test_without_the_store_a_past_that_is_not_known_is_not_guessed_at(
    world: World, later: timedelta, tmp_path: Path
) -> None:
    world.node.settings = world.node.settings.model_copy(
        update={"stores": (str(tmp_path / "away"),)}
    )
    assert world.ask(world.published[1] - SECOND).commit_seq == 1
    with pytest.raises(StoreUnavailable):
        world.ask(world.published[1] + later)


def test_a_generation_is_published_when_its_record_is_signed_not_when_its_upload_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowStore(FolderStore):
        def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
            if key.startswith("symbols/"):
                times.append(times[0] + HOUR)
            return super().put_if_absent(key, parts)

    writer = make_writer(tmp_path)
    writer.front = SlowStore(tmp_path / "store")
    manifest = built(writer, upserts(range(3)))
    times = [clock.now()]
    monkeypatch.setattr(clock, "now", lambda: times[-1])
    writer.publish(None)
    record = writer.current().signed.record
    assert record.published_at == {manifest.generation_id: utc_text(times[0] + HOUR)}
