"""Compaction: merges done between builds, so that a build finds them ready.

::

    HOME/merges/<id>.json   a merge that waits for the next build
    HOME/merges/draft/      a compaction under way; thrown away when it is run again
    HOME/merges/lock        held by one compaction at a time

The long work is done without the home's lock: ingests, builds and publishes go on meanwhile. The
lock is held only to take in what one merge made. A compaction that is killed has lost no more than
the merge it was at; run again, it does those that are left.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from builder.merge import merge_rows, merge_text
from builder.new_artifacts import NewArtifact, describe
from builder.parts import MergePlan, plan_compaction, rows_parts, text_parts
from builder.prepared_merges import FOLDER, PreparedMerge, PreparedMerges
from builder.publish import Progress
from builder.shelf import Shelf
from controller.writer import WriterHome
from durable import files
from index.remembered_files import RememberedFiles
from index.snapshot import Snapshot
from index.verification import check_artifact
from manifests.errors import NothingToBuild
from manifests.generation import GenerationManifest


@dataclass(frozen=True, slots=True)
class Planned:
    """What a compaction would do, and for which generation.

    ``prepared`` are the merges that were done before and wait for the next build.
    """

    manifest: GenerationManifest
    plan: MergePlan
    prepared: tuple[PreparedMerge, ...]


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did."""

    planned: Planned
    written_bytes: int
    sent_bytes: int


def plan(writer: WriterHome, max_bytes: int | None = None, *, all_dead: bool = False) -> Planned:
    """What a compaction would merge; see :func:`compact`.

    Raises:
        NothingToBuild: there is no generation yet.
        ArtifactHashMismatch: the newest generation is damaged.
    """
    return _planned(writer, _newest(writer), max_bytes, all_dead=all_dead)


def compact(
    writer: WriterHome,
    max_bytes: int | None,
    *,
    all_dead: bool = False,
    send: bool,
    on_start: Callable[[int], Progress],
) -> CompactReport:
    """Do the merges that are due in the newest generation; the next build puts them in place.

    Args:
        writer: the home.
        max_bytes: what they may read; by default, as is set.
        all_dead: merge every part that holds a dead document, however much that reads if
            ``max_bytes`` is not given, so that the next build has none of what is dead by now.
            Merges that wait are done anew, since they may hold what died after them.
        send: send the symbols of all merges that wait to the stores already.
        on_start: told how many bytes the merges read; gives the progress callback.

    Raises:
        NothingToBuild: there is no generation yet.
        HomeLocked: another compaction is at work.
        ArtifactHashMismatch: the newest generation is damaged.
        StoreUnavailable, DiskFull, DiskError: run it again; the merges that were done stay done.
    """
    files.make_folder(writer.home / FOLDER)
    with files.locked(writer.home / FOLDER / "lock", "run compact"):
        snapshot = _newest(writer)
        planned = _planned(writer, snapshot, max_bytes, all_dead=all_dead)
        if all_dead:
            _forget_waiting(writer)
        progress = on_start(sum(merge.read_bytes for merge in planned.plan.merges))
        shelf = Shelf(
            writer.home / "symbols", writer.residence, store_count=len(writer.settings.stores)
        )
        described = partial(describe, encode=shelf.encode)
        written_bytes = 0
        for row_merge in planned.plan.rows:
            with _work_folder(writer) as folder:
                written_bytes += _keep(writer, *merge_rows(snapshot, row_merge, folder, described))
            progress(row_merge.read_bytes)
        for text_merge in planned.plan.text:
            with _work_folder(writer) as folder:
                done = merge_text(snapshot.folder, text_merge, folder, described)
                written_bytes += _keep(writer, *done)
            progress(text_merge.read_bytes)
        sent_bytes = 0
        if send:
            waiting = PreparedMerges(writer.home, writer.residence).all()
            publisher = writer.publisher()
            artifacts = [
                artifact
                for merge in waiting
                if merge.fits(snapshot.manifest)
                for artifact in merge.artifacts
            ]
            sent_bytes = publisher.send_ahead(artifacts, _unwatched)
    return CompactReport(planned, written_bytes, sent_bytes)


def _unwatched(_: int) -> None:
    """What is sent was merged, and was counted then."""


def _newest(writer: WriterHome) -> Snapshot:
    resident = writer.residence.resident_ids()
    if not resident:
        raise NothingToBuild("there is no generation to compact yet; run `genctl build` first")
    return writer.opened(writer.manifest(resident[-1]), RememberedFiles(writer.home))


def _planned(
    writer: WriterHome, snapshot: Snapshot, max_bytes: int | None, *, all_dead: bool
) -> Planned:
    policy = writer.settings.merges.policy()
    waiting = [] if all_dead else PreparedMerges(writer.home, writer.residence).all()
    prepared = [merge for merge in waiting if merge.fits(snapshot.manifest)]
    if all_dead:
        policy = replace(policy, dead_documents_percent=0, compact_max_bytes=sys.maxsize)
    found = plan_compaction(
        rows_parts(snapshot.manifest, snapshot.tombstones),
        text_parts(snapshot.manifest, snapshot.folder),
        prepared,
        policy,
        policy.compact_max_bytes if max_bytes is None else max_bytes,
    )
    return Planned(snapshot.manifest, found, tuple(prepared))


def _forget_waiting(writer: WriterHome) -> None:
    with files.locked(writer.home / "lock", "run compact", wait=True):
        PreparedMerges(writer.home, writer.residence).clear()


@contextmanager
def _work_folder(writer: WriterHome) -> Iterator[Path]:
    folder = writer.home / FOLDER / "draft"
    files.remove_tree(folder)
    files.make_folder(folder)
    try:
        yield folder
    finally:
        files.remove_tree(folder)


def _keep(writer: WriterHome, merge: PreparedMerge, made: list[NewArtifact]) -> int:
    """Take in what a merge made, then remember the merge; how many bytes that was."""
    with files.locked(writer.home / "lock", "run compact", wait=True):
        seen = RememberedFiles(writer.home)
        for each in made:
            check_artifact(each.path, each.artifact, seen)
            writer.residence.take_in(each.path, each.artifact.blake3)
        PreparedMerges(writer.home, writer.residence).add(merge)
        seen.save(seen.digests)
    return sum(each.artifact.size_bytes for each in made)
