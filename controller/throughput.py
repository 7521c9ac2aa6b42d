"""How fast the last transfer of a node was: ``NODE/throughput.json``, the basis of estimates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from durable import files
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import ManifestMalformed, SchemaTooNew
from replicator.fetch import Progress

THROUGHPUT_FILE = "throughput.json"
MEASURED_FROM_BYTES = 8 << 20
"""A transfer of fewer bytes says how long requests take, not how fast bytes come."""


class Stopwatch:
    """Seconds since the start, by ``now_s``, a clock that never goes back."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._started_s = now_s()

    def started(self, progress: Progress) -> Progress:
        """Start again, now that ``progress`` is going to be told of something."""
        self._started_s = self._now_s()
        return progress

    def passed_s(self) -> float:
        """How long it has been."""
        return self._now_s() - self._started_s


class Throughput(Frozen):
    """What a transfer moved from end to end: fetched, checked, written."""

    schema_version: Literal[1] = 1
    moved_bytes: int = Field(ge=1)
    took_ms: int = Field(ge=1)

    @property
    def bytes_per_s(self) -> float:
        """The rate of it."""
        return self.moved_bytes * 1000 / self.took_ms


def record_throughput(home: Path, moved_bytes: int, took_s: float) -> None:
    """Keep what a transfer showed, if it was long enough to show something.

    Raises:
        DiskFull, DiskError: it cannot be written.
    """
    if moved_bytes >= MEASURED_FROM_BYTES:
        measured = Throughput(moved_bytes=moved_bytes, took_ms=max(1, round(took_s * 1000)))
        files.replace_file(home / THROUGHPUT_FILE, [to_canonical(measured)])


def last_throughput(home: Path) -> Throughput | None:
    """What the last transfer showed; ``None`` if there was none or the file cannot be read."""
    try:
        return parse_document(files.read_file(home / THROUGHPUT_FILE), Throughput, 1)
    except (OSError, ManifestMalformed, SchemaTooNew):
        return None
