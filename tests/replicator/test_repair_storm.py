"""A node that repairs much at once keeps within its cap on the stores: row 55."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from controller import clock, wiring
from controller.node import NodeHome
from manifests.names import symbol_key
from query.request import Request
from store.folder import FolderStore
from store.port import UNWATCHED, Transfer
from store.rate_limit import MAX_BURST_BYTES
from tests.support.corpus import upserts
from tests.support.homes import add, make_writer, new_node

CAP_BYTES_PER_S = 64 << 10
BURST_BYTES = min(CAP_BYTES_PER_S, MAX_BURST_BYTES)
DIMENSIONS = 256


class FakeClock:
    """A clock that only sleepers move, each to where its own sleep ends."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._seen = threading.local()
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        self._seen.now_s = self.now_s
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self._seen.now_s += seconds
        with self._lock:
            self.now_s = max(self.now_s, self._seen.now_s)


class Watched(FolderStore):
    """Notes when how many bytes of objects left the store, and each thread's largest piece."""

    def __init__(self, root: Path, now_s: Callable[[], float], on_read: Callable[[], None]) -> None:
        super().__init__(root)
        self._now_s = now_s
        self._on_read = on_read
        self.moved: list[tuple[float, int]] = []
        self.largest: Counter[int] = Counter()

    def left(self, size_bytes: int) -> None:
        self.moved.append((self._now_s(), size_bytes))
        thread = threading.get_ident()
        self.largest[thread] = max(self.largest[thread], size_bytes)
        self._on_read()

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        data = super().get(key, offset=offset, length=length)
        self.left(len(data))
        return data

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        def arrived(size_bytes: int) -> None:
            self.left(size_bytes)
            transfer.arrived(size_bytes)

        watcher = SimpleNamespace(arrived=arrived, stop_by=transfer.stop_by)
        return super().read_into(key, offset=offset, buffer=buffer, transfer=watcher)


def test_row_55_a_storm_of_repairs_keeps_to_the_cap_and_queries_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make_writer(tmp_path, dimensions=DIMENSIONS)
    first = add(writer, upserts(range(20)))
    home = new_node(writer).home
    NodeHome(home).bootstrap()
    second = add(writer, upserts(range(1_000, 2_000)))
    known = {each.blake3 for each in writer.manifest(first.generation_id).artifacts}
    new = [a for a in writer.manifest(second.generation_id).artifacts if a.blake3 not in known]
    store = Path(writer.settings.stores[0])
    for artifact in new:
        for number in range(artifact.symbols.m - artifact.symbols.k):
            (store / symbol_key(artifact.blake3, number)).unlink()

    path = home / "node.json"
    limits = {"store_bytes_per_s": CAP_BYTES_PER_S}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"limits": limits}))
    fake = FakeClock()
    monkeypatch.setattr(clock, "sleep", fake.sleep)
    monkeypatch.setattr(wiring, "time", SimpleNamespace(monotonic=fake.monotonic))
    answered: list[str] = []
    asking = threading.Lock()

    def ask() -> None:
        node = NodeHome(home)
        with asking:
            answer = node.query(node.reader(), Request(text="unique7", mode="lexical"))
            assert node.pointer().active == first
            answered.append(answer.hits[0].id)

    watched = Watched(store, lambda: fake.now_s, ask)
    monkeypatch.setattr(wiring, "open_store", lambda *_, **__: watched)
    report = NodeHome(home).bootstrap()

    tally = report.brought.tally
    assert report.pointer.active == second
    assert tally.repaired_artifacts == len(new)
    total_bytes = sum(size for _, size in watched.moved)
    assert total_bytes >= tally.store_bytes > 4 * BURST_BYTES
    one_piece_a_thread = sum(watched.largest.values())
    assert total_bytes > 4 * one_piece_a_thread
    moved = sorted(watched.moved)
    for begin, (start_s, _) in enumerate(moved):
        sums = itertools.accumulate(size for _, size in moved[begin:])
        for (end_s, _), in_window in zip(moved[begin:], sums, strict=True):
            allowed = CAP_BYTES_PER_S * (end_s - start_s) + BURST_BYTES
            assert in_window <= allowed + one_piece_a_thread + 1
    # All that a rate allows is used, too: nobody waited for longer than was due.
    assert fake.now_s == pytest.approx((total_bytes - BURST_BYTES) / CAP_BYTES_PER_S)
    assert len(answered) == len(watched.moved)
    assert set(answered) == {"d7"}
