"""The keys of a writer's home: made, shown, replaced, revoked; a new root published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands import signing
from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, facts, say, table

if TYPE_CHECKING:
    from controller.root_drafts import RootReport
    from controller.shown_keys import ShownKey
    from controller.writer import WriterHome

SHOWN_DIGITS = 16
"""So much of a key's id people are shown; programs are given all of it."""


@click.group()
def keys() -> None:
    """Who may sign: root keys (kept offline), the targets key, the online key.

    \b
    keys init FILE               make a key on any machine; FILE.pub is its public part
    init HOME --root-key A.pub … a home whose root keys others hold
    keys sign DRAFT --key FILE   sign the next root, on a machine that has nothing else
    keys publish HOME [DRAFT…]   take the signatures home; nodes follow the new root
    """  # noqa: D301 - click wants a real backspace character


@keys.command("init")
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--encrypt", is_flag=True, help="Ask for a passphrase to encrypt the key with.")
@json_option
def make(path: Path, encrypt: bool, as_json: bool) -> None:
    """Make a key: FILE is the private part, FILE.pub the public one.

    The key is encrypted with GENCTL_KEY_PASSPHRASE, or with the first line of the file that
    GENCTL_KEY_PASSPHRASE_FILE names, if one of them is set. Run again, it keeps the key.
    """
    from builder.keys import is_encrypted, public_path
    from controller.writer_keys import make_key

    key = make_key(path, must_encrypt=encrypt)
    public = public_path(path)
    if as_json:
        emit_json({"keyid": key.keyid, "private": str(path), "public": str(public)})
        return
    secured = (
        "encrypted" if is_encrypted(path) else "not encrypted; --encrypt asks for a passphrase"
    )
    facts(
        f"Key {key.keyid}",
        [
            ("private", f"{path}, give it to nobody"),
            ("", secured),
            ("public", str(public)),
        ],
    )


@keys.command()
@home_argument
@json_option
def show(home: Path, as_json: bool) -> None:
    """Show roles, keys and thresholds, when signatures expire, and the draft that waits."""
    from controller import shown_keys

    shown = shown_keys.show(open_writer(home))
    if as_json:
        emit_json(shown)
        return
    if shown["root_version"] is not None:
        say(f"Root version {shown['root_version']} of {home}")
        rows = [
            (name, str(role["threshold"]), key["keyid"][:SHOWN_DIGITS], _where(key))
            for name, role in shown["roles"].items()
            for key in role["keys"]
        ]
        table([("role", "left"), ("must sign", "right"), ("key", "left"), ("where", "left")], rows)
        table(
            [("metadata", "left"), ("version", "right"), ("expires", "left")],
            [
                (name, str(m["version"]), m["expires"] + " (expired)" * m["expired"])
                for name, m in shown["metadata"].items()
            ],
        )
    problem = shown["problem"]
    if problem is not None:
        say(f"What the store holds cannot be shown. {problem['error']}: {problem['message']}")
    if shown["unfinished"]:
        so = "may not be" if problem else "is not"
        say(f"What is signed {so} signed by these keys yet: run `genctl keys refresh {home}`")
    draft = shown["draft"]
    if draft is not None:
        lacking = []
        for each in draft["lacking"]:
            lacking.append(f"{each['needed']} of the root keys of version {each['root_version']}:")
            lacking += [f"  {keyid[:SHOWN_DIGITS]}" for keyid in each["keyids"]]
        facts(
            f"Root version {draft['version']} waits in {draft['path']}",
            [
                ("changes", "\n".join(draft["changes"]) or "the time when it expires"),
                ("lacks", "\n".join(lacking) or f"nothing; run `genctl keys publish {home}`"),
            ],
        )


def _where(key: ShownKey) -> str:
    if key["missing_from"] is not None:
        return f"{key['missing_from']} is not there"
    return key["where"] or "elsewhere"


@keys.command()
@home_argument
@click.argument("role", type=click.Choice(["root", "targets", "online"]))
@click.option(
    "--signer",
    metavar="URI",
    help="Where the new key's private part is: file:PATH, env:NAME, or a key service "
    "(awskms:…, gcpkms:…, azurekms:…, hv:…). Without it, a key is made in HOME/keys.",
)
@click.option(
    "--public",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The new key's public part (FILE.pub of `keys init`, or PEM).",
)
@click.option("--replace", metavar="KEYID", help="Which key goes, where the role has several.")
@click.option("--add", is_flag=True, help="Keep the keys that the role has.")
@click.option(
    "--encrypt",
    is_flag=True,
    help="Ask for a passphrase to encrypt the new key with. So it is where the role's key was "
    "encrypted.",
)
@json_option
def rotate(
    home: Path,
    role: Any,
    signer: str | None,
    public: Path | None,
    replace: str | None,
    add: bool,
    encrypt: bool,
    as_json: bool,
) -> None:
    """Give a role a new key; the one that it replaces counts no more.

    Published at once if enough root keys are here, else a draft that their holders sign.
    """
    from controller.writer_keys import NewKey
    from controller.writer_keys import rotate as rotate_key

    if add and replace:
        raise click.UsageError("--add and --replace exclude each other")
    if encrypt and (signer or public):
        raise click.UsageError("--encrypt is for a key that is made here")
    writer = open_writer(home)
    report = rotate_key(writer, role, NewKey(signer, public, encrypt), instead_of=replace, add=add)
    _tell(writer, report, as_json=as_json)


@keys.command()
@home_argument
@click.argument("keyid")
@json_option
def revoke(home: Path, keyid: str, as_json: bool) -> None:
    """Take a key away from every role that has it. KEYID: eight digits or more."""
    from controller.writer_keys import revoke as revoke_key

    writer = open_writer(home)
    _tell(writer, revoke_key(writer, keyid), as_json=as_json)


@keys.command()
@home_argument
@json_option
def renew(home: Path, as_json: bool) -> None:
    """Make the next root with the same keys, so that it expires later.

    Published at once if enough root keys are here, else a draft that their holders sign.
    """
    from controller.writer_keys import renew as renew_root

    writer = open_writer(home)
    _tell(writer, renew_root(writer), as_json=as_json)


@keys.command()
@home_argument
@click.argument("role", type=click.Choice(["root", "targets", "online"]))
@click.argument("number", type=click.IntRange(1, 64))
@json_option
def threshold(home: Path, role: Any, number: int, as_json: bool) -> None:
    """Set how many keys of a role must sign."""
    from controller.writer_keys import threshold as set_threshold

    writer = open_writer(home)
    _tell(writer, set_threshold(writer, role, number), as_json=as_json)


@keys.command()
@home_argument
@click.argument("drafts", nargs=-1, type=click.Path(path_type=Path), metavar="[DRAFT]...")
@json_option
def publish(home: Path, drafts: tuple[Path, ...], as_json: bool) -> None:
    """Publish the root that waits in a home, with the signatures that DRAFTs bring.

    Nodes follow it, and the record is signed anew where its keys changed. Run again, it finishes
    what was interrupted.
    """
    from controller.new_home import publish_draft

    writer = open_writer(home)
    _tell(writer, publish_draft(writer, drafts), as_json=as_json)


def _tell(writer: WriterHome, report: RootReport, *, as_json: bool) -> None:
    """What became of a change of the root, and what there is to do."""
    from controller.root_drafts import told_lacking
    from controller.shown_keys import shown_lacking
    from controller.writer_keys import forget_retired

    retired = forget_retired(writer) if report.published else []
    if as_json:
        emit_json(
            {
                "root_version": report.version,
                "changed": report.changed,
                "published": report.published,
                "withdrawn": report.withdrawn,
                "draft": None if report.published else str(report.draft),
                "lacking": [shown_lacking(each) for each in report.lacking],
                "retired": retired,
            }
        )
        return
    if report.withdrawn:
        say(
            f"The draft would change nothing any more and is removed. Root version "
            f"{report.version} stays."
        )
    elif report.published and not report.changed:
        say(f"Root version {report.version} is published and says so already.")
    elif report.published:
        say(f"Published root version {report.version}; nodes follow it at their next refresh.")
    else:
        facts(
            f"Root version {report.version} waits for signatures."
            + ("" if report.changed else " It says so already."),
            [
                ("draft", str(report.draft)),
                ("lacks", told_lacking(report.lacking)),
                ("next", "genctl keys sign DRAFT --key FILE      (where the keys are)"),
                ("then", f"genctl keys publish {writer.home} DRAFT"),
            ],
        )
    for uri in retired:
        say(f"{uri} signs nothing any more; remove the private key.")


for command in signing.COMMANDS:
    keys.add_command(command)
