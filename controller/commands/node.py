"""A node's commands: bootstrap, status, rollback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import json_option, node_argument
from controller.commands.serve import serve
from controller.terminal import emit_json, facts, plural, progress, say, size

if TYPE_CHECKING:
    from controller.node import BootstrapReport
    from replicator.plan import FetchPlan


@click.group()
def node() -> None:
    """Run a replica of the index."""


def new_node_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that make a new node: ``stores``, ``root`` and ``peers``, for ``open_node``."""
    for option in (
        click.option(
            "--peer",
            "peers",
            multiple=True,
            metavar="URL",
            help="Another node that serves what it has, http://host:port. Given once or several "
            "times, these replace the peers known before.",
        ),
        click.option(
            "--root",
            type=click.Path(path_type=Path),
            metavar="root.json",
            help="The writer's root of trust, brought here by a way you trust; for a new node "
            "only.",
        ),
        click.option(
            "--store",
            "stores",
            multiple=True,
            metavar="URL",
            help="Where the writer publishes, once for each of its stores; for a new node only.",
        ),
    ):
        command = option(command)
    return command


@node.command()
@node_argument
@new_node_options
@click.option(
    "--minimum-version",
    type=click.IntRange(min=1),
    metavar="N",
    help="A new node believes no record older than this; `genctl status` at the writer has it as "
    "`record version`.",
)
@json_option
def bootstrap(
    home: Path,
    stores: tuple[str, ...],
    root: Path | None,
    peers: tuple[str, ...],
    minimum_version: int | None,
    as_json: bool,
) -> None:
    """Bring a node to the active generation.

    Run again, it catches up and keeps what it has.
    """
    from controller.new_node import open_node
    from controller.telemetry import exporting_metrics

    opened = open_node(home, stores, root, peers, minimum_version)
    with exporting_metrics(), progress("Fetching") as start:

        def on_plan(plan: FetchPlan) -> Callable[[int], None]:
            return start(plan.fetch_bytes)

        report = opened.bootstrap(on_plan)
    if as_json:
        emit_json(_described(report))
        return
    _tell(report)


def _described(report: BootstrapReport) -> dict[str, Any]:
    manifest, plan, tally = (
        report.brought.verified.manifest,
        report.brought.plan,
        report.brought.tally,
    )
    return {
        "generation_id": manifest.generation_id,
        "commit_seq": manifest.commits.high_seq,
        "documents": manifest.counts.documents,
        "activated": report.activated,
        "held_back": report.held_back,
        "reused_bytes": plan.reuse_bytes,
        "new_bytes": plan.fetch_bytes,
        "fetched_bytes": tally.fetched_bytes,
        "peer_bytes": tally.peer_bytes,
        "store_bytes": tally.store_bytes,
        "resumed_bytes": tally.resumed_bytes,
        "sources": tally.sources,
        "damaged_symbols": tally.damaged_symbols,
        "repaired_artifacts": tally.repaired_artifacts,
        "repaired_chunks": tally.repaired_chunks,
        "repaired_bytes": tally.repaired_bytes,
        "corrupt_peers": list(tally.corrupt_peers),
        "failures": [
            {"source": url, "error": error.name, "message": error.message}
            for url, error in tally.failures.items()
        ],
        "lease": None
        if report.lease.lease is None
        else {
            "holder": report.lease.lease.holder,
            "expires_at": report.lease.lease.expires_at,
            "store": report.lease.store,
        },
        "lease_reason": report.lease.reason,
        "evicted": [each.generation_id for each in report.space.evicted] if report.space else [],
        "freed_bytes": report.space.freed_bytes if report.space else 0,
    }


def _tell(report: BootstrapReport) -> None:
    shown = _described(report)
    if report.held_back:
        say(
            f"{shown['generation_id']} is here and verified, but this node was rolled back from "
            f"it; it goes on serving {report.pointer.active.generation_id}."
        )
        return
    verb = "Now serving" if report.activated else "Already serving"
    say(
        f"{verb} {shown['generation_id']}: commit_seq {shown['commit_seq']}, "
        f"{plural(shown['documents'], 'document')}."
    )
    say(
        f"  fetched {size(shown['fetched_bytes'])}"
        + (f" ({size(shown['peer_bytes'])} from peers)" if shown["peer_bytes"] else "")
        + f", reused {size(shown['reused_bytes'])}"
        + (f", resumed {size(shown['resumed_bytes'])}" if shown["resumed_bytes"] else "")
    )
    if report.lease.lease is not None and report.lease.reason is not None:
        say(
            f"  its lease may not have held it all the time: {report.lease.reason}. It is here and "
            "verified all the same"
        )
    for url in shown["corrupt_peers"]:
        say(
            f"  {url} sent wrong bytes; they were dropped, and it was not asked again. Scrub "
            "that node, or take it out of the peers"
        )
    for failure in shown["failures"]:
        say(f"  a source failed: {failure['message']}")
    if shown["damaged_symbols"]:
        say(f"  {plural(shown['damaged_symbols'], 'symbol')} lost or damaged in the store")
    if shown["repaired_chunks"]:
        rebuilt = plural(shown["repaired_chunks"], "chunk")
        say(f"  {rebuilt} ({size(shown['repaired_bytes'])}) rebuilt from repair symbols")
    if shown["evicted"]:
        say(
            f"  {plural(len(shown['evicted']), 'old generation')} made room: "
            f"{size(shown['freed_bytes'])} freed"
        )


@node.command()
@node_argument
@json_option
def status(home: Path, as_json: bool) -> None:
    """Show what a node serves and what it holds."""
    from controller.node import NodeHome
    from controller.node_status import status_of

    opened = NodeHome(home)
    state = status_of(opened) | {"peers": list(opened.settings.peers)}
    if as_json:
        emit_json(state)
        return
    facts(
        f"Node {home}",
        [
            (name.replace("_", " "), "\n".join(value) if isinstance(value, list) else str(value))
            for name, value in state.items()
            if value not in (None, [])
        ],
    )


@node.command()
@node_argument
@json_option
def rollback(home: Path, as_json: bool) -> None:
    """Go back to the generation that was served before, and hold the present one back.

    If that was revoked, collected or gone back from, to the newest older one that can be read; what
    is not here is fetched. On this node only. No command here undoes it, and run again it goes no
    further: the hold ends when the writer releases a newer generation, or activates another.
    """
    from controller.node import NodeHome

    opened = NodeHome(home)
    before = opened.pointer()
    pointer = opened.rollback()
    moved = pointer != before
    if as_json:
        emit_json(
            {
                "generation_id": pointer.active.generation_id,
                "held_back": pointer.held_back,
                "moved": moved,
            }
        )
        return
    verb = "Now serving" if moved else "Already rolled back: serving"
    say(
        f"{verb} {pointer.active.generation_id}.\n"
        f"  {pointer.held_back} is held back here until the writer releases a newer\n"
        "  generation, or activates another; no command on this node ends that"
    )


@node.command()
@node_argument
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    required=True,
    metavar="root.json",
    help="The writer's root of trust, brought here by a way you trust.",
)
@click.option(
    "--minimum-version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Believe no record older than this; `genctl status` at the writer has it as `record "
    "version`. Without it, the number that the node was given before holds.",
)
@json_option
def repin(home: Path, root: Path, minimum_version: int | None, as_json: bool) -> None:
    """Give a node its root of trust anew.

    For a damaged trust state, or after keys were lost. The store's record is verified under this
    root before anything is replaced; generations stay, and what is served stays.
    """
    from controller.new_node import repin_node

    opened = repin_node(home, root, minimum_version)
    version = opened.trust().known_version()
    if as_json:
        emit_json({"record_version": version})
        return
    say(
        f"{home} trusts {root} from now on; its marks start at record version {version}.\n"
        f"  Run `genctl node bootstrap {home}` to go on"
    )


node.add_command(serve)
