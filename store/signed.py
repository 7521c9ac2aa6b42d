"""The signed metadata of a shard, read and checked without any network or clock.

TUF metadata (https://theupdateframework.github.io/specification/latest/) says which record is
current. Nodes follow it with python-tuf's own client; this module is for the two readers that
already hold the bytes: the writer, which reads what it is about to replace, and a node's query,
which re-checks what its last refresh stored. Expiry is the callers' business: an expired record
must not be activated, but what it made active goes on serving.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, T, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from manifests.canonical import parse_parsed, parse_strict
from manifests.errors import (
    BadRootRotation,
    ManifestMalformed,
    MixAndMatch,
    UnsignedRecord,
    WrongRecordType,
)
from manifests.names import CONTROL_TARGET
from manifests.record import SCHEMA_VERSION, ControlRecord

LIMITS_BYTES = {
    Root.type: 512_000,
    Timestamp.type: 16_384,
    Snapshot.type: 2_000_000,
    Targets.type: 64 * 1024 * 1024,
}
"""How long each role's metadata may be: nodes read no more, so the writer signs no more."""

SIGNED_AT = "signed_at"
"""The field of a timestamp that says when it was signed, ``2026-01-31T12:00:00Z``; no TUF field."""

SHARD = "shard"
"""The field of a root that says whose root it is; no TUF field. Old roots do not have it."""

_SIGNATURE = re.compile(r"[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class SignedState:
    """One consistent, signed state of a shard."""

    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    record: ControlRecord


def trusted_root(data: bytes) -> Root:
    """The root of trust from bytes that were handed over out of band.

    Raises:
        UnsignedRecord: it is not metadata, or not signed by its own keys.
        WrongRecordType: it is the metadata of another role.
    """
    root = _parse(data, Root)
    try:
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except (RepositoryError, ValueError) as error:
        raise UnsignedRecord(f"root.json is not signed by its own root keys: {error}") from error
    return root.signed


def shard_of(root: Root) -> str | None:
    """The shard that a root is of; ``None`` for one that does not say it.

    Raises:
        UnsignedRecord: it says something else than a name.
    """
    shard = root.unrecognized_fields.get(SHARD)
    if shard is not None and not isinstance(shard, str):
        raise UnsignedRecord(f"{SHARD} of the root of trust is no name")
    return shard


def refuse_other_shard(shard: str | None, root: Root) -> None:
    """Refuse a root of another shard, whose holders may be the same.

    ``shard`` is the one that is followed here; ``None`` if that is not known.

    Raises:
        BadRootRotation: it is of another, or does not say so any more.
    """
    found = shard_of(root)
    if shard is not None and found != shard:
        raise BadRootRotation(
            f"root version {root.version} is of shard {found or 'unknown'}, and this is {shard}: "
            "somebody put it there. Remove it from the store",
            shard=found,
            known_shard=shard,
        )


def signed_by(root: Root, data: bytes, kind: type[T]) -> T:
    """Metadata of one role, checked against the keys that ``root`` names for it.

    Raises:
        UnsignedRecord: malformed, or not signed by enough of the role's keys.
        WrongRecordType: it is the metadata of another role.
    """
    metadata = _parse(data, kind)
    try:
        root.verify_delegate(kind.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise UnsignedRecord(f"{kind.type} metadata: {error}", role=kind.type) from error
    return metadata.signed


def signed_state(root: Root, timestamp: bytes, read: Callable[[str], bytes]) -> SignedState:
    """Follow ``timestamp`` to the snapshot and the targets it names, checking each before the next.

    Args:
        root: the trusted root.
        timestamp: the bytes of ``timestamp.json``.
        read: gives the bytes of a versioned metadata file (``7.snapshot.json``).

    Raises:
        UnsignedRecord: a signature is missing.
        WrongRecordType: one file stands in the place of another's.
        MixAndMatch: the files do not belong together.
        ManifestMalformed: the control record in the targets is not one.
    """
    signed_timestamp = signed_by(root, timestamp, Timestamp)
    try:
        named = signed_timestamp.snapshot_meta
        data = read(f"{named.version}.snapshot.json")
        named.verify_length_and_hashes(data)
        signed_snapshot = signed_by(root, data, Snapshot)
        named = signed_snapshot.meta["targets.json"]
        data = read(f"{named.version}.targets.json")
        named.verify_length_and_hashes(data)
        signed_targets = signed_by(root, data, Targets)
    except (LengthOrHashMismatchError, KeyError) as error:
        raise MixAndMatch(f"timestamp, snapshot and targets do not match: {error}") from error
    return SignedState(
        signed_timestamp, signed_snapshot, signed_targets, control_record(signed_targets)
    )


def control_record(targets: Targets) -> ControlRecord:
    """The control record that signed targets carry.

    Raises:
        ManifestMalformed: there is none, or it is not of the known form.
        SchemaTooNew: a newer genctl wrote it.
    """
    target = targets.targets.get(CONTROL_TARGET)
    custom = target.unrecognized_fields.get("custom") if target else None
    if not isinstance(custom, dict):
        raise ManifestMalformed(f"{CONTROL_TARGET} carries no control record")
    return parse_parsed(custom, ControlRecord, SCHEMA_VERSION)


def strict_metadata(data: bytes, what: str) -> None:
    """Refuse TUF metadata that could be read in two ways; its signatures are not looked at yet.

    Signatures are lower-case hexadecimal: in capitals, other bytes would be just as validly signed.

    Raises:
        UnsignedRecord: see :func:`manifests.canonical.parse_strict`; what was signed is not this.
    """
    try:
        document = parse_strict(data, what)
    except ManifestMalformed as error:
        raise UnsignedRecord(f"this is no signed metadata: {error.message}") from error
    signatures = document.get("signatures")
    for signature in signatures if isinstance(signatures, list) else ():
        value = signature.get("sig") if isinstance(signature, dict) else None
        if not isinstance(value, str) or not _SIGNATURE.fullmatch(value):
            raise UnsignedRecord(f"{what}: a signature is not in lower-case hexadecimal digits")


def _parse(data: bytes, kind: type[T]) -> Metadata[T]:
    strict_metadata(data, f"{kind.type} metadata")
    try:
        metadata: Metadata[T] = Metadata.from_bytes(data)
    except DeserializationError as error:
        raise UnsignedRecord(f"this is no {kind.type} metadata: {error}", role=kind.type) from error
    if not isinstance(metadata.signed, kind):
        raise WrongRecordType(
            f"expected {kind.type} metadata, found {metadata.signed.type} metadata",
            role=kind.type,
            found_role=metadata.signed.type,
        )
    return metadata
