from __future__ import annotations

from pathlib import Path

import pytest

from durable import files
from durable.audit_log import TAIL_BYTES, AuditLog
from manifests.audit_trail import Trail, verify
from manifests.errors import DiskError
from manifests.identifiers import content_id
from manifests.receipts import REASON_LIMIT, Change, line_of
from tests.support.crashes import count_steps, killed_at


def change(number: int, reason: str | None = None) -> Change:
    """The pointer goes from one numbered state to the next."""
    return Change(
        kind="activate",
        document="pointer",
        time="2024-05-06T07:08:09+00:00",
        reason=reason,
        before=content_id(f"{number}".encode()) if number else None,
        after=content_id(f"{number + 1}".encode()),
    )


def filled(home: Path, count: int) -> AuditLog:
    log = AuditLog(home)
    for number in range(count):
        log.append(change(number))
    return log


def checked(log: AuditLog) -> Trail:
    return verify(log.read(), {})


def faulty(trail: Trail) -> list[int]:
    return [line.number for line in trail.lines if line.fault is not None]


def test_a_home_without_a_trail_has_an_empty_one(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    assert log.read() == b""
    assert log.last_of("pointer") is None


def test_what_is_appended_is_a_chain(tmp_path: Path) -> None:
    log = filled(tmp_path, 5)
    trail = checked(log)
    assert [line.receipt and line.receipt.sequence for line in trail.lines] == [1, 2, 3, 4, 5]
    assert (faulty(trail), trail.torn_bytes) == ([], 0)
    assert log.read() == b"".join(line_of(line.receipt) for line in trail.lines if line.receipt)


def test_the_newest_receipt_of_a_document_is_found(tmp_path: Path) -> None:
    log = filled(tmp_path, 3)
    log.append(Change(kind="clear", document="quarantine", time="2024-05-06T07:08:09+00:00"))
    last = log.last_of("pointer")
    assert last is not None
    assert last.sequence == 3
    assert log.last_of("quarantine") is None, "it names no bytes"
    assert log.last_of("root") is None


def test_a_torn_last_line_is_cut_off_and_the_next_receipt_says_so(tmp_path: Path) -> None:
    whole = filled(tmp_path, 3).read()
    log = AuditLog(tmp_path)
    before, last = whole.splitlines(keepends=True)[:2], whole.splitlines(keepends=True)[2]
    for length in [*range(0, len(last), 19), len(last) - 1]:
        log.path.write_bytes(b"".join(before) + last[:length])
        receipt = log.append(change(2))
        assert (receipt.sequence, receipt.cut_bytes) == (3, length)
        trail = checked(log)
        assert (len(trail.lines), faulty(trail), trail.torn_bytes) == (3, [], 0)


def test_a_trail_that_is_torn_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    log = filled(tmp_path, 1)
    log.path.write_bytes(log.read()[:-5])
    receipt = log.append(change(0))
    assert (receipt.sequence, receipt.previous) == (1, None)
    assert receipt.cut_bytes > 0
    assert faulty(checked(log)) == []


@pytest.mark.parametrize("damage", [b"\0" * 100, b"", b"{}", b"\xff\r\r\n\x00", b"x" * 300_000])
def test_after_a_damaged_last_line_a_new_chain_names_it(tmp_path: Path, damage: bytes) -> None:
    log = filled(tmp_path, 3)
    log.path.write_bytes(log.read() + damage + b"\n")
    bad = [4, 5] if b"\n" in damage else [4]
    receipt = log.append(change(3))
    assert receipt.broken is not None
    assert receipt.broken.line == bad[-1]
    log.append(change(4))
    trail = checked(log)
    assert faulty(trail) == bad
    assert len(trail.lines) == bad[-1] + 2


@pytest.mark.parametrize("damage", [b"x" * 100, b"x" * 3 * TAIL_BYTES])
def test_damage_in_the_middle_stops_no_append(tmp_path: Path, damage: bytes) -> None:
    log = filled(tmp_path, 3)
    first, second, third = log.read().splitlines(keepends=True)
    log.path.write_bytes(first + damage + b"\n" + third)
    receipt = log.append(change(3))
    assert (receipt.sequence, receipt.broken) == (4, None)
    assert faulty(checked(log)) == [2]
    assert second not in log.read()


def test_an_end_without_any_line_feed_is_cut_however_long_it_is(tmp_path: Path) -> None:
    log = filled(tmp_path, 2)
    log.path.write_bytes(log.read() + b"x" * 3 * TAIL_BYTES)
    assert log.append(change(2)).cut_bytes == 3 * TAIL_BYTES
    assert faulty(checked(log)) == []


def test_the_longest_receipts_are_found_again_in_a_long_trail(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for number in range(40):
        log.append(change(number, "\x01" * 2 * REASON_LIMIT))
    assert len(log.read()) > 3 * TAIL_BYTES
    assert max(map(len, log.read().splitlines())) < TAIL_BYTES / 4
    assert faulty(checked(log)) == []


def test_a_trail_that_is_no_file_is_a_disk_error(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.path.mkdir(parents=True)
    for act in (log.read, lambda: log.append(change(0)), lambda: log.last_of("pointer")):
        with pytest.raises(DiskError):
            act()


def test_an_append_killed_at_any_step_leaves_all_earlier_receipts_and_its_own_or_none(
    tmp_path: Path,
) -> None:
    for start in (0, 2):
        whole = []
        for step in range(20):
            home = tmp_path / f"{start}-{step}"
            home.mkdir()
            log = filled(home, start)
            killed = killed_at(step, lambda: log.append(change(start)))  # noqa: B023
            trail = checked(log)
            assert faulty(trail) == []
            assert len(trail.lines) in {start, start + 1}
            whole.append(len(trail.lines) > start)
            log.append(change(start))
            assert faulty(checked(log)) == []
            if not killed:
                break
        assert (whole[0], whole[-1]) == (False, True)
        assert whole == sorted(whole)


def test_an_append_is_flushed_before_it_returns(tmp_path: Path) -> None:
    log = filled(tmp_path, 1)
    steps: list[str] = []
    observer = files._observers.append
    observer(lambda step, _: steps.append(step))
    try:
        log.append(change(1))
    finally:
        files._observers.pop()
    assert steps == ["write-at", "fsync"]
    assert count_steps(lambda: log.append(change(2))) == 2
