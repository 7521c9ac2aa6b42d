"""The commit log on one machine: a folder of segments, appended to by one writer.

The form of the files is described in :mod:`commits.segment`. An append is durable when it returns
(``local-ack``: one fsync on this machine's disk).
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from commits.capsule import NO_COMMIT_ID, VERSION, Capsule, decode, encode
from commits.documents import Operation
from commits.recovery import last_record
from commits.segment import (
    HEADER,
    MARK_NAME,
    MAX_CAPSULE_BYTES,
    Acknowledged,
    StoredRecord,
    corrupt,
    read_mark,
    read_segment,
    segment_path,
    segment_seqs,
    to_record,
)
from durable import files
from manifests.errors import BadSetting, DiskError, GenctlError

SEGMENT_SIZE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that is in the log."""

    commit_seq: int
    commit_id: str
    capsule: Capsule


@dataclass(frozen=True, slots=True)
class Head:
    """The last commit of a log; sequence 0 and ids of zeros while it is empty."""

    commit_seq: int = 0
    commit_id: str = NO_COMMIT_ID
    message_id: str = NO_COMMIT_ID


class LocalCommitLog(contextlib.AbstractContextManager["LocalCommitLog"]):
    """A durable, ordered sequence of capsules in a folder. Made by :meth:`open`.

    Any number of processes may open and read a log, also while it grows. Whoever appends holds the
    home's lock: two writers at once would overwrite each other.
    """

    def __init__(self, folder: Path, shard: str, segment_size_bytes: int) -> None:
        self._folder = folder
        self._shard = shard
        self._segment_size_bytes = segment_size_bytes
        self._segments: list[int] = []
        self._end_bytes = 0
        self._head = Head()
        self._segment: files.WritableFile | None = None
        self._mark: files.WritableFile | None = None
        self._failure: str | None = None

    @classmethod
    def open(
        cls, folder: Path, shard: str, *, segment_size_bytes: int = SEGMENT_SIZE_BYTES
    ) -> LocalCommitLog:
        """Open the log in ``folder``, which is created if it is missing.

        Reads and verifies the last segment only. A torn record at its end is not part of the log
        from here on; its bytes are cut off, durably, before the next append. Not sooner: in the
        eyes of a reader, a record that a writer is just writing is torn too.

        Args:
            folder: where the segments are.
            shard: whose log it is; every capsule says so too.
            segment_size_bytes: a segment that would grow beyond this is followed by a new one.

        Raises:
            LogCorrupt: the last segment is damaged, or segments are missing; names ``segment`` and
                ``offset_bytes``. Nothing was changed.
            SchemaTooNew: written by a newer genctl.
            DiskError: the system refused to read or to flush.
        """
        log = cls(folder, shard, segment_size_bytes)
        files.make_folder(folder)
        log._recover()
        return log

    @property
    def head(self) -> Head:
        """The last commit."""
        return self._head

    def append(
        self,
        operations: Sequence[Operation],
        *,
        message_id: str,
        source: str,
        now_ms: int,
        meta: Mapping[str, str] | None = None,
    ) -> Commit:
        """Add one commit; it is durable when this returns.

        Args:
            operations: at least one.
            message_id: names the commit to its sender, who finds it again in :attr:`head`.
            source: where the operations came from, a file's name say.
            now_ms: milliseconds since 1970, UTC.
            meta: what else the sender wants to keep with the commit.

        Raises:
            BadSetting: no operations, or more bytes than a capsule may have. Nothing was written.
            DiskFull, DiskError: nothing is acknowledged, and the log object refuses every later
                append with ``DiskError``, because what is on the disk is no longer known; open the
                log again.
        """
        if self._failure is not None:
            raise DiskError(
                f"the commit log {self._folder} takes no more commits after a failed write "
                f"({self._failure}); see to the disk and run the command again",
                path=str(self._folder),
            )
        capsule = Capsule(
            version=VERSION,
            shard=self._shard,
            commit_seq=self._head.commit_seq + 1,
            predecessor=self._head.commit_id,
            message_id=message_id,
            source=source,
            ts_ms=now_ms,
            meta=dict(meta or {}),
            operations=tuple(operations),
        )
        payload = encode(capsule)
        if not operations or len(payload) > MAX_CAPSULE_BYTES:
            raise BadSetting(
                f"a commit of {len(operations)} operations and {len(payload)} bytes; it takes at "
                f"least one operation and at most {MAX_CAPSULE_BYTES} bytes"
            )
        record = to_record(payload)
        try:
            self._write(record, capsule.commit_seq)
        except BaseException as error:
            self._failure = str(error) or type(error).__name__
            raise
        commit_id = record[4:36].hex()
        self._head = Head(capsule.commit_seq, commit_id, message_id)
        return Commit(capsule.commit_seq, commit_id, capsule)

    def read(self, low_seq: int, high_seq: int) -> Iterator[Commit]:
        """The commits ``low_seq`` … ``high_seq``, both included, verified as they are read.

        Opens the segments that hold them and no others; holds one capsule at a time. The first
        commit of the first of these segments is not compared with its predecessor, which lies in a
        segment that is not opened.

        Raises:
            BadSetting: the range is not within 1 … ``head.commit_seq`` (at once).
            LogCorrupt: a record, the sequence or the hash chain is damaged; the commits yielded
                before are good, and nothing is skipped.
            SchemaTooNew: written by a newer genctl.
            DiskError: the system refused to read.
        """
        if not 1 <= low_seq <= high_seq <= self._head.commit_seq:
            raise BadSetting(
                f"commits {low_seq} to {high_seq} are not all in the log, which holds 1 to "
                f"{self._head.commit_seq}"
            )
        return self._read(low_seq, high_seq)

    def close(self) -> None:
        """Let go of the open files; every append has already been made durable."""
        for stream in (self._segment, self._mark):
            if stream is not None:
                stream.close()
        self._segment = self._mark = None

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- opening ----------------------------------------------------------------------------------

    def _recover(self) -> None:
        # The mark first: a writer at work moves it only after the record it speaks of.
        mark = read_mark(self._folder)
        self._segments = segment_seqs(self._folder)
        if mark is None and not self._segments:
            return
        for first_seq in (1, mark.first_seq if mark else 1):
            if first_seq not in self._segments:
                raise corrupt(segment_path(self._folder, first_seq), 0, "the segment is missing")
        path = segment_path(self._folder, self._segments[-1])
        # A record that is read here may never have been flushed (its writer was killed before).
        # From now on others rely on it, and a repeated ingest reports it as done.
        files.fsync_file(path)
        files.fsync_folder(self._folder)
        last = last_record(path, self._shard, self._segments[-1], mark)
        self._end_bytes = last.end_bytes
        self._head = Head(last.envelope.commit_seq, last.commit_id, last.envelope.message_id)

    # --- appending --------------------------------------------------------------------------------

    def _write(self, record: bytes, commit_seq: int) -> None:
        if self._segment is None:
            self._prepare()
        fits = self._end_bytes + len(record) <= self._segment_size_bytes
        if self._segment is not None and fits:
            self._extend(self._segment, record)
        else:
            self._begin_segment(record, commit_seq)
        self._move_mark()

    def _prepare(self) -> None:
        files.remove_temporaries(self._folder)
        if not self._segments:
            return
        path = segment_path(self._folder, self._segments[-1])
        self._segment = files.WritableFile(path)
        with files.translated(path):
            size_bytes = path.stat().st_size
        if size_bytes > self._end_bytes:
            self._segment.truncate(self._end_bytes)
        # Before a record can be torn there is a mark that vouches for all the records before it.
        self._move_mark()

    def _extend(self, segment: files.WritableFile, record: bytes) -> None:
        try:
            segment.write_at(self._end_bytes, record)
            segment.fsync()
        except GenctlError:
            # After a failed fsync the record may be in the page cache and nowhere else. Whoever
            # opens the log next must not find it there and take it for durable.
            with contextlib.suppress(GenctlError):
                segment.truncate(self._end_bytes)
            raise
        self._end_bytes += len(record)

    def _begin_segment(self, record: bytes, commit_seq: int) -> None:
        path = segment_path(self._folder, commit_seq)
        try:
            created = files.create_file(path, [HEADER, record])
        except GenctlError:
            with contextlib.suppress(GenctlError):
                files.remove_file(path)
            raise
        if not created:
            raise corrupt(path, 0, "the segment is there already; is another writer at work?")
        if self._segment is not None:
            self._segment.close()
        self._segment = files.WritableFile(path)
        self._segments.append(commit_seq)
        self._end_bytes = len(HEADER) + len(record)

    def _move_mark(self) -> None:
        path = self._folder / MARK_NAME
        data = Acknowledged(self._segments[-1], self._end_bytes).to_bytes()
        if self._mark is None:
            files.replace_file(path, [data])
            self._mark = files.WritableFile(path)
        else:
            self._mark.write_at(0, data)

    # --- reading ----------------------------------------------------------------------------------

    def _read(self, low_seq: int, high_seq: int) -> Iterator[Commit]:
        segments, end_bytes = tuple(self._segments), self._end_bytes
        start = bisect_right(segments, low_seq) - 1
        due, predecessor = segments[start], NO_COMMIT_ID if start == 0 else None
        for first_seq in segments[start:]:
            path = segment_path(self._folder, first_seq)
            if first_seq != due:
                raise corrupt(path, 0, f"the segment before it ends at commit {due - 1}")
            end = end_bytes if first_seq == segments[-1] else None
            for record in read_segment(path, self._shard, first_seq, predecessor, end):
                due, predecessor = record.envelope.commit_seq + 1, record.commit_id
                if due > low_seq:
                    yield _to_commit(record, path)
                if due > high_seq:
                    return
        raise corrupt(segment_path(self._folder, due), 0, f"commit {due} is missing")


def _to_commit(record: StoredRecord, path: Path) -> Commit:
    try:
        capsule = decode(record.payload)
    except ValueError as error:
        raise corrupt(path, record.offset_bytes, f"a record holds no capsule: {error}") from error
    return Commit(capsule.commit_seq, record.commit_id, capsule)
