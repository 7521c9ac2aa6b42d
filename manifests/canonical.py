"""Canonical bytes: one document, one byte string.

The form is JSON (RFC 8259) in UTF-8 with keys sorted by code point, no white space, no escapes
beyond those JSON demands, integers only (no fractions, no exponents, at most 2**53 - 1) and no
duplicate keys. Vectors travel as base64 of little-endian float32, so that no reader has to agree
with another about printing fractions.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from manifests.errors import ManifestMalformed, SchemaTooNew

MAX_DEPTH = 16
MAX_INTEGER = 2**53 - 1


class Frozen(BaseModel):
    """The base of every signed or stored model: immutable, strict, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


M = TypeVar("M", bound=Frozen)


def to_canonical(model: Frozen) -> bytes:
    """The canonical bytes of a model."""
    return canonical_bytes(model.model_dump(mode="json"))


def parse_document(data: bytes, model: type[M], schema_version: int) -> M:
    """Read canonical bytes into ``model``, whose ``schema_version`` must be the given one.

    Raises:
        ManifestMalformed: not canonical, or not of the model's form; names the field.
        SchemaTooNew: the document's ``schema_version`` is newer; names both versions.
    """
    return _as_model(parse_canonical(data, model.__name__), data, model, schema_version)


def parse_parsed(document: dict[str, Any], model: type[M], schema_version: int) -> M:
    """Read a document that somebody has parsed, with :func:`parse_strict`, into ``model``.

    Raises:
        ManifestMalformed, SchemaTooNew: see :func:`parse_document`.
    """
    return _as_model(document, canonical_bytes(document), model, schema_version)


def _as_model(document: dict[str, Any], data: bytes, model: type[M], schema_version: int) -> M:
    what = model.__name__
    found = document.get("schema_version")
    if type(found) is not int:
        raise ManifestMalformed(f"{what}: schema_version is missing or no number")
    if found > schema_version:
        raise SchemaTooNew(
            f"{what} has schema version {found}; this genctl reads up to {schema_version}",
            found_version=found,
            known_version=schema_version,
        )
    try:
        parsed = model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise ManifestMalformed(f"{what}: {field}: {first['msg']}", field=field) from error
    if to_canonical(parsed) != data:
        raise ManifestMalformed(f"{what}: a field was left out")
    return parsed


def canonical_bytes(document: dict[str, Any]) -> bytes:
    """Serialise ``document`` (dicts, lists, strings, integers, booleans, ``None``).

    Raises:
        ManifestMalformed: a value has no canonical form (a float, a huge integer, deep nesting).
    """
    _check(document, depth=0)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ManifestMalformed(f"a string is not valid Unicode: {error}") from error


def parse_canonical(data: bytes, what: str) -> dict[str, Any]:
    """Parse ``data``, refusing everything that :func:`canonical_bytes` would not have written.

    Args:
        data: the exact bytes, already checked against a length and a hash by the caller.
        what: what the bytes are, for the error message.

    Raises:
        ManifestMalformed: not UTF-8, not JSON, duplicate keys, numbers that are not integers,
            nesting deeper than ``MAX_DEPTH``, or bytes that are not in canonical form.
    """
    document = _loaded(data, what, "a canonical document")
    if canonical_bytes(document) != data:
        raise ManifestMalformed(f"{what}: valid JSON, but not in canonical form")
    return document


def parse_strict(data: bytes, what: str) -> dict[str, Any]:
    """Parse JSON in which nothing can be read in two ways; layout and order of keys are free.

    For documents whose form others lay down, such as the metadata of The Update Framework.

    Raises:
        ManifestMalformed: not UTF-8, not JSON, duplicate keys, numbers that are not integers of at
            most 2**53 - 1 (NaN and Infinity among them), or nesting deeper than ``MAX_DEPTH``.
    """
    document = _loaded(data, what, "strict JSON")
    _check(document, depth=0)
    return document


def _loaded(data: bytes, what: str, form: str) -> dict[str, Any]:
    try:
        document = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_float=_no_fraction,
            parse_constant=_no_fraction,
        )
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ManifestMalformed(f"{what}: not {form}: {error}") from error
    if not isinstance(document, dict):
        raise ManifestMalformed(f"{what}: the outermost value is not an object")
    return document


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"duplicate key {key!r}")
            seen.add(key)
    return document


def _no_fraction(literal: str) -> Any:
    raise ValueError(f"only integers are allowed, not {literal}")


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ManifestMalformed(f"nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ManifestMalformed(f"key {key!r} is not a string")
            _check(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner, depth + 1)
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ManifestMalformed(f"integer {value} is beyond 2**53 - 1")
    else:
        raise ManifestMalformed(f"a {type(value).__name__} has no canonical form")
