"""Scrubbing the stores: every object of every retained generation is read, lost ones sent again.

What compares and mends is :class:`builder.publish.Publisher`, as when a published generation is
published again; here its stores are watched, so that what was found can be told store by store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from builder.publish import Progress
from controller.settings import NodeLimits
from controller.writer import WriterHome
from durable import files
from manifests.canonical import to_canonical
from manifests.errors import DiskError, DiskFull, GenctlError, OperatorError
from manifests.generation import ArtifactFile
from manifests.names import CONTROL_TARGET
from manifests.record import ControlRecord, accept_manifest
from replicator.scrub import mend_artifact
from replicator.sources import Supply
from store.port import UNWATCHED, ObjectInfo, Store, Transfer, VersionedBytes
from store.spread import MAX_MIRRORED_SIZE_BYTES, ROOT_KEY, SpreadStore
from symbols.geometry import from_manifest

INCOMING = f"{files.TEMPORARY_PREFIX}incoming"
"""Where a lost artifact arrives; the next command clears what a scrub that was killed left."""


@dataclass(frozen=True, slots=True)
class StoreFindings:
    """What was found in one store; as many objects as were lost or damaged were sent again."""

    url: str
    objects: int
    read_bytes: int
    lost: int
    damaged: int
    recreated: int


@dataclass(frozen=True, slots=True)
class StoresReport:
    """What a scrub of the stores found and did; without ``failures`` everything is whole now.

    ``failures`` say, artifact by artifact, what is damaged in the writer's home and could not be
    mended; what the stores hold of these was left as it is.
    """

    generation_ids: tuple[str, ...]
    mended_artifacts: int
    stores: tuple[StoreFindings, ...]
    failures: tuple[GenctlError, ...]


def scrub(writer: WriterHome, on_start: Callable[[int], Progress]) -> StoresReport:
    """Check all that the stores should hold, and send again what is lost or damaged.

    Damaged artifacts of the writer's home are mended first, from what the stores have. Those that
    cannot be are reported, and everything else is checked all the same.

    Args:
        writer: the home.
        on_start: told how many bytes are to be checked; gives the progress callback.

    Raises:
        ObjectMissing, UnsignedRecord, TrustError: signed metadata is lost or damaged, and no other
            store has it.
        ManifestError: a manifest is damaged in the writer's home.
        HomeLocked, WriterFenced, StoreUnavailable, DiskFull, DiskError: see
            :meth:`WriterHome.restore`.
    """
    watched = _Watched(writer)
    with watched.exclusively("scrub"):
        record = watched.current().signed.record
        artifacts = _artifacts(writer, record)
        mended_artifacts, failures = _mend_home(writer, artifacts)
        _restore_metadata(watched, record)
    progress = on_start(
        sum(
            from_manifest(each.size_bytes, each.symbols).stored_size_bytes
            for each in artifacts.values()
            if each.blake3 not in failures
        )
    )
    generation_ids = tuple(entry.generation_id for entry in record.retained_entries())
    watched.restore(generation_ids, progress, but=failures)
    return StoresReport(
        generation_ids, mended_artifacts, watched.findings(), tuple(failures.values())
    )


def _artifacts(writer: WriterHome, record: ControlRecord) -> dict[str, ArtifactFile]:
    """The artifacts of all retained generations, each once."""
    return {
        artifact.blake3: artifact
        for entry in record.retained_entries()
        for artifact in accept_manifest(
            writer.residence.manifest_bytes(entry.generation_id), entry, record.shard
        ).artifacts
    }


def _mend_home(
    writer: WriterHome, artifacts: dict[str, ArtifactFile]
) -> tuple[int, dict[str, GenctlError]]:
    """Mend the damaged artifacts of the home from the stores.

    Returns how many were mended, and by its id why each of the others could not be.
    """
    limits = NodeLimits()
    supply = Supply(
        peers=(),
        stores=writer.store().stores,
        reads_at_once=limits.reads_at_once,
        min_bytes_per_s=limits.min_bytes_per_s,
        now_s=time.monotonic,
    )
    residence = writer.residence
    damaged = [each for each in artifacts.values() if not residence.holds(each)]
    failures: dict[str, GenctlError] = {}
    for artifact in damaged:
        try:
            mend_artifact(residence, artifact, supply, writer.home / INCOMING, lambda _: None)
        except (DiskFull, DiskError):
            raise  # the next one would fare no better
        except OperatorError as error:
            failures[artifact.blake3] = error
    residence.mend_links()
    files.remove_tree(writer.home / INCOMING)
    return len(damaged) - len(failures), failures


def _restore_metadata(watched: _Watched, record: ControlRecord) -> None:
    """Put back the root of trust in the first store and the control record's target.

    The copies in other stores follow when a generation is published.
    """
    first = watched.store().stores[0]
    root = (watched.home / "root.json").read_bytes()
    found = first.get_versioned(ROOT_KEY, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
    if found is None or found.data != root:
        if found is not None:
            first.delete(ROOT_KEY)
        first.put_if_absent(ROOT_KEY, [root])
    watched.repository().restore_target(CONTROL_TARGET, to_canonical(record))


class _Watched(WriterHome):
    """The same home, whose stores are watched."""

    def __init__(self, writer: WriterHome) -> None:
        super().__init__(writer.home)
        self._watched = tuple(_WatchedStore(store) for store in writer.store().stores)
        self._spread = SpreadStore(self._watched)

    def store(self) -> SpreadStore:
        """The watched stores, as one."""
        return self._spread

    def findings(self) -> tuple[StoreFindings, ...]:
        """What was found, store by store."""
        return tuple(store.findings() for store in self._watched)


class _WatchedStore:
    """A :class:`store.port.Store` that knows what was asked of it, and what it lacked.

    What is created was damaged if it had been seen there before, and else lost.
    """

    def __init__(self, behind: Store) -> None:
        self._behind = behind
        self._lock = threading.Lock()
        self._there: set[str] = set()
        self._lost: set[str] = set()
        self._damaged: set[str] = set()
        self._read_bytes = 0

    @property
    def url(self) -> str:
        return self._behind.url

    def findings(self) -> StoreFindings:
        with self._lock:
            return StoreFindings(
                url=self.url,
                objects=len(self._there | self._lost),
                read_bytes=self._read_bytes,
                lost=len(self._lost),
                damaged=len(self._damaged),
                recreated=len(self._lost | self._damaged),
            )

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        data = self._behind.get(key, offset=offset, length=length)
        self._saw(key, len(data))
        return data

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        count = self._behind.read_into(key, offset=offset, buffer=buffer, transfer=transfer)
        self._saw(key, count)
        return count

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        found = self._behind.get_versioned(key, limit_bytes=limit_bytes)
        if found is not None:
            self._saw(key, len(found.data))
        return found

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        created = self._behind.put_if_absent(key, parts)
        if created:
            self._created(key)
        return created

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        swapped = self._behind.compare_and_swap(key, data, expected)
        if swapped:
            self._created(key)
        return swapped

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._behind.list(prefix)

    def stat(self, key: str) -> ObjectInfo | None:
        found = self._behind.stat(key)
        if found is not None:
            self._saw(key, 0)
        return found

    def delete(self, key: str) -> None:
        self._behind.delete(key)

    def _saw(self, key: str, read_bytes: int) -> None:
        with self._lock:
            self._there.add(key)
            self._read_bytes += read_bytes

    def _created(self, key: str) -> None:
        with self._lock:
            (self._damaged if key in self._there else self._lost).add(key)
