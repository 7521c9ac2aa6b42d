"""The signed repository of one shard: how the writer moves the record.

One TUF repository a shard. A change writes, in this order, the new targets' files,
``N.targets.json`` and ``N.snapshot.json`` (create-if-absent: a name that is taken is skipped, so an
attempt that died leaves only unreferenced files) and then replaces ``timestamp.json`` by
compare-and-swap. That last write is the one commit point: before it nothing of the change is
visible, after it all of it is.

A new root is one more object, ``N.root.json``, created in all stores. Where it gives targets or
online other keys, what is signed then counts for nobody until it is signed anew; till then the
writer, and only it, goes on from the root before (:attr:`Repository.root_before`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from securesystemslib.signer import Signer
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    T,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from builder.keys import ONLINE, TARGETS, RoleName
from builder.published_roots import occupied
from builder.signers import sign
from manifests.canonical import to_canonical
from manifests.errors import (
    LengthExceeded,
    ObjectMissing,
    StoreUnavailable,
    UnsignedRecord,
    WriterFenced,
)
from manifests.identifiers import content_id
from manifests.names import CONTROL_TARGET, manifest_target, metadata_key, target_key
from manifests.record import ControlRecord
from store.port import Store, VersionedBytes
from store.signed import LIMITS_BYTES, SIGNED_AT, SignedState, signed_state, trusted_root

TIMESTAMP_KEY = metadata_key("timestamp.json")
TIMESTAMP_LIMIT_BYTES = LIMITS_BYTES[Timestamp.type]
MAX_SKIPPED_VERSIONS = 1000
MAX_UNTOLD_SIGNINGS = 2**24
"""So often a writer may sign again after the version that its receipts name: every two seconds for
a year. Half of what nodes take for a jump, so that they follow wherever it goes on from."""
TARGETS_LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class CurrentState:
    """What is signed now, and the token that replacing it needs.

    ``is_superseded``: by keys of the root before; nodes that know the newest root refuse it.
    """

    signed: SignedState
    token: str
    is_superseded: bool = False


class Repository:
    """The signed metadata of one shard in one store, as its writer sees it.

    Args:
        store: where it is.
        root: the newest root of trust.
        keys: gives what signs as a role; called when something is to be signed.
        timestamp_lifetime: how long a timestamp holds.
        root_before: the root by whose keys the store's metadata may still be signed.
    """

    def __init__(
        self,
        store: Store,
        root: bytes,
        keys: Callable[[RoleName], Sequence[Signer]],
        timestamp_lifetime: timedelta,
        *,
        root_before: bytes | None = None,
    ) -> None:
        self._store = store
        self._root_bytes = root
        self._root = trusted_root(root)
        self._keys = keys
        self._timestamp_lifetime = timestamp_lifetime
        self.root_before = None if root_before is None else trusted_root(root_before)

    def create(self, record: ControlRecord, now: datetime) -> bool:
        """Publish the first, empty record; returns ``False`` when the store has one already.

        Raises:
            HomeOccupied: the store belongs to another writer.
        """
        key = metadata_key(f"{self._root.version}.root.json")
        self._store.put_if_absent(key, [self._root_bytes])
        if self._store.get(key, length=LIMITS_BYTES[Root.type] + 1) != self._root_bytes:
            raise occupied(self._store)
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
        found = self._timestamp_now()
        while True:
            try:
                return self._signed(found)
            except ObjectMissing:
                # A collection takes old versions: who stalled in between reads the newest instead.
                before, found = found, self._timestamp_now()
                if found.version == before.version:
                    raise

    def _timestamp_now(self) -> VersionedBytes:
        found = self._store.get_versioned(TIMESTAMP_KEY, limit_bytes=TIMESTAMP_LIMIT_BYTES)
        if found is None:
            raise ObjectMissing(
                f"the store {self._store.url} has no {TIMESTAMP_KEY}: it is not this home's, or "
                "has lost its record, or `genctl init` was interrupted",
                store=self._store.url,
            )
        return found

    def _signed(self, found: VersionedBytes) -> CurrentState:
        try:
            return CurrentState(signed_state(self._root, found.data, self._get), found.version)
        except UnsignedRecord:
            if self.root_before is None:
                raise
            before = signed_state(self.root_before, found.data, self._get)
            return CurrentState(before, found.version, is_superseded=True)

    def refresh(self, current: CurrentState, now: datetime) -> None:
        """Sign the timestamp anew, so that it expires later; nothing else changes.

        Targets and snapshot are signed anew as well when less than half of their life is left, and
        only then is the targets key needed. ``current`` is not superseded.

        Raises:
            WriterFenced: another writer moved the record since ``current`` was read.
        """
        signed = current.signed
        ends = min(signed.targets.expires, signed.snapshot.expires)
        if ends - now < TARGETS_LIFETIME / 2:
            self.commit(current, signed.record, now)
            return
        timestamp = signed.timestamp
        data = self._timestamp(timestamp.version + 1, timestamp.snapshot_meta, now)
        self._swap(data, current.token)

    def commit(
        self,
        current: CurrentState,
        record: ControlRecord,
        now: datetime,
        new_targets: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Replace ``current`` by ``record``; ``new_targets`` are ``(target path, bytes)``.

        ``current`` is not superseded. Of its targets, the manifests of published generations stay.

        Raises:
            WriterFenced: another writer moved the record since ``current`` was read.
        """
        self._write(current, record, new_targets, now)

    def sign_anew(
        self,
        current: CurrentState,
        manifests: Sequence[tuple[str, bytes]],
        last_version: int,
        now: datetime,
    ) -> None:
        """Sign the record of a superseded state with the keys of the newest root.

        Whoever had the old keys chose the other targets and the versions: of the targets only
        ``manifests`` are signed, and versions go on from no higher one than the writer itself can
        have come to (a jump to one that nobody could go beyond; FAULTS row 21).

        Args:
            current: what is signed by the keys of the root before.
            manifests: target paths and bytes of what can be read.
            last_version: the last version of the timestamp that the writer knows it signed.
            now: the time, in UTC.

        Raises:
            WriterFenced: another writer moved the record since ``current`` was read.
        """
        signed = copy.deepcopy(current.signed)
        signed.targets.targets.clear()
        for each in (signed.targets, signed.snapshot, signed.timestamp):
            each.version = min(each.version, last_version + MAX_UNTOLD_SIGNINGS)
        self._write(CurrentState(signed, current.token), signed.record, manifests, now)

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
        known = before.targets.targets if before else {}
        readable = {manifest_target(entry.generation_id) for entry in record.published}
        targets = {path: target for path, target in known.items() if path in readable}
        for path, data in (*new_targets, (CONTROL_TARGET, control)):
            self.restore_target(path, data)
            target = TargetFile.from_data(path, data, ["sha256"])
            target.unrecognized_fields["custom"] = {"blake3": content_id(data)}
            targets[path] = target
        targets[CONTROL_TARGET].unrecognized_fields["custom"] = record.model_dump(mode="json")

        as_targets, as_online = self._keys(TARGETS), self._keys(ONLINE)
        targets_version, targets_bytes = self._put_version(
            Targets(expires=now + TARGETS_LIFETIME, targets=targets),
            before.targets.version if before else 0,
            as_targets,
        )
        meta = {"targets.json": MetaFile.from_data(targets_version, targets_bytes, ["sha256"])}
        snapshot_version, snapshot_bytes = self._put_version(
            Snapshot(expires=now + TARGETS_LIFETIME, meta=meta),
            before.snapshot.version if before else 0,
            as_online,
        )
        named = MetaFile.from_data(snapshot_version, snapshot_bytes, ["sha256"])
        version = before.timestamp.version + 1 if before else 1
        data = self._timestamp(version, named, now)
        self._swap(data, current.token if current else None)

    def _timestamp(self, version: int, named: MetaFile, now: datetime) -> bytes:
        timestamp = Timestamp(
            version=version,
            expires=now + self._timestamp_lifetime,
            snapshot_meta=named,
            unrecognized_fields={SIGNED_AT: now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
        )
        return self._checked(timestamp, self._keys(ONLINE))

    def _put_version(
        self, signed: T, last_version: int, signers: Sequence[Signer]
    ) -> tuple[int, bytes]:
        for version in range(last_version + 1, last_version + 1 + MAX_SKIPPED_VERSIONS):
            signed.version = version
            data = self._checked(signed, signers)
            if self._store.put_if_absent(metadata_key(f"{version}.{signed.type}.json"), [data]):
                return version, data
        raise WriterFenced(
            f"{MAX_SKIPPED_VERSIONS} versions of {signed.type} after {last_version} are taken; "
            "another writer is far ahead of this home"
        )

    def _checked(self, signed: T, signers: Sequence[Signer]) -> bytes:
        """Sign, and refuse what no node would accept: a key that is not the role's, or the length.

        Raises:
            UnsignedRecord: the root names another key for this role.
            LengthExceeded: the record has outgrown what nodes read.
            SignerUnavailable: a key service did not sign.
        """
        metadata = Metadata(signed)
        payload = sign(metadata, signers)
        role = signed.type
        if not self._root.get_verification_result(role, payload, metadata.signatures):
            raise UnsignedRecord(
                f"what was to be signed as {role} is not signed by the keys that root version "
                f"{self._root.version} names; `genctl keys show` tells which those are",
                role=role,
            )
        data = metadata.to_bytes(JSONSerializer(compact=True))
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
        except StoreUnavailable as error:
            # The outcome is unknown: what the store holds now tells.
            found = self._store.get_versioned(TIMESTAMP_KEY, limit_bytes=TIMESTAMP_LIMIT_BYTES)
            if found is not None and found.data == timestamp:
                return
            if token == (found.version if found else None):
                raise
            raise WriterFenced(
                "the store did not say whether the record was moved, and another writer has moved "
                "it since. Look at `genctl generations`, then run the command again",
                store=self._store.url,
            ) from error
        if not swapped:
            raise WriterFenced(
                "another writer moved the record first; nothing of this attempt is visible. Look "
                "at `genctl generations`, then run the command again",
                store=self._store.url,
            )

    def _get(self, file_name: str) -> bytes:
        return self._store.get(metadata_key(file_name), length=LIMITS_BYTES[Targets.type])
