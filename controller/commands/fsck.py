"""Whether a home and its stores hold all that they should, and nothing else: fsck."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.commands.collection_output import (
    SHOWN,
    described_files,
    described_home,
    described_leases,
    described_store,
    tell_more,
    tell_totals,
)
from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, plural, printable, say

if TYPE_CHECKING:
    from controller.accounts import Accounts


@click.command()
@home_argument
@json_option
def fsck(home: Path, as_json: bool) -> None:
    """Check that all that is needed is there, and account for all that is.

    Lengths are compared, contents are not read: `genctl scrub` does that, and mends what this finds
    missing. What nothing needs is an orphan, and no fault: garbage, which the next `genctl gc`
    deletes, or young, which it leaves until it is collection_grace_hours old.
    """
    from controller.accounts import accounts

    found = accounts(open_writer(home))
    if as_json:
        emit_json(
            {
                "generation_ids": list(found.generation_ids),
                "missing": [each._asdict() for each in found.missing],
                "missing_count": found.missing_count,
                "stores": [described_store(tally) for tally in found.stores],
                "home": described_home(found.home) | described_files(found.files),
                "leases": described_leases(found.leases),
            }
        )
    else:
        _tell(found)
    found.refuse_missing()


def _tell(found: Accounts) -> None:
    say(f"{plural(len(found.generation_ids), 'generation')} must be in the stores.")
    tell_totals(
        found.stores,
        found.home,
        "the next gc deletes it",
        "what each change leaves",
    )
    for orphan in found.files.orphans[:SHOWN]:
        say(f"  left in the home: {printable(orphan.path)}: {orphan.reason}")
    tell_more(found.files.orphan_count)
    for name in found.files.unknown[:SHOWN]:
        say(f"  unknown in the home: {printable(name)}")
    tell_more(found.files.unknown_count)
    for each in found.missing[:SHOWN]:
        say(f"  missing: {printable(each.key)} in {each.where}: {each.what}")
    tell_more(found.missing_count)
    if not found.missing:
        say("Nothing is missing.")
