"""One pass of a scrub over a node's generations: what is read, mended, noted and not served.

The disk is read without the node's lock; it is held only to mend.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from activator.state import Damage
from controller import clock, degraded, wiring
from controller.node import NodeHome
from controller.scrub_progress import Findings, Position, ScrubProgress, save_progress
from durable import files
from manifests.errors import (
    DiskError,
    DiskFull,
    GenctlError,
    GenerationUnknown,
    HomeLocked,
    ManifestError,
    NothingPublished,
    PointerCorrupt,
)
from manifests.generation import ArtifactFile, GenerationManifest, parse_manifest
from manifests.record import GenerationEntry, accept_manifest
from replicator.bring import bring, unwatched
from replicator.scrub import is_intact, mend_artifact
from replicator.sources import Supply
from replicator.tally import FetchTally
from store.spread import SpreadStore

SAVED_EVERY_BYTES = 64 << 20
"""How much a pass that was killed reads again at most."""
LOCK_WAIT_MS = 60_000


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What one call of a scrub or a repair did; ``found`` is since the pass began."""

    found: Findings
    resumed: bool
    failures: tuple[GenctlError, ...]


class Stopped(Exception):
    """The scrub was told to end."""


@dataclass(slots=True)
class _Wanted:
    artifact: ArtifactFile
    generation_ids: list[str] = field(default_factory=list)


class ScrubPass:
    """One pass over a node.

    Args:
        node: the node.
        ending: set by somebody else, ends the pass with :class:`Stopped`.
        take: asked before so many bytes are read from the disk.
        patient: wait for a command at work in the node as long as it takes.

    Every method that checks or mends raises besides:
        Stopped: ``ending`` was set.
        HomeLocked: unless ``patient``, another command was at work for too long.
        TrustStateCorrupt: what the node believes is damaged: bootstrap it.
        DiskFull, DiskError: the disk refuses.
    """

    def __init__(
        self,
        node: NodeHome,
        ending: threading.Event,
        take: Callable[[int], None],
        *,
        patient: bool,
    ) -> None:
        self._node = node
        self._ending = ending
        self._limit = take
        self._patient = patient
        self._found = Findings()
        self._failures: list[GenctlError] = []
        self._unsaved: GenctlError | None = None
        self._progress: ScrubProgress | None = None
        self._unsaved_bytes = 0
        self._seen: set[str] = set()

    def resume(self, before: ScrubProgress) -> None:
        """Go on from where a pass was, and keep note from here on."""
        self._progress = before
        self._found = before.found

    def check_all(self, generation_ids: list[str]) -> None:
        """Check the artifacts of these generations that are not done, and mend them."""
        start = self._progress.position if self._progress else None
        wanted = self._wanted(generation_ids)
        known = self._damaged_ids()
        for artifact_id in sorted(wanted):
            if start is None or artifact_id > start.artifact_id or artifact_id in known:
                self._check(wanted[artifact_id], 0)
            elif artifact_id == start.artifact_id:
                self._check(wanted[artifact_id], start.checked_bytes)

    def finish(self) -> None:
        """Note that the pass has come to its end."""
        gone = self._damaged_ids() - self._seen
        if gone:
            with self._locked():
                degraded.found_intact(self._node, gone)
        self.settle()
        ended_at = clock.now().isoformat()
        self._save(ScrubProgress(ended_at=ended_at, last=self._found))

    def settle(self) -> None:
        """Have generations share the present copies of artifacts, and the right one served."""
        residence = self._node.residence
        if not self._links_are_whole() or self._node.state().demoted_from is not None:
            with self._locked():
                self._found = self._found.plus(relinked_files=residence.mend_links())
                try:
                    degraded.go_back(self._node)
                except GenctlError as error:
                    self._failures.append(error)

    def report(self, *, resumed: bool) -> ScrubReport:
        """What was found so far."""
        unsaved = () if self._unsaved is None else (self._unsaved,)
        return ScrubReport(self._found, resumed, (*self._failures, *unsaved))

    def _wanted(self, generation_ids: list[str]) -> dict[str, _Wanted]:
        """The artifacts by their ids; a generation whose manifest is damaged is fetched anew."""
        if not generation_ids:
            return {}  # a new node, which believes nothing yet either
        record = self._node.record()
        published = {
            entry.generation_id: entry for entry in (*_served(self._node), *record.published)
        }
        wanted: dict[str, _Wanted] = {}
        for generation_id in generation_ids:
            if generation_id not in published:
                continue  # nothing that is believed says what should be in it
            manifest = self._manifest(published[generation_id], record.shard)
            for artifact in manifest.artifacts if manifest else ():
                each = wanted.setdefault(artifact.blake3, _Wanted(artifact))
                each.generation_ids.append(generation_id)
        self._seen |= wanted.keys()
        return wanted

    def _manifest(self, entry: GenerationEntry, shard: str) -> GenerationManifest | None:
        residence = self._node.residence
        self._seen.add(entry.manifest_id)
        with contextlib.suppress(GenerationUnknown, ManifestError):
            data = residence.manifest_bytes(entry.generation_id)
            manifest = accept_manifest(data, entry, shard)
            self._intact(entry.manifest_id)
            return manifest
        incoming = self._node.home / "incoming"
        with self._locked():
            if entry.generation_id not in residence.resident_ids():
                return None  # it made room for others meanwhile
            try:
                stores = self._node.stores()
                trusted = self._node.trust().refresh(stores)
                supply = self._supply(stores)
                with self._node.quarantine.noting(clock.now()):
                    brought = bring(entry, trusted, residence, supply, incoming, unwatched)
            except GenctlError as error:
                self._count_damaged()
                self._fail(
                    Damage(
                        artifact="manifest.json",
                        artifact_id=entry.manifest_id,
                        generation_ids=(entry.generation_id,),
                        error=error.name,
                        message=error.message,
                    ),
                    error,
                )
                return None
            degraded.found_intact(self._node, {entry.manifest_id})
        self._count_mended(brought.tally)
        return brought.verified.manifest

    def _check(self, wanted: _Wanted, start_bytes: int) -> None:
        artifact = wanted.artifact
        checked_bytes = start_bytes

        def on_checked(up_to_bytes: int) -> None:
            nonlocal checked_bytes
            step_bytes, checked_bytes = up_to_bytes - checked_bytes, up_to_bytes
            self._unsaved_bytes += step_bytes
            if self._unsaved_bytes >= SAVED_EVERY_BYTES:
                self._save_position(artifact, checked_bytes)

        residence = self._node.residence
        try:
            intact = is_intact(residence, artifact, start_bytes, self._take, on_checked)
            if intact:
                self._intact(artifact.blake3)
            else:
                self._mend(wanted)
        except BaseException:
            self._save_position(artifact, checked_bytes)
            raise
        self._found = self._found.plus(artifacts=1)

    def _mend(self, wanted: _Wanted) -> None:
        node, artifact = self._node, wanted.artifact
        with self._locked():
            if not set(wanted.generation_ids) & set(node.residence.resident_ids()):
                return  # those that had it made room for others meanwhile
            supply = self._supply(node.stores())
            try:
                tally = mend_artifact(
                    node.residence, artifact, supply, node.home / "incoming", self._watch
                )
            except GenctlError as error:
                self._count_damaged()
                if node.residence.holds(artifact):
                    # Only its table could not be had.
                    self._failures.append(error)
                    degraded.found_intact(node, {artifact.blake3})
                    return
                self._fail(
                    Damage(
                        artifact=artifact.name,
                        artifact_id=artifact.blake3,
                        generation_ids=tuple(wanted.generation_ids),
                        error=error.name,
                        message=error.message,
                    ),
                    error,
                )
                return
            degraded.found_intact(node, {artifact.blake3})
        self._count_mended(tally)

    def _supply(self, stores: SpreadStore) -> Supply:
        return wiring.supply(
            self._node.settings, stores, self._node.healths, is_over=self._ending.is_set
        )

    def _intact(self, artifact_id: str) -> None:
        """Take note if it was known to be damaged."""
        if artifact_id in self._damaged_ids():
            with self._locked():
                degraded.found_intact(self._node, {artifact_id})

    def _damaged_ids(self) -> set[str]:
        return {each.artifact_id for each in self._node.state().damage}

    def _fail(self, damage: Damage, error: GenctlError) -> None:
        self._failures.append(error)
        degraded.demote(self._node, damage)

    def _count_damaged(self) -> None:
        """Count what could not be mended.

        Raises:
            Stopped: the scrub is to end; what that broke off is met again by the next.
        """
        self._watch(0)
        self._found = self._found.plus(damaged_artifacts=1)

    def _count_mended(self, tally: FetchTally) -> None:
        self._found = self._found.plus(
            damaged_artifacts=1,
            mended_artifacts=1,
            read_bytes=tally.resumed_bytes,
            fetched_bytes=tally.fetched_bytes,
            rebuilt_bytes=tally.repaired_bytes,
        )

    def _take(self, size_bytes: int) -> None:
        self._limit(size_bytes)
        self._watch(size_bytes)
        self._found = self._found.plus(read_bytes=size_bytes)

    def _watch(self, _: int) -> None:
        if self._ending.is_set():
            raise Stopped

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The node's lock, waited for."""
        waiting = clock.poller(LOCK_WAIT_MS)

        def keep_waiting() -> bool:
            if self._patient:
                return not self._ending.wait(0.1)
            return waiting()

        try:
            with files.locked(self._node.home / "lock", "scrub", keep_waiting=keep_waiting):
                yield
        except HomeLocked:
            self._watch(0)
            raise

    def _links_are_whole(self) -> bool:
        """Whether each file of each generation is the present copy of its artifact."""
        residence = self._node.residence
        for generation_id in residence.resident_ids():
            with contextlib.suppress(ManifestError, GenerationUnknown, FileNotFoundError):
                manifest = parse_manifest(residence.manifest_bytes(generation_id))
                for artifact in manifest.artifacts:
                    path = residence.folder(generation_id) / artifact.name
                    fresh = residence.artifact_path(artifact.blake3)
                    if fresh.exists() and not (path.exists() and path.samefile(fresh)):
                        return False
        return True

    def _save_position(self, artifact: ArtifactFile, checked_bytes: int) -> None:
        if self._progress is not None:
            position = Position(artifact_id=artifact.blake3, checked_bytes=checked_bytes)
            before = self._progress
            now = before.model_copy(update={"position": position, "found": self._found})
            self._save(now)
            self._unsaved_bytes = 0

    def _save(self, progress: ScrubProgress) -> None:
        """Note where the pass is; without room for that it goes on, and its findings are told."""
        try:
            save_progress(self._node.home, progress)
        except (DiskFull, DiskError) as error:
            self._unsaved = error


def _served(node: NodeHome) -> list[GenerationEntry]:
    """What the node serves and served before: a record named them, be they collected since."""
    try:
        pointer = node.pointer()
    except (NothingPublished, PointerCorrupt):
        return []
    return [each for each in (pointer.active, pointer.previous) if each is not None]
