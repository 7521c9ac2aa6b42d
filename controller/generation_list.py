"""The generations that a writer has built or published, as they are listed.

A thousand manifests are listed in a moment: of those that the record has the hash of, only what is
shown is taken out of the bytes.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from controller.writer import WriterHome
from index.residence import Residence
from manifests.generation import parse_manifest
from manifests.identifiers import content_id
from manifests.record import ControlRecord, GenerationEntry, accept_manifest


class _Commits(msgspec.Struct, frozen=True):
    low_seq: int
    high_seq: int


class _Counts(msgspec.Struct, frozen=True):
    documents: int


class _Artifact(msgspec.Struct, frozen=True):
    size_bytes: int


class _Shown(msgspec.Struct, frozen=True):
    """What is shown of a manifest."""

    commits: _Commits
    counts: _Counts
    artifacts: list[_Artifact]
    built_at: str


_decoder = msgspec.json.Decoder(_Shown)


def listed(writer: WriterHome, record: ControlRecord) -> list[dict[str, Any]]:
    """All generations, oldest first, under the names that ``genctl generations --json`` prints.

    Those that are published and not in the home have no ``documents``, ``bytes`` and ``built_at``.
    What was collected is not among them, though a kill may have left it in the home.

    Raises:
        ManifestError: a manifest in the home is damaged.
    """
    entries = {entry.generation_id: entry for entry in record.published}
    resident = writer.residence.resident_ids()
    here = {each for each in resident if each in entries or not record.is_collected(each)}
    tags: dict[str, list[str]] = {}
    for tag in record.tags:
        tags.setdefault(tag.generation_id, []).append(tag.name)
    pins = {pin.generation_id: pin.reason for pin in record.pins}
    found = []
    for generation_id in sorted(here | entries.keys()):
        entry = entries.get(generation_id)
        is_here = generation_id in here
        shown = _shown(writer.residence, record.shard, generation_id, entry) if is_here else None
        commits = shown.commits if shown else entries[generation_id]
        found.append(
            {
                "generation_id": generation_id,
                "low_seq": commits.low_seq,
                "high_seq": commits.high_seq,
                "documents": shown.counts.documents if shown else None,
                "bytes": sum(each.size_bytes for each in shown.artifacts) if shown else None,
                "built_at": shown.built_at if shown else None,
                "published": generation_id in entries,
                "active": generation_id == record.active,
                "published_at": record.published_at.get(generation_id),
                "tags": tags.get(generation_id, []),
                "pin": pins.get(generation_id),
                "revoked": generation_id in record.revoked,
                "gone_back_from": generation_id in record.passed_over,
                "in_home": is_here,
            }
        )
    return found


def _shown(
    residence: Residence, shard: str, generation_id: str, entry: GenerationEntry | None
) -> _Shown:
    data = residence.manifest_bytes(generation_id)
    if entry is not None and content_id(data) == entry.manifest_id:
        with contextlib.suppress(msgspec.MsgspecError):  # of a newer genctl's, say
            return _decoder.decode(data)
    whole = parse_manifest(data) if entry is None else accept_manifest(data, entry, shard)
    return msgspec.convert(whole.model_dump(mode="json"), _Shown)
