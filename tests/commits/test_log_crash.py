import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from commits.ingest import IngestReport, ingest
from commits.local_log import LocalCommitLog
from durable import files
from tests.commits.samples import (
    COMPUTED,
    NOW_MS,
    append,
    documents,
    operations,
    read_all,
    write_lines,
)

ROOT = Path(__file__).resolve().parents[2]
APPENDER = """
import sys
from pathlib import Path
from commits.local_log import LocalCommitLog
from tests.commits.samples import append

with LocalCommitLog.open(Path(sys.argv[1]), "main", segment_size_bytes=5000) as log:
    while True:
        print(append(log, log.head.commit_seq + 1).commit_seq, flush=True)
"""


def killed_at_step(step: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a child that kills itself before its ``step``-th change to the disk."""
    child = os.fork()
    if child == 0:
        left = [step]

        def count_down(name: str, path: Path) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            files.observe(count_down)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def test_row_63_every_acknowledged_commit_survives_kill_9(tmp_path: Path) -> None:
    seed = 20240607
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)
    acknowledged = 0
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(1, 60)):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            rest = writer.stdout.read().splitlines(keepends=True)
        acknowledged = int(([b"%d\n" % acknowledged] + [x for x in rest if x[-1:] == b"\n"])[-1])
        found = read_all(tmp_path)
        assert len(found) >= acknowledged
        for number, commit in enumerate(found, start=1):
            assert (commit.commit_seq, commit.capsule.message_id) == (number, f"message-{number}")
            assert commit.capsule.operations == tuple(operations(number))


def test_row_43_a_log_killed_at_any_step_goes_on_where_it_was(tmp_path: Path) -> None:
    reports = tmp_path / "acknowledged-by-the-child"

    def work(folder: Path, last_seq: int) -> None:
        with LocalCommitLog.open(folder, "main", segment_size_bytes=800) as log:
            while log.head.commit_seq < last_seq:
                reports.write_text(str(append(log, log.head.commit_seq + 1).commit_seq))

    steps = 0
    while True:
        folder = tmp_path / f"log-{steps}"
        reports.write_text("0")
        killed = killed_at_step(steps, lambda: work(folder, 7))  # noqa: B023
        if folder.exists():
            assert len(read_all(folder)) >= int(reports.read_text())
        work(folder, 8)
        assert len(read_all(folder)) == 8
        assert not list(folder.glob(f"{files.TEMPORARY_PREFIX}*"))
        if not killed:
            break
        steps += 1
    assert steps > 20


def run_ingest(folder: Path, paths: list[Path]) -> IngestReport:
    with LocalCommitLog.open(folder, "main", segment_size_bytes=800) as log:
        return ingest(log, paths, rules=COMPUTED, commit_size=3, now_ms=lambda: NOW_MS)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [
        write_lines(tmp_path / "one.jsonl", documents(10)),
        write_lines(tmp_path / "two.jsonl", [{"id": "d1", "op": "delete"}, *documents(4)[2:]]),
    ]


def test_row_65_an_ingestion_killed_at_any_step_and_run_again_gives_the_same_log(
    tmp_path: Path, paths: list[Path]
) -> None:
    report = run_ingest(tmp_path / "undisturbed", paths)
    assert report == IngestReport(commit_seq=5, documents=13, commits=5, skipped_commits=0)
    wanted = read_all(tmp_path / "undisturbed")
    steps = 0
    while killed_at_step(steps, lambda: run_ingest(tmp_path / f"log-{steps}", paths)):  # noqa: B023
        again = run_ingest(tmp_path / f"log-{steps}", paths)
        assert (again.commit_seq, again.documents) == (5, 13)
        assert again.commits + again.skipped_commits == 5
        assert read_all(tmp_path / f"log-{steps}") == wanted
        steps += 1
    assert steps > 20


def test_row_65_an_ingestion_killed_again_and_again_gives_the_same_log(
    tmp_path: Path, paths: list[Path]
) -> None:
    run_ingest(tmp_path / "undisturbed", paths)
    steps = 0
    while killed_at_step(steps, lambda: run_ingest(tmp_path / "log", paths)):
        steps += 1
    assert read_all(tmp_path / "log") == read_all(tmp_path / "undisturbed")
