from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.canonical import MAX_DEPTH, MAX_INTEGER, canonical_bytes, parse_canonical
from manifests.errors import ManifestMalformed
from manifests.vectors import vector_from_text, vector_to_text

INTEGERS = st.integers(-MAX_INTEGER, MAX_INTEGER)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(TEXTS, VALUES, max_size=6)


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * levels + b"]" * levels + b"}"


@given(DOCUMENTS)
def test_reading_gives_what_was_written(document: dict[str, Any]) -> None:
    assert parse_canonical(canonical_bytes(document), "it") == document


@given(DOCUMENTS, st.randoms(use_true_random=False))
def test_one_document_has_one_byte_string(document: dict[str, Any], chance: Any) -> None:
    keys = list(document)
    chance.shuffle(keys)
    assert canonical_bytes({key: document[key] for key in keys}) == canonical_bytes(document)


@given(DOCUMENTS, st.sampled_from([{"indent": 1}, {"ensure_ascii": True}, {"separators": None}]))
def test_any_other_spelling_is_refused(document: dict[str, Any], style: dict[str, Any]) -> None:
    other = json.dumps(document, **{"sort_keys": True, "ensure_ascii": False, **style}).encode()
    if other == canonical_bytes(document):
        assert parse_canonical(other, "it") == document
    else:
        with pytest.raises(ManifestMalformed):
            parse_canonical(other, "it")


@given(st.binary(max_size=64))
def test_bytes_are_read_only_if_writing_gives_them_back(data: bytes) -> None:
    try:
        document = parse_canonical(data, "it")
    except ManifestMalformed:
        return
    assert canonical_bytes(document) == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a":1,"a":1}', "duplicate key 'a'"),
        (b'{"a":{"b":1,"c":2,"b":3}}', "duplicate key 'b'"),
        (b'{"a":NaN}', "only integers are allowed, not NaN"),
        (b'{"a":Infinity}', "not Infinity"),
        (b'{"a":-Infinity}', "not -Infinity"),
        (b'{"a":1.0}', "only integers are allowed, not 1.0"),
        (b'{"a":1e3}', "only integers are allowed, not 1e3"),
        (b'{"a":9007199254740992}', "beyond 2"),
        (b'{"a":' + b"9" * 5000 + b"}", "not a canonical document"),
        (b'{"a":"\xff"}', "not a canonical document"),
        (b'{"a":"\xed\xa0\x80"}', "not a canonical document"),
        (b'{"a":"\\ud800"}', "not valid Unicode"),
        (nested(MAX_DEPTH + 1), "nested deeper than 16 levels"),
        (nested(100_000), "not a canonical document"),
        (b"\xef\xbb\xbf{}", "not a canonical document"),
        (b"", "not a canonical document"),
        (b"{", "not a canonical document"),
        (b"[]", "not an object"),
        (b"1", "not an object"),
        (b"null", "not an object"),
        (b"{} ", "not in canonical form"),
        (b"{}\n", "not in canonical form"),
        (b'{"b":1,"a":1}', "not in canonical form"),
        (b'{"a": 1}', "not in canonical form"),
        (b'{"a":-0}', "not in canonical form"),
        (b'{"a":"\\u0061"}', "not in canonical form"),
        (b'{"a":"\\/"}', "not in canonical form"),
        (b"{}{}", "not a canonical document"),
    ],
)
def test_row_3_everything_but_the_canonical_form_is_malformed(data: bytes, why: str) -> None:
    with pytest.raises(ManifestMalformed) as caught:
        parse_canonical(data, "it")
    assert why in caught.value.message


def test_nesting_up_to_the_limit_is_accepted() -> None:
    assert parse_canonical(nested(MAX_DEPTH), "it")


@pytest.mark.parametrize("value", [1.5, float("nan"), b"bytes", {1: "a key"}, 2**53, object()])
def test_what_has_no_canonical_form_is_not_written(value: object) -> None:
    with pytest.raises(ManifestMalformed):
        canonical_bytes({"a": value})


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_vectors_survive_as_text(vector: list[float]) -> None:
    assert vector_from_text(vector_to_text(vector)) == tuple(vector)


@pytest.mark.parametrize("text", ["AAA=", "AAAA", "A", "AAAAAA==\n", "????", "AAAAAA=", "é"])
def test_what_is_no_vector_as_text_is_malformed(text: str) -> None:
    with pytest.raises(ManifestMalformed):
        vector_from_text(text)
