"""The life of a home, for some steps; ``make lifetimes`` takes thousands."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from controller import clock
from tests.system.lifetimes import Life, counts, run

STEPS = 50

HAPPENS = {
    *("publish", "compact", "gc", "killed", "hours", "interrupted before", "dropped", "converged"),
    *("tag", "untag", "pin", "unpin", "roll back", "revoke", "refused: GenerationCollected"),
    *("lease", "leased", "gc beside a lease", "leased meanwhile"),
    *("stall in a publish", "the stalled one won", "the stalled one: WriterFenced"),
    *("stall in a gc", "stalled while it collects", "refused beside the copy's gc", "go on"),
    *("overtaken before it deletes", "fenced by the copy", "take over"),
}


class Told(Life):
    """A life of which each step is told, not drawn; what must hold is checked after each."""

    def holds(self) -> None:
        self.what_can_be_read_is_there()
        self.what_was_acknowledged_is_not_forgotten()

    def collect_until_killed_in_the_middle(self) -> None:
        """Kill one collection after the other, each later, until one has moved the record."""
        for kill_at in range(10, 200, 5):
            self.collect_garbage(kill_at, 3)
            if self.record().collecting is not None:
                return
        raise AssertionError("no collection was killed between moving the record and ending")


@pytest.fixture
def life() -> Iterator[Told]:
    counts.clear()
    told = Told()
    try:
        told.begin(1, every=False)
        yield told
    finally:
        told.patch.undo()
        if told.stalled is not None:
            told.stalled.go_on.set()
        shutil.rmtree(told.folder, ignore_errors=True)


def test_rows_39_47_48_57_whatever_happens_what_can_be_read_is_there() -> None:
    seed = clock.now_ms()
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when this fails
    counts = run(STEPS, seed)
    assert counts["converged"]


def test_rows_39_47_48_57_everything_that_can_happen_does(life: Told) -> None:
    """Without the refusal of two collections at once, or the comparison before each batch, or the
    second look at the leases, or the clearing of the home, this fails.
    """
    life.release(None, 3, is_active=True, choice=1)
    for word in ("tag", "pin", "untag", "unpin"):
        life.say(word, 0, None)
    life.say("roll back", 1, None)
    life.release(None, 1, is_active=True, choice=7)
    life.say("revoke", 1, None)
    life.holds()
    life.take_lease(0, 24)
    life.release_lease(0)
    life.take_lease(0, 24)
    life.time_passes(30)
    life.collect_garbage(None, 0)
    life.holds()
    life.say("tag", len(life.acknowledged) - 1, None)
    life.collect_garbage_beside_a_lease(None, 3)
    life.holds()
    life.collect_until_killed_in_the_middle()
    life.holds()
    life.collect_garbage(None, 0)
    life.prepare_merges(None, 0)
    # A copy hangs before it deletes; then the record goes on without it.
    life.stall(None, 3, collects=True)
    life.collect_garbage(None, 0)
    life.holds()
    life.go_on(is_overtaken=True)
    life.holds()
    # One hangs in a publish that it has not signed yet, and one that has.
    life.stall(8, 3, collects=False)
    life.publish(is_active=True, choice=1)
    life.go_on(is_overtaken=False)
    life.stall(None, 3, collects=False)
    life.publish(is_active=True, choice=1)
    life.holds()
    life.go_on(is_overtaken=False)
    life.holds()
    life.teardown()
    assert {what for what in HAPPENS if not counts[what]} == set()
