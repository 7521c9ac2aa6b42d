"""What a writer's home signs with and upon: its root of trust, its keys, what it signed last.

A home signs nothing upon a record that is older than the one it signed last, or that somebody else
signed, and ends first what a killed command left undone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Root

from builder.keys import RoleName
from builder.publish import Publisher
from builder.published_roots import newer_roots, publish_root
from builder.repository import CurrentState
from builder.shelf import Shelf
from builder.signers import KeyRing
from controller import clock, passphrases, settings, wiring
from controller.signed_last import SignedLastFile, signed_timestamp
from controller.writer_receipts import ReceiptedRepository, record_id
from durable import files
from durable.audit_log import AuditLog
from index.residence import Residence
from manifests.errors import (
    ForeignRecord,
    HomeMissing,
    ObjectMissing,
    RetryError,
    TrustError,
    WriterFenced,
)
from manifests.identifiers import content_id
from manifests.names import manifest_target, metadata_key
from manifests.receipts import Change
from manifests.record import ControlRecord, accept_manifest
from store.signed import LIMITS_BYTES, refuse_other_shard, shard_of, trusted_root
from store.spread import MAX_MIRRORED_SIZE_BYTES, RECORD_KEY, SpreadStore

ROOT_FILE = "root.json"
DRAFT_FILE = "root_draft.json"
ROOT_BEFORE_FILE = "root_before.json"


class SigningHome:
    """A writer's home as far as it signs: keys, root of trust, the record in the stores."""

    def __init__(self, home: Path) -> None:
        """Open an existing home.

        Raises:
            HomeMissing: there is none; run ``genctl init``.
            BadSetting: its settings cannot be read.
        """
        self.home = home
        self.settings = self._saved_settings()
        self.residence = Residence(home)
        self.audit = AuditLog(home)
        self.signed_last = SignedLastFile(home)
        self.key_ring = KeyRing(home.absolute(), os.environ, passphrases.ask)
        self._stores: SpreadStore | None = None
        self._shelf = Shelf(home / "symbols", self.residence, store_count=len(self.settings.stores))

    def _saved_settings(self) -> settings.WriterSettings:
        return settings.load(
            self.home / settings.WRITER_FILE,
            settings.WriterSettings,
            "a writer's home; `genctl init` makes one",
        )

    @contextlib.contextmanager
    def exclusively(self, purpose: str) -> Iterator[None]:
        """Hold the home's lock for one command.

        Raises:
            HomeLocked: another command holds it.
        """
        with files.locked(self.home / "lock", purpose):
            # Another command may have saved other signers since this process read them.
            signers = self._saved_settings().signers
            self.settings = self.settings.model_copy(update={"signers": signers})
            self.residence.prepare()
            for folder in (self.home, self.home / "keys"):
                files.remove_temporaries(folder)
            yield

    def store(self) -> SpreadStore:
        """The stores of this home, as one; always the same object, which knows what it proved."""
        if self._stores is None:
            self._stores = wiring.open_stores(self.settings.stores)
        return self._stores

    def root_bytes(self) -> bytes:
        """The newest root of trust that this home knows.

        Raises:
            HomeMissing: ``init`` was interrupted, or waits for signatures.
        """
        root = self.home / ROOT_FILE
        try:
            return files.read_file(root)
        except OSError as error:
            raise HomeMissing(
                f"{root} cannot be read ({error.strerror}); run `genctl init` again, or "
                "`genctl keys publish` where the root of trust waits for signatures"
            ) from error

    def repository(self) -> ReceiptedRepository:
        """The signed repository in the store. Keys are opened when something is signed.

        Whatever it signs leaves a receipt.

        Raises:
            HomeMissing: see :meth:`root_bytes`.
        """
        root = self.root_bytes()
        before = self.home / ROOT_BEFORE_FILE
        with files.translated(before):
            root_before = files.read_file(before) if before.exists() else None
        return ReceiptedRepository(
            self.audit,
            self.signed_last,
            self.store(),
            root,
            self.keys,
            timedelta(hours=self.settings.timestamp_lifetime_hours),
            root_before=root_before,
        )

    def keys(self, role: RoleName) -> Sequence[Signer]:
        """What signs as ``role`` under the newest root; keys of other roles are not opened.

        Raises:
            BadSetting, SignerUnavailable: see :meth:`KeyRing.sign_as`.
        """
        references = getattr(self.settings.signers, role)
        return self.key_ring.sign_as(trusted_root(self.root_bytes()), role, references)

    def follow_root(self) -> None:
        """Take up the newest root that the store has. The lock is held; no key is needed.

        Copies of the record are brought up first, unless the first store's is an old one.

        Raises:
            RecordPutBack, ForeignRecord: see :meth:`refuse_put_back`.
            BadRootRotation: the store has the root of another shard.
            UnsignedRecord: the store has a root that the one before it did not sign.
            StoreUnavailable: run the command again.
        """
        self.refuse_put_back()
        self.store().mend(RECORD_KEY)
        root_before = self.home / ROOT_BEFORE_FILE
        if root_before.exists() and self._is_signed_anew():
            files.remove_file(root_before)  # the next root has another before it
        for root in newer_roots(self.store(), self.root_bytes()):
            if shard_of(trusted_root(root)) is not None:
                refuse_other_shard(self.settings.shard, trusted_root(root))
            # A kill may have come between two stores, or the first has it damaged.
            self.store().mend(metadata_key(f"{trusted_root(root).version}.root.json"))
            publish_root(self.store(), root)
            self.adopt_root(root)

    def refuse_put_back(self) -> None:
        """Refuse a first store that does not show what this home signed last, or what came after.

        What nobody signed is damage, which is found where it is read.

        Raises:
            RecordPutBack, ForeignRecord: see :meth:`SignedLast.refuse_other`.
            SignedLastCorrupt: the home does not know what it signed last.
        """
        known = self.signed_last.read()
        if known is None:
            return
        with contextlib.suppress(RetryError):  # told by whoever needs the store
            found = self.store().get_versioned(RECORD_KEY, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
            if found is not None and found.data != known.timestamp:
                timestamp = signed_timestamp(found.data, self.known_roots())
                if timestamp is not None:
                    known.refuse_other(timestamp)

    def known_roots(self) -> list[Root]:
        """The newest root of this home, and what the store has of those before it, newest first.

        Of those before it nothing is certain but that they are signed by their own keys.
        """
        newest = trusted_root(self.root_bytes())
        found = [newest]
        for version in range(newest.version - 1, 0, -1):
            with contextlib.suppress(TrustError, ObjectMissing):
                key = metadata_key(f"{version}.root.json")
                data = self.store().get(key, length=LIMITS_BYTES[Root.type])
                found.append(trusted_root(data))
        return found

    def ready_to_sign(self) -> ReceiptedRepository:
        """The repository, once what a killed command left undone is done. The lock is held.

        The newest root is followed; and if what is signed is so by keys that it no longer names,
        the record and the manifests that were built here are signed anew.

        Raises:
            ForeignRecord: the record to be signed anew is not the one that this home signed last.
            ManifestError, PartsMissing: a manifest here is damaged or lost.
            BadSetting: a key is missing.
            StoreUnavailable, SignerUnavailable: run the command again.
        """
        self.follow_root()
        repository = self.repository()
        if repository.root_before is not None:
            current = repository.current()
            if current.is_superseded:
                record = current.signed.record
                self._refuse_others(record)
                last, known = self.audit.last_of("record"), self.signed_last.read()
                last_version = max(
                    (last.record_version if last else None) or 0, known.version if known else 0
                )
                repository.sign_anew(current, self._manifests(record), last_version, clock.now())
            files.remove_file(self.home / ROOT_BEFORE_FILE)
            repository = self.repository()
        self._note_signed(repository)
        return repository

    def _note_signed(self, repository: ReceiptedRepository) -> None:
        """Note what this home signed before a kill, so that a command may say that it is done."""
        known = self.signed_last.read()
        found = self.store().get_versioned(RECORD_KEY, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
        if found is None or (known is not None and found.data == known.timestamp):
            return
        current = repository.current()
        is_newer = known is None or current.signed.timestamp.version > known.version
        if current.token == found.version and is_newer and self._is_own(current.signed.record):
            repository.note(found.data)

    def _is_signed_anew(self) -> bool:
        try:
            return not self.current().is_superseded
        except TrustError:
            return False  # by keys of a root that is not followed yet

    def _manifests(self, record: ControlRecord) -> list[tuple[str, bytes]]:
        """The manifests of what can be read, as this home has them: target paths and bytes."""
        self.publisher().refuse_lost(record.retained_entries())
        found = []
        for entry in record.published:
            if entry.generation_id in record.retained:
                data = self.residence.manifest_bytes(entry.generation_id)
                accept_manifest(data, entry, record.shard)
                found.append((manifest_target(entry.generation_id), data))
        return found

    def _refuse_others(self, record: ControlRecord) -> None:
        """Refuse to sign again what somebody else may have signed, with stolen keys.

        Raises:
            ForeignRecord: it is not what this home signed last.
        """
        last = self.audit.last_of("record")
        if not self._is_own(record):
            raise ForeignRecord(
                "the record in the store is not the one that this home signed last: it is not "
                "signed again. Another home with the same keys wrote it, or somebody who has them",
                found=record_id(record),
                signed_last=last.after if last else None,
            )

    def _is_own(self, record: ControlRecord) -> bool:
        """Whether a record is the one that was signed last here.

        Or, where a kill came before that was noted, what the last receipt says, which comes before
        its change.
        """
        last, known = self.audit.last_of("record"), self.signed_last.read()
        own: set[str | None] = set() if known is None else {record_id(known.record)}
        if last is not None and (known is None or (last.record_version or 0) > known.version):
            own |= {last.before, last.after}
        try:
            self.publisher().check_own(record)
        except WriterFenced:
            return False
        return not own or record_id(record) in own

    def adopt_root(self, root: bytes) -> None:
        """Make ``root`` this home's, and remember by which one the record may still be signed."""
        before = self.root_bytes()
        files.create_file(self.home / ROOT_BEFORE_FILE, [before])
        self.audit.append(
            Change(
                kind="new_root",
                document="root",
                time=clock.now().isoformat(),
                reason=f"version {trusted_root(root).version} of the root of trust",
                before=content_id(before),
                after=content_id(root),
            )
        )
        files.replace_file(self.home / ROOT_FILE, [root])

    def publisher(self) -> Publisher:
        """What uploads and signs for this home."""
        return Publisher(
            self.residence, self._shelf, self.store(), self.repository(), self._signed_here
        )

    def _signed_here(self) -> frozenset[str]:
        """The generations of the record that this home signed last."""
        known = self.signed_last.read()
        published = known.record.published if known else ()
        return frozenset(entry.generation_id for entry in published)

    def refuse_anothers(self, current: CurrentState) -> None:
        """Refuse to judge by a record that is older than this home's last, or another home's.

        Raises:
            RecordPutBack, ForeignRecord: the store was put back, or somebody else signed there.
            WriterFenced: it names a generation that was not built here.
        """
        known = self.signed_last.read()
        if known is not None:
            known.refuse_other(current.signed.timestamp)
        self.publisher().check_own(current.signed.record)

    def current(self) -> CurrentState:
        """What the store holds as signed."""
        return self.repository().current()
