"""The next generation of a writer's home: upon which one, from which commits, with what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from builder.build import BuildReport, BuildSettings, build_generation
from builder.changes import BuildPlan, plan_anew, plan_build
from builder.new_artifacts import Encode
from builder.prepared_merges import PreparedMerges
from commits.local_log import LocalCommitLog
from controller import clock
from controller.executors import workforce
from index.embedding import Embedder, embedder_record
from index.remembered_files import RememberedFiles
from manifests.errors import CommitRangeGap, EmbedderMismatch, NothingToBuild
from manifests.generation import GenerationManifest
from manifests.invariants import check_embedder
from manifests.vectors import FLOAT32_SIZE_BYTES

if TYPE_CHECKING:
    from controller.writer import WriterHome


@dataclass(frozen=True, slots=True)
class BuiltGeneration:
    """The result of ``build``: a report, or the generation that was there already."""

    manifest: GenerationManifest
    report: BuildReport | None


def build_next(writer: WriterHome, log: LocalCommitLog, encode: Encode) -> BuiltGeneration:
    """Build a generation of everything the log holds; with nothing new, name the latest.

    Raises:
        NothingToBuild: the log is empty.
        CommitRangeGap: the log is not the one that the latest generation was built from.
        LogCorrupt: the log is damaged.
        ArtifactHashMismatch: the generation to build upon is damaged.
        EmbedderMismatch: the settings name another embedder, and a document has no vector
            for it; or a worker's genctl makes another embedder of that name.
        BuildWorkersLost: see :class:`builder.scale_out.Workforce`.
        DiskFull, DiskError: the disk refuses.
    """
    resident = writer.residence.resident_ids()
    parent = writer.manifest(resident[-1]) if resident else None
    if log.head.commit_seq == 0:
        raise NothingToBuild("the commit log is empty; run `genctl ingest` first")
    if parent is not None and parent.commits.high_seq >= log.head.commit_seq:
        if parent.commits.head_commit_id != log.head.commit_id:
            raise CommitRangeGap(
                f"the log ends at commit {log.head.commit_seq} ({log.head.commit_id[:12]}…), "
                f"but {parent.generation_id} was built up to commit "
                f"{parent.commits.high_seq} ({parent.commits.head_commit_id[:12]}…): the log "
                "was lost, cut or replaced",
                generation_id=parent.generation_id,
                log_commit_seq=log.head.commit_seq,
            )
        return BuiltGeneration(parent, None)
    embedder = writer.embedder()
    plan, base = _planned(log, parent, embedder)
    seen = RememberedFiles(writer.home)
    merges = PreparedMerges(writer.home, writer.residence)
    with workforce(writer.settings) as workers:
        report = build_generation(
            plan,
            writer.opened(base, seen) if base else None,
            writer.residence,
            writer.home / "draft",
            BuildSettings(
                shard=writer.settings.shard,
                quantization=writer.settings.quantization,
                embedder=embedder,
                encode=encode,
                workforce=workers,
                merge_policy=writer.settings.merges.policy(),
            ),
            clock.now().isoformat(),
            prepared=merges.all(),
            seen=seen,
        )
    merges.clear()
    seen.save({artifact.blake3 for artifact in report.manifest.artifacts})
    return BuiltGeneration(report.manifest, report)


def _planned(
    log: LocalCommitLog, parent: GenerationManifest | None, embedder: Embedder
) -> tuple[BuildPlan, GenerationManifest | None]:
    """What to build, and upon which generation; upon none where the embedder has changed."""
    if parent is None:
        return plan_build(log.read(1, log.head.commit_seq), 1, None), None
    low_seq = parent.commits.high_seq + 1
    base: GenerationManifest | None = parent
    try:
        check_embedder(parent, embedder_record(embedder))
    except EmbedderMismatch:
        size_bytes = None if embedder.computes else FLOAT32_SIZE_BYTES * embedder.dimensions
        plan, base = plan_anew(log.read(1, log.head.commit_seq), low_seq, size_bytes), None
    else:
        commits = log.read(low_seq, log.head.commit_seq)
        plan = plan_build(commits, low_seq, parent.commits.head_commit_id)
    return replace(plan, parent_generation_id=parent.generation_id), base
