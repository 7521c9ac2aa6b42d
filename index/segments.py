"""The segments of a text index, and its ``meta.json``, which lists them.

tantivy's Python binding cannot be told which segments to merge, and merges of its own accord as
soon as eight of one size are in one index. So that it never rewrites what did not change, an index
is changed in pieces: a folder with a ``meta.json`` that lists fewer segments is an index of its
own, whose files can be put back beside the others (ADR 0020).

Source of the form: ``IndexMeta`` and ``SegmentMeta`` of tantivy 0.27.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from durable import files

META_FILE = "meta.json"


class Deletes(msgspec.Struct, frozen=True):
    """How many documents of a segment are deleted, as its file ``<segment>.<opstamp>.del`` says."""

    num_deleted_docs: int
    opstamp: int


class Segment(msgspec.Struct, frozen=True):
    """One segment: files that never change, and at most one file of deletes."""

    segment_id: str
    max_doc: int
    deletes: Deletes | None = None

    @property
    def name(self) -> str:
        """What the names of its files start with."""
        return self.segment_id.replace("-", "")

    @property
    def dead(self) -> int:
        """How many of its documents are deleted."""
        return self.deletes.num_deleted_docs if self.deletes else 0

    @property
    def live(self) -> int:
        """How many of its documents are not deleted."""
        return self.max_doc - self.dead

    def owns(self, file_name: str) -> bool:
        """Whether a file belongs to the segment as it is; deletes that were superseded do not."""
        name, _, rest = file_name.partition(".")
        if name != self.name:
            return False
        deletes = f"{self.deletes.opstamp}.del" if self.deletes else None
        return rest == deletes or not rest.endswith("del")


class Meta(msgspec.Struct, frozen=True):
    """The content of ``meta.json``; what genctl has no need to read stays as it is."""

    index_settings: msgspec.Raw
    segments: tuple[Segment, ...]
    schema: msgspec.Raw
    opstamp: int

    def of(self, segments: Iterable[Segment]) -> Meta:
        """The same index with these segments."""
        return msgspec.structs.replace(self, segments=tuple(segments))


def read_meta(folder: Path) -> Meta:
    """What the index in ``folder``, which tantivy or genctl just wrote, consists of.

    Raises:
        DiskError: it cannot be read.
    """
    path = folder / META_FILE
    with files.translated(path):
        return msgspec.json.decode(path.read_bytes(), type=Meta)


def write_meta(folder: Path, meta: Meta) -> None:
    """Have the index in ``folder``, a draft, consist of these segments; durable when it is kept.

    Raises:
        DiskFull, DiskError: the disk refuses.
    """
    files.cache_file(folder / META_FILE, msgspec.json.encode(meta))


def segment_files(folder: Path, segments: Sequence[Segment]) -> list[str]:
    """The names of the files of ``segments`` in ``folder``, in order."""
    names = {segment.name: segment for segment in segments}
    found = (path.name for path in folder.iterdir())
    return sorted(
        name
        for name in found
        if (segment := names.get(name.partition(".")[0])) is not None and segment.owns(name)
    )


def link_segments(source: Path, segments: Sequence[Segment], target: Path) -> None:
    """Give the files of ``segments`` in ``source`` the same names in ``target``.

    Raises:
        DiskFull, DiskError: the disk refuses.
    """
    for name in segment_files(source, segments):
        files.link_file(source / name, target / name)
