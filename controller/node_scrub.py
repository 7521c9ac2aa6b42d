"""Scrubbing a node: what it holds is read and checked, and rot is mended or not served.

A pass goes through the artifacts of all resident generations in the order of their ids.
``NODE/scrub.json`` says how far it has come, so that one that was stopped or killed goes on there.
The disk is read without the node's lock; it is held only to mend.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from activator.state import Damage
from controller import clock, degraded, wiring
from controller.node import NodeHome, unwatched
from durable import files
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import (
    GenctlError,
    GenerationUnknown,
    HomeLocked,
    ManifestError,
    ManifestMalformed,
    SchemaTooNew,
)
from manifests.generation import ArtifactFile, GenerationManifest, parse_manifest
from manifests.identifiers import Blake3Hex
from manifests.record import GenerationEntry, accept_manifest
from replicator.bring import bring
from replicator.scrub import is_intact, mend_artifact
from replicator.tally import FetchTally
from store.rate_limit import RateLimit

PROGRESS_FILE = "scrub.json"
SAVED_EVERY_BYTES = 64 << 20
"""How much a pass that was killed reads again at most."""
LOCK_WAIT_MS = 60_000
PAUSE_S = 60.0
"""How long a background scrub rests between two passes."""

_log = logging.getLogger("genctl.scrub")


class Position(Frozen):
    """How far a pass has come: artifacts with smaller ids are done, of this one so many bytes."""

    artifact_id: Blake3Hex
    checked_bytes: int


class Findings(Frozen):
    """What a pass found and did."""

    artifacts: int = 0
    read_bytes: int = 0
    damaged_artifacts: int = 0
    mended_artifacts: int = 0
    fetched_bytes: int = 0
    rebuilt_bytes: int = 0

    def plus(self, **more: int) -> Findings:
        """These and so many more."""
        return self.model_copy(update={n: getattr(self, n) + more[n] for n in more})


class ScrubProgress(Frozen):
    """What ``scrub.json`` holds: the pass under way, if one is, and the last that was finished."""

    schema_version: Literal[1] = 1
    position: Position | None = None
    found: Findings = Findings()
    ended_at: str | None = None
    last: Findings | None = None


@dataclass(frozen=True, slots=True)
class ScrubReport:
    """What one call of :func:`scrub` or :func:`repair` did; ``found`` is since the pass began."""

    found: Findings
    resumed: bool
    failures: tuple[GenctlError, ...]


@dataclass(slots=True)
class _Wanted:
    artifact: ArtifactFile
    generation_ids: list[str] = field(default_factory=list)


class Stopped(Exception):
    """The scrub was told to end."""


def scrub(
    node: NodeHome, *, ending: threading.Event, from_start: bool = False, patient: bool = False
) -> ScrubReport:
    """Finish the pass under way, or make a new one, within ``limits.scrub_bytes_per_s``.

    Damage that cannot be mended is reported, and degrades the node (:mod:`controller.degraded`).

    Args:
        node: the node.
        ending: set by somebody else, ends the pass; the next one goes on from there.
        from_start: begin a new pass.
        patient: wait for a command at work in the node as long as it takes.

    Raises:
        Stopped: ``ending`` was set.
        HomeLocked: another scrub is at work; or, unless ``patient``, another command for too long.
        TrustStateCorrupt: what the node believes is damaged: bootstrap it.
        DiskFull, DiskError: the disk refuses.
    """
    with files.locked(node.home / "scrub.lock", "scrub"):

        def pause(seconds: float) -> None:
            ending.wait(seconds)

        limit = RateLimit(node.settings.limits.scrub_bytes_per_s, time.monotonic, pause)
        before = last_progress(node)
        if from_start:
            before = before.model_copy(update={"position": None})
        if before.position is None:
            before = before.model_copy(update={"found": Findings()})
        scrubbing = _Scrub(node, ending, limit.take, patient=patient)
        scrubbing.resume(before)
        scrubbing.check_all(node.residence.resident_ids())
        scrubbing.finish()
        return scrubbing.report(resumed=before.position is not None)


def repair(node: NodeHome, *, ending: threading.Event) -> ScrubReport:
    """Check the generation that the node should serve at full speed, from its start, and mend it.

    Raises:
        Stopped, HomeLocked, TrustStateCorrupt, DiskFull, DiskError: as :func:`scrub`.
        NothingPublished, PointerCorrupt: see :meth:`NodeHome.pointer`.
    """
    chosen = {node.pointer().active.generation_id, node.state().demoted_from}
    scrubbing = _Scrub(node, ending, lambda _: None, patient=False)
    scrubbing.check_all(sorted(each for each in chosen if each is not None))
    scrubbing.settle()
    return scrubbing.report(resumed=False)


def background(node: NodeHome) -> Callable[[threading.Event], None]:
    """Pass after pass, until the event is set, beside whatever else the process does.

    Each pass reads the node's settings anew: a first bootstrap, which binds the node to its
    embedder, may come after this process began. What ends a pass early is logged, and the next
    one goes on from there.
    """

    def run(ending: threading.Event) -> None:
        while not ending.is_set():
            try:
                scrub(NodeHome(node.home), ending=ending, patient=True)
            except Stopped:
                return
            except GenctlError as error:
                _log.warning("the scrub was ended by %s: %s", error.name, error.message)
            ending.wait(PAUSE_S)

    return run


def last_progress(node: NodeHome) -> ScrubProgress:
    """What ``scrub.json`` says; if it cannot be read, that nothing was ever scrubbed."""
    try:
        return parse_document((node.home / PROGRESS_FILE).read_bytes(), ScrubProgress, 1)
    except (OSError, ManifestMalformed, SchemaTooNew):
        return ScrubProgress()


class _Scrub:
    """One pass."""

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
                residence.mend_links()
                try:
                    degraded.go_back(self._node)
                except GenctlError as error:
                    self._failures.append(error)

    def report(self, *, resumed: bool) -> ScrubReport:
        """What was found so far."""
        return ScrubReport(self._found, resumed, tuple(self._failures))

    def _wanted(self, generation_ids: list[str]) -> dict[str, _Wanted]:
        """The artifacts by their ids; a generation whose manifest is damaged is fetched anew."""
        if not generation_ids:
            return {}  # a new node, which believes nothing yet either
        record = self._node.record()
        published = {entry.generation_id: entry for entry in record.published}
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
        self._found = self._found.plus(damaged_artifacts=1)
        incoming = self._node.home / "incoming"
        with self._locked():
            try:
                stores = self._node.stores()
                trusted = self._node.trust().refresh(stores)
                supply = wiring.supply(self._node.settings, stores, self._node.healths)
                brought = bring(entry, trusted, residence, supply, incoming, unwatched)
            except GenctlError as error:
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
            self._found = self._found.plus(read_bytes=step_bytes)
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
            supply = wiring.supply(node.settings, node.stores(), node.healths)
            self._found = self._found.plus(damaged_artifacts=1)
            try:
                tally = mend_artifact(
                    node.residence, artifact, supply, node.home / "incoming", self._watch
                )
            except GenctlError as error:
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

    def _count_mended(self, tally: FetchTally) -> None:
        self._found = self._found.plus(
            mended_artifacts=1,
            fetched_bytes=tally.fetched_bytes,
            rebuilt_bytes=tally.repaired_bytes,
        )

    def _take(self, size_bytes: int) -> None:
        self._limit(size_bytes)
        self._watch(size_bytes)

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
            with contextlib.suppress(ManifestError, GenerationUnknown):
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
            self._save(before.model_copy(update={"position": position, "found": self._found}))
            self._unsaved_bytes = 0

    def _save(self, progress: ScrubProgress) -> None:
        files.replace_file(self._node.home / PROGRESS_FILE, [to_canonical(progress)])
