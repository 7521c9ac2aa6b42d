"""Changes of a writer's record that a test makes by itself: any one, or a collection's."""

from __future__ import annotations

from collections.abc import Callable

from controller import clock
from controller.writer import WriterHome
from manifests.identifiers import content_id
from manifests.record import ControlRecord
from manifests.retained import with_collection_begun, with_collection_ended


def sign(writer: WriterHome, change: Callable[[ControlRecord], ControlRecord]) -> None:
    """Sign the record that ``change`` makes of the present one."""
    repository = writer.repository()
    current = repository.current()
    repository.commit(current, change(current.signed.record), clock.now())


def sign_away(writer: WriterHome, *generation_ids: str) -> None:
    """Sign a record without these, as a collection does before it deletes; nothing is deleted."""
    token = content_id("".join(generation_ids).encode())
    sign(writer, lambda record: with_collection_begun(record, set(generation_ids), token))
    sign(writer, lambda record: with_collection_ended(record, token))
