"""Why the last refresh of a node believed nothing, kept for the status until one succeeds."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path

from pydantic import Field

from durable import files
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import DiskError, DiskFull, ManifestMalformed, OperatorError, SchemaTooNew


class Refusal(Frozen):
    """What ``trust/refusal.json`` holds; ``at`` is the time in UTC, in ISO 8601."""

    schema_version: int = Field(default=1, ge=1, le=1)
    error: str
    message: str
    at: str


class RefusalFile:
    """The refusal in the folder of a node's trust state. Who changes it holds the node's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "refusal.json"

    def read(self) -> Refusal | None:
        """The last refusal; ``None`` where there is none, or none that can be read."""
        with contextlib.suppress(OSError, ManifestMalformed, SchemaTooNew):
            return parse_document(files.read_file(self._path), Refusal, 1)
        return None

    def write(self, error: OperatorError, now: datetime) -> None:
        """Keep why; it never raises, so that the refusal itself is the error that is told."""
        refusal = Refusal(error=error.name, message=error.message, at=now.isoformat())
        with contextlib.suppress(DiskFull, DiskError, ManifestMalformed):
            files.make_folder(self._folder)
            files.cache_file(self._path, to_canonical(refusal))

    def remove(self) -> None:
        """Forget it.

        Raises:
            DiskFull, DiskError: the disk refuses.
        """
        if self._path.exists():
            files.remove_file(self._path)
