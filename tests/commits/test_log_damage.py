import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from commits.local_log import Commit, LocalCommitLog
from commits.segment import FRAME, MARK_NAME, Acknowledged
from manifests.errors import LogCorrupt
from tests.commits.samples import append, make_log, read_all

SEGMENT = "000000000001.log"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def torn_after(folder: Path, commits: int) -> tuple[list[Commit], bytes, bytes]:
    """A log of ``commits``, its segment's bytes, and one more record, not acknowledged."""
    made = make_log(folder, commits)
    before = (folder / SEGMENT).read_bytes()
    mark = (folder / MARK_NAME).read_bytes()
    with LocalCommitLog.open(folder, "main") as log:
        append(log, commits + 1)
    record = (folder / SEGMENT).read_bytes()[len(before) :]
    (folder / MARK_NAME).write_bytes(mark)
    return made, before, record


def assert_cut(folder: Path, commits: list[Commit], whole_again: bytes) -> None:
    assert read_all(folder) == commits
    with LocalCommitLog.open(folder, "main") as log:
        added = append(log, len(commits) + 1)
    assert (folder / SEGMENT).read_bytes() == whole_again
    assert read_all(folder) == [*commits, added]


def test_row_63_torn_last_record_is_cut_and_acknowledged_commits_stay(folder: Path) -> None:
    commits, before, record = torn_after(folder, 3)
    mark = (folder / MARK_NAME).read_bytes()
    for length in range(len(record)):
        (folder / SEGMENT).write_bytes(before + record[:length])
        (folder / MARK_NAME).write_bytes(mark)
        assert_cut(folder, commits, before + record)


def test_row_63_a_record_whose_pages_never_reached_the_disk_is_cut(folder: Path) -> None:
    commits, before, record = torn_after(folder, 3)
    mark = (folder / MARK_NAME).read_bytes()
    half = len(record) // 2
    for torn in (
        bytes(len(record)),
        bytes(5000),
        record[:half] + bytes(len(record) - half),
        bytes(half) + record[half:],
        record[:half] + b"old content of a block" * 9,
    ):
        (folder / SEGMENT).write_bytes(before + torn)
        (folder / MARK_NAME).write_bytes(mark)
        assert_cut(folder, commits, before + record)


def test_a_whole_record_that_was_not_yet_acknowledged_is_kept(folder: Path) -> None:
    commits, before, record = torn_after(folder, 3)
    (folder / SEGMENT).write_bytes(before + record)
    assert read_all(folder)[:3] == commits
    assert len(read_all(folder)) == 4


def test_row_64_an_acknowledged_record_that_lost_its_end_is_not_taken_for_torn(
    folder: Path,
) -> None:
    make_log(folder, 3)
    whole = (folder / SEGMENT).read_bytes()
    for length in range(len(whole)):
        (folder / SEGMENT).write_bytes(whole[:length])
        with pytest.raises(LogCorrupt) as refused:
            LocalCommitLog.open(folder, "main")
        assert refused.value.facts["segment"] == SEGMENT
        assert (folder / SEGMENT).stat().st_size == length, "nothing was changed"


def files_of(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(folder.iterdir()):
        yield path, path.read_bytes()


def with_older_mark(folder: Path) -> None:
    first = 8 + FRAME.size + int.from_bytes((folder / SEGMENT).read_bytes()[8:12], "little")
    (folder / MARK_NAME).write_bytes(Acknowledged(1, first).to_bytes())


def without_mark(folder: Path) -> None:
    (folder / MARK_NAME).unlink()


@pytest.mark.parametrize("segment_size_bytes", [800, 2**20])
@pytest.mark.parametrize("bit", [0x01, 0x80, 0xFF])
def test_row_64_no_flipped_byte_ever_gives_a_wrong_commit(
    folder: Path, segment_size_bytes: int, bit: int
) -> None:
    commits = make_log(folder, 5, segment_size_bytes=segment_size_bytes)
    for path, whole in files_of(folder):
        for position in range(len(whole)):
            damaged = bytearray(whole)
            damaged[position] ^= bit
            path.write_bytes(damaged)
            if path.name == MARK_NAME:
                assert read_all(folder) == commits
                continue
            with pytest.raises(LogCorrupt) as refused:
                read_all(folder)
            assert refused.value.facts["segment"] == path.name
            offset = refused.value.facts["offset_bytes"]
            assert isinstance(offset, int)
            assert offset <= position
        path.write_bytes(whole)


def test_row_64_damage_before_intact_records_is_named_even_if_the_mark_is_old(
    folder: Path,
) -> None:
    make_log(folder, 4)
    with_older_mark(folder)
    whole = (folder / SEGMENT).read_bytes()
    last = whole.rindex(b"\x89\xa7version") - FRAME.size
    for position in [*range(last), *range(last, last + 4)]:
        damaged = bytearray(whole)
        damaged[position] ^= 0x01
        (folder / SEGMENT).write_bytes(damaged)
        with pytest.raises(LogCorrupt):
            read_all(folder)


def test_row_64_nothing_is_cut_without_a_mark(folder: Path) -> None:
    commits = make_log(folder, 3)
    without_mark(folder)
    assert read_all(folder) == commits
    whole = (folder / SEGMENT).read_bytes()
    (folder / SEGMENT).write_bytes(whole + b"torn")
    with pytest.raises(LogCorrupt) as refused:
        read_all(folder)
    assert refused.value.facts == {"segment": SEGMENT, "offset_bytes": len(whole)}
    assert refused.value.runbook == "log-corrupt"


def test_row_64_commits_before_the_damage_are_read_and_none_behind_it(folder: Path) -> None:
    commits = make_log(folder, 7, segment_size_bytes=800)
    path = folder / "000000000003.log"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    reading = LocalCommitLog.open(folder, "main").read(1, 7)
    assert [next(reading) for _ in range(3)] == commits[:3]
    with pytest.raises(LogCorrupt, match="does not have its checksum"):
        next(reading)


@pytest.mark.parametrize("missing", ["000000000001.log", "000000000003.log", "000000000007.log"])
def test_row_64_a_missing_segment_is_named(folder: Path, missing: str) -> None:
    make_log(folder, 7, segment_size_bytes=800)
    (folder / missing).unlink()
    with pytest.raises(LogCorrupt):
        read_all(folder)


def test_row_64_a_sealed_segment_that_lost_its_last_records_is_named(folder: Path) -> None:
    commits = make_log(folder, 7, segment_size_bytes=800)
    path = folder / "000000000003.log"
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\x89\xa7version") - FRAME.size])
    reading = LocalCommitLog.open(folder, "main").read(1, 7)
    assert [next(reading) for _ in range(3)] == commits[:3]
    with pytest.raises(LogCorrupt, match="ends at commit 3"):
        next(reading)


def test_row_64_records_of_another_history_do_not_join_the_chain(
    folder: Path, tmp_path: Path
) -> None:
    make_log(folder, 7, segment_size_bytes=800)
    other = tmp_path / "other"
    with LocalCommitLog.open(other, "main", segment_size_bytes=800) as log:
        for number in range(11, 18):
            append(log, number)
    shutil.copy(other / "000000000003.log", folder)
    with pytest.raises(LogCorrupt, match="does not follow from the commit before it"):
        read_all(folder)


def test_row_64_segments_that_changed_places_are_named(folder: Path) -> None:
    make_log(folder, 7, segment_size_bytes=800)
    shutil.copy(folder / "000000000005.log", folder / "000000000003.log")
    with pytest.raises(LogCorrupt, match="commit 5 stands where 3 is due"):
        read_all(folder)
