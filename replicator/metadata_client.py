"""python-tuf's client, made durable and strict: what it accepts is marked, written and named.

python-tuf decides (https://theupdateframework.github.io/specification/latest/, section 5). What is
added here: the time it judges by is handed in, each document it accepts raises the high-water mark
on disk before it is stored, marks refuse what its cache may have forgotten, and its errors become
the ones an operator reads. Nothing here knows of genctl's own record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api import exceptions
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig

from durable import files
from manifests.errors import (
    BadRootRotation,
    FreezeSuspected,
    MetadataRollback,
    MixAndMatch,
    TrustError,
    UnsignedRecord,
    WrongRecordType,
)
from manifests.identifiers import content_id
from replicator import trust_rules
from replicator.high_water import ROOT_HISTORY, HighWater, HighWaterFile, RoleMark
from replicator.metadata_fetcher import METADATA_BASE, TARGETS_BASE, MetadataFetcher
from store.signed import (
    LIMITS_BYTES,
    refuse_other_shard,
    shard_of,
    signed_by,
    strict_metadata,
    trusted_root,
)

_KINDS: dict[str, Any] = {kind.type: kind for kind in (Root, Timestamp, Snapshot, Targets)}
_CONFIG = UpdaterConfig(
    root_max_length=LIMITS_BYTES[Root.type],
    timestamp_max_length=LIMITS_BYTES[Timestamp.type],
    snapshot_max_length=LIMITS_BYTES[Snapshot.type],
    targets_max_length=LIMITS_BYTES[Targets.type],
)


class MetadataClient(Updater):
    """One refresh of the metadata in ``folder``, anchored in ``root``; used once, under a lock.

    Args:
        folder: where accepted metadata and the mark are kept.
        root: the root of trust that was handed over, never one from ``folder``.
        fetcher: reads the store.
        now: the time to judge expiry by, in UTC.
        minimum_version: the least timestamp version with which a new node may start.
        check_targets: called with new, valid targets and the mark before they are accepted; what it
            raises refuses them.
        target_folder: where :meth:`download_target` puts targets.

    Raises:
        UnsignedRecord, WrongRecordType: ``root`` is no root of trust.
        TrustStateCorrupt: the mark is damaged.
    """

    def __init__(
        self,
        folder: Path,
        root: bytes,
        fetcher: MetadataFetcher,
        now: datetime,
        *,
        minimum_version: int | None = None,
        check_targets: Callable[[Targets, HighWater], int | None] = lambda _, __: None,
        target_folder: Path | None = None,
    ) -> None:
        trusted_root(root)
        self._folder = folder
        self._mark_file = HighWaterFile(folder)
        self._mark = self._mark_file.read()
        self._is_new = self._mark.timestamp is None
        self._metadata = fetcher
        self._anchor = root
        self._minimum_version = minimum_version
        self._check_targets = check_targets
        files.make_folder(folder / ROOT_HISTORY)
        for each in (folder, folder / ROOT_HISTORY):
            files.remove_temporaries(each)
            self._mark_file.refuse_obstructed(each)
        super().__init__(
            str(folder),
            METADATA_BASE,
            None if target_folder is None else str(target_folder),
            TARGETS_BASE,
            fetcher=fetcher,
            config=_CONFIG,
            bootstrap=root,
        )
        fetcher.check = self._check_copy
        # The one place where python-tuf keeps the time it judges by; it reads the clock when made.
        self._trusted_set.reference_time = now

    @property
    def targets(self) -> Targets:
        """The top-level targets, after :meth:`refresh`."""
        return self._trusted_set.targets

    def refresh(self) -> None:
        """Follow the store to its newest metadata, accepting role by role (TUF section 5.3).

        Raises:
            FreezeSuspected: something of it has expired; the fact ``role`` is there for a root.
            MetadataRollback, VersionJump: a version is behind, or too far ahead of, what was seen.
            ForkDetected: it is signed, and not what was signed under this version before.
            BelowMinimumVersion: this node is new, and the record too old.
            ClockSuspect: it was signed at a time that has not come here.
            BadRootRotation: the next root is not signed by the one before it and by itself, or is
                of another shard.
            MixAndMatch: it is signed, and not what the metadata above it names.
            WrongRecordType: it is another role's.
            UnsignedRecord, TrustError: it is not signed as it should be, or cannot be read.
            LengthExceeded, ObjectMissing, TransferDeadline, StoreUnavailable, BodyMismatch: see
                :class:`MetadataFetcher`.
        """
        try:
            super().refresh()
        except exceptions.RepositoryError as error:
            raise self._named(error) from error

    # python-tuf calls the following; their names are its own.

    def _load_root(self) -> None:
        super()._load_root()
        root = self._trusted_set.root
        trust_rules.refuse_behind(Root.type, root.version, self._mark.root)
        self._mark = trust_rules.without_revoked(self._mark, root)

    def _load_timestamp(self) -> None:
        super()._load_timestamp()
        # Of the version that is cached, python-tuf keeps the cached one and does not look again.
        self._check_timestamp(self._metadata.data)
        if self._trusted_set.timestamp.is_expired(self._trusted_set.reference_time):
            raise exceptions.ExpiredMetadataError("timestamp.json is expired")

    def _load_local_metadata(self, rolename: str) -> bytes:
        data = files.read_file(self._folder / f"{rolename}.json")
        try:
            strict_metadata(data, rolename)
        except UnsignedRecord as error:
            raise exceptions.RepositoryError(error.message) from error
        if rolename == Snapshot.type:
            # python-tuf takes a cached snapshot of the named version without comparing its hash.
            named, mark = self._trusted_set.timestamp.snapshot_meta, self._mark.snapshot
            if mark is not None and named.version == mark.version and named.hashes:
                named.verify_length_and_hashes(data)
        return data

    def _persist_root(self, version: int, data: bytes) -> None:
        if data != self._anchor:
            # The one before it was just accepted, and so is there.
            before = self._folder / ROOT_HISTORY / f"{version - 1}.root.json"
            with files.translated(before):
                root = trusted_root(files.read_file(before))
            refuse_other_shard(shard_of(root), self._trusted_set.root)
        # A chain that is fetched anew after the cache was lost begins below the mark.
        if data != self._anchor and (self._mark.root is None or version >= self._mark.root.version):
            self._raise_mark(Root.type, data)
        self._store(f"{ROOT_HISTORY}/{version}.root.json", data)

    def _update_root_symlink(self) -> None:
        """The chain from the anchor is walked each time; nothing reads the last root by itself."""

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        if rolename == Timestamp.type:
            self._check_timestamp(data)
            self._raise_mark(
                rolename,
                data,
                signed_at=_newer(
                    self._mark.signed_at, trust_rules.signed_at(self._trusted_set.timestamp)
                ),
            )
        elif rolename == Snapshot.type:
            self._check_snapshot()
            self._raise_mark(rolename, data)
        elif rolename == Targets.type:
            trust_rules.refuse_behind(rolename, self.targets.version, self._mark.targets)
            self._raise_mark(
                rolename, data, active_high_seq=self._check_targets(self.targets, self._mark)
            )
        super()._persist_metadata(rolename, data)

    def _persist_file(self, filename: str, data: bytes) -> None:
        self._store(Path(filename).name, data)

    def _check_copy(self, role: str, data: bytes) -> None:
        """Refuse a store's copy that cannot be what is looked for, where others may have it."""
        trusted = self._trusted_set
        if role not in _KINDS:
            return
        signed_by(trusted.root, data, _KINDS[role])
        if role == Root.type:
            following = trusted_root(data)
            refuse_other_shard(shard_of(trusted.root), following)
            if following.version != trusted.root.version + 1:
                raise exceptions.BadVersionNumberError(f"it is version {following.version}")
        named = self._named_meta(role) if role in {Snapshot.type, Targets.type} else None
        if named is not None:
            named.verify_length_and_hashes(data)

    # Rules that need more than one document.

    def _check_timestamp(self, data: bytes) -> None:
        timestamp, mark = self._trusted_set.timestamp, self._mark
        trust_rules.refuse_behind(Timestamp.type, timestamp.version, mark.timestamp)
        self._refuse_fork(Timestamp.type, timestamp.version, data)
        if self._is_new:
            trust_rules.refuse_below_minimum(timestamp.version, self._minimum_version)
        trust_rules.refuse_clock_behind(
            self._trusted_set.reference_time, trust_rules.signed_at(timestamp)
        )
        trust_rules.refuse_behind(Snapshot.type, timestamp.snapshot_meta.version, mark.snapshot)

    def _check_snapshot(self) -> None:
        snapshot = self._trusted_set.snapshot
        trust_rules.refuse_behind(Snapshot.type, snapshot.version, self._mark.snapshot)
        named = snapshot.meta.get(f"{Targets.type}.json")
        if named is not None:
            trust_rules.refuse_behind(Targets.type, named.version, self._mark.targets)

    def _refuse_fork(self, role: str, version: int, data: bytes) -> None:
        mark: RoleMark | None = getattr(self._mark, role)
        trust_rules.refuse_fork(role, version, _marked_sha256(role, data), content_id(data), mark)

    def _raise_mark(self, role: str, data: bytes, **more: object) -> None:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
        self._refuse_fork(role, metadata.signed.version, data)
        result = self._trusted_set.root.get_verification_result(
            role, metadata.signed_bytes, metadata.signatures
        )
        mark = RoleMark(
            version=metadata.signed.version,
            sha256=_marked_sha256(role, data),
            key_ids=tuple(sorted(result.signed)),
        )
        raised = self._mark.model_copy(update={role: mark, **more})
        if raised != self._mark:
            self._mark_file.write(raised)
            self._mark = raised

    def _store(self, name: str, data: bytes) -> None:
        path = self._folder / name
        with files.translated(path):
            is_there = path.is_file() and path.read_bytes() == data
        if not is_there:
            files.replace_file(path, [data])

    # What python-tuf refused, by the name that says what to do.

    def _named(self, error: exceptions.RepositoryError) -> TrustError:
        role = self._metadata.role
        if isinstance(error, exceptions.ExpiredMetadataError):
            root = self._trusted_set.root
            if root.is_expired(self._trusted_set.reference_time):
                return FreezeSuspected(
                    f"the root of trust, version {root.version}, has expired at {root.expires}; "
                    "nothing new is activated until the writer has a newer one signed: `genctl "
                    "keys renew HOME` there. Or the store hides a newer one",
                    role=Root.type,
                    known_version=root.version,
                )
            return FreezeSuspected(
                f"the signed metadata has expired ({error}); nothing new is activated until the "
                "writer signs again: `genctl keys refresh` there",
                role=role,
            )
        if role == Root.type:
            return BadRootRotation(
                f"{self._metadata.source} is no next root of trust, signed by the present one and "
                f"by itself: {error}",
                known_version=self._trusted_set.root.version,
            )
        if role not in _KINDS:
            return TrustError(f"{role} cannot be accepted: {error}", role=role)
        try:
            signed = signed_by(self._trusted_set.root, self._metadata.data, _KINDS[role])
        except (UnsignedRecord, WrongRecordType) as refusal:
            return refusal
        if isinstance(error, exceptions.LengthOrHashMismatchError) or (
            role != Timestamp.type and signed.version != self._named_version(role)
        ):
            return MixAndMatch(
                f"the {role} metadata is signed, but not what the metadata above it names "
                f"({error}): old and new were mixed",
                role=role,
                offered_version=signed.version,
                named_version=self._named_version(role),
            )
        if isinstance(error, exceptions.BadVersionNumberError):
            return MetadataRollback(
                f"the {role} metadata goes back behind what was seen before: {error}",
                role=role,
                offered_version=signed.version,
            )
        return TrustError(f"the {role} metadata cannot be accepted: {error}", role=role)

    def _named_version(self, role: str) -> int | None:
        named = self._named_meta(role)
        return None if named is None else named.version

    def _named_meta(self, role: str) -> MetaFile | None:
        """What the metadata above that of ``role`` says of it."""
        if role == Snapshot.type:
            return self._trusted_set.timestamp.snapshot_meta
        return self._trusted_set.snapshot.meta.get(f"{role}.json")


def _marked_sha256(role: str, data: bytes) -> str:
    """What a mark keeps of a document; of a root its signed part: holders may add signatures."""
    marked = Metadata[Root].from_bytes(data).signed_bytes if role == Root.type else data
    return hashlib.sha256(marked).hexdigest()


def _newer(known: str | None, offered: str | None) -> str | None:
    """The later of two times in one form, of which either may be missing."""
    return max(filter(None, (known, offered)), default=None)
