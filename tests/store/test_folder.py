from __future__ import annotations

import errno
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from manifests.errors import (
    DiskError,
    DiskFull,
    ObjectMissing,
    ObjectObstructed,
    StoreUnavailable,
)
from manifests.identifiers import content_id
from store.folder import LOCK_NAME, FolderStore
from store.port import ObjectInfo


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore.create(tmp_path / "store")


def root_of(store: FolderStore) -> Path:
    return Path(store.url)


def every_operation_is_unavailable(store: FolderStore) -> None:
    with pytest.raises(StoreUnavailable):
        store.get("key", length=1)
    with pytest.raises(StoreUnavailable):
        store.get_versioned("key", limit_bytes=1)
    with pytest.raises(StoreUnavailable):
        store.stat("key")
    with pytest.raises(StoreUnavailable):
        list(store.list(""))
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("key", [b"x"])
    with pytest.raises(StoreUnavailable):
        store.compare_and_swap("key", b"x", None)
    with pytest.raises(StoreUnavailable):
        store.delete("key")


def test_a_missing_root_is_unavailable_and_is_not_created(tmp_path: Path) -> None:
    every_operation_is_unavailable(FolderStore(tmp_path / "absent"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_mount_point_is_unavailable_and_stays_empty(tmp_path: Path) -> None:
    every_operation_is_unavailable(FolderStore(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_goes_away_during_a_list_is_unavailable(
    store: FolderStore, tmp_path: Path
) -> None:
    for key in ("a/1", "b/1"):
        store.put_if_absent(key, [b"x"])
    listing = store.list("")
    assert next(listing) == ObjectInfo("a/1", 1)
    root_of(store).rename(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable):
        list(listing)


def test_a_listing_tells_when_each_object_was_written(store: FolderStore) -> None:
    store.put_if_absent("a", [b"x"])
    os.utime(root_of(store) / "a", (1_000_000_000, 1_000_000_000))
    (found,) = store.list("")
    assert found.modified_at == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)


def test_the_last_object_that_is_deleted_takes_its_folder_with_it(store: FolderStore) -> None:
    for key in ("a/b/1", "a/b/2", "top"):
        store.put_if_absent(key, [b"x"])
    store.delete("a/b/1")
    assert (root_of(store) / "a/b").is_dir()
    store.delete("a/b/2")
    assert not (root_of(store) / "a/b").exists()
    store.delete("top")
    assert (root_of(store) / LOCK_NAME).exists()
    assert store.put_if_absent("a/b/1", [b"again"])
    assert store.get("a/b/1", length=10) == b"again"


def test_puts_and_deletions_in_one_folder_do_not_get_in_each_others_way(
    store: FolderStore,
) -> None:
    def put(number: int) -> int:
        other = FolderStore(root_of(store))
        return sum(
            other.put_if_absent(f"folder/{number % 2}/{each}", [b"x"]) for each in range(100)
        )

    def delete(number: int) -> None:
        for each in range(100):
            store.delete(f"folder/{number % 2}/{each}")

    with ThreadPoolExecutor(6) as pool:
        deleted = [pool.submit(delete, number) for number in range(20)]
        put_by = [pool.submit(put, number) for number in range(4)]
        deleted += [pool.submit(delete, number) for number in range(20)]
        assert sum(each.result() for each in put_by) >= 200
        for each in deleted:
            each.result()


def test_a_copy_without_the_hidden_file_is_a_store(store: FolderStore) -> None:
    store.put_if_absent("a/b", [b"x"])
    (root_of(store) / LOCK_NAME).unlink()
    copy = FolderStore(root_of(store))
    assert copy.get("a/b", length=9) == b"x"
    assert copy.stat("absent") is None
    assert copy.compare_and_swap("pointer", b"y", None)


def test_what_is_no_object_is_not_listed(store: FolderStore, tmp_path: Path) -> None:
    store.put_if_absent("folder/key", [b"x"])
    root = root_of(store)
    for name in (".tmp-leftover", "folder/.tmp-leftover", "notes with spaces", "folder/a~"):
        (root / name).write_text("x")
    (root / "lost+found").mkdir()
    (root / "lost+found" / "inside").write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "outside" / "secret")
    (root / "folder" / "link").symlink_to(tmp_path / "outside" / "secret")
    (root / "folder" / "outside").symlink_to(tmp_path / "outside")
    os.mkfifo(root / "folder" / "pipe")
    assert list(store.list("")) == [ObjectInfo("folder/key", 1)]


def test_the_folder_of_symbols_may_be_a_link_to_another_disk(
    store: FolderStore, tmp_path: Path
) -> None:
    other, root = tmp_path / "other", root_of(store)
    other.mkdir()
    (root / "symbols").symlink_to(other)
    assert store.put_if_absent("symbols/a/0", [b"x"])
    assert store.put_if_absent("symbols/b", [b"xy"])
    assert (other / "a" / "0").read_bytes() == b"x"
    assert (
        list(store.list(""))
        == list(store.list("symbols/"))
        == [
            ObjectInfo("symbols/a/0", 1),
            ObjectInfo("symbols/b", 2),
        ]
    )
    for folder in (other, other / "a", tmp_path):
        (folder / ".tmp-left").write_bytes(b"left")
    (other / "a" / "outside").symlink_to(tmp_path)
    found = sorted(str(each.path) for each in store.cut_off(datetime(2100, 1, 1, tzinfo=UTC)))
    assert found == [str(root / "symbols" / name) for name in (".tmp-left", "a/.tmp-left")]
    for key in ("symbols/a/0", "symbols/b"):
        store.delete(key)
    assert list(store.list("")) == []
    assert (root / "symbols").is_symlink()


def test_symbols_on_a_disk_that_is_not_there_are_not_called_missing(store: FolderStore) -> None:
    store.put_if_absent("key", [b"x"])
    (root_of(store) / "symbols").symlink_to("absent")
    with pytest.raises(StoreUnavailable, match="mount its disk"):
        store.get("symbols/a", length=1)
    with pytest.raises(StoreUnavailable):
        store.stat("symbols/a")
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("symbols/a", [b"x"])
    with pytest.raises(StoreUnavailable):
        list(store.list("symbols/"))


def test_no_other_link_is_followed(store: FolderStore, tmp_path: Path) -> None:
    store.put_if_absent("key", [b"x"])
    (tmp_path / "outside").mkdir()
    for name in ("precious", ".tmp-precious"):
        (tmp_path / "outside" / name).write_text("precious")
    for name, target in ((".snapshot", "../outside"), ("outside", "../outside"), ("loop", "loop")):
        (root_of(store) / name).symlink_to(target)
    assert list(store.list("")) == [ObjectInfo("key", 1)]
    assert list(store.cut_off(datetime(2100, 1, 1, tzinfo=UTC))) == []


def test_links_and_pipes_are_refused_and_not_followed(store: FolderStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    root = root_of(store)
    (root / "link").symlink_to(secret)
    (root / "dangling").symlink_to(tmp_path / "absent")
    os.mkfifo(root / "pipe")
    for key in ("link", "dangling", "pipe"):
        with pytest.raises(ObjectObstructed):
            store.get(key, length=1)
        with pytest.raises(ObjectObstructed):
            store.get_versioned(key, limit_bytes=1)
        with pytest.raises(ObjectObstructed):
            store.stat(key)
        with pytest.raises(ObjectObstructed):
            store.put_if_absent(key, [b"y"])
        with pytest.raises(ObjectObstructed) as caught:
            store.compare_and_swap(key, b"y", None)
        assert caught.value.facts == {"path": str(root / key), "store": store.url}
        store.delete(key)
        assert store.put_if_absent(key, [b"y"])
        assert store.get(key, length=9) == b"y"
    assert secret.read_text() == "x"
    assert not (tmp_path / "absent").exists()


def test_a_lock_that_is_a_link_is_not_followed(store: FolderStore, tmp_path: Path) -> None:
    lock, outside = root_of(store) / LOCK_NAME, tmp_path / "outside"
    store.put_if_absent("key", [b"x"])
    lock.unlink()
    lock.symlink_to(outside)
    with pytest.raises(DiskError, match="is a link that is not followed; remove it"):
        store.compare_and_swap("key", b"y", content_id(b"x"))
    with pytest.raises(DiskError):
        store.delete("key")
    assert not outside.exists()
    assert store.get("key", length=9) == b"x"
    lock.unlink()
    assert store.compare_and_swap("key", b"y", content_id(b"x"))


def test_an_object_cannot_stand_where_a_folder_does(store: FolderStore) -> None:
    store.put_if_absent("a/b", [b"x"])
    store.delete("a")
    assert store.stat("a") is None
    assert store.get_versioned("a", limit_bytes=9) is None
    with pytest.raises(ObjectMissing):
        store.get("a", length=9)
    assert not store.compare_and_swap("a", b"x", None)
    assert not store.compare_and_swap("a", b"x", content_id(b"x"))
    with pytest.raises(ObjectObstructed, match="is a folder"):
        store.put_if_absent("a", [b"x"])
    with pytest.raises(ObjectObstructed, match="is no folder"):
        store.put_if_absent("a/b/c", [b"x"])
    assert store.get("a/b", length=9) == b"x"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EIO, DiskError),
        (errno.EACCES, DiskError),
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.ESTALE, StoreUnavailable),
        (errno.ENOTCONN, StoreUnavailable),
    ],
)
def test_errors_of_the_system_are_named_and_leave_no_temporary_file(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    store.put_if_absent("folder/old", [b"old"])
    found = store.get_versioned("folder/old", limit_bytes=10)
    assert found is not None
    with monkeypatch.context() as patch:
        for name in ("pread", "fsync"):
            patch.setattr(os, name, failing)
        with pytest.raises(expected):
            store.get("folder/old", length=1)
        with pytest.raises(expected):
            store.put_if_absent("folder/new", [b"x"])
        with pytest.raises(expected):
            store.compare_and_swap("folder/new", b"x", None)
        patch.setattr(os, "scandir", failing)
        with pytest.raises(expected):
            list(store.list(""))
    assert sorted(path.name for path in root_of(store).rglob("*")) == [LOCK_NAME, "folder", "old"]
    assert store.compare_and_swap("folder/old", b"new", found.version)


def test_a_folder_removed_by_hand_is_made_again(store: FolderStore) -> None:
    store.put_if_absent("a/b/c", [b"x"])
    store.delete("a/b/c")
    (root_of(store) / "a").rmdir()
    with pytest.raises(ObjectMissing):
        store.get("a/b/c", length=1)
    assert store.put_if_absent("a/b/c", [b"y"])


def increment(root: Path, times: int) -> None:
    store = FolderStore(root)
    for _ in range(times):
        while True:
            found = store.get_versioned("counter", limit_bytes=100)
            number = 0 if found is None else int(found.data)
            version = None if found is None else found.version
            if store.compare_and_swap("counter", b"%d" % (number + 1), version):
                break


def create(root: Path, number: int) -> None:
    store = FolderStore(root)
    for attempt in range(20):
        if store.put_if_absent(f"races/{attempt}", [b"%d" % number] * 1000):
            assert store.put_if_absent(f"won/{attempt}-{number}", [])


def test_no_update_of_racing_processes_is_lost(store: FolderStore) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=increment, args=(root_of(store), 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert store.get("counter", length=9) == b"60"


def test_of_racing_processes_one_creates_each_object(store: FolderStore) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=create, args=(root_of(store), n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    won = [info.key.removeprefix("won/").split("-") for info in store.list("won/")]
    assert sorted(int(attempt) for attempt, _ in won) == list(range(20))
    for attempt, number in won:
        assert store.get(f"races/{attempt}", length=9999) == number.encode() * 1000
