"""The audit trail of a writer's home or a node: printed, and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import json_option
from controller.terminal import emit_json, plural, printable, say, table
from manifests.errors import (
    AuditCorrupt,
    ForeignRecord,
    GenctlError,
    HomeMissing,
    PointerCorrupt,
    RecordPutBack,
    SignedLastCorrupt,
    TrustError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controller.signed_last import SignedLast
    from durable.audit_log import AuditLog
    from manifests.audit_trail import Line, Trail
    from manifests.receipts import Document, Receipt

NEVER = "never took place"
READS = 5
"""How often the home is read at most while other commands change it."""


@dataclass(frozen=True, slots=True)
class _Home:
    """Whose trail it is, and what the receipts must agree with.

    Attributes:
        kind: ``writer`` or ``node``.
        audit: the trail.
        present: BLAKE3 of the documents as they are.
        unknown: why the record is not compared.
        refusal: why the record in the store is not the one that the home signed last.
    """

    kind: str
    audit: AuditLog
    present: Mapping[Document, str | None]
    unknown: str | None = None
    refusal: GenctlError | None = None


@click.command()
@click.argument("home", type=click.Path(path_type=Path), metavar="WHERE")
@json_option
def audit(home: Path, as_json: bool) -> None:
    """Print the receipts of what was signed or served, and check that none was altered.

    WHERE is a writer's home or a node's. Each receipt names the one before it by its hash; the last
    must agree with the node's pointer, or with the record in the writer's store. Note the hash of
    the last one elsewhere: it vouches for all before it.
    """
    from manifests.audit_trail import verify

    opened, receipts = _at_rest(home)
    trail = verify(receipts, opened.present)
    if as_json:
        emit_json(_described(opened, trail))
    else:
        _tell(opened, trail)
    fault = _fault(opened, trail) or opened.refusal
    if fault is not None:
        raise fault


def _at_rest(home: Path) -> tuple[_Home, bytes]:
    """A home and its trail as they were together; no lock is held.

    Each change leaves its receipt first: while the trail is the same, at most the change of its
    last receipt was made between.
    """
    from durable.audit_log import AuditLog

    log = AuditLog(home)
    receipts = log.read()
    for _ in range(READS):
        opened = _open(home)
        before, receipts = receipts, log.read()
        if receipts == before:
            return opened, receipts
    unknown = "what the receipts made is not compared: other commands changed it all the while"
    return replace(_open(home), present={}, unknown=unknown), receipts


def _open(home: Path) -> _Home:
    from controller.settings import NODE_FILE, WRITER_FILE

    if (home / NODE_FILE).exists():
        return _node(home)
    if (home / WRITER_FILE).exists():
        return _writer(home)
    raise HomeMissing(
        f"{home} is neither a writer's home nor a node's; `genctl init` makes one, `genctl node "
        "bootstrap` the other",
        path=str(home),
    )


def _node(home: Path) -> _Home:
    from activator.pointer import PointerFile, pointer_id
    from controller.node import NodeHome
    from manifests.identifiers import content_id

    node = NodeHome(home)
    present: dict[Document, str | None] = {"root": content_id(node.root_bytes())}
    try:
        pointer = PointerFile(home).read()
        present["pointer"] = pointer_id(pointer) if pointer else None
    except PointerCorrupt as error:
        return _Home("node", node.audit, present, f"the pointer is not compared: {error.message}")
    return _Home("node", node.audit, present)


def _writer(home: Path) -> _Home:
    from controller.commands.options import open_writer
    from controller.writer_receipts import record_id
    from manifests.identifiers import content_id

    writer = open_writer(home)
    present: dict[Document, str | None] = {}
    known: SignedLast | None = None
    refusal: GenctlError | None = None
    try:
        known = writer.signed_last.read()  # before the store, which may be ahead of it
    except SignedLastCorrupt as error:
        refusal = error
    try:
        present["root"] = content_id(writer.root_bytes())
        signed = writer.current().signed
        present["record"] = record_id(signed.record)
        if known is not None:
            try:
                known.refuse_other(signed.timestamp)
            except (RecordPutBack, ForeignRecord) as error:
                present["record"], refusal = record_id(known.record), error
    except GenctlError as error:
        if isinstance(error, TrustError):
            refusal = error
        unknown = f"the store is not compared: {error.message}"
        return _Home("writer", writer.audit, present, unknown, refusal)
    return _Home("writer", writer.audit, present, refusal=refusal)


def _fault(opened: _Home, trail: Trail) -> AuditCorrupt | None:
    """What is wrong with the trail, if anything is."""
    path = opened.audit.path
    first = trail.first_fault
    if first is not None:
        return AuditCorrupt(
            f"{path}, line {first.number}: {first.fault}. What is served is not affected; "
            "look at who could write there before you trust the rest",
            path=str(path),
            line=first.number,
        )
    if trail.disagreements:
        return AuditCorrupt(
            f"{path}: {trail.disagreements[0]}. Find out what changed it",
            path=str(path),
            line=None,
        )
    return None


def _described(opened: _Home, trail: Trail) -> dict[str, Any]:
    return {
        "home": opened.kind,
        "receipts": [_line_described(line) for line in trail.lines],
        "disagreements": list(trail.disagreements),
        "not_compared": opened.unknown,
        "record_in_store": opened.refusal.message if opened.refusal else None,
        "torn_bytes": trail.torn_bytes,
        "head": trail.head,
    }


def _line_described(line: Line) -> dict[str, Any]:
    told = line.receipt.model_dump(mode="json") if line.receipt else {}
    return {"line": line.number, "fault": line.fault, "took_place": line.took_place} | told


def _tell(opened: _Home, trail: Trail) -> None:
    if not trail.lines:
        say("No receipt was left here yet.")
    else:
        table(
            [
                ("line", "right"),
                ("time (UTC)", "left"),
                ("what", "left"),
                ("generation", "left"),
                ("why", "left"),
            ],
            [_row(line) for line in trail.lines],
        )
    if trail.torn_bytes:
        say(
            f"The last line is torn ({plural(trail.torn_bytes, 'byte')}): what it was to tell of "
            "did not take place. The next receipt cuts it off."
        )
    for line in trail.lines:
        if line.fault is not None:
            say(f"Line {line.number}: {line.fault}.")
    for disagreement in trail.disagreements:
        say(f"{disagreement[0].upper()}{disagreement[1:]}.")
    if opened.unknown is not None:
        say(f"{opened.unknown[0].upper()}{opened.unknown[1:]}")
    if trail.head is not None and trail.first_fault is None and not trail.disagreements:
        say(
            f"All is as it was written up to the last receipt. That one nothing vouches for yet: "
            f"compare its hash with the one you noted\n  {trail.head}"
        )


def _row(line: Line) -> tuple[str, str, str, str, str]:
    if line.receipt is None:
        return f"{line.number}", "", "damaged", "", line.fault or ""
    receipt = line.receipt
    return (
        f"{line.number}",
        printable(receipt.time[:16].replace("T", " ")),
        receipt.kind.replace("_", " "),
        receipt.generation_id or "",
        _why(line, receipt),
    )


def _why(line: Line, receipt: Receipt) -> str:
    notes = [
        NEVER if line.took_place is False else "",
        f"after damage in line {receipt.broken.line}" if receipt.broken else "",
        f"cut {receipt.cut_bytes} bytes of a torn line" if receipt.cut_bytes else "",
        receipt.reason or "",
    ]
    return "; ".join(note for note in notes if note)


COMMANDS = (audit,)
