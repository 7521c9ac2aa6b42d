"""From files to commits: all or nothing before the first write, and safe to run again after it.

**Two passes.** The first parses and validates everything, so that a bad last line leaves nothing
half written, and computes each commit's ``message_id``. The second reads again and appends. It
validates again too, and compares the message_ids as it goes, so that a file that changed in between
is an error and never a commit that was not validated.

**Resuming.** ``message_id(i) = BLAKE3(message_id(i-1) ‖ operations of commit i, encoded)`` over the
whole run, the first from 32 zero bytes: it stands for commit i *and everything before it in this
run*. If the log's last commit has the message_id of some commit i of this run, the last i commits
of the log are commits 1 … i of it: an earlier run of the same command got that far, and nothing
came in between. They are skipped. That is sound even if it was meant as a second, separate
ingestion, because applying once more what is exactly the log's tail changes no document.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from commits.documents import DocumentRules, Operation, Place, encode_operation
from commits.local_log import LocalCommitLog
from commits.readers import Source, open_source, read_operations
from manifests.errors import BadSetting
from manifests.identifiers import HASH_SIZE_BYTES

# A commit of huge documents ends early, so that memory is bounded in bytes too. What counts is the
# input alone, so that a repeated run cuts its commits in the same places.
MAX_COMMIT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingestion came to.

    ``commit_seq`` is the log's last commit, ``documents`` counts the operations in the input,
    ``commits`` the commits appended by this run, ``skipped_commits`` those that were there already.
    """

    commit_seq: int
    documents: int
    commits: int
    skipped_commits: int


@dataclass(frozen=True, slots=True)
class _Batch:
    """The operations of one commit; ``line`` is where they start."""

    source: Source
    line: int
    message_id: bytes
    operations: tuple[Operation, ...]


def ingest(
    log: LocalCommitLog,
    paths: Sequence[Path],
    *,
    rules: DocumentRules,
    format: str | None = None,  # noqa: A002
    commit_size: int,
    now_ms: Callable[[], int],
    progress: Callable[[int], None] | None = None,
) -> IngestReport:
    """Append the operations in ``paths``, ``commit_size`` to a commit; holds one commit at a time.

    A commit does not span files, and ends early at ``MAX_COMMIT_BYTES``. The same command run again
    finishes what an interrupted one began, or reports that all is there.

    Args:
        log: where to; the caller holds the home's lock.
        paths: files, read in this order.
        rules: what the home accepts.
        format: one of ``commits.readers.FORMATS``; ``None``: by each file's extension.
        commit_size: operations to a commit, at least 1.
        now_ms: gives the time of each commit, in milliseconds since 1970, UTC.
        progress: called after each commit with the number of operations that it brought.

    Raises:
        BadDocument: names the file, the line and the field. Nothing was appended, unless the file
            changed during the call: then the commits before that line were.
        BadSetting: a path or an argument cannot be used. Nothing was appended.
        DiskFull, DiskError: see :meth:`LocalCommitLog.append`; commits appended before stay.
    """
    if commit_size < 1:
        raise BadSetting(f"a commit holds at least one operation, not {commit_size}")
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(open_source(path, format)) for path in paths]
        message_ids, documents = [], 0
        for batch in _batches(sources, rules, commit_size):
            message_ids.append(batch.message_id)
            documents += len(batch.operations)
        skipped = _already_there(log, message_ids)
        if skipped < len(message_ids):
            batches = _batches(sources, rules, commit_size)
            _append(log, batches, message_ids, skipped, now_ms=now_ms, progress=progress)
    return IngestReport(log.head.commit_seq, documents, len(message_ids) - skipped, skipped)


def _already_there(log: LocalCommitLog, message_ids: list[bytes]) -> int:
    with contextlib.suppress(ValueError):
        return message_ids.index(bytes.fromhex(log.head.message_id)) + 1
    return 0


def _append(
    log: LocalCommitLog,
    batches: Iterator[_Batch],
    message_ids: list[bytes],
    skipped: int,
    *,
    now_ms: Callable[[], int],
    progress: Callable[[int], None] | None,
) -> None:
    batch = None
    for number, batch in enumerate(batches):
        if number >= len(message_ids) or batch.message_id != message_ids[number]:
            raise _changed(batch)
        if number >= skipped:
            log.append(
                batch.operations,
                message_id=batch.message_id.hex(),
                source=os.fsencode(batch.source.path.name).decode("utf-8", "replace"),
                now_ms=now_ms(),
            )
        if progress is not None:
            progress(len(batch.operations))
    if batch is None or batch.message_id != message_ids[-1]:
        raise BadSetting("the input became shorter while it was read; run the command again")


def _batches(sources: Sequence[Source], rules: DocumentRules, commit_size: int) -> Iterator[_Batch]:
    message_id = bytes(HASH_SIZE_BYTES)
    for source in sources:
        for line, operations, encoded in _groups(source, rules, commit_size):
            # Each operation is one msgpack object, so the concatenation is unambiguous.
            message_id = blake3(message_id).update(encoded).digest()
            yield _Batch(source, line, message_id, operations)


def _groups(
    source: Source, rules: DocumentRules, commit_size: int
) -> Iterator[tuple[int, tuple[Operation, ...], bytearray]]:
    operations: list[Operation] = []
    encoded = bytearray()
    lines: dict[str, int] = {}
    first_line = 0
    for line, operation in read_operations(source, rules):
        if lines.setdefault(operation.id, line) != line:
            raise Place(source.name, line).refusal(
                "id",
                f"{operation.id!r} was already used in line {lines[operation.id]}, and both would "
                f"be in one commit",
            )
        if not operations:
            first_line = line
        operations.append(operation)
        encoded += encode_operation(operation)
        if len(operations) == commit_size or len(encoded) >= MAX_COMMIT_BYTES:
            yield first_line, tuple(operations), encoded
            operations, encoded, lines = [], bytearray(), {}
    if operations:
        yield first_line, tuple(operations), encoded


def _changed(batch: _Batch) -> Exception:
    return Place(batch.source.name, batch.line).refusal(
        "document", "the file changed while it was read; leave it alone and run the command again"
    )
