"""The capsule: one commit as bytes (envelope v1).

A msgpack map of nine keys, in this order: ``version`` (1), ``shard``, ``commit_seq`` (from 1),
``predecessor`` (the ``commit_id`` of the capsule before; 64 zeros for the first), ``message_id``,
``source``, ``ts_ms`` (milliseconds since 1970, UTC), ``meta`` (strings by name) and ``operations``
(maps with ``op`` ``"upsert"`` or ``"delete"``, see :mod:`commits.documents`). Keys inside ``meta``
and ``fields`` are sorted, integers and strings take the shortest form msgpack has, so the same
values are always the same bytes. ``commit_id`` is the BLAKE3 of those bytes, and naming the
predecessor's makes the log a hash chain.

Of the draft envelope in the gate-and-spool document it takes ``version``, ``ts_ms``, ``source``,
``meta`` and, per operation, ``id``; msgpack as the encoding; and idempotent re-emission
(``message_id``) and tombstones (delete operations). ``text_hash`` and ``char_len`` follow from the
text, which is carried, and are covered by ``commit_id``. ``pii``, ``tags``, ``intent_hint``,
``routing_hints``, ``summary_extractive`` and the ``embed_`` fields are what a classifier in front
of the log finds out; none of it decides how a commit is stored or built. Such a classifier can put
them into a document's ``fields`` or a commit's ``meta``, where they travel unread.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from commits.documents import Operation
from manifests.errors import SchemaTooNew

VERSION = 1
NO_COMMIT_ID = "0" * 64
# How every capsule starts: a map of nine entries, the first of them the version.
CAPSULE_PREFIX = b"\x89\xa7version\x01"

_Blake3Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Seq = Annotated[int, msgspec.Meta(ge=1)]


class Envelope(msgspec.Struct, frozen=True):
    """What the log needs to know of a capsule to order it; the rest is skipped unread."""

    version: int
    shard: str
    commit_seq: _Seq
    predecessor: _Blake3Hex
    message_id: str


class Capsule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One commit: an atomic batch of operations and its place in the log."""

    version: int
    shard: str
    commit_seq: _Seq
    predecessor: _Blake3Hex
    message_id: str
    source: str
    ts_ms: int
    meta: dict[str, str]
    operations: tuple[Operation, ...]


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
_decode_capsule = msgspec.msgpack.Decoder(Capsule).decode


def encode(capsule: Capsule) -> bytes:
    """The capsule's bytes: the same for the same values."""
    return _encode(capsule)


def decode_envelope(data: bytes) -> Envelope:
    """Read a capsule's envelope.

    Raises:
        ValueError: not a capsule.
        SchemaTooNew: of a newer version.
    """
    envelope = _decode_envelope(data)
    if envelope.version > VERSION:
        raise SchemaTooNew(
            f"commit {envelope.commit_seq} has envelope version {envelope.version}; this genctl "
            f"reads version {VERSION}",
            found_version=envelope.version,
            known_version=VERSION,
        )
    if envelope.version != VERSION:
        raise ValueError(f"there is no envelope version {envelope.version}")
    return envelope


def decode(data: bytes) -> Capsule:
    """Read a capsule; the inverse of :func:`encode`.

    Raises:
        ValueError: not a capsule, or one with keys that version 1 does not have.
        SchemaTooNew: of a newer version.
    """
    decode_envelope(data)
    try:
        return _decode_capsule(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
