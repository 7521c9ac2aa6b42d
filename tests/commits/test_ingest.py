import json
from pathlib import Path
from typing import Any

import pytest

from commits import ingest as ingest_module
from commits.capsule import NO_COMMIT_ID
from commits.documents import Delete, DocumentRules, Upsert
from commits.ingest import IngestReport, ingest
from commits.local_log import LocalCommitLog
from manifests.errors import BadDocument, BadSetting, DiskFull
from tests.commits.samples import BROUGHT, COMPUTED, NOW_MS, append, documents, write_lines


@pytest.fixture
def log(tmp_path: Path) -> LocalCommitLog:
    return LocalCommitLog.open(tmp_path / "log", "main")


def run(
    log: LocalCommitLog,
    *paths: Path,
    rules: DocumentRules = COMPUTED,
    commit_size: int = 4,
    **more: Any,
) -> IngestReport:
    return ingest(log, paths, rules=rules, commit_size=commit_size, now_ms=lambda: NOW_MS, **more)


def sizes(log: LocalCommitLog) -> list[int]:
    return [len(commit.capsule.operations) for commit in log.read(1, log.head.commit_seq)]


def test_files_become_commits_that_do_not_span_files(tmp_path: Path, log: LocalCommitLog) -> None:
    one = write_lines(tmp_path / "one.jsonl", documents(9))
    two = write_lines(tmp_path / "two.jsonl", documents(5))
    done: list[int] = []
    assert run(log, one, two, progress=done.append) == IngestReport(5, 14, 5, 0)
    assert sizes(log) == [4, 4, 1, 4, 1]
    assert done == [4, 4, 1, 4, 1]
    sources = [commit.capsule.source for commit in log.read(1, 5)]
    assert sources == ["one.jsonl"] * 3 + ["two.jsonl"] * 2


def test_nothing_to_ingest_is_no_commit(tmp_path: Path, log: LocalCommitLog) -> None:
    assert run(log, write_lines(tmp_path / "x.jsonl", [])) == IngestReport(0, 0, 0, 0)
    assert run(log) == IngestReport(0, 0, 0, 0)
    assert log.head.commit_id == NO_COMMIT_ID


def test_row_65_the_same_ingestion_twice_is_accepted_once(
    tmp_path: Path, log: LocalCommitLog
) -> None:
    path = write_lines(tmp_path / "x.jsonl", documents(10))
    assert run(log, path) == IngestReport(3, 10, 3, 0)
    assert run(log, path) == IngestReport(3, 10, 0, 3)
    assert run(LocalCommitLog.open(tmp_path / "log", "main"), path) == IngestReport(3, 10, 0, 3)


def test_row_65_a_file_that_grew_adds_what_is_new(tmp_path: Path, log: LocalCommitLog) -> None:
    path = write_lines(tmp_path / "x.jsonl", documents(8))
    run(log, path)
    assert run(log, write_lines(path, documents(13))) == IngestReport(4, 13, 2, 2)


def test_an_ingestion_is_repeated_if_another_came_in_between(
    tmp_path: Path, log: LocalCommitLog
) -> None:
    path = write_lines(tmp_path / "x.jsonl", documents(8))
    run(log, path)
    append(log, 1)
    assert run(log, path) == IngestReport(5, 8, 2, 0)


def test_another_commit_size_makes_other_commits(tmp_path: Path, log: LocalCommitLog) -> None:
    path = write_lines(tmp_path / "x.jsonl", documents(8))
    run(log, path)
    assert run(log, path, commit_size=8) == IngestReport(3, 8, 1, 0)


def test_row_66_a_bad_last_line_of_the_last_file_leaves_nothing_behind(
    tmp_path: Path, log: LocalCommitLog
) -> None:
    good = write_lines(tmp_path / "good.jsonl", documents(20))
    bad = write_lines(tmp_path / "bad.jsonl", [*documents(20), {"id": "x", "text": 5}])
    with pytest.raises(BadDocument) as refused:
        run(log, good, bad)
    assert refused.value.facts == {"file": str(bad), "line": 21, "field": "text"}
    assert log.head.commit_seq == 0
    assert list((tmp_path / "log").iterdir()) == []


def test_row_66_an_id_twice_in_one_commit_names_both_lines(
    tmp_path: Path, log: LocalCommitLog
) -> None:
    lines = [*documents(6), {"id": "d4", "op": "delete"}]
    path = write_lines(tmp_path / "x.jsonl", lines)
    with pytest.raises(BadDocument, match=r"'d4' was already used in line 5") as refused:
        run(log, path)
    assert refused.value.facts == {"file": str(path), "line": 7, "field": "id"}
    assert run(log, path, commit_size=6).commits == 2


@pytest.mark.parametrize("vector", [[1, 2, 3], [0, 0, 0, 0], [1, 2, 3, float("nan")], None])
def test_row_66_a_bad_vector_leaves_nothing_behind(
    tmp_path: Path, log: LocalCommitLog, vector: Any
) -> None:
    good = {"id": "a", "vector": [1, 2, 3, 4]}
    path = write_lines(tmp_path / "x.jsonl", [good, {"id": "b", "vector": vector}])
    with pytest.raises(BadDocument, match=rf"^{path}:2: field "):
        run(log, path, rules=BROUGHT)
    assert log.head.commit_seq == 0


def test_row_66_an_oversized_document_leaves_nothing_behind(
    tmp_path: Path, log: LocalCommitLog
) -> None:
    path = write_lines(tmp_path / "x.jsonl", [*documents(1), {"id": "b", "text": "x" * 1000}])
    with pytest.raises(BadDocument, match="longer than 100 bytes"):
        run(log, path, rules=DocumentRules(4, "forbidden", max_line_bytes=100))
    assert log.head.commit_seq == 0


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (lambda lines: [*lines[:4], '{"id": "other", "text": "t"}\n', *lines[5:]], BadDocument),
        (lambda lines: [*lines[:4], "not json\n"], BadDocument),
        (lambda lines: [*lines, '{"id": "more", "text": "t"}\n'], BadDocument),
        (lambda lines: lines[:4], BadSetting),
        (lambda lines: lines[:6], BadDocument),
        (lambda lines: lines[:0], BadSetting),
    ],
)
def test_a_file_that_changes_between_the_passes_is_an_error(
    tmp_path: Path,
    log: LocalCommitLog,
    monkeypatch: pytest.MonkeyPatch,
    second: Any,
    error: type[Exception],
) -> None:
    path = write_lines(tmp_path / "x.jsonl", documents(8))
    lines = path.read_text().splitlines(keepends=True)
    real = ingest_module._append

    def changed_before(*arguments: Any, **named: Any) -> None:
        path.write_text("".join(second(lines)))
        real(*arguments, **named)

    monkeypatch.setattr(ingest_module, "_append", changed_before)
    with pytest.raises(error):
        run(log, path)
    validated = {json.dumps(line) for line in documents(8)}
    for commit in log.read(1, log.head.commit_seq) if log.head.commit_seq else ():
        for operation in commit.capsule.operations:
            assert isinstance(operation, Upsert)
            assert json.dumps({"id": operation.id, "text": operation.text}) in validated


def test_a_commit_of_large_documents_ends_early(
    tmp_path: Path, log: LocalCommitLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "MAX_COMMIT_BYTES", 1000)
    lines = [{"id": f"d{number}", "text": "x" * 400} for number in range(7)]
    run(log, write_lines(tmp_path / "x.jsonl", lines), commit_size=1000)
    assert sizes(log) == [3, 3, 1]


def test_a_commit_size_below_one_is_refused(log: LocalCommitLog) -> None:
    with pytest.raises(BadSetting, match="at least one operation"):
        run(log, commit_size=0)


def test_row_40_a_full_disk_keeps_the_commits_before_it_and_the_rest_follows(
    tmp_path: Path, log: LocalCommitLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines(tmp_path / "x.jsonl", documents(20))

    def full(self: object, offset_bytes: int, data: bytes) -> None:
        if log.head.commit_seq == 2:
            raise DiskFull("no space left")
        real(self, offset_bytes, data)  # type: ignore[arg-type]

    from durable.files import WritableFile

    real = WritableFile.write_at
    monkeypatch.setattr(WritableFile, "write_at", full)
    with pytest.raises(DiskFull):
        run(log, path)
    monkeypatch.undo()
    again = LocalCommitLog.open(tmp_path / "log", "main")
    assert run(again, path) == IngestReport(5, 20, 3, 2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.jsonl", '{"key": "a", "text": "fox"}\n{"key": "b", "op": "delete"}\n'),
        ("d.csv", "key,text,op\na,fox,\nb,,delete\n"),
    ],
)
def test_the_id_can_come_from_another_field(
    tmp_path: Path, log: LocalCommitLog, name: str, content: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    run(log, path, rules=DocumentRules(dimensions=4, vectors="forbidden", id_field="key"))
    (commit,) = log.read(1, 1)
    assert commit.capsule.operations == (Upsert("a", text="fox"), Delete("b"))
