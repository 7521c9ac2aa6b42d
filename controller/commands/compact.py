"""Merging ahead of the next build: compact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, plural, progress, say, size, table

if TYPE_CHECKING:
    from controller.compaction import CompactReport, Planned


@click.command()
@home_argument
@click.option("--dry-run", is_flag=True, help="Print what would be merged, and merge nothing.")
@click.option(
    "--max-bytes",
    type=click.IntRange(1),
    metavar="N",
    help="Read no more than so many bytes. Default: compact_max_bytes of the home's settings.",
)
@click.option(
    "--all-dead",
    is_flag=True,
    help="Merge every part that holds a deleted or replaced document, however large, so that the "
    "next generation built holds nothing of it.",
)
@click.option(
    "--send", is_flag=True, help="Send what was merged to the stores now, ahead of the publish."
)
@json_option
def compact(
    home: Path, dry_run: bool, max_bytes: int | None, all_dead: bool, send: bool, as_json: bool
) -> None:
    """Merge small and half-dead parts of the newest generation.

    The next build puts what was merged in place; until then nothing changes. It takes a new commit
    to build. Other commands may run meanwhile. Killed and run again, it goes on.
    """
    from controller import compaction

    writer = open_writer(home)
    if dry_run:
        planned = compaction.plan(writer, max_bytes, all_dead=all_dead)
        if as_json:
            emit_json(_described(planned))
        else:
            _tell(planned, "would be merged")
        return
    with progress("Merging", unit="bytes") as start:
        report = compaction.compact(writer, max_bytes, all_dead=all_dead, send=send, on_start=start)
    if as_json:
        emit_json(
            _described(report.planned)
            | {"written_bytes": report.written_bytes, "sent_bytes": report.sent_bytes}
        )
        return
    _tell(report.planned, "merged")
    _tell_costs(report)


def _described(planned: Planned) -> dict[str, Any]:
    return {
        "generation_id": planned.manifest.generation_id,
        "merges": [
            {
                "kind": kind,
                "parts": [part.name for part in merge.parts],
                "reason": merge.reason,
                "documents": merge.live,
                "dropped": merge.dead,
                "read_bytes": merge.read_bytes,
                "planned_bytes": merge.written_bytes,
            }
            for kind, merges in (("rows", planned.plan.rows), ("text", planned.plan.text))
            for merge in merges
        ],
        "waiting": len(planned.prepared),
    }


def _tell(planned: Planned, what: str) -> None:
    if planned.prepared:
        say(f"{plural(len(planned.prepared), 'merge')} of before wait for the next build.")
    if not planned.plan.merges:
        say(f"Nothing is due in {planned.manifest.generation_id}.")
        return
    say(f"Of {planned.manifest.generation_id} {what}:")
    table(
        [
            ("documents", "right"),
            ("dropped", "right"),
            ("reads", "right"),
            ("writes about", "right"),
            ("why", "left"),
            ("parts", "left"),
        ],
        [
            [
                f"{merge.live:,}",
                f"{merge.dead:,}",
                size(merge.read_bytes),
                size(merge.written_bytes),
                merge.reason,
                merge.parts[0].name
                if len(merge.parts) == 1
                else f"{len(merge.parts)}: {merge.parts[0].name} … {merge.parts[-1].name}",
            ]
            for merge in planned.plan.merges
        ],
    )


def _tell_costs(report: CompactReport) -> None:
    if report.planned.plan.merges:
        say(f"  {size(report.written_bytes)} written; the next build puts them in place")
    if report.sent_bytes:
        say(f"  {size(report.sent_bytes)} of symbols sent ahead")
