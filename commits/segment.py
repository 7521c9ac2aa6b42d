"""A segment of the commit log: one file, a header and then records.

::

    segment  := header record record*        named %012d.log by the commit_seq of its first record
    header   := "GCTLLOG" 0x01               8 bytes; the last one is the version of this form
    record   := length hash payload
    length   := u32, little-endian           bytes of payload, at least 1
    hash     := 32 bytes                     BLAKE3 of the payload: checksum, and the commit_id
    payload  := a capsule                    see commits.capsule

A segment comes into being whole, with its first record, by an atomic link; so none is ever empty
and no first record is ever torn. Later records are appended, each with its own fsync. Records
follow one another without gaps, ``commit_seq`` by one, each naming its predecessor's commit_id.

The **acknowledged mark** is one more file in the folder, ``acknowledged``, rewritten after each
fsync and before the append is reported::

    mark     := "GCTLACK" 0x01 segment end check
    segment  := u64, little-endian           first commit_seq of the segment it speaks of
    end      := u64, little-endian           offset at which the last acknowledged record ends there
    check    := 32 bytes                     BLAKE3 of the 24 bytes before it

It is a lower bound, not flushed: a killed process leaves it exact, a power cut perhaps some seconds
old. It tells damage from a torn write, see :mod:`commits.recovery`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from commits.capsule import Envelope, decode_envelope
from durable.files import opened_file, read_file, translated
from manifests.errors import LogCorrupt
from manifests.identifiers import HASH_SIZE_BYTES

HEADER = b"GCTLLOG\x01"
MARK_NAME = "acknowledged"
MAX_CAPSULE_BYTES = 256 * 2**20

FRAME = struct.Struct(f"<I{HASH_SIZE_BYTES}s")
_MARK = struct.Struct("<8sQQ")
_MARK_MAGIC = b"GCTLACK\x01"


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record whose checksum, sequence and predecessor have been verified."""

    offset_bytes: int
    end_bytes: int
    commit_id: str
    envelope: Envelope
    payload: bytes


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Everything before ``end_bytes`` of the segment has been acknowledged."""

    first_seq: int
    end_bytes: int

    def to_bytes(self) -> bytes:
        """The content of the mark's file."""
        body = _MARK.pack(_MARK_MAGIC, self.first_seq, self.end_bytes)
        return body + blake3(body).digest()


def segment_path(folder: Path, first_seq: int) -> Path:
    """Where the segment that starts with ``first_seq`` is."""
    return folder / f"{first_seq:012d}.log"


def segment_seqs(folder: Path) -> list[int]:
    """The first commit_seq of each segment in ``folder``, ascending; other files are ignored."""
    with translated(folder):
        stems = [path.stem for path in folder.glob("*.log")]
    return sorted(
        int(stem) for stem in stems if len(stem) == 12 and stem.isascii() and stem.isdecimal()
    )


def to_record(payload: bytes) -> bytes:
    """The record that holds a capsule's bytes."""
    return FRAME.pack(len(payload), blake3(payload).digest()) + payload


def corrupt(path: Path, offset_bytes: int, what: str) -> LogCorrupt:
    """The error that names where the log is damaged."""
    return LogCorrupt(
        f"the commit log is damaged: {path} at offset {offset_bytes}: {what}",
        segment=path.name,
        offset_bytes=offset_bytes,
    )


def read_mark(folder: Path) -> Acknowledged | None:
    """The acknowledged mark of the log in ``folder``; ``None`` if it is missing or damaged."""
    path = folder / MARK_NAME
    if not path.exists():
        return None
    with translated(path):
        data = read_file(path)
    body, check = data[: _MARK.size], data[_MARK.size :]
    if len(body) != _MARK.size or blake3(body).digest() != check or body[:8] != _MARK_MAGIC:
        return None
    _, first_seq, end_bytes = _MARK.unpack(body)
    return Acknowledged(first_seq, end_bytes)


def read_segment(
    path: Path, shard: str, first_seq: int, predecessor: str | None, end_bytes: int | None = None
) -> Iterator[StoredRecord]:
    """Yield the records of a segment in order, each verified; holds one at a time.

    Args:
        path: the segment.
        shard: the shard whose log this is.
        first_seq: the commit_seq that its first record must have.
        predecessor: the commit_id before it; ``None`` where it is not known.
        end_bytes: where to stop; ``None`` for the end of the file.

    Raises:
        LogCorrupt: names the segment and the offset of the first record that is not as it should.
        SchemaTooNew: a capsule was written by a newer genctl.
        DiskError: the system refused to read.
    """
    with translated(path), opened_file(path) as stream:
        if end_bytes is None:
            end_bytes = path.stat().st_size
        if stream.read(len(HEADER)) != HEADER:
            raise corrupt(path, 0, "not the header of a commit log segment, version 1")
        offset_bytes, commit_seq = len(HEADER), first_seq
        while offset_bytes < end_bytes:
            record = _read_record(stream, path, offset_bytes, end_bytes)
            _check_order(record, path, shard, commit_seq, predecessor)
            yield record
            offset_bytes, commit_seq = record.end_bytes, commit_seq + 1
            predecessor = record.commit_id


def _read_record(stream: BinaryIO, path: Path, offset_bytes: int, end_bytes: int) -> StoredRecord:
    frame = stream.read(FRAME.size)
    if len(frame) != FRAME.size or offset_bytes + FRAME.size > end_bytes:
        raise corrupt(path, offset_bytes, "a record is cut off")
    length, digest = FRAME.unpack(frame)
    record_end = offset_bytes + FRAME.size + length
    # Before anything is allocated: a damaged length may say four gigabytes.
    if not 0 < length <= MAX_CAPSULE_BYTES or record_end > end_bytes:
        raise corrupt(path, offset_bytes, f"a record of {length} bytes does not fit")
    payload = stream.read(length)
    if len(payload) != length or blake3(payload).digest() != digest:
        raise corrupt(path, offset_bytes, "a record does not have its checksum")
    try:
        envelope = decode_envelope(payload)
    except ValueError as error:
        raise corrupt(path, offset_bytes, f"a record holds no capsule: {error}") from error
    return StoredRecord(offset_bytes, record_end, digest.hex(), envelope, payload)


def _check_order(
    record: StoredRecord, path: Path, shard: str, commit_seq: int, predecessor: str | None
) -> None:
    found = record.envelope
    if found.shard != shard:
        what = f"a commit of shard {found.shard} in the log of shard {shard}"
    elif found.commit_seq != commit_seq:
        what = f"commit {found.commit_seq} stands where {commit_seq} is due"
    elif predecessor is not None and found.predecessor != predecessor:
        what = f"commit {commit_seq} does not follow from the commit before it"
    else:
        return
    raise corrupt(path, record.offset_bytes, what)
