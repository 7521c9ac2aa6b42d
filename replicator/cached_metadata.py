"""The metadata that a node's last refresh stored, its signatures checked again when it is read.

It is read from the disk each time. A record that this process has checked, and finds byte for byte
as it was, under the same roots, is not checked once more: with a thousand generations that takes
ten times as long as opening one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tuf.api.metadata import Root, Snapshot, T, Targets, Timestamp

from durable import files
from manifests.errors import TrustError, TrustStateCorrupt, UnsignedRecord
from manifests.record import ControlRecord
from replicator.high_water import ROOT_HISTORY
from store.signed import control_record, signed_by, trusted_root

Roots = tuple[bytes, ...]
"""Root metadata, newest first; each but the last is signed by the one that follows."""

Read = TypeVar("Read")


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
        return self._read(Timestamp, functools.partial(_signed, self._roots(), Timestamp))

    def record(self) -> ControlRecord:
        """The record in the targets, where timestamp and snapshot are sound as well.

        Raises:
            TrustStateCorrupt, UnsignedRecord, WrongRecordType: see :meth:`timestamp`.
            ManifestMalformed, SchemaTooNew: see :func:`store.signed.control_record`.
        """
        roots = self._roots()
        self._read(Timestamp, functools.partial(_signed, roots, Timestamp))
        self._read(Snapshot, functools.partial(_signed, roots, Snapshot))
        return self._read(Targets, functools.partial(_record_in, roots))

    def _roots(self) -> Roots:
        """The roots from the anchor on, each signed by the one before it."""
        root = trusted_root(self._root)
        roots = [self._root]
        try:
            while (path := self._root_path(root.version + 1)).is_file():
                data = path.read_bytes()
                signed_by(root, data, Root)
                root = trusted_root(data)
                roots.append(data)
        except (OSError, TrustError) as error:
            raise self._damaged(error) from error
        return tuple(reversed(roots))

    def _root_path(self, version: int) -> Path:
        return self._folder / ROOT_HISTORY / f"{version}.root.json"

    def _read(self, kind: type[T], check: Callable[[bytes], Read]) -> Read:
        try:
            return check(files.read_file(self._folder / f"{kind.type}.json"))
        except (OSError, TrustError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> TrustStateCorrupt:
        return TrustStateCorrupt(
            f"the cached metadata in {self._folder} is damaged ({error}); bootstrap again to renew "
            "it",
            folder=str(self._folder),
        )


def _signed(roots: Roots, kind: type[T], data: bytes) -> T:
    """Metadata that is signed under the newest root or the one it was accepted under."""
    for root in roots[:-1]:
        with contextlib.suppress(UnsignedRecord):
            return signed_by(trusted_root(root), data, kind)
    return signed_by(trusted_root(roots[-1]), data, kind)


@functools.lru_cache(maxsize=2)
def _record_in(roots: Roots, data: bytes) -> ControlRecord:
    return control_record(_signed(roots, Targets, data))
