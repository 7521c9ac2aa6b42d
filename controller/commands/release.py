"""From the log to the nodes: build, publish, activate, release, rollback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.generations import described
from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, plural, progress, say, size

if TYPE_CHECKING:
    from controller.building import BuiltGeneration
    from controller.writer import WriterHome

LONGEST_HINT = 100
"""A command with more characters than this is looked up, not read off a screen."""


@click.command()
@home_argument
@json_option
def build(home: Path, as_json: bool) -> None:
    """Build a generation of everything in the commit log."""
    built = _build(open_writer(home))
    if as_json:
        emit_json(described(built.manifest) | _costs(built))
        return
    _tell_built(built)


def _build(writer: WriterHome) -> BuiltGeneration:
    with progress("Building", unit="") as start:
        start(None)
        return writer.build()


def _costs(built: BuiltGeneration) -> dict[str, Any]:
    report = built.report
    return {
        "built": report is not None,
        "new_bytes": report.new_bytes if report else 0,
        "reused_bytes": report.reused_bytes if report else built.manifest.size_bytes,
        "merged_bytes": report.merged_bytes if report else 0,
    }


def _tell_built(built: BuiltGeneration) -> None:
    manifest, report = built.manifest, built.report
    what = (
        f"commits {manifest.commits.low_seq} to {manifest.commits.high_seq}, "
        f"{plural(manifest.counts.documents, 'document')}, {size(manifest.size_bytes)}"
    )
    if report is None:
        say(f"Nothing new since {manifest.generation_id} ({what}).")
    else:
        say(f"Built {manifest.generation_id}: {what}.")
        say(f"  {size(report.new_bytes)} new, {size(report.reused_bytes)} reused as they were")


@click.command()
@home_argument
@click.argument("generation", required=False, metavar="[GEN]")
@json_option
def publish(home: Path, generation: str | None, as_json: bool) -> None:
    """Upload a generation and sign the record that names it.

    Without GEN: the latest. One that is published already is compared with the store, and what was
    lost or damaged there is sent again.
    """
    reports = _publish(open_writer(home), generation)
    if as_json:
        emit_json(reports[-1])
        return
    _tell_published(reports)


def _publish(
    writer: WriterHome, generation: str | None, *, restore: bool = True
) -> list[dict[str, Any]]:
    from dataclasses import asdict

    with progress("Publishing") as start:
        return [asdict(report) for report in writer.publish(generation, start, restore=restore)]


def _tell_published(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        sent = (
            f"{plural(report['uploaded_artifacts'], 'artifact')} as "
            f"{plural(report['uploaded_objects'], 'symbol')}, {size(report['uploaded_bytes'])}"
        )
        if not report["already_published"]:
            say(f"Published {report['generation_id']}: {sent}.")
            say(f"  {plural(report['reused_artifacts'], 'artifact')} in the store before")
        elif report["uploaded_objects"]:
            say(f"Mended {report['generation_id']} in the store: {sent}.")
        else:
            say(f"{report['generation_id']} is published, and the store has all of it.")


@click.command()
@home_argument
@click.argument("generation", metavar="GEN")
@json_option
def activate(home: Path, generation: str, as_json: bool) -> None:
    """Make a published generation the active one."""
    activated = open_writer(home).activate(generation)
    if as_json:
        emit_json({"generation_id": generation, "activated": activated})
        return
    say(f"{generation} is {'now' if activated else 'already'} the active generation.")


@click.command()
@home_argument
@json_option
def release(home: Path, as_json: bool) -> None:
    """Build, publish and activate in one go.

    With nothing new since a rollback, the rollback stands, and what was revoked stays so.
    """
    from manifests.record_changes import is_rolled_back

    writer = open_writer(home)
    built = _build(writer)
    if not as_json:
        _tell_built(built)
    reports = _publish(writer, built.manifest.generation_id, restore=False)
    if not as_json:
        _tell_published(reports)
    generation_id = built.manifest.generation_id
    record = writer.current().signed.record
    revoked = generation_id in record.revoked
    undone = is_rolled_back(record, generation_id) and not revoked
    activated = not undone and not revoked and writer.activate(generation_id)
    if as_json:
        emit_json(
            described(built.manifest)
            | _costs(built)
            | {
                "uploaded_bytes": sum(report["uploaded_bytes"] for report in reports),
                "activated": activated,
                "rolled_back": undone,
                "revoked": revoked,
            }
        )
    elif revoked:
        say(
            f"{generation_id} stays revoked, and there is nothing newer; "
            f"{record.active or 'nothing'} is active.\n"
            "  `genctl ingest` what is to be otherwise, then run this command again"
        )
    elif undone:
        say(
            f"{generation_id} stays rolled back: {record.reason}\n"
            f"  genctl activate {home} {generation_id} makes it active again"
        )
    else:
        say(f"{generation_id} is {'now' if activated else 'already'} the active generation.")
        _tell_next(writer)


def _tell_next(writer: WriterHome) -> None:
    """How a node gets it: for people only, where the command fits a line."""
    stores = " ".join(f"--store {store}" for store in writer.settings.stores)
    command = f"genctl node bootstrap NODE {stores} --root {writer.home / 'root.json'}"
    if sys.stdout.isatty() and len(command) <= LONGEST_HINT:
        say(f"  next: `{command}`")


@click.command()
@home_argument
@click.option(
    "--to",
    "generation",
    metavar="GEN",
    help="Default: the newest before the active one that was not gone back from before.",
)
@click.option("--reason", required=True, help="Why; it is part of the signed record.")
@json_option
def rollback(home: Path, generation: str | None, reason: str, as_json: bool) -> None:
    """Sign a record that goes back to an older generation.

    The same reason given again is taken for the same rollback, run again.
    """
    target = open_writer(home).rollback(generation, reason)
    if as_json:
        emit_json({"generation_id": target, "reason": reason})
        return
    say(f"Rolled back to {target}.")
    say("  nodes follow at their next bootstrap")


COMMANDS = (build, publish, activate, release, rollback)
