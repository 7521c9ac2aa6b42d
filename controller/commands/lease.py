"""Leases: who needs a generation to stay for a while."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import json_option
from controller.terminal import emit_json, plural, printable, say, table

if TYPE_CHECKING:
    from controller.leases import HeldLease
    from store.leases import Lease

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
SHOWN_CHARACTERS = 30
"""So much of a wrong value is printed: click breaks no lines."""

_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def _duration(_: click.Context, __: click.Parameter, value: str) -> timedelta:
    from store.leases import LONGEST

    found = _DURATION.fullmatch(value)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= LONGEST.total_seconds():
        raise click.BadParameter(
            f"{value[:SHOWN_CHARACTERS]!r}\n  is not 90s, 30m, 2h or 7d, at most {LONGEST.days}d"
        )
    return timedelta(seconds=seconds)


def _holder(_: click.Context, __: click.Parameter, value: str) -> str:
    from store.leases import is_holder

    if not is_holder(value):
        raise click.BadParameter(
            f"{value[:SHOWN_CHARACTERS]!r}\n  is not 1 to 63 of a-z, 0-9, '.', '_', '-', "
            "with a letter or a digit first"
        )
    return value


def _purpose(_: click.Context, __: click.Parameter, value: str) -> str:
    from store.leases import is_purpose

    if not is_purpose(value):
        raise click.BadParameter("a purpose is one line of at most 200 characters")
    return value


place_argument = click.argument("home", type=click.Path(path_type=Path), metavar="HOME|NODE")
generation_argument = click.argument("generation", metavar="GEN")
holder_option = click.option(
    "--holder",
    callback=_holder,
    required=True,
    metavar="NAME",
    help="Whose lease: a machine, a job. Each holder has one lease of a generation.",
)
for_option = click.option(
    "--for",
    "lasting",
    callback=_duration,
    required=True,
    metavar="TIME",
    help="How long from now: 90s, 30m, 2h, 7d; at most 30d, then renew it.",
)


@click.group()
def lease() -> None:
    """Keep a generation from being collected for a while."""


@lease.command()
@place_argument
@generation_argument
@for_option
@holder_option
@click.option("--purpose", callback=_purpose, default="", metavar="TEXT", help="What for.")
@json_option
def take(
    home: Path, generation: str, lasting: timedelta, holder: str, purpose: str, as_json: bool
) -> None:
    """Take a lease of a generation.

    It ends of itself. Taken again, it lasts as long as asked from then on, never shorter.
    """
    from controller import clock, leases

    held = leases.take(
        leases.place_of(home), generation, holder, purpose, lasting=lasting, now=clock.now()
    )
    _tell(held, "has", as_json=as_json)


@lease.command()
@place_argument
@generation_argument
@for_option
@holder_option
@json_option
def renew(home: Path, generation: str, lasting: timedelta, holder: str, as_json: bool) -> None:
    """Have a lease last longer.

    One that has ended is renewed as long as its generation is still there, and says so.
    """
    from controller import clock, leases

    held = leases.renew(leases.place_of(home), generation, holder, lasting=lasting, now=clock.now())
    _tell(held, "renewed", as_json=as_json)


@lease.command()
@place_argument
@generation_argument
@holder_option
@json_option
def release(home: Path, generation: str, holder: str, as_json: bool) -> None:
    """Give a lease back. One that is not there is no error."""
    from controller import leases

    released = leases.release(leases.place_of(home).stores, generation, holder)
    if as_json:
        emit_json({"generation_id": generation, "holder": holder, "released": released})
    else:
        say(
            f"{holder} has given {generation} back."
            if released
            else f"{holder} had no lease of {generation}."
        )


@lease.command("list")
@place_argument
@json_option
def list_(home: Path, as_json: bool) -> None:
    """List the leases in the stores, those that have ended among them."""
    from controller import clock, leases

    now = clock.now()
    listed = leases.listed(leases.place_of(home).stores)
    found = listed.found
    if as_json:
        emit_json(
            {
                "leases": [_described(each, now) for each in found.leases],
                "unreadable": [
                    {"store": each.store, "key": each.key, "reason": each.reason}
                    for each in found.unreadable
                ],
                "unreadable_count": found.unreadable_count,
                "silent_stores": [
                    {"error": each.name, "message": each.message} for each in listed.silent
                ],
            }
        )
        return
    if found.leases:
        table(
            [
                ("generation", "left"),
                ("until", "left"),
                ("", "left"),
                ("holder, and what for", "left"),
            ],
            [
                [
                    each.generation_id,
                    each.expires_at,
                    "expired" if each.has_expired(now) else "",
                    each.holder + (f": {each.purpose}" if each.purpose else ""),
                ]
                for each in found.leases
            ],
        )
    else:
        say("There are no leases.")
    for unreadable in found.unreadable:
        say(printable(f"  no lease: {unreadable.key} in {unreadable.store}: {unreadable.reason}"))
    if found.unreadable_count > len(found.unreadable):
        say(f"  and {plural(found.unreadable_count - len(found.unreadable), 'more object')}")
    for error in listed.silent:
        say(f"  not asked: {error.name}: {error.message}")


def _described(found: Lease, now: datetime) -> dict[str, Any]:
    return found.model_dump(mode="json", exclude={"schema_version"}) | {
        "expired": found.has_expired(now)
    }


def _tell(held: HeldLease, verb: str, *, as_json: bool) -> None:
    told = held.lease
    if as_json:
        emit_json(
            told.model_dump(mode="json", exclude={"schema_version"})
            | {"store": held.store, "had_expired": held.had_expired}
        )
        return
    say(f"{told.holder} {verb} {told.generation_id} until {told.expires_at}.")
    if held.had_expired:
        say("  It had ended; the generation is still there, nothing was lost.")
