"""What a crash left at the end of the log, told apart from damage.

The records before some offset of the last segment are intact, and what follows is not a record. A
crash leaves such bytes: a part of a record, or its full length with pages that never reached the
disk. So does a flipped bit in a record that somebody relies on. They are told apart thus:

* An append is acknowledged only after its fsync and after the mark has moved past it. What lies
  beyond the mark was therefore not acknowledged, and may go; what lies before it was, and stays,
  damaged or not. For the very last record no checksum could tell.
* The mark may be older than the log, after a power cut or in a copy that was made while the log
  grew. Then a torn write is still the last thing in the file, because records are written one after
  another. An intact record behind the damage, or one that is intact but for its length, is evidence
  of rot, and nothing is cut.
* Without a readable mark nothing can be told, and nothing is cut.
* A segment's first record is linked into place whole, so it is never torn.
"""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from commits.capsule import CAPSULE_PREFIX, NO_COMMIT_ID
from commits.segment import FRAME, HEADER, Acknowledged, StoredRecord, corrupt, read_segment
from durable.files import opened_file, translated
from manifests.errors import LogCorrupt


def last_record(path: Path, shard: str, first_seq: int, mark: Acknowledged | None) -> StoredRecord:
    """Verify the last segment; return its last record. What lies behind that is a torn write.

    Args:
        path: the segment.
        shard: the shard whose log this is.
        first_seq: the commit_seq of its first record.
        mark: the acknowledged mark as it was before the segment was read; ``None`` if unreadable.

    Raises:
        LogCorrupt: damage, or acknowledged commits are missing; names the segment and the offset.
        SchemaTooNew: a capsule was written by a newer genctl.
        DiskError: the system refused to read.
    """
    acknowledged_end = None
    if mark is not None:
        acknowledged_end = mark.end_bytes if mark.first_seq == first_seq else 0
    with translated(path):
        # Once: a writer may be at work, and what is torn now must not be judged by what it becomes.
        size_bytes = path.stat().st_size
    last: StoredRecord | None = None
    try:
        predecessor = NO_COMMIT_ID if first_seq == 1 else None
        for record in read_segment(path, shard, first_seq, predecessor, size_bytes):
            last = record
    except LogCorrupt:
        if last is None or acknowledged_end is None or last.end_bytes < acknowledged_end:
            raise
        if _holds_evidence(path, last.end_bytes, size_bytes):
            raise
    if last is None:
        raise corrupt(path, len(HEADER), "a segment without records")
    if acknowledged_end is not None and last.end_bytes < acknowledged_end:
        raise corrupt(path, last.end_bytes, "acknowledged commits are missing at the end")
    return last


def _holds_evidence(path: Path, offset_bytes: int, size_bytes: int) -> bool:
    """Whether more than a torn write lies behind ``offset_bytes``: see the second rule above."""
    with translated(path), opened_file(path) as stream:
        stream.seek(offset_bytes)
        rest = stream.read(size_bytes - offset_bytes)
    if len(rest) > FRAME.size and blake3(rest[FRAME.size :]).digest() == rest[4 : FRAME.size]:
        return True
    start = rest.find(CAPSULE_PREFIX, FRAME.size)
    while start != -1:
        length, digest = FRAME.unpack_from(rest, start - FRAME.size)
        payload = memoryview(rest)[start : start + length]
        if len(payload) == length and blake3(payload).digest() == digest:
            return True
        start = rest.find(CAPSULE_PREFIX, start + 1)
    return False
