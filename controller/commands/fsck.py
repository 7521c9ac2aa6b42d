"""Whether a home and its stores hold all that they should, and nothing else: fsck."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.commands.gc import (
    SHOWN,
    described_home,
    described_leases,
    described_store,
    tell_unknown,
)
from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, plural, printable, say, size, table
from manifests.errors import PartsMissing

if TYPE_CHECKING:
    from controller.accounts import Accounts


@click.command()
@home_argument
@json_option
def fsck(home: Path, as_json: bool) -> None:
    """Check that all that is needed is there, and account for all that is.

    Lengths are compared, contents are not read: `genctl scrub` does that, and mends what this finds
    missing in the stores. What nothing needs is listed, and is no fault: `genctl gc` deletes it.
    """
    from controller.accounts import accounts

    found = accounts(open_writer(home))
    if as_json:
        emit_json(
            {
                "generation_ids": list(found.generation_ids),
                "missing": [each._asdict() for each in found.missing],
                "stores": [described_store(tally) for tally in found.stores],
                "home": described_home(found.home) | {"unknown": list(found.home_unknown)},
                "leases": described_leases(found.leases),
            }
        )
    else:
        _tell(found)
    if found.missing:
        first = found.missing[0]
        more = len(found.missing) - 1
        raise PartsMissing(
            f"{first.key} in {first.where}: {first.what}"
            + (f" (and {plural(more, 'other')})" if more else "")
            + ". `genctl scrub HOME` mends what the home or another store still has",
            key=first.key,
            where=first.where,
            missing=len(found.missing),
        )


def _tell(found: Accounts) -> None:
    say(f"{plural(len(found.generation_ids), 'generation')} must be in the stores.")
    for number, tally in enumerate(found.stores, 1):
        say(f"store {number}  {tally.url}")
    table(
        [("where", "left"), ("what", "left"), ("number", "right"), ("size", "right")],
        [
            (f"store {number}", what, f"{objects:,}", size(size_bytes))
            for number, tally in enumerate(found.stores, 1)
            for what, objects, size_bytes in (
                ("needed", tally.kept.objects, tally.kept.size_bytes),
                (
                    "orphans",
                    tally.garbage_objects + tally.young.objects,
                    tally.garbage_bytes + tally.young.size_bytes,
                ),
                ("unknown", tally.unknown_objects.objects, tally.unknown_objects.size_bytes),
            )
        ]
        + [
            (
                "home",
                "orphans",
                f"{found.home.parts:,}",
                size(found.home.size_bytes),
            )
        ],
    )
    for tally in found.stores:
        tell_unknown(tally)
    for name in found.home_unknown[:SHOWN]:
        say(f"  unknown in the home: {printable(name)}")
    for each in found.missing[:SHOWN]:
        say(f"  missing: {each.key} in {each.where}: {each.what}")
    if len(found.missing) > SHOWN:
        say(f"  and {plural(len(found.missing) - SHOWN, 'other')}")
    if not found.missing:
        say("Nothing is missing.")
