"""Dropping generations and deleting what nothing needs: gc."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, plural, printable, progress, say, size, table

if TYPE_CHECKING:
    from builder.garbage import Explanation, Heap, StoreTally
    from controller.collection import CollectionReport
    from controller.collection_plan import CollectionPlan
    from controller.home_garbage import HomeGarbage
    from store.leases import FoundLeases, Lease

SHOWN = 20
"""So many unknown keys, or leases, are printed for people; programs get all."""


@click.command()
@home_argument
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option(
    "--explain",
    "asked",
    metavar="ID",
    help="Say what keeps a generation, an artifact, a manifest or an object of a store (its key).",
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
            _tell_garbage(planned.stores, planned.home, "would be deleted", planned.is_due)
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
    _tell_garbage(report.stores, report.home, "deleted", report.was_needed)
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


def described_store(tally: StoreTally) -> dict[str, Any]:
    """What a store holds under the names that commands print as JSON."""
    return {
        "url": tally.url,
        "kept": _heap(tally.kept),
        "garbage": {kind: _heap(heap) for kind, heap in sorted(tally.garbage.items())},
        "garbage_bytes": tally.garbage_bytes,
        "young": _heap(tally.young),
        "unknown": _heap(tally.unknown_objects) | {"keys": tally.unknown},
    }


def _heap(heap: Heap) -> dict[str, Any]:
    return {"objects": heap.objects, "bytes": heap.size_bytes}


def described_home(home: HomeGarbage) -> dict[str, Any]:
    """What nothing needs in a home, likewise."""
    return {
        "generations": list(home.generations),
        "artifacts": len(home.artifacts),
        "shelved": len(home.shelved),
        "bytes": home.size_bytes,
    }


def described_leases(leases: FoundLeases) -> dict[str, Any]:
    """The leases there are, likewise."""
    return {
        "leases": [lease.model_dump(mode="json") for lease in leases.leases],
        "unreadable": [
            {"store": each.store, "key": each.key, "reason": each.reason}
            for each in leases.unreadable
        ],
        "unreadable_count": leases.unreadable_count,
    }


def _tell_generations(planned: CollectionPlan, dropped: str) -> None:
    if planned.was_interrupted:
        say("A collection was begun before, and interrupted.")
    kept = planned.retention
    rows = [(each, dropped) for each in kept.dropped]
    rows += [(each, f"kept: {printable(', '.join(why))}") for each, why in kept.kept.items()]
    if rows:
        table([("generation", "left"), ("", "left")], sorted(rows))


def _tell_garbage(
    stores: Sequence[StoreTally], home: HomeGarbage, deleted: str, is_moved: bool
) -> None:
    rows: list[tuple[str, str, int, int, str]] = []
    for number, tally in enumerate(stores, 1):
        say(f"store {number}  {tally.url}")
        for kind, heap in sorted(tally.garbage.items()):
            verdict = deleted if is_moved else "left, too little to move the record for"
            rows.append((f"store {number}", kind, heap.objects, heap.size_bytes, verdict))
        for heap, what, verdict in (
            (tally.young, "unneeded", "left, too young"),
            (tally.unknown_objects, "unknown", "left, not genctl's"),
            (tally.kept, "needed", "kept"),
        ):
            if heap.objects:
                rows.append((f"store {number}", what, heap.objects, heap.size_bytes, verdict))
    if home.parts:
        rows.append(("home", "generations and artifacts", home.parts, home.size_bytes, deleted))
    table(
        [("where", "left"), ("what", "left"), ("number", "right"), ("size", "right"), ("", "left")],
        [(where, what, f"{count:,}", size(held), told) for where, what, count, held, told in rows],
    )
    for tally in stores:
        tell_unknown(tally)


def tell_unknown(tally: StoreTally) -> None:
    """Print the keys in a store that genctl would never write, or the first of them."""
    for key in tally.unknown[:SHOWN]:
        say(f"  unknown in {tally.url}: {printable(key)}")
    more = tally.unknown_objects.objects - SHOWN
    if more > 0:
        say(f"  and {plural(more, 'other')}")


def _tell_leases(planned: CollectionPlan) -> None:
    _tell_some("expired", planned.expired_leases)
    _tell_some("of no generation that there is", planned.unknown_leases)
    for each in planned.leases.unreadable[:SHOWN]:
        say(f"  no lease, and keeps nothing: {printable(each.key)}: {printable(each.reason)}")


def _tell_some(what: str, leases: Sequence[Lease]) -> None:
    for lease in leases[:SHOWN]:
        until = f"until {lease.expires_at}"
        say(f"  lease {what}: {lease.holder} of {lease.generation_id} {until}")
    if len(leases) > SHOWN:
        say(f"  and {plural(len(leases) - SHOWN, 'other')}")


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
