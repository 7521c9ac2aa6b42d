"""A shard's signed metadata, with the keys at hand: whatever a test wants signed, or mis-signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from manifests.canonical import to_canonical
from manifests.names import CONTROL_TARGET, metadata_key
from manifests.record import ControlRecord, GenerationEntry, RecordKind
from replicator.trust import Surroundings, Trust
from store.memory import MemoryStore
from store.port import Store

ROLES = (Root.type, Timestamp.type, Snapshot.type, Targets.type)


def generation(number: int) -> GenerationEntry:
    """The generation of one commit, as a record lists it; nothing of it is anywhere."""
    return GenerationEntry(
        generation_id=f"g{number:012d}-{number:012x}",
        manifest_id=f"{number:064x}",
        manifest_size_bytes=100,
        low_seq=number,
        high_seq=number,
        parent_generation_id=generation(number - 1).generation_id if number > 1 else None,
    )


def record(active: int | None, published: int, kind: RecordKind) -> ControlRecord:
    entries = tuple(generation(number) for number in range(1, published + 1))
    return ControlRecord(
        shard="main",
        kind=kind,
        writer_epoch=1,
        active=None if active is None else generation(active).generation_id,
        published=entries,
        retained=tuple(entry.generation_id for entry in entries),
    )


def signed(document: Any, *signers: CryptoSigner) -> bytes:
    metadata = Metadata(document)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))


class Shard:
    """Metadata in a store; ``now`` is the time by which it is signed and judged.

    ``versions`` are those of the newest documents, which a test may set before it signs the next.
    """

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)
        self.keys = {role: [CryptoSigner.generate_ed25519()] for role in ROLES}
        self.keys[Snapshot.type] = self.keys[Timestamp.type]
        self.versions = dict.fromkeys(ROLES, 0)
        self.thresholds = dict.fromkeys(ROLES, 1)
        self.root_signers: list[CryptoSigner] = []
        self.went_back_from: str | None = None
        self.anchor = self.next_root()
        self.release()

    def trust(
        self,
        folder: Path,
        *,
        now: datetime | None = None,
        store_time: datetime | None = None,
        quarantine: Callable[..., object] = lambda *_, **__: None,
        minimum_version: int | None = None,
    ) -> Trust:
        """A node's trust state in ``folder``."""
        around = Surroundings(
            now=lambda: now or self.now, store_time=lambda: store_time, quarantine=quarantine
        )
        return Trust(folder, self.anchor, around, minimum_version)

    def put(self, name: str, data: bytes) -> None:
        """Replace a metadata file, whatever was there."""
        put(self.store, name, data)

    def held(self, name: str) -> bytes:
        return self.store.get(metadata_key(name), length=1 << 26)

    def name(self, role: str) -> str:
        """The newest file of a role."""
        return f"{role}.json" if role == Timestamp.type else f"{self.versions[role]}.{role}.json"

    def signed_as(self, role: str, document: Any) -> bytes:
        return signed(document, *self.keys[role])

    def next_root(self, *, signers: Sequence[CryptoSigner] | None = None) -> bytes:
        """The next root names the present keys and is signed by the last root's and its own."""
        self.versions[Root.type] += 1
        root = Root(
            version=self.versions[Root.type],
            expires=self.now + timedelta(days=3650),
            consistent_snapshot=True,
        )
        for role in ROLES:
            root.roles[role] = Role([], self.thresholds[role])
            for key in self.keys[role]:
                root.add_key(key.public_key, role)
        if signers is None:
            own = self.keys[Root.type]
            signers = [*self.root_signers, *(key for key in own if key not in self.root_signers)]
        data = signed(root, *signers)
        self.put(self.name(Root.type), data)
        self.root_signers = list(self.keys[Root.type])
        return data

    def targets(self, version: int, active: int | None, published: int, kind: RecordKind) -> bytes:
        said = record(active, published, kind)
        if kind in {"activate", "rollback"}:
            is_rollback = kind == "rollback"
            self.went_back_from = said.published[-1].generation_id if is_rollback else None
        said = said.model_copy(update={"rolled_back_from": self.went_back_from})
        control = TargetFile.from_data(CONTROL_TARGET, to_canonical(said), ["sha256"])
        control.unrecognized_fields["custom"] = said.model_dump(mode="json")
        return self.signed_as(
            Targets.type,
            Targets(
                version=version,
                expires=self.now + timedelta(days=365),
                targets={CONTROL_TARGET: control},
            ),
        )

    def snapshot(self, version: int, targets_version: int, targets: bytes) -> bytes:
        named = MetaFile.from_data(targets_version, targets, ["sha256"])
        return self.signed_as(
            Snapshot.type,
            Snapshot(
                version=version,
                expires=self.now + timedelta(days=365),
                meta={"targets.json": named},
            ),
        )

    def timestamp(
        self,
        version: int,
        snapshot_version: int,
        snapshot: bytes,
        *,
        lifetime: timedelta = timedelta(days=7),
        signed_at: object = None,
    ) -> bytes:
        said = signed_at or self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        return self.signed_as(
            Timestamp.type,
            Timestamp(
                version=version,
                expires=self.now + lifetime,
                snapshot_meta=MetaFile.from_data(snapshot_version, snapshot, ["sha256"]),
                unrecognized_fields={"signed_at": said},
            ),
        )

    def release(
        self,
        active: int | None = 1,
        published: int | None = None,
        kind: RecordKind = "activate",
        **more: Any,
    ) -> None:
        """Sign the next version of everything but the root; ``more`` is for the timestamp."""
        for role in (Targets.type, Snapshot.type, Timestamp.type):
            self.versions[role] += 1
        v = self.versions
        targets = self.targets(v[Targets.type], active, published or active or 1, kind)
        snapshot = self.snapshot(v[Snapshot.type], v[Targets.type], targets)
        self.put(self.name(Targets.type), targets)
        self.put(self.name(Snapshot.type), snapshot)
        self.put(
            "timestamp.json",
            self.timestamp(v[Timestamp.type], v[Snapshot.type], snapshot, **more),
        )

    def sign_again(self, **more: Any) -> None:
        """The next timestamp over the present snapshot."""
        self.versions[Timestamp.type] += 1
        snapshot = self.held(self.name(Snapshot.type))
        v = self.versions
        self.put(
            "timestamp.json",
            self.timestamp(v[Timestamp.type], v[Snapshot.type], snapshot, **more),
        )

    def rotate(self, *roles: str) -> None:
        """New keys for these roles, and the root that names them."""
        for role in roles:
            self.keys[role] = [CryptoSigner.generate_ed25519()]
        self.next_root()


def put(store: Store, name: str, data: bytes) -> None:
    """Put a metadata file into any store, whatever was there."""
    store.delete(metadata_key(name))
    store.put_if_absent(metadata_key(name), [data])
