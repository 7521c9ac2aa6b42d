"""The signed repository of one shard: how the writer moves the record.

One TUF repository a shard. A change writes, in this order, the new targets' files,
``N.targets.json`` and ``N.snapshot.json`` (create-if-absent: a name that is taken is skipped, so an
attempt that died leaves only unreferenced files) and then replaces ``timestamp.json`` by
compare-and-swap. That last write is the one commit point: before it nothing of the change is
visible, after it all of it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    T,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from builder.keys import WriterKeys
from manifests.canonical import to_canonical
from manifests.errors import (
    HomeOccupied,
    LengthExceeded,
    ObjectMissing,
    StoreUnavailable,
    WriterFenced,
)
from manifests.identifiers import content_id
from manifests.names import CONTROL_TARGET, metadata_key, target_key
from manifests.record import ControlRecord
from store.port import Store
from store.signed import LIMITS_BYTES, SignedState, signed_by, signed_state, trusted_root

ROOT_KEY = metadata_key("1.root.json")
TIMESTAMP_KEY = metadata_key("timestamp.json")
TIMESTAMP_LIMIT_BYTES = LIMITS_BYTES[Timestamp.type]
MAX_SKIPPED_VERSIONS = 1000
ROOT_LIFETIME = timedelta(days=10 * 365)
TARGETS_LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class CurrentState:
    """What is signed now, and the token that replacing it needs."""

    signed: SignedState
    token: str


def make_root(root_key: CryptoSigner, keys: WriterKeys, now: datetime) -> bytes:
    """The first root metadata: which key signs which role. ``now`` is in UTC."""
    root = Root(version=1, expires=now + ROOT_LIFETIME, consistent_snapshot=True)
    online = keys.online
    for role, signer in (
        (Root.type, root_key),
        (Targets.type, keys.targets),
        (Snapshot.type, online),
        (Timestamp.type, online),
    ):
        root.roles[role] = Role([], 1)
        root.add_key(signer.public_key, role)
    return _sign(root, root_key)


def published_root(store: Store, keys: WriterKeys | None) -> bytes | None:
    """The root metadata that these keys have put in ``store``, or ``None``.

    Raises:
        HomeOccupied: the store belongs to other keys, or there are none.
    """
    found = store.get_versioned(ROOT_KEY, limit_bytes=LIMITS_BYTES[Root.type])
    if found is None:
        return None
    named = trusted_root(found.data).roles[Targets.type].keyids
    if keys is None or keys.targets.public_key.keyid not in named:
        raise HomeOccupied(
            f"the store {store.url} already belongs to another writer's home; choose an empty "
            "place",
            store=store.url,
        )
    return found.data


class Repository:
    """The signed metadata of one shard in one store, as its writer sees it."""

    def __init__(
        self, store: Store, root: bytes, keys: WriterKeys, timestamp_lifetime: timedelta
    ) -> None:
        self._store = store
        self._root_bytes = root
        self._root = trusted_root(root)
        self._keys = keys
        self._timestamp_lifetime = timestamp_lifetime

    def create(self, record: ControlRecord, now: datetime) -> bool:
        """Publish the first, empty record; returns ``False`` when the store has one already.

        Raises:
            HomeOccupied: the store belongs to another writer.
        """
        self._store.put_if_absent(ROOT_KEY, [self._root_bytes])
        published_root(self._store, self._keys)
        if self._store.stat(TIMESTAMP_KEY) is not None:
            return False
        self._write(None, record, (), now)
        return True

    def current(self) -> CurrentState:
        """What is signed now.

        Raises:
            ObjectMissing: the store holds no record.
            UnsignedRecord, TrustError: what it holds is not signed by this home's keys.
        """
        found = self._store.get_versioned(TIMESTAMP_KEY, limit_bytes=TIMESTAMP_LIMIT_BYTES)
        if found is None:
            raise ObjectMissing(
                f"the store {self._store.url} has no {TIMESTAMP_KEY}: it is not this home's, or "
                "has lost its record, or `genctl init` was interrupted",
                store=self._store.url,
            )
        return CurrentState(signed_state(self._root, found.data, self._get), found.version)

    def commit(
        self,
        current: CurrentState,
        record: ControlRecord,
        now: datetime,
        new_targets: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Replace ``current`` by ``record``; ``new_targets`` are ``(target path, bytes)``.

        Raises:
            WriterFenced: another writer moved the record since ``current`` was read.
        """
        self._write(current, record, new_targets, now)

    def restore_target(self, path: str, data: bytes) -> None:
        """Put a signed target back if the store has lost or damaged it."""
        key = target_key(path, TargetFile.from_data(path, data, ["sha256"]).hashes["sha256"])
        if self._store.put_if_absent(key, [data]):
            return
        if self._store.get(key, length=len(data) + 1) != data:
            self._store.delete(key)
            self._store.put_if_absent(key, [data])

    def _write(
        self,
        current: CurrentState | None,
        record: ControlRecord,
        new_targets: Sequence[tuple[str, bytes]],
        now: datetime,
    ) -> None:
        before = current.signed if current else None
        control = to_canonical(record)
        targets = dict(before.targets.targets) if before else {}
        for path, data in (*new_targets, (CONTROL_TARGET, control)):
            self.restore_target(path, data)
            target = TargetFile.from_data(path, data, ["sha256"])
            target.unrecognized_fields["custom"] = {"blake3": content_id(data)}
            targets[path] = target
        targets[CONTROL_TARGET].unrecognized_fields["custom"] = record.model_dump(mode="json")

        targets_version, targets_bytes = self._put_version(
            Targets(expires=now + TARGETS_LIFETIME, targets=targets),
            before.targets.version if before else 0,
            self._keys.targets,
        )
        meta = {"targets.json": MetaFile.from_data(targets_version, targets_bytes, ["sha256"])}
        snapshot_version, snapshot_bytes = self._put_version(
            Snapshot(expires=now + TARGETS_LIFETIME, meta=meta),
            before.snapshot.version if before else 0,
            self._keys.online,
        )
        timestamp = Timestamp(
            version=before.timestamp.version + 1 if before else 1,
            expires=now + self._timestamp_lifetime,
            snapshot_meta=MetaFile.from_data(snapshot_version, snapshot_bytes, ["sha256"]),
        )
        data = self._checked(timestamp, self._keys.online)
        self._swap(data, current.token if current else None)

    def _put_version(self, signed: T, last_version: int, signer: CryptoSigner) -> tuple[int, bytes]:
        for version in range(last_version + 1, last_version + 1 + MAX_SKIPPED_VERSIONS):
            signed.version = version
            data = self._checked(signed, signer)
            if self._store.put_if_absent(metadata_key(f"{version}.{signed.type}.json"), [data]):
                return version, data
        raise WriterFenced(
            f"{MAX_SKIPPED_VERSIONS} versions of {signed.type} after {last_version} are taken; "
            "another writer is far ahead of this home"
        )

    def _checked(self, signed: T, signer: CryptoSigner) -> bytes:
        """Sign, and refuse what no node would accept: a key that is not the role's, or the length.

        Raises:
            UnsignedRecord: the root names another key for this role.
            LengthExceeded: the record has outgrown what nodes read.
        """
        data = _sign(signed, signer)
        signed_by(self._root, data, type(signed))
        limit = LIMITS_BYTES[signed.type]
        if len(data) > limit:
            raise LengthExceeded(
                f"the {signed.type} metadata would have {len(data)} bytes, and nodes read at most "
                f"{limit}; nothing was changed",
                role=signed.type,
                size_bytes=len(data),
                limit_bytes=limit,
            )
        return data

    def _swap(self, timestamp: bytes, token: str | None) -> None:
        try:
            swapped = self._store.compare_and_swap(TIMESTAMP_KEY, timestamp, token)
        except StoreUnavailable:
            # The outcome is unknown: what the store holds now tells.
            found = self._store.get_versioned(TIMESTAMP_KEY, limit_bytes=TIMESTAMP_LIMIT_BYTES)
            if found is not None and found.data == timestamp:
                return
            if token == (found.version if found else None):
                raise
            swapped = False
        if not swapped:
            raise WriterFenced(
                "another writer moved the record first; nothing of this attempt is visible. Look "
                "at `genctl generations`, then run the command again",
                store=self._store.url,
            )

    def _get(self, file_name: str) -> bytes:
        return self._store.get(metadata_key(file_name), length=LIMITS_BYTES[Targets.type])


def _sign(signed: T, signer: CryptoSigner) -> bytes:
    metadata = Metadata(signed)
    metadata.sign(signer)
    return metadata.to_bytes(JSONSerializer(compact=True))
