from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from durable import files
from manifests.errors import DiskError, HomeLocked

OLD = b"old"
NEW: list[bytes | memoryview] = [b"new ", memoryview(b"bytes")]
NEW_BYTES = b"new bytes"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replacing_gives_the_new_bytes_and_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.replace_file(path, [OLD])
    files.replace_file(path, NEW, mode=0o600)
    assert path.read_bytes() == NEW_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(tmp_path) == ["file"]


def test_replacing_makes_another_file_so_that_an_open_one_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.replace_file(path, [OLD])
    with path.open("rb") as reader:
        files.replace_file(path, NEW)
        assert reader.read() == OLD


def test_creating_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.create_file(path, NEW)
    assert not files.create_file(path, [OLD])
    assert path.read_bytes() == NEW_BYTES
    assert names(tmp_path) == ["file"]


def test_creating_loses_to_whoever_came_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"

    def other(step: str, _: Path) -> None:
        if step == "link":
            path.write_bytes(OLD)

    monkeypatch.setattr(files, "_observers", [other])
    assert not files.create_file(path, NEW)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["file"]


def test_linking_gives_a_second_name_and_leaves_a_taken_one(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(OLD)
    files.link_file(source, target)
    assert target.stat().st_ino == source.stat().st_ino
    other = tmp_path / "other"
    other.write_bytes(NEW_BYTES)
    files.link_file(other, target)
    assert target.read_bytes() == OLD
    with pytest.raises(DiskError):
        files.link_file(tmp_path / "absent", tmp_path / "name")


def test_moving_takes_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/file").write_bytes(OLD)
    files.move(tmp_path / "a/file", tmp_path / "b/file")
    files.move(tmp_path / "b", tmp_path / "c")
    assert (tmp_path / "c/file").read_bytes() == OLD
    assert names(tmp_path) == ["a", "c"]
    with pytest.raises(DiskError):
        files.move(tmp_path / "absent", tmp_path / "d")


def test_folders_are_made_with_their_parents_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a/b/c"
    files.make_folder(folder, private=True)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "file").write_bytes(OLD)
    files.make_folder(folder)
    assert names(folder) == ["file"]
    with pytest.raises(DiskError):
        files.make_folder(folder / "file")


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    files.remove_file(tmp_path / "absent")
    files.remove_tree(tmp_path / "absent")
    files.make_folder(tmp_path / "a/b")
    files.remove_tree(tmp_path / "a")
    assert names(tmp_path) == []


def test_only_temporaries_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-file").write_bytes(OLD)
    (tmp_path / ".tmp-folder").mkdir()
    (tmp_path / ".tmp-folder/inner").write_bytes(OLD)
    (tmp_path / "tmp-kept").write_bytes(OLD)
    files.remove_temporaries(tmp_path)
    assert names(tmp_path) == ["tmp-kept"]


@pytest.mark.parametrize("act", [files.fsync_file, files.fsync_folder, files.WritableFile])
def test_row_41_what_the_system_refuses_is_a_disk_error(tmp_path: Path, act: object) -> None:
    assert callable(act)
    with pytest.raises(DiskError) as caught:
        act(tmp_path / "absent")
    assert str(tmp_path / "absent") in caught.value.message
    assert caught.value.runbook == "disk"


def test_writing_at_offsets_grows_and_cuts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    file = files.WritableFile(path)
    file.write_at(8, b"abcd")
    file.fsync()
    assert path.read_bytes() == b"01234567abcd"
    file.truncate(9)
    file.close()
    assert path.read_bytes() == b"01234567a"


def test_a_lock_shuts_others_out_until_it_is_let_go(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with files.locked(lock, "build"):
        with pytest.raises(HomeLocked) as caught, files.locked(lock, "publish"):
            pass
        assert "publish" in caught.value.message
        assert caught.value.facts["home"] == str(tmp_path)
    with files.locked(lock, "publish"):
        pass


def test_a_lock_is_let_go_when_its_block_fails(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with pytest.raises(RuntimeError), files.locked(lock, "build"):
        raise RuntimeError
    with files.locked(lock, "build"):
        pass


HOLDER = """
import sys
from pathlib import Path
from durable import files
with files.locked(Path(sys.argv[1]), "hold"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_row_43_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(HomeLocked), files.locked(lock, "wait"):
            pass
        holder.kill()
        holder.wait()
        with files.locked(lock, "wait"):
            pass


def test_an_observer_is_told_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(files, "_observers", [lambda step, _: seen.append(step)])
    files.replace_file(tmp_path / "file", [OLD])
    assert seen == ["write", "rename", "fsync-folder"]
    seen.clear()
    files.create_file(tmp_path / "created", [OLD])
    assert seen == ["write", "link", "fsync-folder"]
    assert os.path.lexists(tmp_path / "created")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "missing"])
def test_only_a_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=r"regular file|directory"):
        files.read_file(path)


def test_a_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert files.read_file(tmp_path / "b") == b"x" * 100_000
