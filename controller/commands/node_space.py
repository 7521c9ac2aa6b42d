"""The space of a node: gc, fsck."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.collection_output import described_files
from controller.commands.options import json_option, node_argument
from controller.terminal import emit_json, plural, printable, say, size, table

if TYPE_CHECKING:
    from controller.node_space import SpaceReport


@click.command()
@node_argument
@click.option("--dry-run", is_flag=True, help="Print what would go, and remove nothing.")
@json_option
def gc(home: Path, dry_run: bool, as_json: bool) -> None:
    """Remove generations that nobody needs here.

    Those that were collected or revoked go, and of the others that are old the least recently used,
    until they fit into old_generations_max_bytes of NODE/node.json. The active one stays, the one a
    rollback goes to, and what somebody has open. What went is fetched again when it is asked for.
    """
    from controller import node_space
    from controller.node import NodeHome

    report = node_space.gc(NodeHome(home), dry_run=dry_run)
    if as_json:
        emit_json(_described(report) | {"dry_run": dry_run})
        return
    _tell(report, dry_run=dry_run)


def _described(report: SpaceReport) -> dict[str, Any]:
    return {
        "evicted": [
            {
                "generation_id": each.generation_id,
                "reason": each.reason,
                "bytes": each.freed_bytes,
            }
            for each in report.evicted
        ],
        "in_use": list(report.in_use),
        "orphan_bytes": report.orphan_bytes,
        "freed_bytes": report.freed_bytes,
        "old_bytes": report.old_bytes,
        "old_generations_max_bytes": report.max_bytes,
    }


def _tell(report: SpaceReport, *, dry_run: bool) -> None:
    verb = "would be freed" if dry_run else "freed"
    if report.evicted:
        table(
            [("generation", "left"), ("frees", "right"), ("why", "left")],
            [[each.generation_id, size(each.freed_bytes), each.reason] for each in report.evicted],
        )
    if report.orphan_bytes:
        say(f"{size(report.orphan_bytes)} of artifacts that no generation names.")
    for generation_id in report.in_use:
        say(f"{generation_id} is in use and stays for now.")
    say(
        f"{size(report.freed_bytes)} {verb}; old generations occupy {size(report.old_bytes)} of "
        f"{size(report.max_bytes)}."
        if report.freed_bytes
        else f"Nothing to remove: old generations occupy {size(report.old_bytes)} of "
        f"{size(report.max_bytes)}."
    )


@click.command()
@node_argument
@json_option
def fsck(home: Path, as_json: bool) -> None:
    """Check that all a node should have is there, and account for every file.

    Sizes are looked at, contents are not: `genctl node scrub` reads those. Ends with exit code 6 if
    something is missing; what nothing needs is told, and no fault.
    """
    from controller import node_fsck
    from controller.node import NodeHome

    found = node_fsck.check(NodeHome(home))
    if as_json:
        emit_json(
            {
                "generations": found.generations,
                "missing": [each._asdict() for each in found.missing],
                "missing_count": found.missing_count,
            }
            | described_files(found)
        )
    else:
        for missing in found.missing:
            say(f"missing: {missing.key}: {missing.what}")
        for orphan in found.orphans:
            say(f"orphan: {printable(orphan.path)} ({size(orphan.size_bytes)}): {orphan.reason}")
        for path in found.unknown:
            say(f"unknown: {printable(path)}")
        say(
            f"{plural(len(found.generations), 'generation')} looked at, "
            f"{plural(found.missing_count, 'file')} missing, "
            f"{plural(found.orphan_count, 'orphan')} ({size(found.orphan_bytes)}), "
            f"{found.unknown_count:,} unknown."
        )
    found.refuse_missing()


COMMANDS = (gc, fsck)
