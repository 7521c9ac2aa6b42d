"""Signing by itself: a draft of a root on another machine, and the record before it expires."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, plural, say

if TYPE_CHECKING:
    from tuf.api.metadata import Timestamp

    from builder.root_draft import Draft
    from controller.writer import WriterHome

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Interval(click.ParamType[int]):
    """A time such as ``90s``, ``20m``, ``1h`` or ``1d``, as a number of seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See :class:`click.ParamType`."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", value)
        if not found:
            self.fail(f"{value!r} is no time such as 90s, 20m, 1h or 1d", param, ctx)
        return int(found[1]) * SECONDS[found[2]]


@click.command()
@click.argument("draft", type=click.Path(path_type=Path), metavar="DRAFT")
@click.option(
    "--key",
    required=True,
    metavar="FILE",
    help="The private key: a file, env:NAME, or a signer's URI together with --keyid.",
)
@click.option("--keyid", help="Which of the draft's keys a signer's URI stands for.")
@click.option(
    "--root",
    "known",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your own copy of the last root. Without it, what changes is as the draft says.",
)
@click.option("--yes", is_flag=True, help="Do not ask on a terminal before signing.")
@json_option
def sign(
    draft: Path, key: str, keyid: str | None, known: Path | None, yes: bool, as_json: bool
) -> None:
    """Sign a draft of a root where it lies, after showing what it says.

    Takes no home and no network: carry the file here, sign it, carry it back. Who made the draft
    says what the root before it was: --root checks that.
    """
    import os

    from builder.root_metadata import find_keyid
    from builder.signers import KeyRing, SignerReference
    from controller import passphrases, root_drafts, settings
    from controller.shown_keys import shown_lacking

    if as_json and sys.stdin.isatty() and not yes:
        raise click.UsageError("--json shows nothing to confirm: on a terminal it takes --yes")
    found = root_drafts.read(draft)
    if known is not None:
        root_drafts.check_before(found, known)
    if not as_json:
        _show_draft(found, is_checked=known is not None)
    if sys.stdin.isatty() and not yes:
        click.confirm("Sign this root?", abort=True)
    is_uri = keyid is not None or key.startswith(("env:", "file:"))
    reference = settings.made(
        SignerReference,
        uri=key if is_uri else f"file:{Path(key).absolute()}",
        keyid=None if keyid is None else find_keyid(keyid, found.signer_ids()),
    )
    ring = KeyRing(Path.cwd(), os.environ, passphrases.ask)
    signed, was_signed = root_drafts.sign_file(draft, found, reference, ring)
    lacking = signed.lacking()
    if as_json:
        emit_json(
            {
                "draft": str(draft),
                "version": signed.root.version,
                "signed_before": was_signed,
                "root_before_checked": known is not None,
                "lacking": [shown_lacking(each) for each in lacking],
            }
        )
        return
    say("It has this key's signature already." if was_signed else "Signed.")
    if lacking:
        say(
            f"It still lacks {root_drafts.told_lacking(lacking)}. Carry it to who holds one of "
            "these keys, for `genctl keys sign` there."
        )
    else:
        say("It is complete: carry it home and run `genctl keys publish HOME DRAFT`.")


def _show_draft(draft: Draft, *, is_checked: bool) -> None:
    from builder.root_metadata import changes, role_table

    root, before = draft.root, draft.root_before
    say(f"Root version {root.version} of shard {draft.shard}, expires {root.expires.isoformat()}")
    for name, role in role_table(root).items():
        say(f"  {name}: {role.threshold} of {plural(len(role.keyids), 'key')} must sign")
        for keyid in role.keyids:
            mark = "  (signed)" if keyid in draft.metadata.signatures and name == "root" else ""
            say(f"    {keyid}  {root.keys[keyid].scheme}{mark}")
    if before is None:
        say("It is the first root: check every key id with who holds the key.")
        return
    if is_checked:
        say(f"Changes since version {before.version}, which is as in your copy:")
    else:
        say(f"Changes since version {before.version}, as the draft says; NOT CHECKED:")
    for line in changes(before, root) or ["only the time when it expires"]:
        say(f"  {line}")
    if not is_checked:
        say(
            "Compare every key above with what you know, or give your copy of the last root: --root"
        )


@click.command()
@home_argument
@click.option(
    "--every",
    type=Interval(),
    metavar="TIME",
    help="Go on, signing again each time TIME has passed (20m, 1h), until it is interrupted.",
)
@json_option
def refresh(home: Path, every: int | None, as_json: bool) -> None:
    """Sign the record again before it expires; nodes activate nothing from an expired one.

    Targets and snapshot are signed again when less than half of their life is left.
    """
    from tuf.api.metadata import Metadata, Timestamp

    from controller import resigning

    writer = open_writer(home)

    def once() -> None:
        known = writer.signed_last.read()
        signed = writer.refresh().signed.timestamp
        expires = signed.expires.isoformat()
        if as_json:
            emit_json({"record_version": signed.version, "record_expires": expires})
        else:
            say(f"Signed version {signed.version}; it expires {expires}.")
        if known is not None:
            _warn_of_clock(Metadata[Timestamp].from_bytes(known.timestamp).signed, signed)
        _warn_of_expiry(writer)

    if every is None:
        once()
    else:
        resigning.check_interval(every, writer.settings.timestamp_lifetime_hours)
        resigning.keep(once, every, as_json=as_json)


def _warn_of_clock(before: Timestamp, signed: Timestamp) -> None:
    """Say that a clock is behind what was signed last.

    It is no error: where the clock was ahead then, this is how the record comes right again.
    """
    from store.signed import SIGNED_AT

    # Both are UTC in one form, so that they compare as text.
    last, now = (each.unrecognized_fields.get(SIGNED_AT, "") for each in (before, signed))
    if now < last:
        click.echo(
            f"genctl: signed at {now} by this machine's clock, and the record before at {last}: "
            f"one of the clocks is wrong. The record expires {signed.expires.isoformat()}, "
            f"{before.expires.isoformat()} before. If it is this clock, set it and sign again: "
            "runbooks/clock.md",
            err=True,
        )


def _warn_of_expiry(writer: WriterHome) -> None:
    from controller import clock
    from controller.writer_keys import root_expires_soon

    expires = root_expires_soon(writer, clock.now())
    if expires is not None:
        click.echo(
            f"genctl: the root of trust expires {expires.isoformat()}; renew it before: "
            f"`genctl keys renew {writer.home}`",
            err=True,
        )


COMMANDS = (sign, refresh)
