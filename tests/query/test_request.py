from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.snapshot import Mode
from manifests.errors import BadQuery
from query.request import (
    MAX_HITS,
    MAX_LINE_BYTES,
    MAX_TEXT_CHARACTERS,
    Request,
    read_queries,
    settle,
)

D = 4
UNIT = np.array([1, 0, 0, 0], np.float32)


@pytest.mark.parametrize(
    ("request_", "computes", "mode"),
    [
        (Request(text="a"), True, "hybrid"),
        (Request(text="a"), False, "lexical"),
        (Request(text="a", vector=UNIT), True, "hybrid"),
        (Request(text="a", vector=UNIT), False, "hybrid"),
        (Request(vector=UNIT), True, "vector"),
        (Request(vector=UNIT), False, "vector"),
        (Request(text=" ", vector=UNIT), True, "vector"),
        (Request(text="a", mode="lexical"), True, "lexical"),
        (Request(text="a", mode="vector"), True, "vector"),
        (Request(text="a", vector=UNIT, mode="vector"), False, "vector"),
        (Request(text="a", vector=UNIT, mode="lexical"), False, "lexical"),
    ],
)
def test_the_mode_is_what_both_halves_can_do(request_: Request, computes: bool, mode: Mode) -> None:
    settled = settle(request_, D, computes=computes)
    assert settled.mode == mode
    assert (settled.text, settled.limit) == (request_.text, request_.limit)


BAD: list[tuple[Request, bool, str]] = [
    (Request(), True, "text"),
    (Request(text=""), True, "text"),
    (Request(text=" \n"), True, "text"),
    (Request(text="a", limit=0), True, "k"),
    (Request(text="a", limit=-1), True, "k"),
    (Request(text="a", limit=MAX_HITS + 1), True, "k"),
    (Request(text="a" * (MAX_TEXT_CHARACTERS + 1)), True, "text"),
    (Request(vector=UNIT, mode="lexical"), True, "text"),
    (Request(vector=UNIT, mode="hybrid"), True, "text"),
    (Request(text=" ", vector=UNIT, mode="hybrid"), True, "text"),
    (Request(text="a", mode="vector"), False, "vector"),
    (Request(text="a", mode="hybrid"), False, "vector"),
    (Request(vector=UNIT[:3]), True, "vector"),
    (Request(vector=np.zeros(5, np.float32)), True, "vector"),
    (Request(vector=np.empty(0, np.float32)), True, "vector"),
    (Request(vector=UNIT.reshape(2, 2)), True, "vector"),
    (Request(vector=UNIT.reshape(1, 4)), True, "vector"),
    (Request(vector=UNIT * 0), True, "vector"),
    (Request(vector=UNIT * np.float32("nan")), True, "vector"),
    (Request(vector=np.array([np.inf, 0, 0, 0], np.float32)), True, "vector"),
    (Request(text="a", vector=UNIT * 0, mode="lexical"), True, "vector"),
    (Request(text="a", vector=UNIT[:3], mode="lexical"), True, "vector"),
]


@pytest.mark.parametrize(("request_", "computes", "field"), BAD)
def test_a_request_that_cannot_be_answered_is_a_bad_query(
    request_: Request, computes: bool, field: str
) -> None:
    with pytest.raises(BadQuery) as caught:
        settle(request_, D, computes=computes)
    assert caught.value.facts["field"] == field


@pytest.mark.parametrize("limit", [1, MAX_HITS])
def test_the_bounds_themselves_are_accepted(limit: int) -> None:
    text = "a" * MAX_TEXT_CHARACTERS
    assert settle(Request(text=text, limit=limit), D, computes=True).limit == limit


def test_a_file_of_queries_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text('{"id":"a","text":"x"}\n\n  \n{"id":"b","vector":[1,2.5]}')
    found = list(read_queries(path))
    assert [(number, line.id, line.text) for number, line in found] == [
        (1, "a", "x"),
        (4, "b", None),
    ]
    array = found[1][1].array()
    assert array is not None
    assert array.dtype == np.float32
    assert array.tolist() == [1.0, 2.5]
    assert found[0][1].array() is None


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"text":"no id"}',
        b'{"id":1}',
        b'{"id":"a","text":5}',
        b'{"id":"a","vector":"x"}',
        b'{"id":"a","vector":[null]}',
        b'{"id":"a","surprise":1}',
        b'{"id":"\xff"}',
        b'{"id":"a","text":"' + b"x" * MAX_LINE_BYTES + b'"}',
    ],
)
def test_a_bad_line_of_queries_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_bytes(b'{"id":"good"}\n' + line + b"\n")
    found = read_queries(path)
    assert next(found)[1].id == "good"
    with pytest.raises(BadQuery) as caught:
        next(found)
    assert caught.value.facts == {"file": str(path), "line": 2}


def test_a_file_of_queries_that_is_not_there_is_a_bad_query(tmp_path: Path) -> None:
    with pytest.raises(BadQuery):
        list(read_queries(tmp_path / "absent"))


def test_a_number_too_large_for_float32_is_refused_and_not_wrapped(tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text('{"id":"a","vector":[1e300,0,0,0]}')
    ((_, line),) = read_queries(path)
    with pytest.raises(BadQuery):
        settle(Request(vector=line.array()), D, computes=False)
