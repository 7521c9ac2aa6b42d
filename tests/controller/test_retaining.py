"""Tags, pins and revocations as a writer signs them, and what nodes make of them.

Rows 7, 43, 58 and 59.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from controller import clock, retaining, writer_receipts
from controller.commands.generations import _said_of
from controller.generation_list import listed
from controller.node import NodeHome
from controller.writer import WriterHome
from controller.writer_receipts import record_id
from manifests.audit_trail import verify
from manifests.errors import (
    BadSetting,
    GenctlError,
    GenerationCollected,
    GenerationNotPublished,
    GenerationRevoked,
    GenerationUnknown,
    NothingPublished,
)
from manifests.identifiers import content_id
from manifests.receipts import REASON_LIMIT, Receipt
from manifests.record import ControlRecord
from manifests.retained import with_collection_begun, with_collection_ended
from query.request import Answer, Request
from tests.manifests import samples
from tests.support.corpus import upserts
from tests.support.crashes import killed_at
from tests.support.homes import (
    TestableWriter,
    add,
    built,
    copy_with_store,
    make_node,
    make_writer,
    new_node,
)
from tests.support.watching import asking, hearing

UNKNOWN = "g000000000099-0123456789ab"
TOKEN = "f" * 64
WORD = Request(text="anchor", mode="lexical")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer whose generations end at commits 1 to 4, the last of them active."""
    folder = tmp_path_factory.mktemp("retaining")
    writer = make_writer(folder)
    for number in range(4):
        add(writer, upserts([number]))
    return folder


@pytest.fixture
def writer(made: Path, tmp_path: Path) -> TestableWriter:
    writer = copy_with_store(TestableWriter(made / "writer"), tmp_path)
    path = writer.home / "settings.json"
    path.write_text(path.read_text("utf-8").replace(str(made), str(tmp_path)), "utf-8")
    return writer


def ids(writer: WriterHome) -> list[str]:
    return writer.residence.resident_ids()


def record_of(writer: WriterHome) -> ControlRecord:
    return writer.current().signed.record


def receipts(writer: WriterHome) -> list[Receipt]:
    trail = verify(writer.audit.read(), {"record": record_id(record_of(writer))})
    assert (trail.first_fault, trail.disagreements) == (None, ())
    return [line.receipt for line in trail.lines if line.receipt is not None and line.took_place]


def sign(writer: WriterHome, change: Callable[[ControlRecord], ControlRecord]) -> None:
    """Sign any change, as a command that is not there would."""
    with writer.exclusively("test"):
        repository = writer.ready_to_sign()
        current = repository.current()
        repository.commit(current, change(current.signed.record), clock.now())


def collect(writer: WriterHome, *dropped: str) -> None:
    """What a collection does to the record; the files stay."""
    sign(writer, lambda record: with_collection_begun(record, set(dropped), TOKEN))
    sign(writer, lambda record: with_collection_ended(record, TOKEN))


def ask(node: NodeHome, as_of: int | None = None) -> Answer:
    return node.query(node.reader(), WORD, as_of_commit_seq=as_of)


# --- at the writer ----------------------------------------------------------------------------


def test_what_is_said_of_a_generation_is_signed_and_leaves_a_receipt(
    writer: TestableWriter,
) -> None:
    first, second, third, fourth = ids(writer)
    before = len(receipts(writer))
    said = [
        retaining.tag(writer, first, "blue"),
        retaining.pin(writer, second, "what the paper cites"),
        retaining.pin(writer, second, "two papers"),
        retaining.untag(writer, "blue"),
        retaining.unpin(writer, second),
        retaining.revoke(writer, third, "it leaks"),
    ]
    assert all(each.changed for each in said)
    assert said[-1].record == record_of(writer)
    assert [(r.kind, r.generation_id, r.reason) for r in receipts(writer)[before:]] == [
        ("tag", first, "blue"),
        ("pin", second, "what the paper cites"),
        ("pin", second, "two papers"),
        ("untag", first, "blue"),
        ("unpin", second, "two papers"),
        ("revoke", third, "it leaks"),
    ]
    assert record_of(writer).active == fourth
    assert all(r.manifest_id for r in receipts(writer)[before:])


def test_the_status_tells_what_is_retained_and_whether_a_collection_is_under_way(
    writer: TestableWriter,
) -> None:
    first, second, _, _ = ids(writer)
    retaining.revoke(writer, second, "it leaks")
    status = writer.status()
    assert (status["retained_count"], status["collected"], status["collecting"]) == (3, [], False)
    assert (status["retained_low_seq"], status["retained_high_seq"]) == (1, 4)
    sign(writer, lambda record: with_collection_begun(record, {first, second}, TOKEN))
    status = writer.status()
    assert (status["retained_count"], status["collecting"]) == (2, True)
    assert (status["retained_low_seq"], status["retained_high_seq"]) == (3, 4)
    assert status["collected"] == [{"low_seq": 1, "high_seq": 2}]


def test_the_receipt_of_a_collection_says_which_commits_went_and_of_which_generations(
    writer: TestableWriter,
) -> None:
    first, second, _, _ = ids(writer)
    spans = [(e.low_seq, e.high_seq) for e in record_of(writer).published[:2]]
    collect(writer, first, second)
    begun, ended = receipts(writer)[-2:]
    told = f"commits {spans[0][0]}-{spans[1][1]}; BLAKE3 of their ids "
    digest = content_id(f"{first}\n{second}\n".encode())
    assert (begun.kind, begun.generation_id, ended.kind) == ("collect", None, "collect")
    assert (begun.reason, ended.reason) == (f"begun, 2 dropped: {told}{digest}", "ended")


def test_row_39_the_receipt_of_a_large_collection_is_not_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = samples.record(*range(10**9, 10**9 + 200))
    dropped = {entry.generation_id for entry in record.published[:150:2]}
    reason = writer_receipts._told(record, with_collection_begun(record, dropped, TOKEN))[2]
    assert reason is not None
    assert len(reason) <= REASON_LIMIT
    assert reason.startswith("begun, 75 dropped: commits 1-1000000000, 1000000002-1000000002, ")
    assert "1000000148-1000000148, 75 ranges; " in reason
    assert reason.endswith(content_id("".join(f"{e}\n" for e in sorted(dropped)).encode()))


def test_the_same_said_again_signs_nothing(writer: TestableWriter) -> None:
    first, second, third, _ = ids(writer)
    commands: list[Callable[[], retaining.Said]] = [
        lambda: retaining.untag(writer, "blue"),
        lambda: retaining.unpin(writer, first),
        lambda: retaining.tag(writer, first, "blue"),
        lambda: retaining.pin(writer, second, "why"),
        lambda: retaining.revoke(writer, third, "it leaks"),
    ]
    assert [command().changed for command in commands] == [False, False, True, True, True]
    version, trail = writer.current().signed.timestamp.version, writer.audit.read()
    assert [command().changed for command in commands[2:]] == [False, False, False]
    assert retaining.revoke(writer, third, "another reason").changed is False
    assert writer.current().signed.timestamp.version == version
    assert writer.audit.read() == trail


@pytest.mark.parametrize(
    "reason", ["", " ", "x" * (REASON_LIMIT + 1), "\udcff"], ids=["empty", "blank", "long", "bytes"]
)
def test_a_reason_that_is_none_or_cannot_be_signed_is_refused(
    writer: TestableWriter, reason: str
) -> None:
    first, *_ = ids(writer)
    for say in (retaining.pin, retaining.revoke):
        with pytest.raises(BadSetting) as caught:
            say(writer, first, reason)
        assert caught.value.facts["field"] == "reason"
    assert receipts(writer)[-1].kind == "activate"


def test_what_is_not_published_is_said_nothing_of(writer: TestableWriter) -> None:
    unpublished = built(writer, upserts([9])).generation_id
    for generation_id in (unpublished, UNKNOWN, "nonsense", ""):
        with pytest.raises(GenerationNotPublished):
            retaining.tag(writer, generation_id, "blue")
        with pytest.raises(GenerationNotPublished):
            retaining.pin(writer, generation_id, "why")
        with pytest.raises(GenerationNotPublished):
            retaining.unpin(writer, generation_id)
        with pytest.raises(GenerationNotPublished):
            retaining.revoke(writer, generation_id, "why")


@pytest.mark.parametrize("name", ["tag", "revoke"])
def test_row_43_a_command_killed_at_any_step_is_finished_by_running_it_again(
    made: Path, tmp_path: Path, name: str
) -> None:
    outcomes = []
    for step in range(60):
        folder = tmp_path / str(step)
        writer = copy_with_store(TestableWriter(made / "writer"), folder)
        generation_id = ids(writer)[3]

        def act(home: WriterHome = writer, each: str = generation_id) -> None:
            if name == "tag":
                retaining.tag(home, each, "blue")
            else:
                retaining.revoke(home, each, "it leaks")

        killed = killed_at(step, act)
        record = record_of(writer)
        done = bool(record.tags) if name == "tag" else generation_id in record.revoked
        outcomes.append(done)
        act()
        record = record_of(writer)
        assert bool(record.tags) == (name == "tag")
        assert (record.active == generation_id) == (name == "tag")
        assert [r.kind for r in receipts(writer)].count("tag" if name == "tag" else "revoke") == 1
        shutil.rmtree(folder)
        if not killed:
            break
    assert outcomes == sorted(outcomes)
    assert (outcomes[0], outcomes[-1]) == (False, True)


def test_row_59_the_only_generation_that_is_left_cannot_be_revoked(writer: TestableWriter) -> None:
    for generation_id in reversed(ids(writer)[1:]):
        retaining.revoke(writer, generation_id, "it leaks")
    only = ids(writer)[0]
    assert record_of(writer).active == only
    with pytest.raises(NothingPublished, match="publish and activate a newer one first"):
        retaining.revoke(writer, only, "it leaks")
    assert record_of(writer).active == only


def test_row_59_a_revoked_generation_is_never_activated_again(writer: TestableWriter) -> None:
    first, second, third, fourth = ids(writer)
    retaining.revoke(writer, fourth, "it leaks")
    assert record_of(writer).active == third
    with pytest.raises(GenerationRevoked):
        writer.activate(fourth)
    retaining.revoke(writer, second, "this one too")
    with pytest.raises(GenerationRevoked):
        writer.rollback(second, "why")
    assert writer.rollback(None, "worse") == first
    fifth = add(writer, upserts([9]))
    assert record_of(writer).active == fifth.generation_id


def test_row_59_what_waits_to_be_activated_can_be_revoked(writer: TestableWriter) -> None:
    fifth = built(writer, upserts([9])).generation_id
    writer.publish(fifth)
    active = record_of(writer).active
    retaining.revoke(writer, fifth, "it leaks")
    assert record_of(writer).active == active
    with pytest.raises(GenerationRevoked):
        writer.activate(fifth)
    sixth = add(writer, upserts([10]))
    assert record_of(writer).active == sixth.generation_id


def test_generations_are_listed_with_all_that_is_said_of_them(writer: TestableWriter) -> None:
    first, second, third, fourth = ids(writer)
    unpublished = built(writer, upserts([9])).generation_id
    retaining.tag(writer, second, "red")
    retaining.tag(writer, second, "blue")
    retaining.pin(writer, third, "why")
    retaining.revoke(writer, fourth, "it leaks")
    collect(writer, first)
    record = record_of(writer)
    found = {each["generation_id"]: each for each in listed(writer, record)}
    assert list(found) == [second, third, fourth, unpublished]
    assert found[second]["tags"] == ["blue", "red"]
    assert [each["pin"] for each in found.values()] == [None, "why", None, None]
    assert [each["revoked"] for each in found.values()] == [False, False, True, False]
    assert [each["active"] for each in found.values()] == [False, True, False, False]
    assert [each["published"] for each in found.values()] == [True, True, True, False]
    assert [bool(each["published_at"]) for each in found.values()] == [True, True, True, False]
    for manifest in writer.built()[1:]:
        each = found[manifest.generation_id]
        assert each["bytes"] == manifest.size_bytes
        assert each["documents"] == manifest.counts.documents
        assert (each["low_seq"], each["high_seq"]) == (
            manifest.commits.low_seq,
            manifest.commits.high_seq,
        )
    shutil.rmtree(writer.residence.generations / second)
    absent = next(each for each in listed(writer, record) if not each["in_home"])
    assert (absent["generation_id"], absent["documents"], absent["high_seq"]) == (second, None, 2)


def test_rows_58_and_59_what_is_revoked_or_collected_is_not_shown(writer: TestableWriter) -> None:
    first, second, *_ = ids(writer)
    collect(writer, first)
    retaining.revoke(writer, second, "it leaks")
    record = record_of(writer)
    with pytest.raises(GenerationCollected) as collected:
        _said_of(record, first)
    assert collected.value.facts["retained_low_seq"] == 3
    with pytest.raises(GenerationRevoked):
        _said_of(record, second)
    assert _said_of(record, UNKNOWN)["published_at"] is None


# --- at a node --------------------------------------------------------------------------------


def test_row_59_a_node_leaves_a_revoked_generation_at_its_next_bootstrap(
    writer: TestableWriter,
) -> None:
    node = make_node(writer)
    *_, third, fourth = ids(writer)
    retaining.revoke(writer, fourth, "it leaks")
    with asking(node, "unique1") as answers:
        report = node.bootstrap()
        assert report.activated
    assert set(answers) == {"d1"}
    assert node.pointer().active.generation_id == third
    assert ask(node).commit_seq == 3
    with pytest.raises(GenerationRevoked) as caught:
        ask(node, as_of=4)
    assert caught.value.facts == {"generation_id": fourth, "readable_before": third}
    assert caught.value.exit_code == 3
    assert ask(node, as_of=3).commit_seq == 3
    last = node.audit.last_of("pointer")
    assert last is not None
    assert (last.kind, last.reason) == ("rollback", "it leaks")


def test_row_59_a_node_does_not_fetch_what_was_revoked_since_it_last_looked(
    writer: TestableWriter,
) -> None:
    node = make_node(writer)
    _, second, *_ = ids(writer)
    retaining.revoke(writer, second, "it leaks")
    assert node.record().revoked == ()
    with pytest.raises(GenerationRevoked):
        ask(node, as_of=2)
    assert second not in node.residence.resident_ids()
    assert node.record().revoked == (second,)
    assert ask(node).commit_seq == 4


def test_row_59_a_rollback_of_a_node_goes_over_what_was_revoked(writer: TestableWriter) -> None:
    node = make_node(writer)
    first, second, third, _ = ids(writer)
    for as_of in (1, 2, 3):
        ask(node, as_of)
    retaining.revoke(writer, third, "it leaks")
    node.bootstrap()
    assert node.rollback().active.generation_id == second
    assert first != second


def test_row_59_a_node_that_holds_the_active_one_back_does_not_stay_on_what_was_revoked(
    writer: TestableWriter,
) -> None:
    node = make_node(writer)
    *_, third, fourth = ids(writer)
    ask(node, as_of=3)
    assert node.rollback().active.generation_id == third
    retaining.revoke(writer, third, "it leaks")
    report = node.bootstrap()
    assert (report.activated, report.held_back) == (True, False)
    pointer = node.pointer()
    assert (pointer.active.generation_id, pointer.held_back) == (fourth, None)


def test_row_59_what_a_node_holds_back_is_held_back_no_more_once_it_is_revoked(
    writer: TestableWriter,
) -> None:
    node = make_node(writer)
    *_, third, fourth = ids(writer)
    ask(node, as_of=3)
    node.rollback()
    retaining.revoke(writer, fourth, "it leaks")
    report = node.bootstrap()
    assert not report.held_back
    pointer = node.pointer()
    assert (pointer.active.generation_id, pointer.held_back) == (third, None)
    fifth = add(writer, upserts([9]))
    node.bootstrap()
    assert node.pointer().active == fifth


@pytest.mark.parametrize("fresh", [False, True], ids=["serving", "new"])
def test_row_59_a_record_that_makes_a_revoked_generation_active_is_not_followed(
    writer: TestableWriter, fresh: bool
) -> None:
    node = make_node(writer) if not fresh else new_node(writer)
    fifth = add(writer, upserts([9]))
    wrong = {"kind": "revoke", "reason": "a defect", "revoked": (fifth.generation_id,)}
    sign(writer, lambda record: record.model_copy(update=wrong))
    with pytest.raises(GenerationRevoked):
        node.bootstrap()
    if fresh:
        with pytest.raises(NothingPublished):
            node.pointer()
    else:
        assert ask(node).commit_seq == 4


def test_row_59_what_was_revoked_does_not_pass_the_gate_and_an_event_tells(
    writer: TestableWriter,
) -> None:
    node = make_node(writer)
    entry = node.pointer().active
    verified = node.residence.reopen(entry, "main")
    node.prove(verified, node.record(), entry)
    record = node.record().model_copy(update={"revoked": (entry.generation_id,)})
    with hearing() as events, pytest.raises(GenerationRevoked):
        node.prove(verified, record, entry)
    (told,) = events.of("generation_activation_failed")
    assert (told["generation_id"], told["error"]) == (entry.generation_id, "GenerationRevoked")


def test_row_58_a_read_of_what_was_collected_gives_the_retained_range(
    writer: TestableWriter,
) -> None:
    node = make_node(writer)
    first, second, *_ = ids(writer)
    ask(node, as_of=1)
    collect(writer, first, second)
    node.bootstrap()
    for as_of in (1, 2):
        with pytest.raises(GenerationCollected, match="as of 3 to 4") as caught:
            ask(node, as_of=as_of)
        assert caught.value.facts["retained_low_seq"] == 3
        assert caught.value.facts["retained_high_seq"] == 4
    assert [ask(node, as_of).commit_seq for as_of in (3, 4, None)] == [3, 4, 4]


def test_row_58_thinning_leaves_reads_the_next_older_one(writer: TestableWriter) -> None:
    node = make_node(writer)
    _, second, *_ = ids(writer)
    collect(writer, second)
    node.bootstrap()
    assert [ask(node, as_of).commit_seq for as_of in (1, 2, 3)] == [1, 1, 3]


def test_row_58_what_was_collected_since_a_node_last_looked_is_not_fetched(
    writer: TestableWriter,
) -> None:
    node = make_node(writer)
    first, *_ = ids(writer)
    collect(writer, first)
    assert node.record().collected == ()
    with pytest.raises(GenerationCollected):
        ask(node, as_of=1)
    assert first not in node.residence.resident_ids()
    assert ask(node).commit_seq == 4


def test_row_58_a_writer_refuses_what_was_collected_by_name(writer: TestableWriter) -> None:
    first, second, *_ = ids(writer)
    collect(writer, first, second)
    commands: list[Callable[[], object]] = [
        lambda: writer.activate(second),
        lambda: writer.rollback(second, "why"),
        lambda: retaining.tag(writer, second, "blue"),
        lambda: retaining.pin(writer, second, "why"),
        lambda: retaining.unpin(writer, second),
        lambda: retaining.revoke(writer, second, "why"),
    ]
    for command in commands:
        with pytest.raises(GenerationCollected, match="as of 3 to 4"):
            command()
    with pytest.raises(GenctlError) as caught:
        writer.manifest(UNKNOWN)
    assert isinstance(caught.value, GenerationUnknown)


def test_row_7_a_node_follows_over_what_was_collected(writer: TestableWriter) -> None:
    node = make_node(writer)
    _, second, *_ = ids(writer)
    collect(writer, second)
    fifth = add(writer, upserts([9]))
    assert node.bootstrap().activated
    assert node.pointer().active == fifth
    assert new_node(writer, "fresh").bootstrap().pointer.active == fifth
