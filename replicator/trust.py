"""What a node believes: the signed record, followed with python-tuf's client.

``NODE/trust/`` holds the metadata last accepted and ``high_water.json``, the highest versions ever
accepted. The metadata alone would forget those if it were lost, and an old record would then be
new. python-tuf works in a folder of its own, so that nothing is kept before all checks have passed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import Field
from tuf.api import exceptions
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from durable import files
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import (
    DiskError,
    FreezeSuspected,
    GenctlError,
    LengthExceeded,
    ManifestMalformed,
    MetadataRollback,
    NothingPublished,
    ObjectMissing,
    RetryError,
    SchemaTooNew,
    StoreUnavailable,
    TrustError,
    TrustStateCorrupt,
    UnsignedRecord,
)
from manifests.names import CONTROL_TARGET, manifest_target, metadata_key, target_key
from manifests.record import ControlRecord, GenerationEntry
from store.port import Store
from store.signed import LIMITS_BYTES, control_record, signed_by, trusted_root

HIGH_WATER_FILE = "high_water.json"
REFRESH_FOLDER = "refresh"
_READ_BYTES = 1024 * 1024
_CONFIG = UpdaterConfig(
    root_max_length=LIMITS_BYTES[Root.type],
    timestamp_max_length=LIMITS_BYTES[Timestamp.type],
    snapshot_max_length=LIMITS_BYTES[Snapshot.type],
    targets_max_length=LIMITS_BYTES[Targets.type],
)


class HighWater(Frozen):
    """The highest metadata versions that this node ever accepted."""

    schema_version: int = 1
    timestamp: int = Field(ge=1)
    snapshot: int = Field(ge=1)
    targets: int = Field(ge=1)


class StoreFetcher(FetcherInterface):
    """Lets python-tuf read from a store; what it calls a URL is ``store:`` and a key."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _fetch(self, url: str) -> Iterator[bytes]:
        """The object in pieces; the first is read here, so that its absence is an answer."""
        key = unquote(urlsplit(url).path)
        try:
            first = self._store.get(key, length=_READ_BYTES)
        except ObjectMissing as error:
            raise exceptions.DownloadHTTPError(f"{key} is not in the store", 404) from error
        except RetryError as error:
            if self._is_absent_root(key):
                raise exceptions.DownloadHTTPError(f"{key} is not in the store", 404) from error
            raise exceptions.DownloadError(str(error)) from error
        return self._pieces(key, first)

    def _is_absent_root(self, key: str) -> bool:
        """Whether this is the root after the last, by the word of the stores that answer.

        A refresh ends with asking for a root that is not there, and must not need every store for
        that. A writer puts a new one into all of them.
        """
        if not key.endswith(".root.json"):
            return False
        try:
            return self._store.stat(key) is None
        except RetryError:
            return False

    def _pieces(self, key: str, piece: bytes) -> Iterator[bytes]:
        offset = 0
        while piece:
            yield piece
            offset += len(piece)
            if len(piece) < _READ_BYTES:
                break
            try:
                piece = self._store.get(key, offset=offset, length=_READ_BYTES)
            except (RetryError, ObjectMissing) as error:
                raise exceptions.DownloadError(str(error)) from error


class TrustedRecord:
    """The control record as just refreshed and verified, and the manifests it vouches for."""

    def __init__(self, updater: Updater, store: Store, record: ControlRecord) -> None:
        self._updater = updater
        self._store = store
        self.record = record

    def manifest_bytes(self, entry: GenerationEntry) -> bytes:
        """The bytes that the store has for a manifest, at most one more than were signed.

        They are not checked here: :func:`manifests.record.accept_manifest` does that.

        Raises:
            ObjectMissing: the store has lost it.
            UnsignedRecord: the record names it, but it is not a signed target.
            StoreUnavailable: the store does not answer.
        """
        path = manifest_target(entry.generation_id)
        target = self._updater.get_targetinfo(path)
        if target is None:
            raise UnsignedRecord(
                f"the record names {entry.generation_id}, but its manifest is not signed",
                generation_id=entry.generation_id,
            )
        key = target_key(path, target.hashes["sha256"])
        return self._store.get(key, length=entry.manifest_size_bytes + 1)


class Trust:
    """A node's trust state in ``folder``, anchored in the root it was given."""

    def __init__(self, folder: Path, root: bytes) -> None:
        self._folder = folder
        self._root = root

    def refresh(self, store: Store) -> TrustedRecord:
        """Follow the store to its newest record, checking everything.

        Raises:
            FreezeSuspected: the metadata has expired.
            MetadataRollback: it is older than what this node has accepted before.
            UnsignedRecord, TrustError: it is not signed as the root says.
            TrustStateCorrupt: the node's own high-water mark is damaged.
            NothingPublished: the store has no signed record.
            ObjectMissing: it has lost a part of it.
            StoreUnavailable: it does not answer.
        """
        trusted_root(self._root)
        files.make_folder(self._folder)
        before = self._high_water()
        work = self._folder / REFRESH_FOLDER
        self._copy_to(work)
        if store.stat(metadata_key("timestamp.json")) is None:
            if before is not None:
                raise ObjectMissing(f"the store {store.url} has lost its record")
            raise NothingPublished(
                f"there is no signed record in {store.url}; is this the right store, and has its "
                "writer run `genctl release`?",
                store=store.url,
            )
        with _translated(f"the record in {store.url}"):
            updater = Updater(
                str(work),
                "store:metadata/",
                target_base_url="store:targets/",
                fetcher=StoreFetcher(store),
                config=_CONFIG,
                bootstrap=self._root,
            )
            updater.refresh()
            if updater.get_targetinfo(CONTROL_TARGET) is None:
                raise UnsignedRecord(f"{CONTROL_TARGET} is not among the signed targets")
        record, after = _read_cache(work, self._root)
        self._raise_high_water(before, after)
        self._keep(work)
        return TrustedRecord(updater, store, record)

    def has_accepted(self) -> bool:
        """Whether a record was ever accepted here."""
        return (self._folder / HIGH_WATER_FILE).exists()

    def last_record(self) -> ControlRecord:
        """The record of the last refresh, its signatures checked again; expiry is not.

        Raises:
            TrustStateCorrupt: the cache is missing or damaged.
        """
        return _read_cache(self._folder, self._root)[0]

    def _copy_to(self, work: Path) -> None:
        """Give python-tuf its cache in a folder of its own: what is refused must not stay here."""
        for folder in (self._folder, self._folder / "root_history"):
            files.remove_temporaries(folder)
        files.remove_tree(work)
        with files.translated(work):
            cached = [path for path in self._folder.rglob("*.json") if path.is_file()]
            (work / "root_history").mkdir(parents=True)
            for path in cached:
                if path.name != HIGH_WATER_FILE:
                    shutil.copyfile(path, work / path.relative_to(self._folder))

    def _keep(self, work: Path) -> None:
        """Store what was accepted, durably: root first, so that the rest can always be checked."""
        files.make_folder(self._folder / "root_history")
        with files.translated(work):
            fresh = {
                path.relative_to(work): path.read_bytes()
                for path in work.rglob("*.json")
                if path.is_file() and path.name != "root.json"  # a link to one of the history
            }
        for name, data in sorted(fresh.items(), key=lambda item: "root" not in str(item[0])):
            path = self._folder / name
            with files.translated(path):
                same = path.is_file() and path.read_bytes() == data
            if not same:
                files.replace_file(path, [data])
        files.remove_tree(work)

    def _high_water(self) -> HighWater | None:
        path = self._folder / HIGH_WATER_FILE
        if not path.exists():
            return None
        try:
            return parse_document(path.read_bytes(), HighWater, 1)
        except (OSError, ManifestMalformed, SchemaTooNew) as error:
            raise TrustStateCorrupt(
                f"{path} is damaged: {error}. The node goes on serving; see the runbook before "
                "removing the file",
                path=str(path),
            ) from error

    def _raise_high_water(self, before: HighWater | None, after: HighWater) -> None:
        if before is not None:
            for role in ("timestamp", "snapshot", "targets"):
                if getattr(after, role) < getattr(before, role):
                    raise MetadataRollback(
                        f"the store offers {role} version {getattr(after, role)}; this node has "
                        f"accepted {getattr(before, role)} before",
                        role=role,
                        offered_version=getattr(after, role),
                        known_version=getattr(before, role),
                    )
        if after != before:
            files.replace_file(self._folder / HIGH_WATER_FILE, [to_canonical(after)])


def _read_cache(folder: Path, anchor: bytes) -> tuple[ControlRecord, HighWater]:
    """The cached record and versions, each file checked against the root that follows ``anchor``.

    Whether the files belong together is not asked: the refresh that stored them made sure, and a
    crash between two of them must not make the record unreadable.
    """
    try:
        root = trusted_root(anchor)
        while (rotated := folder / "root_history" / f"{root.version + 1}.root.json").is_file():
            data = rotated.read_bytes()
            signed_by(root, data, Root)
            root = trusted_root(data)
        timestamp = signed_by(root, (folder / "timestamp.json").read_bytes(), Timestamp)
        snapshot = signed_by(root, (folder / "snapshot.json").read_bytes(), Snapshot)
        targets = signed_by(root, (folder / "targets.json").read_bytes(), Targets)
    except (OSError, UnsignedRecord) as error:
        raise TrustStateCorrupt(
            f"the cached metadata in {folder} is damaged ({error}); bootstrap again to renew it",
            folder=str(folder),
        ) from error
    versions = HighWater(
        timestamp=timestamp.version, snapshot=snapshot.version, targets=targets.version
    )
    return control_record(targets), versions


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except exceptions.ExpiredMetadataError as error:
        raise FreezeSuspected(
            f"{what} has expired ({error}); nothing new is activated until the writer signs again: "
            "`genctl keys refresh` there"
        ) from error
    except exceptions.BadVersionNumberError as error:
        raise MetadataRollback(f"{what} is older than what was seen before: {error}") from error
    except exceptions.UnsignedMetadataError as error:
        raise UnsignedRecord(f"{what} is not signed by the trusted keys: {error}") from error
    except exceptions.DownloadLengthMismatchError as error:
        raise LengthExceeded(f"{what}: {error}") from error
    except exceptions.RepositoryError as error:
        raise TrustError(f"{what} cannot be accepted: {error}") from error
    except exceptions.DownloadHTTPError as error:
        raise ObjectMissing(f"{what} is incomplete: {error}") from error
    except exceptions.DownloadError as error:
        if isinstance(error.__cause__, GenctlError):
            raise error.__cause__ from error
        raise StoreUnavailable(f"{what} cannot be read: {error}") from error
    except OSError as error:
        raise DiskError(f"{what} cannot be stored: {error}") from error
