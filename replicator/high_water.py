"""The high-water mark of a node: what it has seen signed so far, on disk before it is believed.

Cached metadata would forget, if it were lost, what was already superseded, and an old record would
then be new. The mark does not: for each role it has the highest version, the hash of the very bytes
(so that another document of the same version is recognised) and the keys that signed them (so that
the mark falls, as TUF 5.3.11 wants it, when a new root takes those keys away).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from durable import files
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import ManifestMalformed, SchemaTooNew, TrustStateCorrupt
from manifests.identifiers import content_id

HIGH_WATER_FILE = "high_water.json"
ROOT_HISTORY = "root_history"
"""The folder of the roots that followed the one that was given."""
_CACHED_ROLES = ("timestamp.json", "snapshot.json", "targets.json")
_POINTER = "active.json"
"""Beside the folder: what a node serves, so that it has believed a record once."""
Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class RoleMark(Frozen):
    """The newest document of one role; ``key_ids`` are the keys whose signatures it bore."""

    version: int = Field(ge=1)
    sha256: Sha256Hex
    key_ids: tuple[str, ...]


class HighWater(Frozen):
    """What ``trust/high_water.json`` holds; a role is ``None`` until something of it was seen.

    ``root`` is ``None`` until a root followed the one that the node was given. ``signed_at`` is the
    newest time at which a timestamp says that it was signed, in ISO 8601. ``active_high_seq`` is
    the last commit of the generation that was active in the last record.
    """

    schema_version: Literal[2] = 2
    root: RoleMark | None = None
    timestamp: RoleMark | None = None
    snapshot: RoleMark | None = None
    targets: RoleMark | None = None
    signed_at: str | None = None
    active_high_seq: int | None = None


class HighWaterFile:
    """The mark in the folder of a node's trust state. Who changes it holds the node's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / HIGH_WATER_FILE

    def read(self) -> HighWater:
        """The mark; an empty one where nothing was ever believed.

        Raises:
            TrustStateCorrupt: it is damaged, or missing where a record was believed.
        """
        try:
            data = files.read_file(self.path)
        except FileNotFoundError as error:
            if any((self._folder / name).exists() for name in _CACHED_ROLES):
                raise self._corrupt("it is missing beside metadata that was believed") from error
            if os.path.lexists(self._folder.with_name(_POINTER)):
                raise self._corrupt("it is missing, and the node serves a generation") from error
            return HighWater()
        except OSError as error:
            raise self._corrupt(error.strerror or str(error)) from error
        body, _, checksum = data.rstrip(b"\n").rpartition(b"\n")
        if content_id(body).encode() != checksum:
            raise self._corrupt("its checksum does not match")
        try:
            return parse_document(body, HighWater, 2)
        except (ManifestMalformed, SchemaTooNew) as error:
            raise self._corrupt(error.message) from error

    def write(self, mark: HighWater) -> None:
        """Put ``mark`` in the place of the one before, durably.

        Raises:
            DiskFull, DiskError: it could not be written; the one before stands.
        """
        body = to_canonical(mark)
        files.replace_file(self.path, [body, b"\n", content_id(body).encode(), b"\n"])

    def refuse_obstructed(self, folder: Path) -> None:
        """Refuse what is no file in a folder of the trust state: python-tuf would wait for a pipe.

        Raises:
            TrustStateCorrupt: there is something else than files and folders of files.
        """
        for path in sorted(folder.iterdir()):
            if not path.is_file() and path.name != ROOT_HISTORY:
                raise self._corrupt("it is no regular file", path)

    def _corrupt(self, reason: str, path: Path | None = None) -> TrustStateCorrupt:
        node = self._folder.parent
        return TrustStateCorrupt(
            f"{path or self.path} is damaged: {reason}. The node goes on serving, and believes "
            "nothing new until you give it a root of trust again, brought here by a way you trust: "
            f"`genctl node repin {node} --root FILE [--minimum-version N]`",
            path=str(path or self.path),
        )
