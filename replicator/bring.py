"""Bring a generation to a node: manifest, plan, fetch, assemble, verify."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from durable import files
from index.residence import Residence
from index.verification import VerifiedGeneration
from manifests.canonical import to_canonical
from manifests.errors import GenerationUnknown, ManifestError
from manifests.record import GenerationEntry, accept_manifest
from replicator.fetch import FetchTally, Progress, fetch_artifact
from replicator.plan import FetchPlan, plan_fetch
from replicator.trust import TrustedRecord
from store.port import Store

FETCHES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Brought:
    """A generation that is now resident, and what it took."""

    verified: VerifiedGeneration
    plan: FetchPlan
    tally: FetchTally


def bring(
    entry: GenerationEntry,
    trusted: TrustedRecord,
    residence: Residence,
    store: Store,
    incoming: Path,
    on_plan: Callable[[FetchPlan], Progress],
) -> Brought:
    """Make the generation of ``entry`` resident and verified. The caller holds the node's lock.

    What is already here is checked and kept, so that running this again continues where it was
    stopped, and running it on a healthy generation moves nothing.

    Args:
        entry: which generation, from ``trusted``'s record.
        trusted: the record as just refreshed.
        residence: the node's generations and artifacts.
        store: where symbols come from.
        incoming: a folder for files in flight.
        on_plan: told the plan before anything moves; gives the progress callback.

    Raises:
        ManifestError: the manifest is not the one the record names.
        Unrepairable: more of an artifact is lost than its symbols make up for.
        StoreUnavailable, DiskFull, DiskError: the store or the disk failed.
    """
    residence.prepare()
    files.remove_tree(incoming)
    files.make_folder(incoming)
    shard = trusted.record.shard
    manifest = None
    with contextlib.suppress(GenerationUnknown, ManifestError):
        manifest = accept_manifest(residence.manifest_bytes(entry.generation_id), entry, shard)
    if manifest is None:
        manifest = accept_manifest(trusted.manifest_bytes(entry), entry, shard)
    plan = plan_fetch(manifest, residence.holds)
    progress = on_plan(plan)
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        fetches = [
            pool.submit(
                fetch_artifact,
                store,
                artifact,
                incoming,
                residence.artifact_path(artifact.blake3),
                progress,
            )
            for artifact in plan.fetch
        ]
        try:
            tally = sum((fetch.result() for fetch in fetches), FetchTally())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    verified = residence.assemble(manifest, to_canonical(manifest))
    residence.mend_links()
    return Brought(verified, plan, tally)
