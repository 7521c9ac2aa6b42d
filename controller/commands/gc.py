"""Dropping generations and deleting what nothing needs: gc."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.collection_output import (
    SHOWN,
    described_home,
    described_leases,
    described_store,
    tell_more,
    tell_totals,
)
from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, printable, progress, say, size, table

if TYPE_CHECKING:
    from builder.garbage import Explanation, StoreTally
    from controller.collection import CollectionReport
    from controller.collection_plan import CollectionPlan
    from controller.home_garbage import HomeGarbage
    from store.leases import Lease

TOO_LITTLE = "left, too little to move the record for"


@click.command()
@home_argument
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option(
    "--explain",
    "asked",
    metavar="ID",
    help="Say what keeps something: a generation (its id, tag or a commit's number), an artifact "
    "(name or id), a manifest, or an object of a store (its key).",
)
@click.option(
    "--take-over",
    "takes_over",
    is_flag=True,
    help="End the collection that another home of the shard began. Make sure that it does not run.",
)
@json_option
def gc(home: Path, dry_run: bool, asked: str | None, takes_over: bool, as_json: bool) -> None:
    """Drop the generations that retention does not keep, and delete what nothing needs.

    Kept are the active generation, the newest, those needed to go back, tagged, pinned and leased
    ones, those that retention in the settings keeps, and what was built and is not published yet.
    Objects in the stores that no generation ever needed are left until they are
    collection_grace_hours old. Killed and run again, it goes on.
    """
    if dry_run and asked is not None:
        raise click.UsageError("--explain changes nothing either; give one of the two")
    if asked is not None:
        _explain(home, asked, as_json=as_json)
        return
    if dry_run:
        from controller import clock
        from controller.collection_plan import plan

        planned = plan(open_writer(home), clock.now())
        if as_json:
            emit_json(_described(planned, planned.stores, planned.home) | {"dry_run": True})
        else:
            _tell_generations(planned, "would be dropped")
            tell_totals(
                planned.stores,
                planned.home,
                "would be deleted",
                "would be deleted" if planned.is_due else TOO_LITTLE,
            )
            _tell_leases(planned)
        return
    from controller.collection import collect

    with progress("Collecting") as start:
        report = collect(open_writer(home), start, takes_over=takes_over)
    if as_json:
        emit_json(
            _described(report.plan, report.stores, report.home)
            | {
                "leased_meanwhile": list(report.leased_meanwhile),
                "record_moved": report.was_needed,
                "freed_bytes": report.freed_bytes,
            }
        )
        return
    _tell(report)


def _tell(report: CollectionReport) -> None:
    _tell_generations(report.plan, "dropped")
    for generation_id in report.leased_meanwhile:
        say(f"  {generation_id} was leased meanwhile: its objects are left to a later gc")
    tell_totals(
        report.stores, report.home, "deleted", "deleted" if report.was_needed else TOO_LITTLE
    )
    _tell_leases(report.plan)
    say(f"{size(report.freed_bytes)} freed.")


def _described(
    planned: CollectionPlan, stores: Sequence[StoreTally], home: HomeGarbage
) -> dict[str, Any]:
    return {
        "dropped": list(planned.retention.dropped),
        "kept": {each: list(why) for each, why in planned.retention.kept.items()},
        "stores": [described_store(tally) for tally in stores],
        "home": described_home(home),
        "leases": described_leases(planned.leases)
        | {
            "expired": [each.key for each in planned.expired_leases],
            "of_unknown_generations": [each.key for each in planned.unknown_leases],
        },
        "interrupted_before": planned.was_interrupted,
        "due": planned.is_due,
    }


def _tell_generations(planned: CollectionPlan, dropped: str) -> None:
    if planned.was_interrupted:
        say("A collection was begun before, and has not ended.")
    kept = planned.retention
    rows = [(each, dropped) for each in kept.dropped]
    rows += [(each, f"kept: {printable(', '.join(why))}") for each, why in kept.kept.items()]
    if rows:
        table([("generation", "left"), ("", "left")], [*_runs(sorted(rows))])


def _runs(rows: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The rows, those that follow one another and say the same as one."""
    for told, run in itertools.groupby(rows, key=lambda row: row[1]):
        generations = [generation_id for generation_id, _ in run]
        more = len(generations) - 1
        yield generations[0], f"{told}; {more:,} more, to {generations[-1]}" if more else told


def _tell_leases(planned: CollectionPlan) -> None:
    _tell_some("expired", planned.expired_leases)
    _tell_some("of no generation that there is", planned.unknown_leases)
    for each in planned.leases.unreadable[:SHOWN]:
        say(f"  no lease, and keeps nothing: {printable(each.key)}: {printable(each.reason)}")


def _tell_some(what: str, leases: Sequence[Lease]) -> None:
    for lease in leases[:SHOWN]:
        until = f"until {lease.expires_at}"
        say(f"  lease {what}: {lease.holder} of {lease.generation_id} {until}")
    tell_more(len(leases))


def _explain(home: Path, asked: str, *, as_json: bool) -> None:
    from controller.kept_objects import explain

    found = explain(open_writer(home), asked)
    if as_json:
        emit_json(
            {
                "id": found.asked,
                "what": found.what,
                "kept_by": [{"name": name, "reasons": list(why)} for name, why in found.keepers],
                "verdict": found.verdict,
            }
        )
        return
    _tell_explanation(found)


def _tell_explanation(found: Explanation) -> None:
    say(f"{printable(found.asked)} is {found.what}; {found.verdict}.")
    for name, why in found.keepers:
        say(f"  {name}: {printable(', '.join(why))}")
