"""Row 66: input that is refused, whole, by file, line and field, in one message."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.process import Console, Finished, Genctl
from tests.system.world import ask, bootstrap, documents, ingest, release, write, writer_home

GOOD = b"".join(json.dumps(d).encode() + b"\n" for d in documents(1, 25))
VECTOR_GOOD = b"".join(b'{"id": "v%d", "vector": [1, 2, 3]}\n' % n for n in range(25))


@pytest.fixture(scope="module")
def homes(in_folder: Callable[[Path], Genctl], tmp_path_factory: pytest.TempPathFactory) -> Genctl:
    """The homes ``w`` (texts) and ``v`` (vectors of three numbers), one commit in each."""
    genctl = in_folder(tmp_path_factory.mktemp("homes"))
    writer_home(genctl)
    line = ["init", "v", "--store", "sv", "--embedder", "precomputed", "--dimensions", 3]
    genctl(*line).ok()
    write(genctl.folder / "one.jsonl", [{"id": "x", "text": "a text"}])
    genctl("ingest", "w", "one.jsonl").ok()
    write(genctl.folder / "one.jsonl", [{"id": "x", "vector": [1, 2, 3]}])
    genctl("ingest", "v", "one.jsonl").ok()
    return genctl


def check_refused(genctl: Genctl, home: str, finished: Finished, *words: str) -> None:
    told = finished.refused(3, *words)
    assert told.out == ""
    assert told.err.count("\n") == 1, "one message"
    assert len(told.err) < 1000
    status = genctl("status", home, "--json").ok().json
    assert status["log_commit_seq"] == 1, "nothing was half-written"


BAD_LINES = {
    "no id": (b'{"text": "a"}', "id"),
    "empty id": (b'{"id": "", "text": "a"}', "id"),
    "id of wrong type": (b'{"id": 7, "text": "a"}', "id"),
    "text of wrong type": (b'{"id": "a", "text": 7}', "text"),
    "title of wrong type": (b'{"id": "a", "title": ["t"], "text": "a"}', "title"),
    "fields of wrong type": (b'{"id": "a", "text": "a", "fields": []}', "fields"),
    "unknown field": (b'{"id": "a", "text": "a", "colour": "red"}', "colour"),
    "neither title nor text": (b'{"id": "a"}', "text"),
    "not JSON": (b'{"id": "a", "text": ', "document"),
    "not an object": (b'["a"]', "document"),
    "two objects": (b'{"id": "a", "text": "a"} {"id": "b", "text": "b"}', "document"),
    "not UTF-8": (b'{"id": "a", "text": "\xff\xfe"}', "document"),
    "lone surrogate": (b'{"id": "a", "text": "\\ud800"}', "document"),
    "NaN": (b'{"id": "a", "text": "a", "fields": {"n": NaN}}', "document"),
    "vector where none is wanted": (b'{"id": "a", "text": "a", "vector": [1]}', "vector"),
    "key given twice": (b'{"id": "a", "text": "a", "text": "b"}', "text"),
    "unknown op": (b'{"id": "a", "op": "remove"}', "op"),
    "delete with a text": (b'{"id": "a", "op": "delete", "text": "a"}', "text"),
    "nested too deep": (b'{"id": "a", "text": "a", "fields": {"x": ' + b"[" * 5000, "document"),
    "binary": (bytes(range(128, 256)), "document"),
}
BAD_VECTORS = {
    "missing": (b'{"id": "a", "text": "a"}', "vector"),
    "too short": (b'{"id": "a", "vector": [1, 2]}', "vector"),
    "too long": (b'{"id": "a", "vector": [1, 2, 3, 4]}', "vector"),
    "NaN": (b'{"id": "a", "vector": [1, NaN, 3]}', "document"),
    "Infinity": (b'{"id": "a", "vector": [1, Infinity, 3]}', "document"),
    "too large for a float32": (b'{"id": "a", "vector": [1, 1e39, 3]}', "vector"),
    "too large for a float64": (b'{"id": "a", "vector": [1, 1e999, 3]}', "vector"),
    "all zeros": (b'{"id": "a", "vector": [0, 0, 0]}', "vector"),
    "a text": (b'{"id": "a", "vector": "1,2,3"}', "vector"),
    "holds a text": (b'{"id": "a", "vector": [1, "2", 3]}', "vector"),
    "null": (b'{"id": "a", "vector": null}', "vector"),
}


@pytest.mark.parametrize("name", BAD_LINES)
@pytest.mark.parametrize("where", ["first", "last of many commits"])
def test_row_66_a_bad_line_is_named_and_refuses_the_whole_file(
    homes: Genctl, name: str, where: str
) -> None:
    bad, field = BAD_LINES[name]
    before = b"" if where == "first" else GOOD
    path = homes.folder / "bad.jsonl"
    path.write_bytes(before + bad + b"\n" + (GOOD if not before else b""))
    line = before.count(b"\n") + 1
    finished = homes("ingest", "w", path, "--commit-size", 2)
    check_refused(homes, "w", finished, f"{path}:{line}: field {field}:", "BadDocument")


@pytest.mark.parametrize("name", BAD_VECTORS)
def test_row_66_a_bad_vector_is_named_and_refuses_the_whole_file(homes: Genctl, name: str) -> None:
    bad, field = BAD_VECTORS[name]
    path = homes.folder / "bad.jsonl"
    path.write_bytes(VECTOR_GOOD + bad)
    finished = homes("ingest", "v", path, "--commit-size", 5)
    check_refused(homes, "v", finished, f"{path}:26: field {field}:", "BadDocument")


def test_row_66_the_facts_are_there_for_programs(homes: Genctl) -> None:
    path = write(homes.folder / "bad.jsonl", [*documents(1, 3), {"text": "a"}])
    told = homes("ingest", "w", path, "--json").refused(3)
    assert told.out == ""
    assert told.error["error"] == "BadDocument"
    assert told.error["facts"] == {"file": str(path), "line": 4, "field": "id"}


def test_row_66_an_id_twice_in_a_commit_is_refused_and_in_two_commits_is_an_update(
    homes: Genctl, genctl: Genctl
) -> None:
    twice = [*documents(1, 3), *documents(2, 2, "again")]
    path = write(homes.folder / "twice.jsonl", twice)
    finished = homes("ingest", "w", path)
    check_refused(homes, "w", finished, f"{path}:4: field id:", "'d2'", "line 2")
    writer_home(genctl)
    assert ingest(genctl, twice, 3) == 2
    release(genctl)
    bootstrap(genctl)
    assert len(ask(genctl, "n", "common")["hits"]) == 3


@pytest.mark.parametrize("size", [17 << 20, 100_000_000])
def test_row_66_an_endless_line_is_refused(homes: Genctl, size: int) -> None:
    path = homes.folder / "long.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b'{"id": "a", "text": "')
        file.truncate(size)  # a hole reads as zeros and takes no room
    finished = homes("ingest", "w", path)
    check_refused(homes, "w", finished, f"{path}:26: field document:", "longer than")


def test_row_66_of_two_files_the_bad_one_refuses_both(homes: Genctl) -> None:
    good = write(homes.folder / "good.jsonl", documents(1, 5))
    bad = write(homes.folder / "bad.jsonl", [{"id": "a", "text": 1}])
    finished = homes("ingest", "w", good, bad)
    check_refused(homes, "w", finished, f"{bad}:1: field text:")


def test_row_66_paths_that_are_no_files_are_refused_by_name(homes: Genctl) -> None:
    (homes.folder / "folder").mkdir(exist_ok=True)
    for name in ("missing.jsonl", "folder", "one.jsonl/under"):
        check_refused(homes, "w", homes("ingest", "w", name), name, "BadSetting")


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_file_is_no_commit(homes: Genctl, content: bytes) -> None:
    path = homes.folder / "empty.jsonl"
    path.write_bytes(content)
    report = homes("ingest", "w", path, "--json").ok().json
    assert (report["commit_seq"], report["documents"], report["commits"]) == (1, 0, 0)


def test_a_device_and_a_pipe_can_be_ingested(homes: Genctl) -> None:
    assert homes("ingest", "w", "/dev/null", "--json").ok().json["documents"] == 0
    assert homes("ingest", "w", "/dev/stdin", "--json").ok().json["documents"] == 0


@pytest.mark.parametrize("size", [0, -1, "many"])
def test_a_nonsensical_commit_size_is_wrong_usage(homes: Genctl, size: object) -> None:
    assert homes("ingest", "w", "one.jsonl", "--commit-size", size).refused(2).out == ""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.csv", b"title,text\na,b\n", ("bad.csv:1: field id:",)),
        ("bad.csv", b"id,text\na,b\nc\n", ("bad.csv:3: field document:",)),
        ("bad.csv", b"id,text,vector\na,b,1\n", ("bad.csv:1: field vector:",)),
        ("bad.csv", b'id,text\na,"b\n', ("bad.csv:2: field document:",)),
        ("bad.csv", b"id,text\na,\xff\n", ("bad.csv:2: field document:",)),
        ("bad.msgpack", b"\xc1", ("bad.msgpack:1: field document:",)),
        ("bad.msgpack", b"\x82\xa2id\xa1a\xa4text", ("bad.msgpack:1: field document:",)),
    ],
)
def test_row_66_other_formats_are_refused_by_file_line_and_field(
    homes: Genctl, name: str, content: bytes, words: tuple[str, ...]
) -> None:
    (homes.folder / name).write_bytes(content)
    check_refused(homes, "w", homes("ingest", "w", name), *words)


def test_the_console_script_refuses_as_the_forked_commands_do(
    console: Console, homes: Genctl
) -> None:
    path = write(console.folder / "bad.jsonl", [*documents(1, 9), {"id": "a", "text": 5}])
    finished = console("ingest", homes.folder / "w", path, "--commit-size", 3)
    check_refused(homes, "w", finished, f"{path}:10: field text:", "BadDocument")


def interrupted(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """What a process said that was interrupted; a signal just before it waits goes unnoticed."""
    for _ in range(12):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=5)
    raise AssertionError("it goes on")


def test_a_command_that_is_ended_from_the_keyboard_says_so(homes: Genctl, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Where tests run in the background, the signal is ignored, and processes inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = Console(homes.folder, os.environ).start("ingest", "w", pipe, "--json")
    finally:
        signal.signal(signal.SIGINT, before)
    with ThreadPoolExecutor(1) as pool, process:
        opening = pool.submit(pipe.open, "wb")
        try:
            with opening.result(timeout=60):  # now the command reads
                out, err = interrupted(process)
        finally:
            os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
            process.kill()
    assert (process.returncode, out) == (130, b"")
    told = json.loads(err)
    assert (told["error"], told["exit_code"]) == ("Interrupted", 130)
    assert homes("status", "w", "--json").ok().json["log_commit_seq"] == 1
