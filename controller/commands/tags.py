"""What is said of published generations: tag, untag, pin, unpin, revoke."""

from __future__ import annotations

from pathlib import Path

import click

from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, printable, say


@click.command()
@home_argument
@click.argument("generation", metavar="GEN")
@click.argument("name", metavar="NAME")
@json_option
def tag(home: Path, generation: str, name: str, as_json: bool) -> None:
    """Give a published generation a name; it is retained while it has one."""
    from controller import retaining

    said = retaining.tag(open_writer(home), generation, name)
    if as_json:
        emit_json({"generation_id": generation, "tag": name, "tagged": said.changed})
        return
    say(f"{generation} is {'now' if said.changed else 'already'} tagged {name}.")


@click.command()
@home_argument
@click.argument("name", metavar="NAME")
@json_option
def untag(home: Path, name: str, as_json: bool) -> None:
    """Take a tag away; its generation is retained as the settings say."""
    from controller import retaining

    said = retaining.untag(open_writer(home), name)
    had = next((each.generation_id for each in said.before.tags if each.name == name), None)
    if as_json:
        emit_json({"generation_id": had, "tag": name, "untagged": said.changed})
        return
    if had is not None:
        say(f"{had} is no longer tagged {name}.")
        return
    known = ", ".join(each.name for each in said.record.tags) or "there are none"
    say(f"No generation is tagged {printable(name)}; tags: {known}.")


@click.command()
@home_argument
@click.argument("generation", metavar="GEN")
@click.option("--reason", required=True, help="Why; it is part of the signed record.")
@json_option
def pin(home: Path, generation: str, reason: str, as_json: bool) -> None:
    """Retain a published generation until it is unpinned.

    It has one pin: another reason takes the place of the one before.
    """
    from controller import retaining

    said = retaining.pin(open_writer(home), generation, reason)
    had = next((each.reason for each in said.before.pins if each.generation_id == generation), None)
    if as_json:
        emit_json(
            {
                "generation_id": generation,
                "reason": reason,
                "pinned": said.changed,
                "reason_before": had,
            }
        )
        return
    say(f"{generation} is {'now' if said.changed else 'already'} pinned: {printable(reason)}")
    if had is not None and said.changed:
        say(f"  that takes the place of: {printable(had)}")


@click.command()
@home_argument
@click.argument("generation", metavar="GEN")
@json_option
def unpin(home: Path, generation: str, as_json: bool) -> None:
    """Take the pin of a generation away; it is retained as the settings say."""
    from controller import retaining

    said = retaining.unpin(open_writer(home), generation)
    if as_json:
        emit_json({"generation_id": generation, "unpinned": said.changed})
        return
    say(f"{generation} is {'no longer' if said.changed else 'not'} pinned.")


@click.command()
@home_argument
@click.argument("generation", metavar="GEN")
@click.option("--reason", required=True, help="Why; it is part of the signed record.")
@json_option
def revoke(home: Path, generation: str, reason: str, as_json: bool) -> None:
    """Withdraw a generation for good: nobody activates or reads it any more.

    If it is the active one, the one before it is active instead, as after `genctl rollback`. Its
    tags and its pin are taken away. It is kept until something newer is active, and while it is
    leased; the next `genctl gc` after that deletes it. What its documents say is in other
    generations, too, and in the commit log.
    """
    from controller import retaining
    from manifests.retained import never_collected

    said = retaining.revoke(open_writer(home), generation, reason)
    moved = said.record.active != said.before.active
    is_needed = generation in never_collected(said.record)
    if as_json:
        emit_json(
            {
                "generation_id": generation,
                "reason": reason,
                "revoked": said.changed,
                "active": said.record.active,
                "kept_until_newer": is_needed,
            }
        )
        return
    say(f"{generation} is {'now' if said.changed else 'already'} revoked.")
    if moved:
        say(f"  {said.record.active} is the active generation again")
    if said.changed:
        say("  nodes follow at their next bootstrap")
    if is_needed:
        say("  it is kept until something newer is active; the next `genctl gc` then deletes it")
    elif not said.record.is_collected(generation):
        say("  the next `genctl gc` deletes it, unless somebody has a lease of it")


COMMANDS = (tag, untag, pin, unpin, revoke)
