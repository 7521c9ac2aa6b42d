"""Which receipts the writer and a node leave, and when."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from activator.pointer import PointerFile, pointer_id
from activator.state import Damage
from controller import clock, degraded
from controller.commands import audit as audit_command
from controller.commands.quarantine import clear
from controller.node import NodeHome
from controller.writer import WriterHome
from controller.writer_receipts import record_id
from durable import files
from durable.audit_log import AuditLog
from manifests.audit_trail import Trail, verify
from manifests.errors import (
    BadSetting,
    DiskError,
    DiskFull,
    GenctlError,
    GenerationNotPublished,
    GenerationUnknown,
    WriterFenced,
)
from manifests.identifiers import content_id
from manifests.receipts import Receipt
from query.request import Request
from tests.support.corpus import upserts
from tests.support.crashes import killed_at
from tests.support.homes import (
    TestableWriter,
    add,
    built,
    copy_of,
    make_node,
    make_writer,
    new_node,
    release,
)

WORD = Request(text="unique1", mode="lexical")


@pytest.fixture
def writer(tmp_path: Path) -> TestableWriter:
    home = make_writer(tmp_path)
    add(home, upserts(range(3)))
    return home


def node_trail(node: NodeHome) -> Trail:
    pointer = PointerFile(node.home).read()
    root = content_id(node.root_bytes())
    return verify(
        node.audit.read(), {"pointer": pointer_id(pointer) if pointer else None, "root": root}
    )


def writer_trail(writer: WriterHome) -> Trail:
    return verify(writer.audit.read(), {"record": record_id(writer.current().signed.record)})


def receipts(trail: Trail) -> list[Receipt]:
    """All of them, none of which is faulty."""
    assert trail.first_fault is None
    assert trail.disagreements == ()
    return [line.receipt for line in trail.lines if line.receipt is not None]


def kinds(trail: Trail) -> list[tuple[str, int | None]]:
    """What was done and to the state of which commit; all of it took place."""
    assert all(line.took_place is not False for line in trail.lines)
    return [(each.kind, each.high_seq) for each in receipts(trail)]


def damage_of(node: NodeHome) -> Damage:
    return Damage(
        artifact="lexical/x",
        artifact_id=content_id(b"x"),
        generation_ids=(node.pointer().active.generation_id,),
        error="Unrepairable",
        message="lost",
    )


def test_everything_the_writer_signs_leaves_a_receipt(writer: TestableWriter) -> None:
    second = add(writer, upserts([5]))
    writer.rollback(None, "wrong answers")
    writer.activate(second.generation_id)
    writer.override_embedder(second.generation_id, "a new model")
    trail = writer_trail(writer)
    assert kinds(trail) == [
        ("init", None),
        ("publish", 1),
        ("activate", 1),
        ("publish", 2),
        ("activate", 2),
        ("rollback", 1),
        ("activate", 2),
        ("override", 2),
    ]
    told = receipts(trail)
    assert [each.record_version for each in told] == list(range(1, 9))
    assert [each.reason for each in told if each.reason] == ["wrong answers", "a new model"]
    last = told[-1]
    assert (last.generation_id, last.manifest_id) == (second.generation_id, second.manifest_id)
    assert writer.current().signed.timestamp.version == last.record_version


def test_row_59_a_revocation_leaves_a_receipt_of_what_was_revoked(writer: TestableWriter) -> None:
    first = writer.current().signed.record.active
    assert first is not None
    second = add(writer, upserts([5]))
    repository, current = writer.repository(), writer.current()
    revoked = current.signed.record.model_copy(
        update={"kind": "revoke", "reason": "it leaks", "revoked": (first,)}
    )
    repository.commit(current, revoked, clock.now())
    last = receipts(writer_trail(writer))[-1]
    assert (last.kind, last.generation_id, last.reason) == ("revoke", first, "it leaks")
    node = make_node(writer)
    assert receipts(node_trail(node))[-1].generation_id == second.generation_id


def test_what_changes_nothing_leaves_no_receipt(writer: TestableWriter) -> None:
    before = writer.audit.read()
    active = writer.current().signed.record.active
    assert active is not None
    writer.refresh()
    writer.publish(active)
    assert not writer.activate(active)
    assert writer.audit.read() == before
    writer.override_embedder(active, "why")
    once = writer.audit.read()
    writer.override_embedder(active, "why")
    assert writer.audit.read() == once


def test_a_publish_that_was_fenced_is_known_not_to_have_taken_place(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = copy_of(writer, "twin")
    second = built(writer, upserts([5])).generation_id
    writer.publish(second)
    stale = twin.current()
    monkeypatch.setattr(twin, "current", lambda: stale)
    third = built(twin, upserts([6])).generation_id
    with pytest.raises(WriterFenced):
        twin.publish(third)
    assert kinds(writer_trail(writer))[-1] == ("publish", 2)


def test_a_receipt_of_a_change_that_never_came_is_told_apart(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = built(writer, upserts([5])).generation_id
    writer.publish(second)
    before = writer.current()
    repository = writer.repository()

    def fenced(*_: object) -> None:
        raise WriterFenced("lost the race")

    with monkeypatch.context() as patched:
        patched.setattr(type(repository), "_swap", fenced)
        with pytest.raises(WriterFenced):
            writer.activate(second)
    assert writer.current().token == before.token
    *_, last = writer_trail(writer).lines
    assert last.receipt is not None
    assert (last.receipt.kind, last.took_place) == ("activate", False)
    assert writer.activate(second)
    trail = writer_trail(writer)
    assert [line.took_place for line in trail.lines[-2:]] == [False, True]
    assert [each.record_version for each in receipts(trail)[-2:]] == [5, 5]


def test_a_new_root_of_trust_leaves_a_receipt_of_both(writer: TestableWriter) -> None:
    before = writer.root_bytes()
    # The same document in other bytes: what matters here is that it is another file.
    after = before + b"\n"
    with writer.exclusively("test"):
        writer.adopt_root(after)
    last = receipts(verify(writer.audit.read(), {"root": content_id(after)}))[-1]
    assert (last.kind, last.document) == ("new_root", "root")
    assert (last.before, last.after) == (content_id(before), content_id(after))


def test_a_node_leaves_a_receipt_of_every_move_of_its_pointer(writer: TestableWriter) -> None:
    node = make_node(writer)
    add(writer, upserts([5]))
    node.bootstrap()
    node.bootstrap()
    writer.rollback(None, "wrong answers")
    node.bootstrap()
    third = add(writer, upserts([6]))
    node.bootstrap()
    node.rollback()
    node.bootstrap()
    trail = node_trail(node)
    assert kinds(trail) == [
        ("activate", 1),
        ("activate", 2),
        ("rollback", 1),
        ("activate", 3),
        ("hold_back", 1),
    ]
    told = receipts(trail)
    assert [each.reason for each in told] == [None, None, "wrong answers", None, None]
    version = writer.current().signed.timestamp.version
    assert [each.record_version for each in told] == [3, 5, 6, version, version]
    assert (told[3].generation_id, told[3].manifest_id) == (
        third.generation_id,
        third.manifest_id,
    )


def test_moving_off_damage_and_back_leaves_receipts(writer: TestableWriter) -> None:
    node = make_node(writer)
    second = add(writer, upserts([5]))
    node.bootstrap()
    damage = damage_of(node)
    with files.locked(node.home / "lock", "test"):
        degraded.demote(node, damage)
        assert node.pointer().active.high_seq == 1
        degraded.found_intact(node, {damage.artifact_id})
        degraded.go_back(node)
    assert node.pointer().active == second
    trail = node_trail(node)
    assert kinds(trail)[2:] == [("demote", 1), ("return", 2)]
    assert receipts(trail)[2].reason == f"{second.generation_id} is damaged"


def test_what_is_not_the_pointer_has_its_own_receipts(writer: TestableWriter) -> None:
    node = make_node(writer)
    root = node.root_bytes()
    with files.locked(node.home / "lock", "test"):
        node.leave_receipt("clear", "quarantine", reason="looked at it")
        node.leave_receipt("repin", "root", before=content_id(root), after=content_id(root + b"\n"))
        files.replace_file(node.home / "root.json", [root + b"\n"])
    trail = node_trail(node)
    assert kinds(trail) == [("activate", 1), ("clear", None), ("repin", None)]
    assert [line.took_place for line in trail.lines] == [True, None, True]
    files.replace_file(node.home / "root.json", [root + b" "])
    assert node_trail(node).disagreements == ("no receipt accounts for the root as it is now",)


def test_clearing_an_empty_quarantine_leaves_no_receipt(
    writer: TestableWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    node = make_node(writer)
    before = node.audit.read()
    for arguments in ([], ["--json"]):
        clear.main([str(node.home), *arguments], standalone_mode=False)
    assert capsys.readouterr().out == 'Nothing is in quarantine.\n{"cleared": []}\n'
    assert node.audit.read() == before
    assert not (node.home / "quarantine.json").exists()
    node.quarantine.add(content_id(b"1"), "ForkDetected", "two of them", clock.now())
    clear.main([str(node.home)], standalone_mode=False)
    assert kinds(node_trail(node)) == [("activate", 1), ("clear", None)]


@pytest.mark.parametrize("changes", [1, 99], ids=["one", "without end"])
def test_changes_made_while_the_trail_is_read_are_not_taken_for_damage(
    writer: TestableWriter,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: int,
) -> None:
    active = writer.current().signed.record.active
    assert active is not None
    reasons = iter(range(2 * changes))

    def opened(home: Path) -> object:
        found = look(home)
        for reason in itertools.islice(reasons, 2):
            writer.override_embedder(active, f"{reason}")
        return found

    look = audit_command._open
    monkeypatch.setattr(audit_command, "_open", opened)
    audit_command.audit.main([str(writer.home), "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert told["disagreements"] == []
    assert (told["not_compared"] is None) == (changes == 1)


def test_a_pointer_without_a_receipt_gets_one_at_the_next_bootstrap(
    writer: TestableWriter,
) -> None:
    node = make_node(writer)
    node.audit.path.unlink()
    assert node_trail(node).disagreements
    report = NodeHome(node.home).bootstrap()
    assert not report.activated
    (told,) = receipts(node_trail(node))
    assert told.reason == "found active without a receipt"
    NodeHome(node.home).bootstrap()
    assert len(node_trail(node).lines) == 1


def test_a_pointer_whose_next_move_never_came_is_accounted_for(
    writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(writer)
    add(writer, upserts([5]))
    replace = files.replace_file

    def full(path: Path, *more: Any) -> None:
        if path.name == "active.json":
            raise DiskFull("says the test")
        replace(path, *more)

    with monkeypatch.context() as patched:
        patched.setattr(files, "replace_file", full)
        with pytest.raises(DiskFull):
            node.bootstrap()
    assert node.pointer().active.high_seq == 1
    writer.rollback(None, "wrong answers")
    assert not NodeHome(node.home).bootstrap().activated
    assert [line.took_place for line in node_trail(node).lines] == [True, False]


def test_a_pointer_that_was_moved_by_hand_is_found_out(writer: TestableWriter) -> None:
    node = make_node(writer)
    kept = (node.home / "active.json").read_bytes()
    add(writer, upserts([5]))
    node.bootstrap()
    add(writer, upserts([6]))
    node.bootstrap()
    assert node_trail(node).disagreements == ()
    (node.home / "active.json").write_bytes(kept)
    (told,) = node_trail(node).disagreements
    assert told == "no receipt accounts for the pointer as it is now"
    node.bootstrap()
    fault = node_trail(node).first_fault
    assert fault is not None
    assert fault.fault == "before this, the pointer was changed without a receipt"


@pytest.mark.parametrize("damage", ["middle", "last", "torn", "gone"])
def test_damage_to_the_trail_stops_neither_queries_nor_activation(
    writer: TestableWriter, damage: str
) -> None:
    node = make_node(writer)
    add(writer, upserts([5]))
    node.bootstrap()
    path = node.audit.path
    first, second = path.read_bytes().splitlines(keepends=True)
    found = {"middle": b"x\n" + second, "last": first + b"x\n", "torn": first + second[:50]}
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(found[damage])
    assert node.query(node.reader(), WORD).commit_seq == 2
    third = add(writer, upserts([6]))
    assert NodeHome(node.home).bootstrap().activated
    assert node.query(node.reader(), WORD).commit_seq == 3
    trail = node_trail(node)
    fault = trail.first_fault.number if trail.first_fault else None
    # Where the receipt of the second activation is torn, that was one without a receipt.
    assert fault == {"middle": 1, "last": 2, "torn": 2}.get(damage)
    last = trail.lines[-1].receipt
    assert last is not None
    assert (last.generation_id, trail.lines[-1].took_place) == (third.generation_id, True)
    assert (last.broken is not None) == (damage == "last")
    assert (last.cut_bytes > 0) == (damage == "torn")


def test_no_pointer_moves_and_nothing_is_signed_without_a_receipt(writer: TestableWriter) -> None:
    node = make_node(writer)
    second = built(writer, upserts([5])).generation_id
    before = writer.current().token
    for home in (writer, node):
        home.audit.path.unlink()
        home.audit.path.mkdir()
    with pytest.raises(DiskError):
        writer.publish(second)
    assert writer.current().token == before
    writer.audit.path.rmdir()
    release(writer)
    pointer = node.pointer()
    with pytest.raises(DiskError):
        node.bootstrap()
    assert NodeHome(node.home).pointer() == pointer
    assert node.query(node.reader(), WORD).commit_seq == 1


def test_rows_38_and_43_a_swap_killed_at_any_step_leaves_a_chain_that_verifies(
    writer: TestableWriter,
) -> None:
    node = make_node(writer)
    first = node.pointer().active
    add(writer, upserts([5]))
    node.bootstrap()
    node.rollback()
    add(writer, upserts([6]))
    NodeHome(node.home).bootstrap()
    kept = node.home.parent / "kept"
    shutil.copytree(node.home, kept)
    outcomes = []
    for step in range(60):
        shutil.rmtree(node.home)
        shutil.copytree(kept, node.home)
        killed = killed_at(step, NodeHome(node.home).rollback)
        pointer = NodeHome(node.home).pointer()
        *_, last = node_trail(node).lines
        assert last.receipt is not None
        assert node_trail(node).first_fault is None
        assert node_trail(node).disagreements == ()
        took_place = last.receipt.kind == "hold_back" and last.took_place is True
        assert took_place == (pointer.active == first)
        outcomes.append(took_place)
        NodeHome(node.home).rollback()
        assert kinds_of_those_that_took_place(node_trail(node))[-1] == "hold_back"
        if not killed:
            break
    assert outcomes == sorted(outcomes)
    assert (outcomes[0], outcomes[-1]) == (False, True)


def kinds_of_those_that_took_place(trail: Trail) -> list[str]:
    receipts(trail)
    return [line.receipt.kind for line in trail.lines if line.receipt and line.took_place]


def test_an_override_needs_a_reason_and_a_generation_that_is_published_and_here(
    writer: TestableWriter,
) -> None:
    second = built(writer, upserts([5])).generation_id
    refusals: list[tuple[str, str, type[GenctlError]]] = [
        (second, " ", BadSetting),
        (second, "why", GenerationNotPublished),
        ("g000000000009-0123456789ab", "why", GenerationUnknown),
    ]
    before = writer.audit.read()
    for generation_id, reason, error in refusals:
        with pytest.raises(error):
            writer.override_embedder(generation_id, reason)
    assert writer.audit.read() == before


def test_a_new_node_that_was_refused_everything_has_no_receipts(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    node = new_node(writer)
    with pytest.raises(GenctlError):
        node.bootstrap()
    assert AuditLog(node.home).read() == b""
    assert node_trail(node).disagreements == ()
