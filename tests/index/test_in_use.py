"""Row 57: a generation that is open in any process is held; the kernel lets go with the process."""

from __future__ import annotations

import fcntl
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from index import in_use
from manifests.errors import DiskError, GenerationUnknown

HOLDER = """
import sys
from pathlib import Path
from index import in_use

holds = [in_use.hold(Path(folder)) for folder in sys.argv[1:]]
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "g000000000001-0123456789ab"
    path.mkdir()
    return path


@contextmanager
def another_process(*folders: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds these."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, folders)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def is_free(folder: Path) -> bool:
    with in_use.unless_held(folder) as free:
        return free


def test_row_57_what_is_held_is_not_free_and_several_may_hold_it(folder: Path) -> None:
    assert is_free(folder)
    one, other = in_use.hold(folder), in_use.hold(folder)
    assert not is_free(folder)
    one.close()
    one.close()
    assert not is_free(folder)
    other.close()
    assert is_free(folder)


def test_row_57_a_hold_of_another_process_counts_until_it_is_killed(folder: Path) -> None:
    with another_process(folder) as process:
        assert not is_free(folder)
        process.kill()
        process.wait(60)
        assert is_free(folder)


def test_a_hold_lasts_as_long_as_what_it_is_kept_with(folder: Path) -> None:
    class Snapshot:
        pass

    user: list[Snapshot] = [Snapshot()]
    in_use.hold(folder).keep_with(user[0])
    gc.collect()
    assert not is_free(folder)
    user.clear()
    gc.collect()
    assert is_free(folder)


def test_a_hold_that_nobody_has_any_more_is_let_go(folder: Path) -> None:
    in_use.hold(folder)
    gc.collect()
    assert is_free(folder)


def test_a_folder_that_is_not_there_or_is_being_removed_is_unknown(folder: Path) -> None:
    with pytest.raises(GenerationUnknown):
        in_use.hold(folder.with_name("g000000000002-0123456789ab"))
    gone = folder.rename(folder.with_name(".tmp-gone"))
    with pytest.raises(GenerationUnknown):
        in_use.hold(folder)
    with pytest.raises(GenerationUnknown), in_use.unless_held(folder):
        pass
    gone.rename(folder)
    in_use.hold(folder).close()


def test_what_is_no_folder_is_not_held(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    link = tmp_path / "link"
    link.symlink_to(folder)
    for path in (file, link):
        with pytest.raises(DiskError):
            in_use.hold(path)


def test_a_hold_is_of_the_folder_that_has_the_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the folder and locking it, another may have taken its place."""
    flock = fcntl.flock
    moved: list[Path] = []

    def replaced_first(descriptor: int, operation: int) -> None:
        if not moved:
            moved.append(folder.rename(folder.with_name(".tmp-old")))
            folder.mkdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replaced_first)
    held = in_use.hold(folder)
    monkeypatch.undo()
    assert not is_free(folder)
    held.close()


def test_opening_is_remembered(folder: Path) -> None:
    os.utime(folder, ns=(10**9, 10**9))
    assert in_use.last_opened_ns(folder) == 10**9
    in_use.hold(folder).close()
    assert in_use.last_opened_ns(folder) > 10**9
    with pytest.raises(DiskError):
        in_use.last_opened_ns(folder / "absent")


def test_without_locks_nothing_is_held_and_nothing_is_free(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(_: int, __: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    in_use.hold(folder).close()
    assert not is_free(folder)
