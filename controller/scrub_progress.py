"""How far the scrub of a node has come: what ``NODE/scrub/progress.json`` holds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from durable import files
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import ManifestMalformed, SchemaTooNew
from manifests.identifiers import Blake3Hex

FOLDER = "scrub"
"""Of its own: commands that hold the node's lock, which a scrub does not, clear up in ``NODE``."""

PROGRESS_FILE = "progress.json"


class Position(Frozen):
    """How far a pass has come: artifacts with smaller ids are done, of this one so many bytes."""

    artifact_id: Blake3Hex
    checked_bytes: int


class Findings(Frozen):
    """What a pass found and did.

    ``read_bytes``: what was read until damage showed, and what was found good while it was mended.
    ``relinked_files``: files of generations that were lost, or other copies than the one that was
    checked, and are that one now.
    """

    artifacts: int = 0
    read_bytes: int = 0
    damaged_artifacts: int = 0
    relinked_files: int = 0
    mended_artifacts: int = 0
    fetched_bytes: int = 0
    rebuilt_bytes: int = 0

    def plus(self, **more: int) -> Findings:
        """These and so many more."""
        return self.model_copy(update={n: getattr(self, n) + more[n] for n in more})


class ScrubProgress(Frozen):
    """What the file holds: the pass under way, if one is, and the last that was finished."""

    schema_version: Literal[1] = 1
    position: Position | None = None
    found: Findings = Findings()
    ended_at: str | None = None
    last: Findings | None = None


def last_progress(home: Path) -> ScrubProgress:
    """What the node at ``home`` has noted; if it cannot be read, that nothing was ever scrubbed."""
    try:
        return parse_document(files.read_file(home / FOLDER / PROGRESS_FILE), ScrubProgress, 1)
    except (OSError, ManifestMalformed, SchemaTooNew):
        return ScrubProgress()


def save_progress(home: Path, progress: ScrubProgress) -> None:
    """Note it, durably.

    Raises:
        DiskFull, DiskError: the disk refuses.
    """
    files.make_folder(home / FOLDER)
    files.replace_file(home / FOLDER / PROGRESS_FILE, [to_canonical(progress)])
