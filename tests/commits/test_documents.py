import contextlib
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commits.documents import (
    Delete,
    DocumentRules,
    Operation,
    Place,
    Upsert,
    encode_operation,
    parse_json,
)
from manifests.errors import BadDocument
from tests.commits.samples import BROUGHT, COMPUTED

HERE = Place("corpus.jsonl", 17)
DEEP = "[" * 20 + "]" * 20


def parse(line: str | bytes, rules: DocumentRules = COMPUTED) -> Operation:
    return parse_json(line if isinstance(line, bytes) else line.encode(), rules, HERE)


def with_vector(vector: str) -> str:
    return f'{{"id": "a", "vector": {vector}}}'


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("", "document"),
        ("{", "document"),
        ("nonsense", "document"),
        ("[]", "document"),
        ('{"id": "a", "text": "t"} x', "document"),
        (b'{"id": "a", "text": "\xff"}', "document"),
        (b'{"id": "\xed\xa0\x80", "text": "t"}', "document"),
        ('{"id": "\\ud800", "text": "t"}', "document"),
        ('{"id": "a", "text": "\\udc00x"}', "document"),
        ('{"id": "a", "fields": {"\\ud800x": 1}}', "document"),
        ('{"text": "t"}', "id"),
        ('{"id": 7, "text": "t"}', "id"),
        ('{"id": null, "text": "t"}', "id"),
        ('{"id": "", "text": "t"}', "id"),
        (f'{{"id": "{"x" * 513}", "text": "t"}}', "id"),
        (f'{{"id": "{"é" * 257}", "text": "t"}}', "id"),
        ('{"id": "a"}', "text"),
        ('{"id": "a", "title": " ", "text": "\\n"}', "text"),
        ('{"id": "a", "text": 5}', "text"),
        ('{"id": "a", "title": null, "text": "t"}', "title"),
        ('{"id": "a", "text": "t", "body": "t"}', "body"),
        ('{"id": "a", "text": "t", "op": "replace"}', "op"),
        ('{"id": "a", "op": "delete", "text": "t"}', "text"),
        ('{"id": "a", "op": "delete", "title": ""}', "title"),
        ('{"id": "a", "op": "delete", "vector": []}', "vector"),
        ('{"id": "a", "op": "delete", "fields": {}}', "fields"),
        ('{"id": "a", "text": "t", "fields": []}', "fields"),
        ('{"id": "a", "text": "t", "fields": {"x": NaN}}', "document"),
        ('{"id": "a", "text": "t", "fields": {"x": 1e999}}', "fields"),
        (f'{{"id": "a", "text": "t", "fields": {{"x": {2**63}}}}}', "fields.x"),
        (f'{{"id": "a", "text": "t", "fields": {{"x": {DEEP}}}}}', "fields"),
        (f'{{"id": "a", "text": "t", "fields": {{"x": {"[" * 100_000}', "document"),
        ('{"id": "a", "id": "b", "text": "t"}', "id"),
        ('{"id": "a", "text": "t", "\\u0069d": "b"}', "id"),
        ('{"id": "a", "text" : "t: \\":", "text"\t: "u"}', "text"),
        ('{"id": "a", "text": "t", "fields": {"x": {"y": 1, "y": 2}}}', "y"),
        ('{"id": "a", "text": "t", "vector": [1, 2, 3, 4]}', "vector"),
    ],
)
def test_row_66_a_malformed_document_is_refused_with_file_line_and_field(
    line: str | bytes, field: str
) -> None:
    with pytest.raises(BadDocument) as refused:
        parse(line)
    assert refused.value.facts == {"file": "corpus.jsonl", "line": 17, "field": field}
    assert str(refused.value).startswith(f"corpus.jsonl:17: field {field}: ")


@pytest.mark.parametrize(
    "vector",
    [
        "[1, 2, 3]",
        "[1, 2, 3, 4, 5]",
        "[]",
        "[NaN, 1, 1, 1]",
        "[Infinity, 1, 1, 1]",
        "[1e999, 1, 1, 1]",
        "[1e39, 1, 1, 1]",
        "[3.4028236e38, 1, 1, 1]",
        "[0, -0.0, 0, 0]",
        "[1e-60, 0, 0, 0]",
        "[1e-30, 0, 0, 0]",
        "[1e30, 0, 0, 0]",
        '["1", 1, 1, 1]',
        "[true, 1, 1, 1]",
        "[null, 1, 1, 1]",
        "[[1], 1, 1, 1]",
        '"AAAA"',
        "null",
    ],
)
def test_row_66_a_vector_that_cannot_be_used_is_refused(vector: str) -> None:
    with pytest.raises(BadDocument, match=r"^corpus\.jsonl:17: field ") as refused:
        parse(with_vector(vector), BROUGHT)
    assert refused.value.facts["field"] in ("vector", "document")


def test_row_66_a_wrong_dimension_says_both_lengths() -> None:
    with pytest.raises(BadDocument) as refused:
        parse(with_vector("[1, 2, 3]"), BROUGHT)
    assert str(refused.value) == (
        "corpus.jsonl:17: field vector: has 3 numbers, but this home's embedder wants 4"
    )


def test_a_given_vector_is_refused_with_advice_where_the_embedder_computes_them() -> None:
    with pytest.raises(BadDocument, match="genctl init --embedder precomputed"):
        parse(with_vector("[1, 2, 3, 4]"), COMPUTED)


def test_a_missing_vector_is_refused_where_documents_bring_them() -> None:
    with pytest.raises(BadDocument, match="field vector: is missing"):
        parse('{"id": "a", "text": "t"}', BROUGHT)


def test_a_vector_alone_is_a_document() -> None:
    vector = struct.pack("<4f", 1, 2, -0.5, 1e-3)
    assert parse(with_vector("[1, 2, -0.5, 0.001]"), BROUGHT) == Upsert("a", vector=vector)


def test_a_delete_needs_no_vector() -> None:
    assert parse('{"id": "a", "op": "delete"}', BROUGHT) == Delete("a")


def test_an_upsert_may_say_that_it_is_one() -> None:
    line = {
        "op": "upsert",
        "id": "a",
        "title": "ü",
        "text": "😀: ",
        "fields": {"x:": [1, {"y": None}]},
    }
    wanted = Upsert("a", "ü", "😀: ", None, {"x:": [1, {"y": None}]})
    assert parse(json.dumps(line)) == parse(json.dumps(line, ensure_ascii=False)) == wanted


def test_an_id_may_have_512_bytes() -> None:
    assert parse(json.dumps({"id": "é" * 256, "text": "t"})).id == "é" * 256


def test_an_operation_has_one_encoding_whatever_the_order_of_its_keys() -> None:
    one = parse('{"id": "a", "text": "t", "fields": {"x": 1, "y": {"b": 1, "a": 2}}}')
    two = parse('{"fields": {"y": {"a": 2, "b": 1}, "x": 1}, "text": "t", "id": "a"}')
    assert encode_operation(one) == encode_operation(two)


values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(print_blob=True, deadline=None)
@given(
    st.text(min_size=1, max_size=100),
    st.text(),
    st.text(),
    st.dictionaries(st.text(), values, max_size=4),
    st.booleans(),
)
def test_every_well_formed_line_is_read_as_it_was_written(
    key: str, title: str, text: str, fields: dict[str, Any], ascii_only: bool
) -> None:
    line = {"id": key, "title": title, "text": "x" + text, "fields": fields}
    written = json.dumps(line, ensure_ascii=ascii_only)
    assert parse(written) == Upsert(key, title, "x" + text, None, fields)


@settings(print_blob=True, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_line_whatever_causes_any_other_error(line: bytes) -> None:
    with contextlib.suppress(BadDocument):
        assert parse(line).id
