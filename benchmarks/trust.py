"""What trust costs: a refresh that finds nothing new, and the signing of a publish.

In one process, over a folder on this machine. The refresh is the whole of what a node does before
it knows that its record is the newest: roots, timestamp, snapshot and targets read again, every
signature checked, the control record read. The signing is what a commit of the record spends
outside its store: documents made, serialised, signed, checked. What the home keeps of it on its
own disk, a receipt and a mark, is measured apart.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median

from benchmarks.harness import Outcome, seconds, show
from benchmarks.served import columns
from builder.repository import Repository
from controller import clock
from controller.new_node import open_node
from controller.node import NodeHome
from manifests.identifiers import content_id
from manifests.names import manifest_target
from manifests.record import ControlRecord, GenerationEntry
from store.memory import MemoryStore
from store.port import UNWATCHED, ObjectInfo, Store, Transfer, VersionedBytes
from tests.support.homes import TestableWriter, make_writer

FEW, MANY = 10, 1_000
MAX_REFRESH_MS = {FEW: 10.0, MANY: 60.0}
MAX_SIGNING_MS = 5.0
RUNS = 31
MANIFEST_BYTES = 4_000
PUBLISHED_AT = "2026-11-20T12:00:00Z"


class _Timed:
    """A store that adds up how long its callers were in it."""

    def __init__(self, behind: Store) -> None:
        self._behind = behind
        self.url = behind.url
        self.inside_s = 0.0

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        started = time.perf_counter()
        found = self._behind.get(key, offset=offset, length=length)
        self.inside_s += time.perf_counter() - started
        return found

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        return self._behind.read_into(key, offset=offset, buffer=buffer, transfer=transfer)

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        started = time.perf_counter()
        found = self._behind.get_versioned(key, limit_bytes=limit_bytes)
        self.inside_s += time.perf_counter() - started
        return found

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        started = time.perf_counter()
        created = self._behind.put_if_absent(key, parts)
        self.inside_s += time.perf_counter() - started
        return created

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        started = time.perf_counter()
        swapped = self._behind.compare_and_swap(key, data, expected)
        self.inside_s += time.perf_counter() - started
        return swapped

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._behind.list(prefix)

    def stat(self, key: str) -> ObjectInfo | None:
        return self._behind.stat(key)

    def delete(self, key: str) -> None:
        self._behind.delete(key)


def _entry(number: int) -> GenerationEntry:
    def name(seq: int) -> str:
        return f"g{seq:012d}-{content_id(str(seq).encode())[:12]}"

    return GenerationEntry(
        generation_id=name(number),
        manifest_id=content_id(_manifest(number)),
        manifest_size_bytes=MANIFEST_BYTES,
        low_seq=number,
        high_seq=number,
        parent_generation_id=name(number - 1) if number > 1 else None,
    )


def _manifest(number: int) -> bytes:
    return f"{number:0{MANIFEST_BYTES}d}".encode()


def _with(record: ControlRecord, count: int) -> ControlRecord:
    entries = tuple(_entry(number) for number in range(1, count + 1))
    return record.model_copy(
        update={
            "kind": "activate",
            "published": entries,
            "retained": tuple(entry.generation_id for entry in entries),
            "active": entries[-1].generation_id,
            "published_at": {entry.generation_id: PUBLISHED_AT for entry in entries},
        }
    )


def _publish(repository: Repository, count: int, new: int) -> None:
    """Sign a record of ``count`` generations, the last ``new`` of which are new targets."""
    current = repository.current()
    targets = [
        (manifest_target(_entry(number).generation_id), _manifest(number))
        for number in range(count - new + 1, count + 1)
    ]
    repository.commit(current, _with(current.signed.record, count), clock.now(), targets)


def refresh_ms(node: NodeHome) -> float:
    """How long a refresh takes that finds nothing new."""
    store = node.stores()
    node.trust().refresh(store)
    return 1_000 * median(seconds(lambda: node.trust().refresh(store)) for _ in range(RUNS))


def _refreshed_ms(writer: TestableWriter, count: int) -> float:
    _publish(writer.repository(), count, count)
    folder = writer.home.parent / f"node-{count}"
    return refresh_ms(open_node(folder, writer.settings.stores, writer.home / "root.json"))


def _signing_ms(folder: Path, *, is_kept: bool) -> float:
    """What a commit takes outside its store; with its receipt and the home's mark, if kept."""
    writer = make_writer(folder)
    timed = _Timed(MemoryStore())
    for info in writer.store().list(""):
        timed.put_if_absent(info.key, [writer.store().get(info.key, length=info.size_bytes)])
    writer.front = timed
    lifetime = timedelta(hours=writer.settings.timestamp_lifetime_hours)
    repository: Repository = (
        writer.repository()
        if is_kept
        else Repository(timed, writer.root_bytes(), writer.keys, lifetime)
    )
    _publish(repository, FEW - 1, FEW - 1)
    taken_ms = []
    for number in range(FEW, FEW + RUNS):
        current = repository.current()
        record = _with(current.signed.record, number)
        target = (manifest_target(_entry(number).generation_id), _manifest(number))
        timed.inside_s = 0.0
        started = time.perf_counter()
        repository.commit(current, record, clock.now(), [target])
        whole_s = time.perf_counter() - started
        taken_ms.append(1_000 * (whole_s - timed.inside_s))
    return median(taken_ms)


def run() -> Outcome:
    """Measure refreshes at two sizes of the record, then the signing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        refreshed_ms = {
            count: _refreshed_ms(make_writer(folder / str(count)), count) for count in (FEW, MANY)
        }
        signing_ms = _signing_ms(folder / "signing", is_kept=False)
        kept_ms = _signing_ms(folder / "kept", is_kept=True)
    figures = {
        "refresh_few_ms": round(refreshed_ms[FEW], 2),
        "refresh_many_ms": round(refreshed_ms[MANY], 1),
        "signing_ms": round(signing_ms, 2),
        "signing_and_keeping_ms": round(kept_ms, 2),
    }
    rows = [
        [
            f"{refreshed_ms[count]:.1f}",
            f"{MAX_REFRESH_MS[count]:.0f}",
            f"{what} ({count:,} retained)",
        ]
        for count, what in ((FEW, "refresh, nothing new"), (MANY, "refresh, nothing new"))
    ]
    rows.append([f"{signing_ms:.1f}", f"{MAX_SIGNING_MS:.0f}", "making and signing a publish"])
    rows.append([f"{kept_ms:.1f}", "", "the same, its receipt and the home's mark fsynced"])
    show(
        "Trust, in one process, medians",
        columns("ms", "at most", "what"),
        rows,
        [f"{RUNS} runs each; reads from a folder, signing without its store"],
    )
    holds = signing_ms <= MAX_SIGNING_MS and all(
        refreshed_ms[count] <= limit for count, limit in MAX_REFRESH_MS.items()
    )
    return Outcome("trust", figures, holds)
