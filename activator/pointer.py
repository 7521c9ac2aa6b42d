"""The pointer: which generation a node serves, and which one it served before.

One small file, replaced atomically; beside the canonical document stands its BLAKE3, so that a
damaged pointer is recognised and never guessed at. The swap takes a ``VerifiedGeneration``: a
generation that was not verified cannot be activated, because there is no way to write that down. It
leaves the receipt itself, so there is no swap without one either.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from durable import files
from durable.audit_log import AuditLog
from index.verification import VerifiedGeneration
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import (
    ManifestIdentityMismatch,
    ManifestMalformed,
    PointerCorrupt,
    SchemaTooNew,
)
from manifests.identifiers import GenerationId, ShardName, content_id
from manifests.receipts import Change, ReceiptKind
from manifests.record import GenerationEntry, entry_of

POINTER_FILE = "active.json"
MAX_PASSED_OVER = 64
"""How many generations a node remembers to have been rolled back from; the oldest go first."""


class Pointer(Frozen):
    """What ``active.json`` holds.

    ``held_back`` names a generation that an operator rolled this node back from; the node does not
    activate it again until the record names another. ``passed_over`` are those that it was ever
    rolled back from and has not served since, ascending; without one the document has no such
    field.
    """

    schema_version: Literal[1] = 1
    shard: ShardName
    active: GenerationEntry
    previous: GenerationEntry | None = None
    held_back: GenerationId | None = None
    passed_over: tuple[GenerationId, ...] = Field(default=(), max_length=MAX_PASSED_OVER)

    @model_serializer(mode="wrap")
    def _as_before_there_was_any(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = fields(self)
        if not self.passed_over:
            del document["passed_over"]
        return document


@dataclass(frozen=True, slots=True)
class Occasion:
    """Why a pointer is moved, as the receipt tells; see :class:`manifests.receipts.Change`."""

    kind: ReceiptKind
    time: str
    record_version: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ActiveGeneration:
    """The generation that a swap has just made active."""

    verified: VerifiedGeneration
    pointer: Pointer


class PointerFile:
    """The pointer of one node, read again only when the file was replaced.

    A swap always makes a new file, so inode, size and modification time tell; asking for them is
    what a query pays to see every swap at once.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / POINTER_FILE
        self._seen: tuple[int, int, int] | None = None
        self._pointer: Pointer | None = None

    def read(self) -> Pointer | None:
        """The node's pointer, or ``None`` where no generation was ever activated.

        Raises:
            PointerCorrupt: the file is torn, empty or damaged.
            DiskError: it cannot be read.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        identity = (found.st_ino, found.st_size, found.st_mtime_ns)
        if identity != self._seen:
            self._pointer = _parse(self._path)
            self._seen = identity
        return self._pointer


def _parse(path: Path) -> Pointer:
    with files.translated(path):
        data = files.read_file(path)
    body, _, checksum = data.rstrip(b"\n").rpartition(b"\n")
    try:
        if content_id(body).encode() != checksum:
            raise ManifestMalformed("its checksum does not match")
        return parse_document(body, Pointer, 1)
    except (ManifestMalformed, SchemaTooNew) as error:
        raise PointerCorrupt(
            f"{path} cannot be trusted: {error}. Run `genctl node bootstrap` on this node; it sets "
            "the pointer anew from the signed record and keeps all that is intact",
            path=str(path),
        ) from error


def pointer_id(pointer: Pointer) -> str:
    """The BLAKE3 of a pointer's canonical bytes, by which receipts name it."""
    return content_id(to_canonical(pointer))


def swap(
    home: Path,
    verified: VerifiedGeneration,
    entry: GenerationEntry,
    occasion: Occasion,
    *,
    held_back: str | None = None,
) -> ActiveGeneration:
    """Make ``verified`` the active generation: before or after, never between.

    The generation that was active becomes the previous one and stays resident. The receipt is
    durable before the pointer moves; one that was left by a swap that never came to that names a
    pointer that never was.

    Raises:
        ManifestIdentityMismatch: ``entry`` is another generation's than the verified one.
        DiskFull, DiskError: the receipt or the pointer could not be written; the old one stands.
    """
    if entry != entry_of(verified.manifest, to_canonical(verified.manifest)):
        raise ManifestIdentityMismatch(
            f"{entry.generation_id} is to be activated, but {verified.manifest.generation_id} "
            "was verified",
            generation_id=entry.generation_id,
        )
    try:
        before = PointerFile(home).read()
    except PointerCorrupt:
        before = None
    previous = before.active if before else None
    if previous == entry:
        previous = before.previous if before else None
    pointer = Pointer(
        shard=verified.manifest.shard,
        active=entry,
        previous=previous,
        held_back=held_back,
        passed_over=_passed_over(before, entry, held_back),
    )
    body = to_canonical(pointer)
    AuditLog(home).append(change_of(before, pointer, occasion))
    files.replace_file(home / POINTER_FILE, [body, b"\n", content_id(body).encode(), b"\n"])
    return ActiveGeneration(verified, pointer)


def _passed_over(
    before: Pointer | None, entry: GenerationEntry, held_back: str | None
) -> tuple[str, ...]:
    known = {held_back} if before is None else {*before.passed_over, before.held_back, held_back}
    ascending = sorted(each for each in known if each not in {None, entry.generation_id})
    return tuple(ascending[-MAX_PASSED_OVER:])


def change_of(before: Pointer | None, pointer: Pointer, occasion: Occasion) -> Change:
    """What the receipt of a move of the pointer tells."""
    return Change(
        kind=occasion.kind,
        document="pointer",
        time=occasion.time,
        generation_id=pointer.active.generation_id,
        manifest_id=pointer.active.manifest_id,
        high_seq=pointer.active.high_seq,
        record_version=occasion.record_version,
        reason=occasion.reason,
        before=pointer_id(before) if before else None,
        after=pointer_id(pointer),
    )
