import os
from pathlib import Path

import pytest

from commits.capsule import NO_COMMIT_ID, encode
from commits.local_log import Head, LocalCommitLog
from manifests.errors import BadSetting, DiskError, DiskFull, LogCorrupt
from manifests.identifiers import content_id
from tests.commits.samples import NOW_MS, append, make_log, operations, read_all


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_log_is_empty(tmp_path: Path) -> None:
    log = LocalCommitLog.open(tmp_path / "deep" / "log", "main")
    assert log.head == Head(0, NO_COMMIT_ID, NO_COMMIT_ID)
    assert names(tmp_path / "deep" / "log") == []


def test_commits_read_back_as_appended_and_form_a_hash_chain(tmp_path: Path) -> None:
    commits = make_log(tmp_path, 5)
    assert read_all(tmp_path) == commits
    assert [commit.commit_seq for commit in commits] == [1, 2, 3, 4, 5]
    predecessor = NO_COMMIT_ID
    for number, commit in enumerate(commits, start=1):
        assert commit.commit_id == content_id(encode(commit.capsule))
        assert commit.capsule.predecessor == predecessor
        assert commit.capsule.operations == tuple(operations(number))
        predecessor = commit.commit_id


def test_the_head_is_the_last_commit_before_and_after_opening_again(tmp_path: Path) -> None:
    with LocalCommitLog.open(tmp_path, "main") as log:
        for number in range(1, 4):
            commit = append(log, number)
            wanted = Head(number, commit.commit_id, f"message-{number}")
            assert log.head == LocalCommitLog.open(tmp_path, "main").head == wanted


def test_a_full_segment_is_followed_by_one_named_by_its_first_commit(tmp_path: Path) -> None:
    commits = make_log(tmp_path, 7, segment_size_bytes=800)
    assert names(tmp_path) == [
        "000000000001.log",
        "000000000003.log",
        "000000000005.log",
        "000000000007.log",
        "acknowledged",
    ]
    assert all(path.stat().st_size <= 800 for path in tmp_path.glob("*.log"))
    assert read_all(tmp_path) == commits


def test_a_commit_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    make_log(tmp_path, 3, segment_size_bytes=1)
    assert len(read_all(tmp_path)) == len(list(tmp_path.glob("*.log"))) == 3


def test_any_range_can_be_read(tmp_path: Path) -> None:
    commits = make_log(tmp_path, 7, segment_size_bytes=800)
    log = LocalCommitLog.open(tmp_path, "main")
    for low in range(1, 8):
        for high in range(low, 8):
            assert list(log.read(low, high)) == commits[low - 1 : high]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (2, 1), (1, 4), (4, 4), (-1, -1)])
def test_a_range_outside_the_log_is_refused_at_once(tmp_path: Path, low: int, high: int) -> None:
    make_log(tmp_path, 3)
    with pytest.raises(BadSetting, match="holds 1 to 3"):
        LocalCommitLog.open(tmp_path, "main").read(low, high)


def test_opening_reads_the_last_segment_only_and_reading_those_it_needs(tmp_path: Path) -> None:
    commits = make_log(tmp_path, 7, segment_size_bytes=800)
    (tmp_path / "000000000001.log").write_bytes(b"")
    (tmp_path / "000000000005.log").write_bytes(b"")
    log = LocalCommitLog.open(tmp_path, "main")
    assert list(log.read(3, 4)) == commits[2:4]
    assert list(log.read(7, 7)) == commits[6:]
    with pytest.raises(LogCorrupt):
        list(log.read(5, 5))


def test_the_log_of_another_shard_is_refused(tmp_path: Path) -> None:
    make_log(tmp_path, 1)
    with pytest.raises(LogCorrupt, match="shard main in the log of shard other"):
        LocalCommitLog.open(tmp_path, "other")


def test_files_that_are_not_segments_are_left_alone(tmp_path: Path) -> None:
    commits = make_log(tmp_path, 1)
    for name in ("notes.log", "000000000002.log.bak", "0000000000٣٤.log", "lock"):
        (tmp_path / name).write_bytes(b"mine")
    assert read_all(tmp_path) == commits


def test_a_commit_without_operations_is_refused_and_the_log_goes_on(tmp_path: Path) -> None:
    log = LocalCommitLog.open(tmp_path, "main")
    with pytest.raises(BadSetting, match="at least one operation"):
        log.append([], message_id="m", source="s", now_ms=NOW_MS)
    assert append(log, 1).commit_seq == 1


def failing(monkeypatch: pytest.MonkeyPatch, call: str, error: OSError, after: int) -> None:
    real, calls = getattr(os, call), [0]

    def patched(*arguments: int) -> object:
        calls[0] += 1
        if calls[0] > after:
            raise error
        return real(*arguments)

    monkeypatch.setattr(os, call, patched)


@pytest.mark.parametrize("after", range(4))
def test_row_41_a_failed_fsync_is_never_taken_for_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    commits = make_log(tmp_path, 2)
    log = LocalCommitLog.open(tmp_path, "main")
    failing(monkeypatch, "fsync", OSError(5, "Input/output error"), after)
    with pytest.raises(DiskError):
        commits.extend(append(log, number) for number in range(3, 10))
    acknowledged = log.head.commit_seq
    monkeypatch.undo()
    with pytest.raises(DiskError, match="takes no more commits after a failed write"):
        append(log, acknowledged + 1)
    assert [commit.commit_seq for commit in commits] == list(range(1, acknowledged + 1))
    assert read_all(tmp_path) == commits
    with LocalCommitLog.open(tmp_path, "main") as reopened:
        assert append(reopened, acknowledged + 1).commit_seq == acknowledged + 1


def test_row_41_a_failed_fsync_of_a_new_segment_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LocalCommitLog.open(tmp_path, "main")
    failing(monkeypatch, "fsync", OSError(5, "Input/output error"), 1)
    with pytest.raises(DiskError):
        append(log, 1)
    monkeypatch.undo()
    assert names(tmp_path) == []


@pytest.mark.parametrize("after", [1, 2])
def test_row_40_a_full_disk_leaves_the_acknowledged_commits_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    commits = make_log(tmp_path, 2)
    log = LocalCommitLog.open(tmp_path, "main")
    # One write per record, and one for the mark after it.
    commits.append(append(log, 3))
    real = os.pwrite
    written = [0]

    def short(descriptor: int, data: memoryview, offset: int) -> int:
        written[0] += 1
        if written[0] < after:
            return real(descriptor, data[:10], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", short)
    with pytest.raises(DiskFull):
        append(log, 4)
    monkeypatch.undo()
    assert read_all(tmp_path) == commits


def test_a_reader_is_not_disturbed_by_a_record_that_is_being_written(tmp_path: Path) -> None:
    commits = make_log(tmp_path, 2)
    segment = tmp_path / "000000000001.log"
    whole = segment.read_bytes()
    segment.write_bytes(whole + b"\x50\x00\x00\x00half a rec")
    assert read_all(tmp_path) == commits
    assert segment.stat().st_size == len(whole) + 14, "a reader cuts nothing"
