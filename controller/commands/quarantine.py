"""What a node has refused and remembers, and how an operator has it looked at again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import json_option, node_argument
from controller.terminal import emit_json, printable, say, table
from durable import files
from manifests.errors import NotQuarantined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.quarantine import QuarantineEntry

SHOWN_DIGITS = 12
FEWEST_DIGITS = 8


@click.group()
def quarantine() -> None:
    """Show or clear what a node has refused and remembers."""


@quarantine.command("list")
@node_argument
@json_option
def list_(home: Path, as_json: bool) -> None:
    """List what was refused, by the hash of its content, and why."""
    from controller.node import NodeHome

    state = NodeHome(home).quarantine.state()
    if as_json:
        entries = [_described(entry) for entry in state.entries]
        emit_json({"entries": entries, "dropped": state.dropped})
        return
    if not state.entries:
        say("Nothing is in quarantine.")
    else:
        table(
            [
                ("hash", "left"),
                ("last seen", "left"),
                ("seen", "right"),
                ("error", "left"),
                ("of", "left"),
            ],
            [
                (
                    entry.content_hash[:SHOWN_DIGITS],
                    f"{datetime.fromisoformat(entry.last_seen):%Y-%m-%d %H:%M}",
                    f"{entry.seen:,}",
                    entry.error,
                    _subject(entry),
                )
                for entry in state.entries
            ],
        )
    if state.dropped:
        say(f"{state.dropped:,} more had to make room; runbooks/divergence.md says which.")


@quarantine.command()
@node_argument
@click.argument("content_hash", metavar="[HASH]", required=False)
@json_option
def clear(home: Path, content_hash: str | None, as_json: bool) -> None:
    """Forget one content, or everything, so that it is looked at again.

    HASH may be cut to its first 8 digits or more. Nothing is trusted for it: whatever is fetched
    then is verified as ever.
    """
    from controller.node import NodeHome

    node = NodeHome(home)
    with files.locked(node.home / "lock", "clear"):
        chosen = (
            None
            if content_hash is None
            else _whole(node.quarantine.entries(), content_hash.lower())
        )
        gone: tuple[QuarantineEntry, ...] = ()
        is_needless = node.quarantine.is_clear()
        if not is_needless:
            node.leave_receipt("clear", "quarantine", reason=chosen or "everything")
            gone = node.quarantine.clear(chosen)
    if as_json:
        emit_json({"cleared": [_described(entry) for entry in gone]})
        return
    if is_needless:
        say("Nothing is in quarantine.")
        return
    for entry in gone:
        say(f"Forgotten: {entry.content_hash} ({entry.error}).")
    if not gone:
        say("Nothing was in quarantine that is known of.")
    say("The next bootstrap looks at everything again.")


def _whole(entries: Sequence[QuarantineEntry], given: str) -> str:
    """The one hash that begins so.

    Raises:
        NotQuarantined: none does, or several do.
    """
    found = {entry.content_hash for entry in entries if entry.content_hash.startswith(given)}
    if len(given) < FEWEST_DIGITS or len(found) != 1:
        raise NotQuarantined(
            f"{printable(given)[:80]!r} is not the beginning, of {FEWEST_DIGITS} digits or more, "
            f"of exactly one hash in quarantine ({len(found)} begin so); `genctl node quarantine "
            "list` shows them",
            content_hash=given,
        )
    return found.pop()


def _subject(entry: QuarantineEntry) -> str:
    """The artifact or the generation it is about, if that is known."""
    return entry.facts.get("artifact") or entry.facts.get("generation_id") or ""


def _described(entry: QuarantineEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json") | {"refused": entry.is_refused}
