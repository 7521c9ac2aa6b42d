"""Bring a generation to a node: manifest, plan, fetch, assemble, verify."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from durable import files
from index.residence import Residence
from index.verification import ReadFiles, VerifiedGeneration
from manifests.canonical import to_canonical
from manifests.errors import (
    DiskFull,
    GenerationUnknown,
    ManifestError,
    SizeRefused,
    UnsafeArtifactName,
)
from manifests.generation import ArtifactFile, GenerationManifest
from manifests.identifiers import content_id
from manifests.invariants import check_complete
from manifests.record import GenerationEntry, accept_manifest
from replicator.download import Downloads
from replicator.fetch import Fetcher, Progress
from replicator.plan import FetchPlan, plan_fetch
from replicator.quarantine import Quarantine
from replicator.repair_events import record_ratio
from replicator.sources import Sources, Supply
from replicator.tables import Tables
from replicator.tally import FetchTally
from replicator.trust import TrustedRecord
from symbols.geometry import from_manifest

ARTIFACTS_AT_ONCE = 4
GRACE_S = 60.0
"""What a transfer may take besides the time that its bytes may take."""
SPARE_BYTES = 1 << 20
"""What the disk should have free besides what is fetched: tables, folders, the last blocks."""
OnPlan = Callable[[FetchPlan], Progress]
MakeRoom = Callable[[GenerationManifest, int], None]
"""Told which generation comes, and how many bytes more should be free for it."""


@dataclass(frozen=True, slots=True)
class Brought:
    """A generation that is now resident, and what it took."""

    verified: VerifiedGeneration
    plan: FetchPlan
    tally: FetchTally


def unwatched(_: FetchPlan) -> Progress:
    """For callers of :func:`bring` that do not watch a fetch."""
    return lambda _: None


def as_it_is(_: GenerationManifest, __: int) -> None:
    """For callers of :func:`bring` that have nothing to make room with."""


def bring(  # noqa: PLR0913 - what it works with, and what its caller does beside it
    entry: GenerationEntry,
    trusted: TrustedRecord,
    residence: Residence,
    supply: Supply,
    incoming: Path,
    on_plan: OnPlan,
    meanwhile: Callable[[], None] = lambda: None,
    *,
    make_room: MakeRoom = as_it_is,
    keep_others: bool = False,
) -> Brought:
    """Make the generation of ``entry`` resident and verified. The caller holds the node's lock.

    What is already here is checked and kept, chunk by chunk what a fetch before this one left, so
    that running this again continues where it was stopped, and running it on a healthy generation
    moves nothing.

    Args:
        entry: which generation, from ``trusted``'s record.
        trusted: the record as just refreshed.
        residence: the node's generations and artifacts.
        supply: where bytes come from, and within what bounds.
        incoming: a folder for files in flight.
        on_plan: told the plan before anything moves; gives the progress callback.
        meanwhile: run in the caller's thread while bytes arrive.
        make_room: called before anything moves if the disk has too little room; none of the
            artifacts of the generation that comes may go for it.
        keep_others: leave what is in flight for other generations alone.

    Raises:
        ManifestError, UnsafeArtifactName: the manifest is not the one the record names, or not one
            that could be used.
        ArtifactHashMismatch, BadSymbolSet: an artifact is not what was signed.
        QuarantineCorrupt: what is in quarantine is not known.
        SizeRefused: there is no room for it.
        Unrepairable: more of an artifact is lost than its symbols make up for.
        StoreUnavailable, TransferDeadline, BodyMismatch: a store did not answer as it should.
        DiskFull, DiskError: the disk failed.

    Where the refused bytes are known, the fact ``content_hash`` of the error is theirs, and what
    is in quarantine is refused without it (:meth:`replicator.quarantine.Quarantine.noting`).
    """
    residence.prepare()
    files.make_folder(incoming)
    manifest = manifest_of(entry, trusted, residence)
    seen = ReadFiles()
    plan = plan_fetch(manifest, lambda artifact: residence.holds(artifact, seen))
    _quarantine(residence).refuse(artifact.blake3 for artifact in plan.fetch)
    if not keep_others:
        _clear(incoming, plan)
    _check_room(incoming, plan, residence, functools.partial(make_room, manifest))
    # Generations that are here are linked to what a new file is about to take the place of.
    replaced = [each for each in plan.fetch if _will_be_replaced(residence, each)]
    progress = on_plan(plan)
    tally = _fetch_all(plan, residence, supply, incoming, seen, progress, meanwhile)
    verified = residence.assemble(manifest, to_canonical(manifest), seen)
    if replaced:
        residence.mend_links(verified)
    return Brought(verified, plan, tally)


def manifest_of(
    entry: GenerationEntry, trusted: TrustedRecord, residence: Residence
) -> GenerationManifest:
    """The manifest of ``entry``: the resident one if it is the one that was signed.

    Raises:
        ManifestError, UnsafeArtifactName: neither that nor the store's is, or it is one that no
            node could use; the fact ``content_hash`` is that of the bytes. One that is in
            quarantine for it is not asked for.
        QuarantineCorrupt: what is in quarantine is not known.
        ObjectMissing, StoreUnavailable: the store cannot give it.
    """
    _quarantine(residence).refuse([entry.manifest_id])
    shard = trusted.record.shard
    with contextlib.suppress(GenerationUnknown, ManifestError):
        return accept_manifest(residence.manifest_bytes(entry.generation_id), entry, shard)
    data = trusted.manifest_bytes(entry)
    try:
        manifest = accept_manifest(data, entry, shard)
        check_complete(manifest)
        for artifact in manifest.artifacts:
            from_manifest(artifact.size_bytes, artifact.symbols)
    except (ManifestError, UnsafeArtifactName) as error:
        error.facts |= {
            "content_hash": content_id(data),
            "generation_id": entry.generation_id,
            "manifest_id": entry.manifest_id,
        }
        raise
    return manifest


def _quarantine(residence: Residence) -> Quarantine:
    """The quarantine of the home that the generations are in."""
    return Quarantine(residence.artifacts.parent)


@contextlib.contextmanager
def transfer(
    supply: Supply, residence: Residence, size_bytes: int, seen: ReadFiles
) -> Iterator[tuple[Fetcher, Downloads]]:
    """A fetcher for so many bytes, and its reads, which end with the block."""
    deadline_s = supply.now_s() + GRACE_S + size_bytes / supply.min_bytes_per_s
    sources = Sources(supply.peers, supply.stores, supply.now_s, supply.healths)
    with Downloads(
        sources,
        supply.reads_at_once,
        deadline_s,
        supply.now_s,
        hedge_after_s=supply.hedge_after_s,
        is_over=supply.is_over,
    ) as downloads:
        tables = Tables(residence.tables, sources, downloads.counting, downloads)
        yield Fetcher(downloads, tables, seen), downloads


def _fetch_all(
    plan: FetchPlan,
    residence: Residence,
    supply: Supply,
    incoming: Path,
    seen: ReadFiles,
    progress: Progress,
    meanwhile: Callable[[], None],
) -> FetchTally:
    if not plan.fetch:
        return FetchTally()
    with (
        transfer(supply, residence, plan.fetch_bytes, seen) as (fetcher, downloads),
        ThreadPoolExecutor(ARTIFACTS_AT_ONCE) as pool,
    ):

        def fetch(artifact: ArtifactFile) -> None:
            target = residence.artifact_path(artifact.blake3)
            if residence.has_its_size(artifact):
                fetcher.mend_in_place(artifact, target, progress)
            else:
                fetcher.fetch(artifact, incoming, target, progress)

        # The largest first: small ones fill the gaps that it leaves.
        fetches = [
            pool.submit(fetch, artifact)
            for artifact in sorted(plan.fetch, key=lambda a: -a.size_bytes)
        ]
        try:
            meanwhile()
            for each in fetches:
                each.result()
        except BaseException as error:
            # What is under way would take its time, and nobody waits for it any more.
            downloads.stop()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, DiskFull):
                _clear(incoming, FetchPlan((), ()))
            raise
    files.fsync_folder(residence.artifacts)
    tally = downloads.counting.tally()
    if tally.repaired_chunks:
        record_ratio(tally)
    return replace(tally, failures=downloads.sources.failures())


def _clear(incoming: Path, plan: FetchPlan) -> None:
    """Remove what was in flight for something that is not fetched now."""
    wanted = {artifact.blake3 for artifact in plan.fetch}
    for path in incoming.iterdir():
        if path.name not in wanted:
            files.clear(path)


def _will_be_replaced(residence: Residence, artifact: ArtifactFile) -> bool:
    """Whether a file of this artifact that is here is not mended in place, but fetched anew."""
    is_here = os.path.lexists(residence.artifact_path(artifact.blake3))
    return is_here and not residence.has_its_size(artifact)


def _check_room(
    incoming: Path, plan: FetchPlan, residence: Residence, make_room: Callable[[int], None]
) -> None:
    needed_bytes = sum(residence.growth_bytes(artifact, incoming) for artifact in plan.fetch)
    lacking_bytes = needed_bytes - _free_bytes(incoming)
    if plan.fetch and lacking_bytes + SPARE_BYTES > 0:
        make_room(lacking_bytes + SPARE_BYTES)
        lacking_bytes = needed_bytes - _free_bytes(incoming)
    if lacking_bytes > 0:
        free_bytes = _free_bytes(incoming)
        raise SizeRefused(
            f"{needed_bytes} bytes more are to come into {incoming.parent}, whose disk has "
            f"{free_bytes} free, and no old generation can go that would make room; nothing was "
            "fetched. Free some, or give the node a larger disk",
            size_bytes=needed_bytes,
            free_bytes=free_bytes,
        )


def _free_bytes(folder: Path) -> int:
    with files.translated(folder):
        return shutil.disk_usage(folder).free
