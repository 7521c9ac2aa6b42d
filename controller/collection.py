"""A collection of a writer's home and its stores: plan, fence, delete, end.

The record is signed without what is dropped, and with a token, before anything is deleted: a writer
that read the one before is fenced, and nobody publishes upon this one. Then the leases are read
again, for who took one has read the record after that. A collection that was killed leaves its
token in the record; the next one takes over, and so does the next publish (docs/adr/0024).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tuf.api.metadata import Timestamp

from builder.collect import Progress, clear_cut_off, refusing_overtaken, sweep
from builder.garbage import StoreTally
from builder.prepared_merges import FOLDER as MERGES
from builder.repository import CurrentState, Repository
from controller import clock
from controller.collection_plan import CollectionPlan, marks_of, planned
from controller.home_garbage import HomeGarbage, home_garbage, shelf_folder
from controller.roots import leased, root_all
from controller.writer import WriterHome
from durable import files
from index.in_use import unless_held
from manifests.errors import CollectionUnderWay, WriterFenced
from manifests.identifiers import GenerationId, content_id
from manifests.record import ControlRecord
from manifests.retained import with_collection_begun, with_collection_ended
from replicator.repair_events import emit
from replicator.trust_rules import refuse_clock_behind, refuse_clock_off, signed_at
from store.leases import leases_in
from store.server_time import server_time


@dataclass(frozen=True, slots=True)
class CollectionReport:
    """What a collection did.

    Attributes:
        plan: what it set out to do.
        leased_meanwhile: generations that the record dropped while somebody took a lease of them;
            what they consist of was left where it is.
        stores: what each store held; its garbage is gone.
        home: what went in the home.
        was_needed: whether the record was moved; if not, nothing was deleted in the stores.
    """

    plan: CollectionPlan
    leased_meanwhile: tuple[GenerationId, ...]
    stores: tuple[StoreTally, ...]
    home: HomeGarbage
    was_needed: bool

    @property
    def freed_bytes(self) -> int:
        """What the stores and the home have more of now."""
        stores = sum(tally.garbage_bytes for tally in self.stores) if self.was_needed else 0
        cut_off = sum(tally.cut_off.size_bytes for tally in self.stores)
        return stores + cut_off + self.home.size_bytes


def collect(
    writer: WriterHome, on_start: Callable[[int], Progress], *, takes_over: bool = False
) -> CollectionReport:
    """Drop what retention does not keep, and delete what nothing reaches any more.

    Args:
        writer: the home.
        on_start: told how many bytes are to go; gives the progress callback.
        takes_over: whether a collection that another home began has ended, which nobody but the
            operator can know: one that goes on deletes what is published after this one.

    Raises:
        HomeLocked: another command, or a compaction, is at work in the home.
        WriterFenced: another writer moved the record.
        CollectionUnderWay: another home is collecting, or was killed while it did.
        ClockSuspect: the clock here cannot be right, or was not when the record was signed.
        PartsMissing: a generation in the home, or its manifest, is lost or damaged, so that nobody
            can say what it needs.
        StoreUnavailable, DiskError: run it again; it goes on.
    """
    with writer.exclusively("run gc"), _no_compaction(writer):
        repository = writer.ready_to_sign()
        before = repository.current()
        if not takes_over:
            _refuse_anothers(writer, before.signed.record)
        _refuse_odd_clock(writer, before.signed.timestamp)
        plan = planned(writer, before, clock.now())
        progress = on_start(
            plan.home.size_bytes + sum(tally.garbage_bytes for tally in plan.stores)
        )
        if not plan.is_due:
            _clear_home(writer, plan.home, progress)
            clear_cut_off(writer.store().stores, plan.marks)
            return CollectionReport(plan, (), plan.stores, plan.home, was_needed=False)
        current = _begin(repository, before, frozenset(plan.retention.dropped))
        # Whoever took a lease before that has read the record after it: theirs is seen here.
        now, leases = clock.now(), leases_in(writer.store())
        rooted = root_all(writer, before.signed, plan.retention, leased(leases, now))
        rooted.refuse_lost()
        tallies = sweep(
            writer.store().stores,
            marks_of(writer, current.signed, rooted, leases, now),
            refusing_overtaken(writer.store(), current.token),
            progress,
        )
        home = home_garbage(writer, rooted)
        _clear_home(writer, home, progress)
        token = current.signed.record.collecting
        assert token is not None  # noqa: S101 - it was begun above
        ended = with_collection_ended(current.signed.record, token)
        repository.commit(current, ended, clock.now())
    kept = {root.name for root in rooted.reach.roots}
    report = CollectionReport(
        plan,
        tuple(each for each in plan.retention.dropped if each in kept),
        tuple(tallies),
        home,
        was_needed=True,
    )
    emit(
        "generations_collected",
        generation_ids=plan.retention.dropped,
        leased_meanwhile=report.leased_meanwhile,
        freed_bytes=report.freed_bytes,
    )
    return report


def _refuse_odd_clock(writer: WriterHome, signed: Timestamp) -> None:
    """Refuse to judge what is old, and which lease is over, by a clock that cannot be right.

    Raises:
        ClockSuspect: it is behind what was signed, or far from the time that a store tells.
    """
    now = clock.now()
    refuse_clock_behind(now, signed_at(signed))
    refuse_clock_off(now, server_time(writer.settings.stores))


def _refuse_anothers(writer: WriterHome, record: ControlRecord) -> None:
    """Refuse to collect beside a collection that this home did not begin.

    Raises:
        CollectionUnderWay: one is under way, or was never ended.
    """
    known = writer.signed_last.read()
    own = known.record.collecting if known is not None else None
    if record.collecting not in {None, own}:
        raise CollectionUnderWay(
            "another home of this shard began a collection, and has not ended it. Wait for it, or "
            "run `genctl gc` there. If that home is lost, `genctl gc --take-over` ends it here",
            collecting=record.collecting,
        )


def _begin(
    repository: Repository, before: CurrentState, dropped: frozenset[GenerationId]
) -> CurrentState:
    """Sign that a collection is under way; the state as it is then.

    Raises:
        WriterFenced: another writer moved the record first, or at once after.
    """
    record = before.signed.record
    place = f"{socket.gethostname()} {os.getpid()} {clock.now_ms()}"
    token = content_id(f"{record.shard} {before.signed.timestamp.version} {place}".encode())
    begun = with_collection_begun(record, dropped, token)
    repository.commit(before, begun, clock.now())
    current = repository.current()
    if current.signed.record != begun:
        raise WriterFenced(
            "another writer moved the record just after this collection had; nothing was deleted. "
            "Look at `genctl generations`, then run the command again"
        )
    return current


def _clear_home(writer: WriterHome, garbage: HomeGarbage, progress: Progress) -> None:
    """Remove from the home what nothing needs: folders first, so that none lacks an artifact.

    A generation that somebody reads here just now stays for the next collection.
    """
    for generation_id in garbage.generations:
        with unless_held(writer.residence.generations / generation_id) as is_free:
            if not is_free:
                continue
            left = writer.residence.set_aside(generation_id)
        files.remove_tree(left)
    for artifact_id in garbage.artifacts:
        writer.residence.discard(artifact_id)
    for artifact_id in garbage.shelved:
        files.remove_tree(shelf_folder(writer) / artifact_id)
    progress(garbage.size_bytes)


@contextmanager
def _no_compaction(writer: WriterHome) -> Iterator[None]:
    """Hold off compactions, which work without the home's lock and leave symbols on the shelf."""
    files.make_folder(writer.home / MERGES)
    with files.locked(writer.home / MERGES / "lock", "run gc"):
        yield
