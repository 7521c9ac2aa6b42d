"""The audit trail: receipts of what was served or signed, each naming the one before it.

A receipt is one line of canonical JSON. It is written before the change it tells of and names, by
their BLAKE3, the bytes of the document as they were and as the change makes them: a change without
a receipt cannot be, and a receipt whose change never took place is known by the next one (or by the
document itself), which still starts from the bytes before.

``previous`` is the BLAKE3 of the line before, so a line cannot be altered, removed or put in
without showing. The end can: whoever may write the file can cut it, or write all of it anew. The
BLAKE3 of the last line, noted elsewhere, tells that too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import ManifestMalformed, SchemaTooNew
from manifests.identifiers import Blake3Hex, GenerationId, content_id

SCHEMA_VERSION = 1
REASON_LIMIT = 1000
"""Characters of a reason that a receipt keeps."""

ReceiptKind = Literal[
    "init",
    "publish",
    "activate",
    "rollback",
    "revoke",
    "override",
    "tag",
    "untag",
    "pin",
    "unpin",
    "collect",
    "new_root",
    "hold_back",
    "demote",
    "return",
    "repin",
    "clear",
]
Document = Literal["record", "pointer", "root", "quarantine"]


class Change(Frozen):
    """What a receipt tells of.

    Attributes:
        kind: what was done. ``hold_back`` is a rollback of one node by its operator, ``demote`` and
            ``return`` move a node off damage and back, ``repin`` gives it another root of trust,
            ``clear`` takes something out of quarantine; the others are signed by the writer.
        document: what it changes: the signed record, a node's pointer, a root of trust …
        time: UTC, ISO 8601.
        generation_id: the generation that is made active, published, or spoken of.
        manifest_id: its manifest.
        high_seq: its last commit.
        record_version: at the writer, the version of the record that is signed; on a node, of the
            last one that was accepted.
        reason: what the operator or the record gives.
        before: BLAKE3 of the document's bytes; ``None`` where there was none that could be read.
        after: BLAKE3 of the bytes that the change gives it.
    """

    kind: ReceiptKind
    document: Document
    time: str
    generation_id: GenerationId | None = None
    manifest_id: Blake3Hex | None = None
    high_seq: int | None = Field(default=None, ge=1)
    record_version: int | None = Field(default=None, ge=1)
    reason: str | None = None
    before: Blake3Hex | None = None
    after: Blake3Hex | None = None


class BrokenLine(Frozen):
    """The damaged line that a chain was begun anew after."""

    line: int = Field(ge=1)
    blake3: Blake3Hex


class Receipt(Change):
    """A change in its place in the chain.

    Attributes:
        sequence: counted from 1.
        previous: BLAKE3 of the line before; ``None`` at the start of a chain.
        cut_bytes: bytes of a torn line that were cut off before this one was written.
        broken: the damaged line before it, where the chain starts anew.
    """

    schema_version: Literal[1] = 1
    sequence: int = Field(ge=1)
    previous: Blake3Hex | None = None
    cut_bytes: int = Field(default=0, ge=0)
    broken: BrokenLine | None = None


def receipt_after(
    change: Change,
    last_line: bytes | None,
    line_count: Callable[[], int],
    cut_bytes: int = 0,
) -> Receipt:
    """The receipt of ``change`` to be written after ``last_line`` (without its line feed).

    After a line that is no receipt the chain starts anew and names it; ``line_count`` is asked for
    its number.
    """
    sequence, previous, broken = 1, None, None
    if last_line is not None:
        try:
            sequence = parse_receipt(last_line).sequence + 1
            previous = content_id(last_line)
        except (ManifestMalformed, SchemaTooNew):
            broken = BrokenLine(line=line_count(), blake3=content_id(last_line))
            sequence = broken.line + 1
    fields = dict(change)
    if change.reason is not None and len(change.reason) > REASON_LIMIT:
        fields["reason"] = change.reason[: REASON_LIMIT - 1] + "…"
    return Receipt(
        **fields, sequence=sequence, previous=previous, cut_bytes=cut_bytes, broken=broken
    )


def parse_receipt(line: bytes) -> Receipt:
    """Read one line, without its line feed.

    Raises:
        ManifestMalformed, SchemaTooNew: it is not a receipt that can be read.
    """
    return parse_document(line, Receipt, SCHEMA_VERSION)


def line_of(receipt: Receipt) -> bytes:
    """The line of a receipt, with its line feed."""
    return to_canonical(receipt) + b"\n"
