"""What an operator says of published generations: tags, pins, revocations.

Each is signed under the home's lock, leaves a receipt, and signs nothing where it is so already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller import clock
from controller.writer import WriterHome
from manifests.errors import BadSetting, NothingPublished
from manifests.receipts import REASON_LIMIT
from manifests.record import ControlRecord
from manifests.record_changes import with_revoked
from manifests.retained import with_pin, with_tag, without_pin, without_tag

Successor = Callable[[ControlRecord], ControlRecord]


@dataclass(frozen=True, slots=True)
class Said:
    """The record as it is signed now, and the one before, which is the same if it was so."""

    before: ControlRecord
    record: ControlRecord

    @property
    def changed(self) -> bool:
        """Whether anything had to be signed."""
        return self.record != self.before


def tag(writer: WriterHome, generation_id: str, name: str) -> Said:
    """Sign that a generation has one more name, and is retained while it has one.

    Raises:
        GenerationNotPublished, GenerationCollected, GenerationRevoked: it cannot be read.
        BadSetting: another generation has that name, or it is not one.
        WriterFenced: another home writes to this shard, or moved the record first.
        StoreUnavailable: the record was not moved.
    """
    return _said(writer, "tag", lambda record: with_tag(record, name, generation_id))


def untag(writer: WriterHome, name: str) -> Said:
    """Sign that no generation has that name.

    Raises:
        WriterFenced: another home writes to this shard, or moved the record first.
        StoreUnavailable: the record was not moved.
    """
    return _said(writer, "untag", lambda record: without_tag(record, name))


def pin(writer: WriterHome, generation_id: str, reason: str) -> Said:
    """Sign that a generation is retained until it is unpinned.

    Raises:
        GenerationNotPublished, GenerationCollected, GenerationRevoked: it cannot be read.
        BadSetting: no reason was given, or one that cannot be signed.
        WriterFenced: another home writes to this shard, or moved the record first.
        StoreUnavailable: the record was not moved.
    """
    _check(reason, "a pin")
    return _said(writer, "pin", lambda record: with_pin(record, generation_id, reason))


def unpin(writer: WriterHome, generation_id: str) -> Said:
    """Sign that a generation has no pin.

    Raises:
        GenerationNotPublished, GenerationCollected: there is no such generation.
        WriterFenced: another home writes to this shard, or moved the record first.
        StoreUnavailable: the record was not moved.
    """
    return _said(writer, "unpin", lambda record: without_pin(record, generation_id))


def revoke(writer: WriterHome, generation_id: str, reason: str) -> Said:
    """Sign that a generation is withdrawn for good: nobody reads or activates it any more.

    If it is the active one, the one that a rollback would go to is active instead.

    Raises:
        GenerationNotPublished, GenerationCollected: there is no such generation.
        NothingPublished: it is the active one, and there is none to go back to.
        BadSetting: no reason was given, or one that cannot be signed.
        WriterFenced: another home writes to this shard, or moved the record first.
        StoreUnavailable: the record was not moved.
    """
    _check(reason, "a revocation")

    def revoked(record: ControlRecord) -> ControlRecord:
        try:
            return with_revoked(record, generation_id, reason)
        except NothingPublished as error:
            raise NothingPublished(
                f"{error.message}. To revoke that one, publish and activate a newer one first",
                generation_id=generation_id,
            ) from error

    return _said(writer, "revoke", revoked)


def _said(writer: WriterHome, purpose: str, successor: Successor) -> Said:
    with writer.exclusively(purpose):
        repository = writer.ready_to_sign()
        current = repository.current()
        writer.publisher().check_own(current.signed.record)
        said = Said(current.signed.record, successor(current.signed.record))
        if said.changed:
            repository.commit(current, said.record, clock.now())
        return said


def _check(reason: str, what: str) -> None:
    if not reason.strip():
        raise BadSetting(f"{what} needs a reason; it is part of the signed record", field="reason")
    if len(reason) > REASON_LIMIT:
        raise BadSetting(
            f"the reason has {len(reason):,} characters; say it in {REASON_LIMIT:,}", field="reason"
        )
    try:
        reason.encode()
    except UnicodeEncodeError as error:
        raise BadSetting("the reason is not valid Unicode", field="reason") from error
