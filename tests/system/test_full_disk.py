"""Rows 26, 40, 41: a node whose disk has no room, fills up or fails in the middle of a fetch."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from controller.new_node import open_node
from controller.node import NodeHome
from controller.writer import WriterHome
from manifests.errors import DiskError, DiskFull, SizeRefused
from query.request import Request
from replicator.fetch import Progress
from replicator.plan import FetchPlan
from tests.support.corpus import upserts
from tests.support.homes import add, make_writer

DISK_BYTES = 16 << 20
LEFT_BYTES = 1 << 20


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> WriterHome:
    """A small generation; a larger one follows when a node has that."""
    home = make_writer(tmp_path_factory.mktemp("full"), dimensions=512)
    add(home, upserts(range(5)))
    return home


class Small(NamedTuple):
    """A folder on a disk, and how to fill that disk."""

    folder: Path
    fill: Callable[[], None]
    free: Callable[[], None]


def mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.fixture(params=["a real disk", "a refused write"])
def small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Small]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "a refused write":
        real = os.pwrite

        def refuse(descriptor: int, data: bytes, offset: int) -> int:
            if offset < LEFT_BYTES:
                return real(descriptor, data, offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        yield Small(
            folder,
            lambda: monkeypatch.setattr(os, "pwrite", refuse),
            lambda: monkeypatch.setattr(os, "pwrite", real),
        )
        return
    if not mounted(folder):
        pytest.skip("no file system can be mounted here; the other case stands for it")
    ballast = folder / "ballast"

    def fill() -> None:
        ballast.write_bytes(bytes(shutil.disk_usage(folder).free - LEFT_BYTES))

    yield Small(folder, fill, ballast.unlink)
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def behind(writer: WriterHome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a node that serves the first of two generations."""
    home = tmp_path_factory.mktemp("behind") / "node"
    open_node(home, writer.settings.stores, writer.home / "root.json").bootstrap()
    add(writer, upserts(range(10, 2000)))
    return home


@pytest.fixture
def catching_up(behind: Path, small: Small) -> NodeHome:
    """A copy of that node on the small disk."""
    shutil.copytree(behind, small.folder / "node")
    return NodeHome(small.folder / "node")


def answers(node: NodeHome) -> bool:
    reader = NodeHome(node.home).reader()
    return node.query(reader, Request(text="unique3", mode="lexical")).hits[0].id == "d3"


def then(act: Callable[[], None]) -> Callable[[FetchPlan], Progress]:
    """Something that happens when the room has been checked and nothing has moved yet."""

    def on_plan(_: FetchPlan) -> Progress:
        act()
        return lambda _: None

    return on_plan


def test_row_40_a_disk_that_fills_up_in_a_fetch_leaves_the_active_generation(
    catching_up: NodeHome, small: Small
) -> None:
    node = catching_up
    before = node.pointer()
    with pytest.raises(DiskFull) as caught:
        node.bootstrap(then(small.fill))
    assert caught.value.runbook == "disk"
    assert list((node.home / "incoming").iterdir()) == []
    assert NodeHome(node.home).pointer() == before
    assert node.residence.resident_ids() == [before.active.generation_id]
    assert answers(node)
    small.free()
    assert node.bootstrap().activated
    assert node.pointer().previous == before.active
    assert answers(node)


@pytest.fixture
def plain(behind: Path, tmp_path: Path) -> NodeHome:
    """A copy of that node on a disk with room."""
    shutil.copytree(behind, tmp_path / "node")
    return NodeHome(tmp_path / "node")


def test_row_26_what_the_disk_has_no_room_for_is_refused_before_any_fetch(
    plain: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plain.pointer()
    planned: list[FetchPlan] = []

    def on_plan(plan: FetchPlan) -> Progress:
        planned.append(plan)
        return lambda _: None

    usage = shutil.disk_usage(plain.home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    with pytest.raises(SizeRefused) as caught:
        plain.bootstrap(on_plan)
    assert caught.value.facts["free_bytes"] == 1 << 20
    assert planned == []
    assert list((plain.home / "incoming").iterdir()) == []
    assert plain.pointer() == before
    assert answers(plain)
    monkeypatch.undo()
    assert plain.bootstrap().activated


def test_row_41_a_disk_that_fails_an_fsync_in_a_fetch_is_not_believed_later(
    plain: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk may not have kept is fetched again, though it can be read just now."""
    before = plain.pointer()
    real = os.fsync
    failed: list[str] = []

    def fails(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.parent.name == "incoming":
            failed.append(path.name)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(DiskError):
        plain.bootstrap()
    monkeypatch.undo()
    assert failed
    assert len(failed) == len(set(failed)), "no fsync was tried again"
    assert list((plain.home / "incoming").iterdir()) == []
    assert plain.pointer() == before
    assert answers(plain)
    report = plain.bootstrap()
    assert report.activated
    assert report.brought.tally.resumed_bytes == 0
