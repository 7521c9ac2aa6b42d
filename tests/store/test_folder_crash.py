"""A process is killed before each change it makes to the disk, and the operation is run again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from store.folder import FolderStore
from tests.support.crashes import killed_at

KEY = "folder/of/key"
BODY = [b"the whole ", b"of the object " * 10_000]


class DeadlyParts(Sequence[bytes]):
    """Parts whose writer dies before the last one."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: object) -> bytes:  # type: ignore[override]
        raise AssertionError(index)

    def __iter__(self) -> Iterator[bytes]:
        yield b"half" * 100_000
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def stores(tmp_path: Path) -> Callable[[int], FolderStore]:
    return lambda number: FolderStore.create(tmp_path / str(number))


def listed(store: FolderStore) -> list[str]:
    return [info.key for info in store.list("")]


def test_a_killed_put_leaves_the_object_absent_or_whole(
    stores: Callable[[int], FolderStore],
) -> None:
    outcomes = []
    for step in range(100):
        store = stores(step)
        killed = killed_at(step, lambda: store.put_if_absent(KEY, BODY))  # noqa: B023
        present = store.stat(KEY) is not None
        outcomes.append(present)
        assert listed(store) == [KEY] * present
        if present:
            assert store.get(KEY, length=1 << 20) == b"".join(BODY)
        assert FolderStore(Path(store.url)).put_if_absent(KEY, BODY) == (not present)
        assert store.get(KEY, length=1 << 20) == b"".join(BODY)
        if not killed:
            break
    assert outcomes == sorted(outcomes)
    assert outcomes.count(False) >= 6, "two folders, the write and the link"
    assert outcomes.count(True) == 2, "before the folder's fsync, and not killed at all"


def test_a_put_killed_while_it_writes_leaves_nothing_to_see(
    stores: Callable[[int], FolderStore],
) -> None:
    store = stores(0)
    assert killed_at(100, lambda: store.put_if_absent(KEY, DeadlyParts()))
    assert listed(store) == []
    assert store.stat(KEY) is None
    assert store.put_if_absent(KEY, BODY)


@pytest.mark.parametrize("exists", [False, True])
def test_a_killed_swap_leaves_the_old_or_the_new(
    stores: Callable[[int], FolderStore], exists: bool
) -> None:
    outcomes = []
    for step in range(100):
        store = stores(step)
        assert not exists or store.compare_and_swap(KEY, b"old", None)
        old = store.get_versioned(KEY, limit_bytes=100)
        version = None if old is None else old.version
        killed = killed_at(step, lambda: store.compare_and_swap(KEY, b"new", version))  # noqa: B023
        found = store.get_versioned(KEY, limit_bytes=100)
        changed = found != old
        outcomes.append(changed)
        assert found is None or found.data == (b"new" if changed else b"old")
        # The kernel let go of the dead process's lock; the same swap succeeds or is found done.
        again = FolderStore(Path(store.url))
        assert again.compare_and_swap(KEY, b"new", version) == (not changed)
        assert again.get(KEY, length=100) == b"new"
        assert listed(store) == [KEY]
        if not killed:
            break
    assert outcomes == sorted(outcomes)
    assert outcomes.count(False) >= 2
    assert outcomes.count(True) == 2
