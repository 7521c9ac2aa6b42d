"""Replay, wired: the shipped generation by the signed record, the log, and a scratch folder.

A generation that is not in the home is fetched under a lease, where the store takes one.

What it takes of a home is ``settings.json``, ``root.json`` and ``log/``, so that a copy of those
three is enough to run it on another machine. No key is used, and nothing in the home is changed.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from builder.build import BuildSettings
from builder.replay import ReplayReport, Sampling, compare, rebuild
from builder.shelf import Shelf
from commits.local_log import LocalCommitLog
from controller.executors import workforce
from controller.leased_fetch import bring_leased
from controller.new_node import open_node
from controller.signing_home import ROOT_FILE
from controller.writer import WriterHome
from durable import files
from index.contents import Contents
from index.embedding import embedder_like, embedder_record
from index.residence import Residence
from index.verification import VerifiedGeneration
from manifests.errors import BadSetting
from manifests.generation import GenerationManifest, Quantization, VectorArtifact
from manifests.invariants import check_counts, check_embedder, check_lineage
from manifests.record_changes import readable_entry
from replicator.bring import unwatched

NODE_FOLDER = "shipped"
REBUILT_FOLDER = "rebuilt"


@contextlib.contextmanager
def scratch_folder(keep: Path | None) -> Iterator[Path]:
    """A folder for one replay: ``keep``, which stays, or one of the system's, which goes.

    Raises:
        BadSetting: ``keep`` holds something already.
        DiskFull, DiskError: the disk refuses.
    """
    if keep is not None:
        if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
            raise BadSetting(f"--keep {keep} is there already; name a new or an empty folder")
        files.make_folder(keep)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="genctl-replay-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def replay(
    home: Path,
    generation_id: str,
    scratch: Path,
    sampling: Sampling,
    log_folder: Path | None = None,
) -> ReplayReport:
    """Rebuild what ``generation_id`` should be from the log, and compare it with what it is.

    Args:
        home: a writer's home, or a copy of its settings, root and log.
        generation_id: a published generation; fetched like a node would, if it is not in the home.
        scratch: an empty folder.
        sampling: which queries are asked.
        log_folder: another copy of the log than ``home``'s.

    Raises:
        BadSetting: there is no log.
        GenerationNotPublished, GenerationCollected: the signed record has no such generation.
        GenerationRevoked: it was revoked.
        CommitRangeGap: the log is shorter than the generation, or another one.
        LogCorrupt: the log is damaged.
        EmbedderMismatch: this genctl does not embed as the generation's writer did.
        ArtifactHashMismatch, ManifestError, TrustError, Unrepairable, ActivationFailed: what was
            shipped is not what was signed, or cannot be had.
        BuildWorkersLost, StoreUnavailable, DiskFull, DiskError: see there.
    """
    writer = WriterHome(home)
    folder = log_folder or home / "log"
    if not folder.is_dir():
        raise BadSetting(f"{folder} is not a folder; name the commit log with --log")
    shipped = _shipped(writer, generation_id, scratch)
    manifest = shipped.manifest
    embedder = embedder_like(manifest.embedder)
    check_embedder(manifest, embedder_record(embedder))
    target = scratch / REBUILT_FOLDER
    with (
        LocalCommitLog.open(folder, writer.settings.shard) as log,
        workforce(writer.settings) as workers,
    ):
        rebuilt = rebuild(
            log,
            manifest,
            target,
            BuildSettings(
                shard=manifest.shard,
                quantization=_quantization(manifest, writer.settings.quantization),
                embedder=embedder,
                encode=Shelf(target / "symbols", Residence(target), store_count=1).encode,
                workforce=workers,
            ),
        )
    contents = Contents(shipped)
    check_counts(manifest, contents.snapshot.opened_counts())
    return compare(contents, Contents(rebuilt), sampling)


def _shipped(writer: WriterHome, generation_id: str, scratch: Path) -> VerifiedGeneration:
    """The generation as the signed record has it: the home's files, or fetched into ``scratch``."""
    node = open_node(scratch / NODE_FOLDER, writer.settings.stores, writer.home / ROOT_FILE)
    stores = node.stores()
    trusted = node.trust().refresh(stores)
    record = trusted.record
    entry = readable_entry(record, generation_id)
    check_lineage(record, entry)
    if generation_id in writer.residence.resident_ids():
        return writer.residence.reopen(entry, record.shard)
    return bring_leased(node, entry, trusted, stores, unwatched, purpose="replay").brought.verified


def _quantization(manifest: GenerationManifest, usual: Quantization) -> Quantization:
    """How the shipped vectors are kept; the home's settings, if there are none."""
    shards = manifest.of_kind(VectorArtifact)
    return shards[-1].quantization if shards else usual
