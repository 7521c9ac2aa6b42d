"""What a home signed last: the writer's own mark, by which it knows that its store went back.

``HOME/signed_last.json`` is written after each change of the record, so it lacks at most a change
that no command has acknowledged. It holds the whole signed state, so that the store's record can be
put back from it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from durable import files
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import (
    ForeignRecord,
    ManifestMalformed,
    RecordPutBack,
    SchemaTooNew,
    SignedLastCorrupt,
    TrustError,
)
from manifests.identifiers import Blake3Hex, content_id
from manifests.names import metadata_key
from manifests.record import ControlRecord
from store.signed import control_record, signed_by, strict_metadata

SIGNED_LAST_FILE = "signed_last.json"


class SignedLastDocument(Frozen):
    """The file: canonical JSON. The three are the exact bytes of the metadata, as text.

    ``blake3`` is that of the timestamp, which names the hash of the snapshot, and so on.
    """

    schema_version: Literal[1] = 1
    timestamp: str
    snapshot: str
    targets: str
    blake3: Blake3Hex


@dataclass(frozen=True, slots=True)
class SignedLast:
    """The state that a home signed last.

    Attributes:
        timestamp: the exact bytes of ``timestamp.json``.
        version: its version.
        record: the record.
        objects: the other metadata by key: ``metadata/N.snapshot.json`` and so on.
    """

    timestamp: bytes
    version: int
    record: ControlRecord
    objects: dict[str, bytes]

    def refuse_other(self, offered: Timestamp) -> None:
        """Refuse to go on from what was not signed after this.

        Raises:
            RecordPutBack: ``offered`` is older.
            ForeignRecord: it is another one of the same version.
        """
        if offered.version < self.version:
            raise RecordPutBack(
                f"the store shows record version {offered.version}, and this home has signed "
                f"version {self.version}: the store was put back, or somebody put an old record "
                "there. Nothing is signed upon it. Find out who, then put this home's record back: "
                "`genctl scrub HOME`",
                offered_version=offered.version,
                known_version=self.version,
            )
        if offered.version == self.version and offered != _timestamp(self.timestamp):
            raise ForeignRecord(
                f"the store shows another record of version {offered.version} than this home has "
                "signed. Another home with the same keys wrote it, or somebody who has them; "
                "nothing is signed upon it",
                offered_version=offered.version,
                known_version=self.version,
            )


class SignedLastFile:
    """The file of one home. Who writes it holds the home's lock."""

    def __init__(self, home: Path) -> None:
        self.path = home / SIGNED_LAST_FILE

    def read(self) -> SignedLast | None:
        """What was signed last; ``None`` where nothing was since genctl keeps it.

        Raises:
            SignedLastCorrupt: the file is damaged.
            DiskError: it cannot be read.
        """
        if not self.path.exists():
            return None
        with files.translated(self.path):
            data = files.read_file(self.path)
        try:
            return _parsed(data)
        except (ManifestMalformed, SchemaTooNew, TrustError, RepositoryError, KeyError) as error:
            raise SignedLastCorrupt(
                f"{self.path} is damaged ({error}). It says which record this home signed last: "
                "compare the store's (`genctl status HOME`) with the last receipt (`genctl audit "
                "HOME`); if they agree, remove the file, and the next signature writes it anew",
                path=str(self.path),
            ) from error

    def save(self, timestamp: bytes, snapshot: bytes, targets: bytes) -> None:
        """Remember, durably, what was signed.

        Raises:
            DiskFull, DiskError: the disk refuses; the store has the record all the same.
        """
        document = SignedLastDocument(
            timestamp=timestamp.decode(),
            snapshot=snapshot.decode(),
            targets=targets.decode(),
            blake3=content_id(timestamp),
        )
        files.replace_file(self.path, [to_canonical(document)])


def signed_timestamp(timestamp: bytes, roots: Sequence[Root]) -> Timestamp | None:
    """A timestamp that the keys of one of ``roots`` have signed; ``None`` for anything else."""
    for root in roots:
        with contextlib.suppress(TrustError):
            return signed_by(root, timestamp, Timestamp)
    return None


@functools.lru_cache(maxsize=1)
def _parsed(data: bytes) -> SignedLast:
    """A command reads the same bytes several times, and they grow with what is retained."""
    document = parse_document(data, SignedLastDocument, 1)
    timestamp, snapshot, targets = (
        text.encode() for text in (document.timestamp, document.snapshot, document.targets)
    )
    if content_id(timestamp) != document.blake3:
        raise ManifestMalformed("the timestamp does not have its hash")
    for each, what in ((timestamp, "timestamp"), (snapshot, "snapshot"), (targets, "targets")):
        strict_metadata(each, what)
    signed = _timestamp(timestamp)
    signed.snapshot_meta.verify_length_and_hashes(snapshot)
    named = Metadata[Snapshot].from_bytes(snapshot).signed.meta["targets.json"]
    named.verify_length_and_hashes(targets)
    return SignedLast(
        timestamp,
        signed.version,
        control_record(Metadata[Targets].from_bytes(targets).signed),
        {
            metadata_key(f"{named.version}.targets.json"): targets,
            metadata_key(f"{signed.snapshot_meta.version}.snapshot.json"): snapshot,
        },
    )


def _timestamp(data: bytes) -> Timestamp:
    return Metadata[Timestamp].from_bytes(data).signed
