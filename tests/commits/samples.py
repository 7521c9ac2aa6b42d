"""Small logs and files for the tests of commits/."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from commits.documents import Delete, DocumentRules, Operation, Upsert
from commits.local_log import Commit, LocalCommitLog

COMPUTED = DocumentRules(dimensions=4, vectors="forbidden")
BROUGHT = DocumentRules(dimensions=4, vectors="required")
NOW_MS = 1_700_000_000_000


def operations(number: int) -> list[Operation]:
    return [
        Upsert(f"doc-{number}", title=f"title {number}", text="text", fields={"n": number}),
        Delete(f"gone-{number}"),
    ]


def append(log: LocalCommitLog, number: int) -> Commit:
    return log.append(
        operations(number), message_id=f"message-{number}", source="samples", now_ms=NOW_MS
    )


def make_log(folder: Path, commits: int, *, segment_size_bytes: int = 2**20) -> list[Commit]:
    with LocalCommitLog.open(folder, "main", segment_size_bytes=segment_size_bytes) as log:
        return [append(log, number) for number in range(1, commits + 1)]


def read_all(folder: Path) -> list[Commit]:
    log = LocalCommitLog.open(folder, "main")
    return list(log.read(1, log.head.commit_seq)) if log.head.commit_seq else []


def write_lines(path: Path, lines: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def documents(count: int) -> list[dict[str, Any]]:
    return [{"id": f"d{number}", "text": f"text {number}"} for number in range(count)]
