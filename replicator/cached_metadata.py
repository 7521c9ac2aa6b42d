"""The metadata that a node's last refresh stored, its signatures checked again at each reading."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tuf.api.metadata import Root, Snapshot, T, Targets, Timestamp

from durable import files
from manifests.errors import TrustError, TrustStateCorrupt, UnsignedRecord
from manifests.record import ControlRecord
from replicator.high_water import ROOT_HISTORY
from store.signed import control_record, signed_by, trusted_root


class CachedMetadata:
    """The metadata in ``folder``, anchored in ``root``, which was given by a way that is trusted.

    Expiry is not looked at: an expired record goes on serving. Nor is whether the files belong
    together: the refresh that stored them made sure, and a crash between two of them must not make
    the record unreadable.
    """

    def __init__(self, folder: Path, root: bytes) -> None:
        self._folder = folder
        self._root = root

    def timestamp(self) -> Timestamp:
        """The timestamp.

        Raises:
            TrustStateCorrupt: it, or a root, is missing or damaged.
            UnsignedRecord, WrongRecordType: the root that was given is none.
        """
        return self._read(self._roots(), Timestamp)

    def record(self) -> ControlRecord:
        """The record in the targets, where timestamp and snapshot are sound as well.

        Raises:
            TrustStateCorrupt, UnsignedRecord, WrongRecordType: see :meth:`timestamp`.
            ManifestMalformed, SchemaTooNew: see :func:`store.signed.control_record`.
        """
        roots = self._roots()
        self._read(roots, Timestamp)
        self._read(roots, Snapshot)
        return control_record(self._read(roots, Targets))

    def _roots(self) -> list[Root]:
        """The roots from the anchor on, newest first, each signed by the one before it."""
        root = trusted_root(self._root)
        roots = [root]
        try:
            while (path := self._root_path(root.version + 1)).is_file():
                data = path.read_bytes()
                signed_by(root, data, Root)
                root = trusted_root(data)
                roots.append(root)
        except (OSError, TrustError) as error:
            raise self._damaged(error) from error
        return roots[::-1]

    def _root_path(self, version: int) -> Path:
        return self._folder / ROOT_HISTORY / f"{version}.root.json"

    def _read(self, roots: list[Root], kind: type[T]) -> T:
        """Metadata that is signed under the newest root or the one it was accepted under."""
        try:
            data = files.read_file(self._folder / f"{kind.type}.json")
            for root in roots[:-1]:
                with contextlib.suppress(UnsignedRecord):
                    return signed_by(root, data, kind)
            return signed_by(roots[-1], data, kind)
        except (OSError, TrustError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> TrustStateCorrupt:
        return TrustStateCorrupt(
            f"the cached metadata in {self._folder} is damaged ({error}); bootstrap again to renew "
            "it",
            folder=str(self._folder),
        )
