"""Looking ahead and looking after: plan, scrub and repair of a node, scrub of the stores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.node import new_node_options
from controller.commands.options import home_argument, json_option, node_argument, open_writer
from controller.terminal import emit_json, facts, plural, progress, say, size, table
from manifests.errors import StoreUnavailable, Unrepairable

if TYPE_CHECKING:
    from controller.node import NodeHome
    from controller.node_plan import NodePlan
    from controller.scrub_pass import ScrubReport
    from controller.writer_scrub import StoresReport


@click.command()
@node_argument
@new_node_options
@json_option
def plan(
    home: Path,
    stores: tuple[str, ...],
    root: Path | None,
    peers: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what the next bootstrap will move, from where, and how long it will take.

    Nothing is fetched; of a new node the settings are kept, of another one nothing. Sources are
    asked what they have, so damage that only shows when bytes are read is not foreseen.
    """
    from controller.new_node import open_node
    from controller.node_plan import plan as made

    found = made(open_node(home, stores, root, peers, keep=False))
    if as_json:
        emit_json(_plan_described(found))
    else:
        _tell_plan(found)
    if found.forecast.shortfalls:
        raise _why_not(found)


def _why_not(found: NodePlan) -> Unrepairable | StoreUnavailable:
    from replicator.tables import HOW_TO_MEND

    first, *others = found.forecast.shortfalls
    more = f" (and {plural(len(others), 'other artifact')})" if others else ""
    for source in found.forecast.sources:
        if source.kind == "store" and isinstance(source.refusal, StoreUnavailable):
            error = type(source.refusal)(
                f"a bootstrap would fail: {first.artifact.name} ({first.artifact.blake3[:12]}…)"
                f"{more} cannot be had while a store does not answer; nothing need be lost. "
                f"{source.refusal.message}",
                store=source.url,
                artifact=first.artifact.name,
                artifact_id=first.artifact.blake3,
                generation_id=found.manifest.generation_id,
            )
            return error.with_runbook(source.refusal.runbook)
    return Unrepairable(
        f"a bootstrap would fail: {first.artifact.name} ({first.artifact.blake3[:12]}…){more} "
        f"cannot be had: {first.reason}. {HOW_TO_MEND}",
        artifact=first.artifact.name,
        artifact_id=first.artifact.blake3,
        generation_id=found.manifest.generation_id,
    )


def _plan_described(found: NodePlan) -> dict[str, Any]:
    foreseen = found.forecast
    return {
        "generation_id": found.manifest.generation_id,
        "commit_seq": found.manifest.commits.high_seq,
        "generation_bytes": found.manifest.size_bytes,
        "reuse_bytes": foreseen.reuse_bytes,
        "resume_bytes": foreseen.resume_bytes,
        "fetch_bytes": foreseen.fetch_bytes,
        "peer_bytes": foreseen.bytes_from("peer"),
        "store_bytes": foreseen.bytes_from("store"),
        "table_bytes": foreseen.table_bytes,
        "repair_bytes": foreseen.repair_bytes,
        "rebuilt_bytes": foreseen.rebuilt_bytes,
        "sources": [
            {
                "kind": source.kind,
                "url": source.url,
                "bytes": source.size_bytes,
                "unavailable": source.refusal and source.refusal.message,
            }
            for source in foreseen.sources
        ],
        "unrepairable": [
            {
                "artifact": each.artifact.name,
                "artifact_id": each.artifact.blake3,
                "reason": each.reason,
            }
            for each in foreseen.shortfalls
        ],
        "disk_peak_bytes": foreseen.disk_peak_bytes,
        "disk_free_bytes": found.disk_free_bytes,
        "estimated_s": round(found.estimate.seconds, 3),
        "estimate_basis": found.estimate.basis,
        "held_back": found.held_back,
    }


def _tell_plan(found: NodePlan) -> None:
    foreseen, manifest = found.forecast, found.manifest
    what = f"{manifest.generation_id}, commit_seq {manifest.commits.high_seq}"
    if found.held_back:
        say("This node was rolled back from it: a bootstrap brings it, and does not serve it.")
    if not (foreseen.fetch_bytes or foreseen.resume_bytes or foreseen.shortfalls):
        say(f"Nothing to fetch, all is here and intact:\n  {what}")
        return
    if foreseen.shortfalls:
        say("A bootstrap would fail:")
        for each in foreseen.shortfalls:
            say(f"  cannot be had: {each.artifact.name}: {each.reason}")
        say("")
    rows = [
        ("here already, reused", size(foreseen.reuse_bytes)),
        ("here in part, resumed", size(foreseen.resume_bytes)),
        ("from peers", size(foreseen.bytes_from("peer"))),
        ("from stores", size(foreseen.bytes_from("store"))),
    ]
    if foreseen.repair_bytes:
        rows += [
            ("  of that, repair symbols", size(foreseen.repair_bytes)),
            ("rebuilt from them", size(foreseen.rebuilt_bytes)),
        ]
    rows += [
        ("disk needed", f"{size(foreseen.disk_peak_bytes)} of {size(found.disk_free_bytes)} free"),
        ("time", f"{_duration(found.estimate.seconds)} ({found.estimate.basis})"),
    ]
    facts(f"To {what}", rows)
    if foreseen.disk_peak_bytes > found.disk_free_bytes:
        say("That is too little room: a bootstrap is refused unless old generations can go.")
    say("")
    table(
        [("bytes", "right"), ("source", "left")],
        [(size(source.size_bytes), source.url) for source in foreseen.sources],
    )
    for source in foreseen.sources:
        if source.refusal is not None:
            say(f"  no answer from {source.url}: {source.refusal.message}")
    say("Damage that only shows when bytes are read is not foreseen.")


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@click.command("scrub")
@node_argument
@click.option("--from-start", is_flag=True, help="Begin a new pass instead of going on.")
@json_option
def node_scrub(home: Path, from_start: bool, as_json: bool) -> None:
    """Read and check all that a node holds, and mend what rotted.

    As fast as limits.scrub_bytes_per_s in node.json allows; one that was stopped goes on where it
    was. What cannot be mended is not served: see `genctl node status`.
    """
    from controller.node_scrub import scrub

    _run(
        home,
        as_json,
        lambda node: scrub(node, ending=threading.Event(), from_start=from_start),
    )


@click.command()
@node_argument
@json_option
def repair(home: Path, as_json: bool) -> None:
    """Check the generation a node serves, at once and at full speed, and mend it."""
    from controller.node_scrub import repair as repaired

    _run(home, as_json, lambda node: repaired(node, ending=threading.Event()))


def _run(home: Path, as_json: bool, act: Callable[[NodeHome], ScrubReport]) -> None:
    from controller.node import NodeHome
    from controller.node_status import status_of
    from controller.telemetry import exporting_metrics

    node = NodeHome(home)
    with exporting_metrics():
        report = act(node)
    found = report.found
    if as_json:
        described = found.model_dump() | {
            "resumed": report.resumed,
            "state": node.state().state,
            "generation_id": status_of(node)["active"],
        }
        emit_json(described | {"unmended": [error.message for error in report.failures]})
    else:
        read = f"{plural(found.artifacts, 'artifact')}, {size(found.read_bytes)}"
        if found.relinked_files:
            say(
                f"{plural(found.relinked_files, 'file')} of generations lost or replaced, "
                "linked anew."
            )
        if not (found.damaged_artifacts or found.relinked_files):
            say(f"All is intact: {read} read.")
        elif not found.damaged_artifacts:
            say(f"All else is intact: {read} read.")
        else:
            say(
                f"{found.damaged_artifacts} of {plural(found.artifacts, 'artifact')} damaged, "
                f"{found.mended_artifacts} mended; {size(found.read_bytes)} read, "
                f"{size(found.fetched_bytes)} fetched, {size(found.rebuilt_bytes)} rebuilt."
            )
    if report.failures:
        raise report.failures[0]


@click.command("scrub")
@home_argument
@click.option(
    "--put-back",
    is_flag=True,
    help="Replace the record in the stores by the one that HOME signed last, even if theirs is "
    "newer: for one that was signed with stolen keys.",
)
@json_option
def stores_scrub(home: Path, put_back: bool, as_json: bool) -> None:
    """Check all that the stores should hold, and send again what is lost or damaged.

    A record that is older than the one HOME signed last, damaged or lost is put back from HOME.
    Every symbol of every retained generation is read. What is lost or damaged in HOME, generations
    and artifacts, is mended first, from what the stores have; where that fails, or something else
    stands in a symbol's place, everything else is checked all the same.
    """
    from controller.telemetry import exporting_metrics
    from controller.writer_scrub import scrub

    with exporting_metrics(), progress("Checking") as start:
        report = scrub(open_writer(home), start, even_newer=put_back)
    if as_json:
        emit_json(
            {
                "generation_ids": report.generation_ids,
                "record_put_back": report.put_back,
                "mended_artifacts": report.mended_artifacts,
                "taken_back": report.taken_back,
                "relinked_files": report.relinked_files,
                "stores": [
                    asdict(each) | {"obstructions": [error.message for error in each.obstructions]}
                    for each in report.stores
                ],
                "unmended": [error.message for error in report.unmended],
            }
        )
    else:
        _tell_stores(report)
    if report.failures:
        raise report.failures[0]


def _tell_stores(report: StoresReport) -> None:
    for number, each in enumerate(report.stores, 1):
        say(f"store {number}  {each.url}")
    table(
        [
            ("store", "right"),
            ("objects", "right"),
            ("read", "right"),
            ("lost", "right"),
            ("damaged", "right"),
            ("sent again", "right"),
        ],
        [
            (
                f"{number}",
                f"{each.objects:,}",
                size(each.read_bytes),
                f"{each.lost:,}",
                f"{each.damaged:,}",
                f"{each.recreated:,}",
            )
            for number, each in enumerate(report.stores, 1)
        ],
    )
    if report.put_back:
        say("The record that this home signed last was put back.")
    if report.mended_artifacts:
        say(f"{plural(report.mended_artifacts, 'damaged artifact')} mended in the writer's home.")
    if report.relinked_files:
        count = plural(report.relinked_files, "file")
        say(f"{count} of generations in the writer's home lost or replaced, and linked anew.")
    for generation_id in report.taken_back:
        say(f"{generation_id} was lost in the writer's home, and is there again.")
    if report.failures:
        _tell_failures(report)
    else:
        say("The stores hold all of every retained generation.")


def _tell_failures(report: StoresReport) -> None:
    if report.unmended:
        say(
            f"{plural(len(report.unmended), 'part')} lost or damaged in the writer's home could "
            "not be mended:"
        )
    for error in report.unmended:
        say(f"  {error.message}")
    if report.obstructions:
        say(f"{plural(len(report.obstructions), 'symbol')} could not be sent:")
    for error in report.obstructions:
        say(f"  {error.message}")
    say("All else is whole in the stores now.")


NODE_COMMANDS = (plan, node_scrub, repair)
