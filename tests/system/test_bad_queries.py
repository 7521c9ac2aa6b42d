"""Queries that cannot be answered are refused by name; the node goes on answering the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.process import Genctl
from tests.system.world import (
    DIMENSIONS,
    ask,
    bootstrap,
    documents,
    ids,
    ingest,
    release,
    write,
    writer_home,
)


@pytest.fixture(scope="module")
def node(in_folder: Callable[[Path], Genctl], tmp_path_factory: pytest.TempPathFactory) -> Genctl:
    genctl = in_folder(tmp_path_factory.mktemp("node"))
    writer_home(genctl)
    ingest(genctl, documents(1, 10), 10)
    release(genctl)
    bootstrap(genctl)
    return genctl


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["common", "-k", "0"], 3),
        (["common", "-k", "-1"], 3),
        (["common", "-k", "1001"], 3),
        (["common", "-k", "x"], 2),
        (["common", "--mode", "psychic"], 2),
        ([""], 3),
        (["  \t "], 3),
        ([], 2),
        (["common", "--queries", "q.jsonl"], 2),
        (["body:(((", "--syntax"], 3),
        (["nosuchfield:x", "--syntax"], 3),
        (["--queries", "missing.jsonl"], 3),
        (["--queries", "."], 3),
        (["common", "--min-commit-seq", "-1"], 3),
        (["x" * 70_000], 3),
    ],
)
def test_a_bad_query_is_refused(node: Genctl, command: list[str], code: int) -> None:
    told = node("query", "n", *command).refused(code)
    assert told.out == ""
    assert "\ngenctl: " not in told.err


def numbers(*values: str) -> bytes:
    return b'{"id": "q", "vector": [%s]}' % ",".join(values).encode()


BAD_LINES = {
    "too few dimensions": (numbers("1", "2"), "vector"),
    "too many dimensions": (numbers(*["1"] * (DIMENSIONS + 1)), "vector"),
    "no dimensions": (numbers(), "vector"),
    "zero vector": (numbers(*["0"] * DIMENSIONS), "vector"),
    "NaN": (numbers("NaN", *["1"] * (DIMENSIONS - 1)), ""),
    "Infinity": (numbers("-Infinity", *["1"] * (DIMENSIONS - 1)), ""),
    "huge": (numbers("1e200", *["1"] * (DIMENSIONS - 1)), "vector"),
    "no id": (b'{"text": "a"}', "id"),
    "id of wrong type": (b'{"id": 5, "text": "a"}', "id"),
    "unknown field": (b'{"id": "q", "text": "a", "k": 5}', "k"),
    "text of wrong type": (b'{"id": "q", "text": 5}', "text"),
    "neither text nor vector": (b'{"id": "q"}', "text"),
    "empty text": (b'{"id": "q", "text": ""}', "text"),
    "not JSON": (b"common", ""),
    "not UTF-8": (b'{"id": "q", "text": "\xff"}', ""),
    "not an object": (b"[]", ""),
    "too long": (b'{"id": "q", "text": "' + b"x" * (2 << 20) + b'"}', ""),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_of_queries_is_named_after_the_answers_before_it(
    node: Genctl, name: str
) -> None:
    bad, field = BAD_LINES[name]
    path = node.folder / "q.jsonl"
    path.write_bytes(b'{"id": "good", "text": "own3"}\n\n' + bad + b"\n")
    told = node("query", "n", "--queries", path).refused(3, "BadQuery", f"{path}:3:", field)
    assert told.err.count("\n") == 1
    assert [answer["query_id"] for answer in told.lines] == ["good"]


@pytest.mark.parametrize(
    "text",
    ['"', "(", "a AND", "title:x", "\x00", "☃", "*", "-", "a:b:c", "/x/", "^", "~1", "[a TO b]"],
)
def test_plain_words_are_never_a_syntax_error(node: Genctl, text: str) -> None:
    if text == "\x00":  # cannot be an argument of a process
        path = write(node.folder / "q.jsonl", [{"id": "q", "text": text}])
        node("query", "n", "--queries", path).ok()
        return
    assert node("query", "n", f"own3 {text}", "--mode", "lexical", "--json").ok().json["hits"]
    node("query", "n", text, "--mode", "lexical", "--json").ok()


def test_where_there_is_no_node_is_said(node: Genctl) -> None:
    node("query", "nowhere", "x").refused(3, "HomeMissing", "nowhere")
    node("query", "w", "x").refused(3, "HomeMissing")
    node("query", "ingest.jsonl", "x").refused(3, "HomeMissing")


def test_after_all_that_the_node_answers(node: Genctl) -> None:
    assert ids(ask(node, "n", "own3", "--mode", "lexical")) == ["d3"]
