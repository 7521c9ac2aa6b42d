"""What a node believes: the signed record, followed with python-tuf's client.

``NODE/trust/`` holds the metadata last accepted and the high-water mark, which outlives it. The
metadata is judged by :class:`replicator.metadata_client.MetadataClient`; here genctl's own record,
which travels in the targets, is judged before the targets are accepted.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from tuf.api.metadata import Targets, Timestamp

from durable import files
from manifests.errors import (
    ForkDetected,
    FreezeSuspected,
    LengthExceeded,
    ManifestError,
    ManifestIdentityMismatch,
    NothingPublished,
    ObjectMissing,
    OperatorError,
    RetryError,
    TrustError,
    TrustStateCorrupt,
    UnsignedRecord,
)
from manifests.names import CONTROL_TARGET, manifest_target, target_key
from manifests.record import ControlRecord, GenerationEntry
from replicator import trust_rules
from replicator.cached_metadata import CachedMetadata
from replicator.high_water import HIGH_WATER_FILE, ROOT_HISTORY, HighWater, HighWaterFile
from replicator.metadata_client import MetadataClient
from replicator.metadata_fetcher import GRACE_S, MetadataFetcher, RefreshDeadline
from replicator.refusal import RefusalFile
from replicator.repair_events import emit
from store.patience import DEFAULT_PATIENCE
from store.port import Store
from store.signed import control_record, shard_of, trusted_root


def _forget(*_: object, **__: object) -> None:
    """For a trust state without a quarantine."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a trust state needs to know of the world.

    Attributes:
        now: the time in UTC by this machine's clock.
        store_time: the time in UTC by the store's own clock, where it tells it.
        quarantine: told of signed content that must not be believed, as
            :meth:`replicator.quarantine.Quarantine.add` is.
        min_bytes_per_s: the rate at which a store may send what somebody has signed a length of.
        grace_s: how long all reads of a refresh together may take besides.
        monotonic: seconds on a clock that never goes back.
        shard: whose records are followed; ``None`` for what the root says, if it does.
    """

    now: Callable[[], datetime]
    store_time: Callable[[], datetime | None] = lambda: None
    quarantine: Callable[..., object] = _forget
    min_bytes_per_s: int = DEFAULT_PATIENCE.min_bytes_per_s
    grace_s: float = GRACE_S
    monotonic: Callable[[], float] = time.monotonic
    shard: str | None = None


class TrustedRecord:
    """The control record as just refreshed and verified, and the manifests it vouches for."""

    def __init__(
        self,
        targets: Targets,
        store: Store,
        record: ControlRecord,
        fetcher: Callable[[], MetadataFetcher],
    ) -> None:
        self._targets = targets
        self._store = store
        self._fetcher = fetcher
        self.record = record

    def manifest_bytes(self, entry: GenerationEntry) -> bytes:
        """The bytes that the store has for a manifest, at most one more than were signed.

        Of several stores, the first has precedence that has the right ones. They are not refused
        here: :func:`manifests.record.accept_manifest` does that.

        Raises:
            ObjectMissing: the store has lost it.
            UnsignedRecord: the record names it, but it is not a signed target.
            StoreUnavailable, TransferDeadline, BodyMismatch: it does not answer as it should.
        """
        path = manifest_target(entry.generation_id)
        target = self._targets.targets.get(path)
        if target is None or "sha256" not in target.hashes:
            raise UnsignedRecord(
                f"the record names {entry.generation_id}, but its manifest is not signed",
                generation_id=entry.generation_id,
            )
        named = target.hashes["sha256"]
        key = target_key(path, named)
        found = self._fetcher().target(
            key,
            entry.manifest_size_bytes + 1,
            lambda data: hashlib.sha256(data).hexdigest() == named,
        )
        if found is None:
            raise ObjectMissing(
                f"{self._store.url} has no object {key}", store=self._store.url, key=key
            )
        return found[1]


def has_accepted(folder: Path) -> bool:
    """Whether a record was ever accepted in this trust state, as far as can be told."""
    try:
        return HighWaterFile(folder).read().targets is not None
    except TrustStateCorrupt:
        return True


class Trust:
    """A node's trust state in ``folder``, anchored in the root it was given.

    ``minimum_version`` is the least record version with which a node may start that has none.
    """

    def __init__(
        self,
        folder: Path,
        root: bytes,
        surroundings: Surroundings,
        minimum_version: int | None = None,
    ) -> None:
        self._folder = folder
        self._root = root
        self._around = surroundings
        self._minimum_version = minimum_version
        self._mark_file = HighWaterFile(folder)
        self._refusal_file = RefusalFile(folder)
        self._cache = CachedMetadata(folder, root)

    def refresh(self, store: Store) -> TrustedRecord:
        """Follow the store to its newest record, checking everything; the node's lock is held.

        Raises:
            ClockSuspect: the clock here cannot be right, or the store's cannot.
            UnsignedRollback: the record goes back without being a rollback.
            ManifestIdentityMismatch: it is of another shard.
            ManifestMalformed, SchemaTooNew: it is signed, but not of a form known here.
            TrustStateCorrupt: the node's own mark is damaged.
            NothingPublished: the store has no signed record.
            ObjectMissing: it has lost it, or a part of it.
            TrustError and all others: see :meth:`MetadataClient.refresh`.

        Whatever is raised, the generation that was active goes on serving.
        """
        now = self._around.now()
        fetcher = partial(self._fetcher, store, {})
        try:
            targets = self._refreshed(store, now, fetcher())
        except (TrustError, ManifestError, LengthExceeded) as error:
            self._tell(error, store, now)
            raise
        self._refusal_file.remove()
        return TrustedRecord(targets, store, _record_in(targets), fetcher)

    def last_record(self) -> ControlRecord:
        """The record of the last refresh, its signatures checked again; expiry is not.

        Raises:
            TrustStateCorrupt: the cache is missing or damaged.
        """
        return self._cache.record()

    def known_version(self) -> int | None:
        """The highest version of the record that was seen signed; ``None`` before the first.

        Raises:
            TrustStateCorrupt: the mark is damaged.
        """
        timestamp = self._mark_file.read().timestamp
        return None if timestamp is None else timestamp.version

    def state(self) -> dict[str, object]:
        """What there is to say of it, as ``genctl node status --json`` prints it."""
        state: dict[str, object] = {
            "trust": "ok",
            "trust_error": None,
            "record_version": None,
            "record_expires": None,
        }
        try:
            state["record_version"] = self.known_version()
            if state["record_version"] is None:
                return state | {"trust": "nothing believed yet"}
            timestamp = self._cache.timestamp()
            self._cache.record()
        except TrustError as error:
            return state | {"trust": f"{error.name}: {error.message}", "trust_error": error.name}
        state["record_expires"] = timestamp.expires.isoformat()
        refusal = self._refusal_file.read()
        if refusal is not None:
            state["trust"] = f"{refusal.error} at {refusal.at}: {refusal.message}"
            state["trust_error"] = refusal.error
        elif timestamp.is_expired(self._around.now()):
            state["trust"] = (
                f"{FreezeSuspected.__name__}: the record expired at {state['record_expires']}; "
                "nothing new is activated until the writer signs again"
            )
            state["trust_error"] = FreezeSuspected.__name__
        return state

    def take_over(self, prepared: Path, put_root: Callable[[], None]) -> None:
        """Replace all of this by what a refresh of another trust state left in ``prepared``.

        Whatever stands in the place of a file goes. The mark is replaced last: whatever a kill
        leaves half done is done again by the same command.

        Args:
            prepared: the folder of the other, which has the root of this one.
            put_root: puts that root where the node keeps it, durably.

        Raises:
            DiskFull, DiskError: the disk refuses.
        """
        with files.translated(prepared):
            fresh = {
                path.relative_to(prepared): files.read_file(path)
                for path in sorted(prepared.rglob("*.json"))
                if path.name != HIGH_WATER_FILE
            }
        put_root()
        if self._folder.is_dir() and not self._folder.is_symlink():
            for path in self._folder.iterdir():
                if path.name != HIGH_WATER_FILE:
                    files.clear(path)
        else:
            files.clear(self._folder)
        files.make_folder(self._folder / ROOT_HISTORY)
        for name, data in fresh.items():
            files.replace_file(self._folder / name, [data])
        if not self._mark_file.path.is_file():
            files.clear(self._mark_file.path)
        self._mark_file.write(HighWaterFile(prepared).read())
        files.remove_tree(prepared)

    def _fetcher(self, store: Store, failures: dict[str, RetryError]) -> MetadataFetcher:
        """Reads of ``store``, from now on within the time of a refresh."""
        around = self._around
        deadline = RefreshDeadline(around.monotonic, around.grace_s, around.min_bytes_per_s)
        return MetadataFetcher(store, deadline, failures)

    def _refreshed(self, store: Store, now: datetime, fetcher: MetadataFetcher) -> Targets:
        trust_rules.refuse_clock_off(now, self._around.store_time())
        mark = self._mark_file.read()
        trust_rules.refuse_clock_behind(now, mark.signed_at)
        client = MetadataClient(
            self._folder,
            self._root,
            fetcher,
            now,
            minimum_version=self._minimum_version,
            check_targets=self._check_record,
        )
        try:
            client.refresh()
        except ObjectMissing as error:
            if error.facts.get("role") != Timestamp.type:
                raise
            if mark.timestamp is not None:
                raise ObjectMissing(f"the store {store.url} has lost its record") from error
            raise NothingPublished(
                f"there is no signed record in {store.url}; is this the right store, and has its "
                "writer run `genctl release`?",
                store=store.url,
            ) from error
        return client.targets

    def _check_record(self, targets: Targets, mark: HighWater) -> int | None:
        """Refuse targets whose record cannot be believed; the last commit of what is active."""
        record = _record_in(targets)
        shard = self._around.shard or shard_of(trusted_root(self._root))
        if shard not in {None, record.shard}:
            raise ManifestIdentityMismatch(
                f"the store offers the record of shard {record.shard}, and this node follows "
                f"{shard}: is it the right store?",
                shard=record.shard,
                known_shard=shard,
            )
        trust_rules.refuse_unsigned_rollback(record, targets.version, mark)
        return None if record.active is None else record.active_entry().high_seq

    def _tell(self, error: OperatorError, store: Store, now: datetime) -> None:
        """Have everybody hear of a refusal who should; never raises."""
        if isinstance(error, FreezeSuspected):
            emit("metadata_freeze_suspected", store=store.url, message=error.message)
        if isinstance(error, ForkDetected):
            facts = dict(error.facts)
            self._around.quarantine(
                facts.pop("content_hash"), error.name, error.message, now, **facts
            )
        self._refusal_file.write(error, now)


def _record_in(targets: Targets) -> ControlRecord:
    if CONTROL_TARGET not in targets.targets:
        raise UnsignedRecord(f"{CONTROL_TARGET} is not among the signed targets")
    return control_record(targets)
