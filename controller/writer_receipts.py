"""What is signed leaves a receipt: the writer's side of the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Snapshot, T, Timestamp

from builder.keys import ONLINE, TARGETS, RoleName
from builder.repository import CurrentState, Repository
from controller.signed_last import SignedLastFile
from durable.audit_log import AuditLog
from manifests.canonical import to_canonical
from manifests.identifiers import content_id
from manifests.receipts import Change, ReceiptKind
from manifests.record import CollectedCommits, ControlRecord
from manifests.retained import joined
from store.port import Store

TOLD_RANGES = 20
"""So many ranges of commits does the receipt of a collection name."""


class ReceiptedRepository(Repository):
    """A repository in which no record is signed before its receipt is durable.

    What was signed is kept in the home, and nothing is signed upon what is older than that.

    The same record signed again, so that it expires later or by another key, leaves none: nothing
    that a node would do changes, and a writer that runs does it many times a day.
    """

    def __init__(
        self,
        audit: AuditLog,
        signed_last: SignedLastFile,
        store: Store,
        root: bytes,
        keys: Callable[[RoleName], Sequence[Signer]],
        timestamp_lifetime: timedelta,
        *,
        root_before: bytes | None = None,
    ) -> None:
        super().__init__(store, root, keys, timestamp_lifetime, root_before=root_before)
        self._audit = audit
        self._signed_last = signed_last
        self._documents: dict[str, bytes] = {}

    def refresh(self, current: CurrentState, now: datetime) -> None:
        """See :meth:`Repository.refresh`.

        Raises:
            RecordPutBack, ForeignRecord: see :meth:`SignedLast.refuse_other`.
        """
        self._refuse_other(current)
        super().refresh(current, now)

    def commit(
        self,
        current: CurrentState,
        record: ControlRecord,
        now: datetime,
        new_targets: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """See :meth:`Repository.commit`.

        Raises:
            RecordPutBack, ForeignRecord: see :meth:`SignedLast.refuse_other`.
        """
        self._refuse_other(current)
        super().commit(current, record, now, new_targets)

    def sign_anew(
        self,
        current: CurrentState,
        manifests: Sequence[tuple[str, bytes]],
        last_version: int,
        now: datetime,
    ) -> None:
        """See :meth:`Repository.sign_anew`.

        Raises:
            RecordPutBack, ForeignRecord: see :meth:`SignedLast.refuse_other`.
        """
        self._refuse_other(current)
        super().sign_anew(current, manifests, last_version, now)

    def _refuse_other(self, current: CurrentState) -> None:
        known = self._signed_last.read()
        if known is not None:
            known.refuse_other(current.signed.timestamp)

    def _write(
        self,
        current: CurrentState | None,
        record: ControlRecord,
        new_targets: Sequence[tuple[str, bytes]],
        now: datetime,
    ) -> None:
        before = current.signed.record if current else None
        for role in (TARGETS, ONLINE):
            self._keys(role)  # a key that stays locked leaves no receipt of what was never signed
        if record != before:
            version = current.signed.timestamp.version + 1 if current else 1
            self._audit.append(_change(before, record, version, now))
        super()._write(current, record, new_targets, now)

    def _put_version(
        self, signed: T, last_version: int, signers: Sequence[Signer]
    ) -> tuple[int, bytes]:
        version, data = super()._put_version(signed, last_version, signers)
        self._documents[f"{version}.{signed.type}.json"] = data
        return version, data

    def _get(self, file_name: str) -> bytes:
        data = self._documents[file_name] = super()._get(file_name)
        return data

    def note(self, timestamp: bytes) -> None:
        """Keep a state in the home that was read from the store, and that the home had signed."""
        self._signed_last.save(timestamp, *self._named(timestamp))

    def _swap(self, timestamp: bytes, token: str | None) -> None:
        named = self._named(timestamp)
        super()._swap(timestamp, token)
        self._signed_last.save(timestamp, *named)

    def _named(self, timestamp: bytes) -> tuple[bytes, bytes]:
        """Snapshot and targets of a timestamp."""
        named = Metadata[Timestamp].from_bytes(timestamp).signed.snapshot_meta
        snapshot = self._document(f"{named.version}.snapshot.json")
        named = Metadata[Snapshot].from_bytes(snapshot).signed.meta["targets.json"]
        return snapshot, self._document(f"{named.version}.targets.json")

    def _document(self, file_name: str) -> bytes:
        """What this repository has signed or read under a name; else it is read now."""
        return self._documents.get(file_name) or self._get(file_name)


def record_id(record: ControlRecord) -> str:
    """The BLAKE3 of a record's canonical bytes, by which receipts name it."""
    return content_id(to_canonical(record))


def _change(
    before: ControlRecord | None, record: ControlRecord, version: int, now: datetime
) -> Change:
    kind, generation_id, reason = _told(before, record)
    entry = record.entry(generation_id) if generation_id else None
    return Change(
        kind=kind,
        document="record",
        time=now.isoformat(),
        generation_id=generation_id,
        manifest_id=entry.manifest_id if entry else None,
        high_seq=entry.high_seq if entry else None,
        record_version=version,
        reason=reason,
        before=record_id(before) if before else None,
        after=record_id(record),
    )


def _told(
    before: ControlRecord | None, record: ControlRecord
) -> tuple[ReceiptKind, str | None, str | None]:
    """What was done, to which generation, and why, by what differs between two records."""
    if before is None:
        return "init", None, None
    overridden = set(record.embedder_overrides) - set(before.embedder_overrides)
    if overridden:
        # The others of them are older: they are the way back.
        newest = max(overridden, key=lambda each: each.generation_id)
        return "override", newest.generation_id, newest.reason
    revoked = set(record.revoked) - set(before.revoked)
    if revoked:
        return "revoke", max(revoked), record.reason
    if record.collecting != before.collecting:
        return "collect", None, _collected(before, record)
    if len(record.published) > len(before.published):
        return "publish", record.published[-1].generation_id, None
    return _named_or_pinned(before, record) or (record.kind, record.active, record.reason)


def _named_or_pinned(
    before: ControlRecord, record: ControlRecord
) -> tuple[ReceiptKind, str, str] | None:
    """What was done to tags and pins, of which one change touches one."""
    for tag in set(record.tags) ^ set(before.tags):
        return "tag" if tag in record.tags else "untag", tag.generation_id, tag.name
    for pin in set(record.pins) - set(before.pins):
        return "pin", pin.generation_id, pin.reason
    for pin in set(before.pins) - set(record.pins):
        return "unpin", pin.generation_id, pin.reason
    return None


def _collected(before: ControlRecord, record: ControlRecord) -> str:
    """What a collection does to the record, in words, within what a receipt keeps of a reason.

    Which generations were dropped is told by their commits and the BLAKE3 of their ids, sorted, a
    line each: who has a list of them can check it.
    """
    if record.collecting is None:
        return "ended"
    kept = {entry.generation_id for entry in record.published}
    dropped = [entry for entry in before.published if entry.generation_id not in kept]
    if not dropped:
        return "begun, 0 dropped"
    spans = joined(CollectedCommits(low_seq=e.low_seq, high_seq=e.high_seq) for e in dropped)
    shown = [f"{span.low_seq}-{span.high_seq}" for span in spans[:TOLD_RANGES]]
    if len(spans) > TOLD_RANGES:
        shown.append(f"… {spans[-1].low_seq}-{spans[-1].high_seq}, {len(spans):,} ranges")
    ids = "".join(f"{each}\n" for each in sorted(entry.generation_id for entry in dropped))
    return (
        f"begun, {len(dropped):,} dropped: commits {', '.join(shown)}; "
        f"BLAKE3 of their ids {content_id(ids.encode())}"
    )
