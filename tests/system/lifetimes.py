"""The life of a home as a state machine: whatever happens to it, what can be read is there.

Each rule is a command of the writer's, whole, on real files; it may be killed before any change to
the disk (its own, or the store's, which is a folder), after which nothing of it runs any more. One
copy of the home may hang in a publish or a collection meanwhile. After each rule, what the signed
record and the leases say can be read is looked for in the store, symbol by symbol; at the end of
each life nothing else is left there, nor in the home.

Run as a program, it takes as many steps as it is told (``make lifetimes STEPS=10000``), by a seed
that it prints and may be given again.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from builder.garbage import KEPT_VERSIONS, MANY_OLD_OBJECTS
from builder.prepared_merges import PreparedMerges
from controller import clock, retaining
from controller.collection import CollectionReport, collect
from controller.compaction import compact
from controller.leases import LeasePlace, take
from controller.leases import release as give_back
from controller.settings import MergeSettings
from manifests.errors import (
    BadSetting,
    CollectionUnderWay,
    GenctlError,
    GenerationCollected,
    GenerationNotPublished,
    GenerationRevoked,
    NothingPublished,
    NothingToBuild,
    UnsignedRollback,
    WriterFenced,
)
from manifests.generation import parse_manifest
from manifests.identifiers import high_seq_of
from manifests.names import CONTROL_TARGET, manifest_target, metadata_key, symbol_key, target_key
from manifests.record import ControlRecord
from manifests.retention import KeepEvery, RetentionPolicy
from store.folder import FolderStore
from store.leases import PREFIX as LEASES
from symbols.geometry import from_manifest
from tests.support.corpus import delete, upsert
from tests.support.homes import TestableWriter, commit, make_writer
from tests.system.interference import Killer, Stalled, Watched

STEPS_A_LIFE = 25
STALL_DEADLINE_S = 60
LONGEST_STALL_STEPS = 6
GRACE = timedelta(hours=24)
MOST_SIGNED_OBJECTS = 3 * (KEPT_VERSIONS + 1) + 2 + MANY_OLD_OBJECTS
"""Records, snapshots and targets of the newest versions, the timestamp, the root, and what is not
yet worth a collection of its own."""

REFUSALS = (
    BadSetting,
    GenerationCollected,
    GenerationNotPublished,
    GenerationRevoked,
    NothingPublished,
    NothingToBuild,
    UnsignedRollback,
)
"""What a command may say of a generation that it is asked to do something with."""

counts: collections.Counter[str] = collections.Counter()
"""How often each thing happened, over all lives."""


WORDS: dict[str, Callable[[TestableWriter, str, int], object]] = {
    "tag": lambda writer, chosen, choice: retaining.tag(writer, chosen, f"tag-{choice % 3}"),
    "untag": lambda writer, _, choice: retaining.untag(writer, f"tag-{choice % 3}"),
    "pin": lambda writer, chosen, _: retaining.pin(writer, chosen, "because"),
    "unpin": lambda writer, chosen, _: retaining.unpin(writer, chosen),
    "roll back": lambda writer, chosen, _: writer.rollback(chosen, "because"),
    "revoke": lambda writer, chosen, _: retaining.revoke(writer, chosen, "because"),
}
"""What an operator may say of a published generation."""

kills = st.one_of(st.none(), st.integers(0, 60))
moments = st.one_of(st.none(), st.integers(0, 60))
"""Before which operation of a store; ``None`` is about when the record is moved."""
choices = st.integers(0, 1 << 30)


class Life(RuleBasedStateMachine):
    """One home, its store, and what is known to have been acknowledged."""

    killer: Killer
    template: Path

    def __init__(self) -> None:
        super().__init__()
        if not hasattr(Life, "killer"):
            Life.killer = Killer()
        self.folder = Path(tempfile.mkdtemp(prefix="genctl-life-"))
        self.patch = pytest.MonkeyPatch()
        self.now: datetime = clock.now()
        self.patch.setattr(clock, "now", lambda: self.now)
        self.numbers = itertools.count()
        self.names = itertools.count()
        self.acknowledged: set[str] = set()
        self.gone: set[str] = set()
        self.leases: dict[tuple[str, str], datetime] = {}
        self.stalled: Stalled | None = None

    @initialize(keep_last=st.integers(1, 4), every=st.booleans())
    def begin(self, keep_last: int, every: bool) -> None:
        self.writer = make_writer(self.folder)
        self.same_store = self.folder / "same-store"
        self.same_store.symlink_to(self.writer.settings.stores[0])
        self._set_retention(keep_last, every=every)

    def _set_retention(self, keep_last: int, *, every: bool) -> None:
        daily = KeepEvery(every_hours=24, for_hours=96)
        retention = RetentionPolicy(keep_last=keep_last, keep_every=(daily,) if every else ())
        path = self.writer.home / "settings.json"
        merges = MergeSettings(shards=4)
        changed = self.writer.settings.model_copy(update={"retention": retention, "merges": merges})
        path.write_text(changed.model_dump_json(), "utf-8")
        self.writer = TestableWriter(self.writer.home)

    def teardown(self) -> None:
        try:
            if hasattr(self, "writer"):
                self.converge()
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)

    # --- what the writer does -----------------------------------------------------------------

    @rule(kill_at=kills, times=st.integers(1, 3), is_active=st.booleans(), choice=choices)
    def release(self, kill_at: int | None, times: int, is_active: bool, choice: int) -> None:
        for number in range(times):
            self._release(kill_at if number == times - 1 else None, choice + number, is_active)

    @rule(is_active=st.booleans(), choice=choices)
    def publish(self, is_active: bool, choice: int) -> None:
        self._release(None, choice, is_active)

    def _release(self, kill_at: int | None, choice: int, is_active: bool) -> None:
        counts["publish"] += 1
        self._add(self.writer, choice)

        def act() -> None:
            generation_id = self.writer.build().manifest.generation_id
            for report in self.writer.publish(generation_id, restore=False):
                self.acknowledged.add(report.generation_id)
            if is_active and generation_id not in self.record().revoked:
                self.writer.activate(generation_id)

        self._run(act, kill_at)

    def _make_old(self, choice: int) -> None:
        """Release what pushes others out of what is kept, so that a collection has work to do."""
        kept = self.writer.settings.retention.keep_last or 1
        for number in range(max(1, kept + 2 - len(self.record().retained))):
            self._release(None, choice + number, True)

    def _add(self, writer: TestableWriter, choice: int) -> None:
        number = next(self.numbers)
        is_delete = number > 0 and choice % 5 == 0
        commit(writer, [delete(choice % number) if is_delete else upsert(number)])

    @rule(kill_at=kills, choice=choices)
    def prepare_merges(self, kill_at: int | None, choice: int) -> None:
        counts["compact"] += 1
        self._run(
            lambda: compact(self.writer, None, send=choice % 2 == 0, on_start=unwatched), kill_at
        )

    @rule(word=st.sampled_from(sorted(WORDS)), choice=choices, kill_at=kills)
    def say(self, word: str, choice: int, kill_at: int | None) -> None:
        counts[word] += 1
        self._try(lambda chosen: WORDS[word](self.writer, chosen, choice), choice, kill_at)

    # --- what others do -----------------------------------------------------------------------

    @rule(choice=choices, hours=st.integers(1, 72))
    def take_lease(self, choice: int, hours: int) -> None:
        place = LeasePlace(self.writer.store(), self.record)
        self._try(lambda chosen: self._lease(place, chosen, hours), choice, None)

    def _lease(self, place: LeasePlace, generation_id: str, hours: int) -> None:
        counts["lease"] += 1
        holder, lasting = f"holder-{next(self.names)}", timedelta(hours=hours)
        with contextlib.suppress(*REFUSALS):
            take(place, generation_id, holder, "a test", lasting=lasting, now=self.now)
            self.leases[generation_id, holder] = self.now + lasting
            counts["leased"] += 1

    @precondition(lambda self: self.leases)
    @rule(choice=choices)
    def release_lease(self, choice: int) -> None:
        generation_id, holder = sorted(self.leases)[choice % len(self.leases)]
        del self.leases[generation_id, holder]
        give_back(self.writer.store(), generation_id, holder)

    @rule(hours=st.integers(1, 60))
    def time_passes(self, hours: int) -> None:
        counts["hours"] += hours
        self.now += timedelta(hours=hours)

    @rule(kill_at=kills, choice=choices)
    def collect_garbage(self, kill_at: int | None, choice: int) -> None:
        counts["gc"] += 1
        if kill_at is not None:
            self._make_old(choice)
        self._collect(kill_at)

    def _collect(self, kill_at: int | None) -> None:
        """Collect; beside a collection that the copy has begun, that is refused."""
        stalled = self.stalled
        begun = stalled.begun if stalled is not None else None
        is_refused = begun is not None and self.record().collecting == begun
        reports: list[CollectionReport] = []
        self._run(lambda: reports.append(collect(self.writer, unwatched)), kill_at)
        assert not (is_refused and reports), "two collections at once"
        for report in reports:
            counts["dropped"] += len(report.plan.retention.dropped)
            counts["leased meanwhile"] += len(report.leased_meanwhile)
            counts["interrupted before"] += report.plan.was_interrupted

    @rule(at=moments, choice=choices)
    def collect_garbage_beside_a_lease(self, at: int | None, choice: int) -> None:
        """Somebody takes a lease of the oldest generation while a collection is at work."""
        counts["gc beside a lease"] += 1
        self._make_old(choice)
        left, lock, writer = itertools.count(at or 0, -1), threading.Lock(), self.writer
        taken = threading.Event()
        others = LeasePlace(writer.store(), lambda: repository.current().signed.record)
        repository = writer.repository()

        def before() -> None:
            with lock:
                is_now = front.is_swapping if at is None else next(left) <= 0
                if taken.is_set() or not is_now:
                    return
                taken.set()
            record = others.record()
            for generation_id in [g for g in record.retained if g not in record.revoked][:1]:
                self._lease(others, generation_id, 48)

        writer.front = front = Watched(FolderStore(self.same_store), before)
        try:
            self._collect(None)
        finally:
            writer.front = None

    # --- a copy of the home that hangs --------------------------------------------------------

    @precondition(lambda self: self.stalled is None)
    @rule(at=moments, choice=choices, collects=st.booleans())
    def stall(self, at: int | None, choice: int, collects: bool) -> None:
        counts["stall in a gc" if collects else "stall in a publish"] += 1
        if collects:
            self._make_old(choice)
        home = self.folder / f"copy-{next(self.names)}"
        shutil.copytree(self.writer.home, home)
        writer = TestableWriter(home)
        left, hangs = itertools.count(at or 0, -1), threading.Event()

        def before() -> None:
            is_done = store.is_sweeping if collects else store.has_swapped
            if is_done if at is None else next(left) <= 0:
                hangs.set()
                assert stalled.go_on.wait(STALL_DEADLINE_S), "nobody let it go on"

        if not collects:
            self._add(writer, choice)
            writer.build()
        collecting_before = self.record().collecting
        writer.front = store = Watched(FolderStore(self.same_store), before)
        self.killer.spared = (home, self.same_store)

        def act() -> None:
            try:
                if collects:
                    collect(writer, unwatched)
                else:
                    stalled.reports += writer.publish(None, restore=False)
            except GenctlError as error:
                stalled.errors.append(error)
            finally:
                hangs.set()

        thread = threading.Thread(target=act, daemon=True)
        stalled = Stalled(writer, collects, thread, hangs, store)
        stalled.thread.start()
        assert hangs.wait(STALL_DEADLINE_S), "it neither hung nor ended"
        self.stalled = stalled
        current = self.writer.current()
        collecting = current.signed.record.collecting
        if collects and collecting not in {None, collecting_before}:
            counts["stalled while it collects"] += 1
            stalled.begun, stalled.version = collecting, current.token

    @precondition(lambda self: self.stalled is not None)
    @rule(is_overtaken=st.booleans())
    def go_on(self, is_overtaken: bool) -> None:
        counts["go on"] += 1
        active = self.record().active
        if is_overtaken and active is not None:
            name = f"overtaken-{next(self.names)}"
            self._run(lambda: retaining.tag(self.writer, active, name), None)
            self._run(lambda: retaining.untag(self.writer, name), None)
        self._let_go()

    def _let_go(self) -> None:
        """Have the copy go on to its end; if it published, its operator goes on there."""
        stalled, self.stalled = self.stalled, None
        if stalled is None:
            return
        is_overtaken = stalled.begun is not None and self.writer.current().token != stalled.version
        # What it deletes of the batch that it hangs in, it was allowed to.
        spared = set() if stalled.store.is_deleting or not is_overtaken else self.keys()
        stalled.go_on.set()
        stalled.thread.join(STALL_DEADLINE_S)
        assert not stalled.thread.is_alive(), "it never ended"
        counts["overtaken before it deletes"] += bool(spared)
        assert spared <= self.keys(), "it was overtaken, and deleted all the same"
        for error in stalled.errors:
            counts[f"the stalled one: {type(error).__name__}"] += 1
            assert isinstance(error, WriterFenced | CollectionUnderWay), error
        published = {entry.generation_id for entry in self.record().published}
        if published - set(self.writer.residence.resident_ids()):
            counts["the stalled one won"] += 1
            self.acknowledged |= {report.generation_id for report in stalled.reports}
            stalled.writer.front = None
            self.writer = stalled.writer
        if stalled.collects and stalled.errors:
            # Nobody else ends it, and its operator knows that it is over.
            counts["take over"] += 1
            collect(self.writer, unwatched, takes_over=True)

    # --- what must hold -----------------------------------------------------------------------

    def record(self) -> ControlRecord:
        """What is signed now."""
        return self.writer.current().signed.record

    def _try(self, act: Callable[[str], object], choice: int, kill_at: int | None) -> None:
        """Do something with one of the generations that were ever acknowledged."""
        known = sorted(self.acknowledged)
        if known:
            chosen = known[-1 - choice % len(known)]
            self._run(lambda: act(chosen), kill_at)

    def _run(self, act: Callable[[], object], kill_at: int | None) -> None:
        """Run a command; a refusal by name is fine, and so is to be fenced by the copy."""
        try:
            if self.killer.run(act, kill_at):
                counts["killed"] += 1
        except REFUSALS as error:
            counts[f"refused: {type(error).__name__}"] += 1
        except CollectionUnderWay:
            assert self.stalled is not None
            assert self.record().collecting == self.stalled.begun is not None
            counts["refused beside the copy's gc"] += 1
        except WriterFenced:
            # Who signed upon the copy's record knows what was built there for its own, and lost.
            record = self.record()
            published = {entry.generation_id for entry in record.published}
            assert self.stalled is not None
            assert record.collecting or published - set(self.writer.residence.resident_ids())
            counts["fenced by the copy"] += 1

    @invariant()
    def nothing_hangs_for_ever(self) -> None:
        """Else most of a life would be refusals."""
        if self.stalled is not None:
            self.stalled.steps += 1
            if self.stalled.steps > LONGEST_STALL_STEPS:
                self.go_on(is_overtaken=True)

    @invariant()
    def what_can_be_read_is_there(self) -> None:
        if not hasattr(self, "writer"):
            return
        present = {each.key: each.size_bytes for each in self.writer.store().list("")}
        lacking = {
            key: size_bytes
            for key, size_bytes in self.reachable_sizes().items()
            if present.get(key) != size_bytes
        }
        assert not lacking

    @invariant()
    def what_was_acknowledged_is_not_forgotten(self) -> None:
        if not hasattr(self, "writer"):
            return
        record = self.record()
        published = {entry.generation_id for entry in record.published}
        assert not published & self.gone, "what was collected came back"
        for generation_id in self.acknowledged - published:
            with pytest.raises(GenerationCollected):
                record.entry(generation_id)
            self.gone.add(generation_id)
        assert record.active is None or record.active in published - set(record.revoked)

    def readable(self) -> set[str]:
        """The generations whose objects must all be there."""
        leased = {each for (each, _), until in self.leases.items() if until > self.now}
        return set(self.record().retained) | leased

    def reachable_sizes(self) -> dict[str, int]:
        """The keys of what must be in the store for them, each with its length."""
        sizes: dict[str, int] = {}
        for generation_id in self.readable():
            manifest = parse_manifest(self.manifests(generation_id))
            for artifact in manifest.artifacts:
                geometry = from_manifest(artifact.size_bytes, artifact.symbols)
                for number in range(geometry.m):
                    key = symbol_key(artifact.blake3, number)
                    sizes[key] = geometry.object_size_bytes(number)
        signed = self.writer.current().signed
        for entry in signed.record.published:
            path = manifest_target(entry.generation_id)
            key = target_key(path, signed.targets.targets[path].hashes["sha256"])
            sizes[key] = entry.manifest_size_bytes
        return sizes

    def keys(self) -> set[str]:
        """The keys of all that is in the store."""
        return {each.key for each in self.writer.store().list("")}

    def manifests(self, generation_id: str) -> bytes:
        """The manifest of a generation that some home has."""
        for home in sorted(self.folder.glob("*/generations")):
            path = home / generation_id / "manifest.json"
            if path.is_file():
                return path.read_bytes()
        raise AssertionError(f"no home has {generation_id}")

    def converge(self) -> None:
        """When nothing hangs and time has passed, a collection leaves what is reachable alone."""
        self._let_go()
        writer = self.writer
        self.now += max(GRACE, timedelta(hours=72)) * 3
        self.leases.clear()
        collect(writer, unwatched)
        collect(writer, unwatched)
        counts["converged"] += 1
        self.what_can_be_read_is_there()
        record = self.record()
        assert record.collecting is None
        merges = PreparedMerges(writer.home, writer.residence).all()
        ahead = {each.blake3: each for merge in merges for each in merge.artifacts}
        resident = set(writer.residence.resident_ids())
        assert set(record.retained) <= resident
        for generation_id in resident - set(record.retained):
            assert high_seq_of(generation_id) > record.published[-1].high_seq, generation_id
            ahead |= {each.blake3: each for each in writer.manifest(generation_id).artifacts}
        self._home_has_only(ahead.keys())
        needed = {
            symbol_key(each.blake3, n) for each in ahead.values() for n in range(each.symbols.m)
        }
        left = self.keys() - needed - set(self.reachable_sizes())
        # One that ended is told to its holder as long as its generation is there.
        left -= {key for key in left if key.startswith(LEASES) and key.split("/")[1] in resident}
        signed = {
            key for key in left if key.startswith(metadata_key("")) or key.endswith(CONTROL_TARGET)
        }
        assert not left - signed, sorted(left - signed)
        assert len(signed) <= MOST_SIGNED_OBJECTS

    def _home_has_only(self, ahead: Collection[str]) -> None:
        """The home has what its generations name, and symbols of what is not published yet."""
        residence = self.writer.residence
        named = {
            artifact.blake3
            for generation_id in residence.resident_ids()
            for artifact in parse_manifest(residence.manifest_bytes(generation_id)).artifacts
        }
        kept = {artifact_id for artifact_id, _ in residence.kept_artifacts()}
        assert named <= kept <= named | set(ahead), sorted(kept ^ named)
        shelf = self.writer.home / "symbols"
        shelved = {path.name for path in shelf.iterdir()} if shelf.is_dir() else set()
        assert shelved <= set(ahead), sorted(shelved - set(ahead))


def unwatched(_: int) -> Callable[[int], None]:
    """Nobody watches how far a collection has come."""
    return lambda _: None


def run(steps: int, first: int) -> collections.Counter[str]:
    """Live so many steps, in lives of 25, by the seed ``first``; how often what happened."""
    counts.clear()
    seed(first)(Life)
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=max(1, -(-steps // STEPS_A_LIFE)),
            stateful_step_count=STEPS_A_LIFE,
            deadline=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return counts


if __name__ == "__main__":
    first = int(sys.argv[2]) if len(sys.argv) > 2 else clock.now_ms()
    sys.stdout.write(f"seed {first}\n")
    for what, count in sorted(run(int(sys.argv[1]), first).items()):
        sys.stdout.write(f"{count:8,d}  {what}\n")
