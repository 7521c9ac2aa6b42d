"""The signed exception to the rule that a node keeps to one embedder."""

from __future__ import annotations

from pathlib import Path

import click

from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, say


@click.command("override-embedder")
@home_argument
@click.argument("generation", metavar="GEN")
@click.option("--reason", required=True, help="Why; it is part of the signed record.")
@json_option
def override_embedder(home: Path, generation: str, reason: str, as_json: bool) -> None:
    """Let nodes activate GEN that are bound to another embedder than it has.

    A node that follows must be able to make GEN's embedder itself, golden vectors included, and
    keeps to it from then on. Retained generations before it that have another embedder get an
    override too, so that nodes can go back to them. Queries are never embedded with anything but
    what the index was.
    """
    record = open_writer(home).override_embedder(generation, reason)
    signed = record.override_of(generation)
    assert signed is not None  # noqa: S101 - the record was just given it
    others = [each for each in record.embedder_overrides if each != signed]
    if as_json:
        emit_json(
            signed.model_dump(mode="json")
            | {"other_overrides": [each.generation_id for each in others]}
        )
        return
    say(
        f"Nodes bound to another embedder may activate {generation}:\n"
        f"  {signed.name}, {signed.dimensions} dimensions, revision {signed.revision[:12]}…"
    )
    for other in others:
        say(f"  {other.generation_id} has an override too ({other.name})")
    say("  nodes follow at their next bootstrap; revert with `genctl rollback`")


COMMANDS = (override_embedder,)
