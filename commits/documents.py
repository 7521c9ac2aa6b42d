"""Document operations, and the strict parsing that every one of them has passed.

Input says ``{"id", "title"?, "text"?, "vector"?, "fields"?}`` to add or replace a document and
``{"id", "op": "delete"}`` to remove one. It is parsed at the edge, here, into :class:`Upsert` and
:class:`Delete`; what lies beyond (the log, the builder) trusts these types.

Strings come out of UTF-8 decoders that refuse lone surrogates, so every string can be encoded.
"""

from __future__ import annotations

import functools
import json
import math
import re
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import msgspec
from msgspec import UNSET, UnsetType, structs

from manifests.errors import BadDocument, BadSetting

MAX_ID_BYTES = 512
MAX_FIELD_DEPTH = 16
MAX_LINE_BYTES = 16 * 2**20
# Between these a squared length is an ordinary float32, so whoever scales the vector to unit length
# in single precision divides neither by zero nor by infinity.
MIN_VECTOR_LENGTH = 1e-15
MAX_VECTOR_LENGTH = 1e15

_INTEGERS = range(-(2**63), 2**63)
# A field's name is the input's choice and may be megabytes long.
_SHOWN_FIELD_LENGTH = 80
_KEY = re.compile(rb'"[ \t\r\n]*:')
_NAMED_FIELD = re.compile(r"(?:unknown|required) field `(.*?)`", re.DOTALL)
_PATH = re.compile(r"`\$\.(\w+)")


class Upsert(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="op",
    tag="upsert",
):
    """Add the document, or replace all of an earlier one with the same id.

    ``vector`` is its little-endian float32 values one after another, or ``None`` where the home's
    embedder computes it.
    """

    id: str
    title: str = ""
    text: str = ""
    vector: bytes | None = None
    fields: dict[str, Any] = msgspec.field(default_factory=dict)


class Delete(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op", tag="delete"):
    """Remove the document; removing one that is not there changes nothing."""

    id: str


Operation: TypeAlias = Upsert | Delete


@dataclass(frozen=True, slots=True)
class DocumentRules:
    """What a home accepts: decided by its embedder and its limits.

    ``vectors`` is ``"required"`` when documents bring their own (``dimensions`` numbers each) and
    ``"forbidden"`` when the embedder computes them. ``id_field`` is what the input calls the id.
    """

    dimensions: int
    vectors: Literal["required", "forbidden"]
    max_line_bytes: int = MAX_LINE_BYTES
    id_field: str = "id"

    def __post_init__(self) -> None:
        if self.id_field in Record.__struct_fields__[1:] or not self.id_field:
            raise BadSetting(f"the id cannot come from a field called {self.id_field!r}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operation was read: a file and the number of its line (or record), from 1."""

    file: str
    line: int

    def refusal(self, field: str, what: str) -> BadDocument:
        """The error that refuses the operation read here."""
        if len(field) > _SHOWN_FIELD_LENGTH:
            field = field[:_SHOWN_FIELD_LENGTH] + "…"
        return BadDocument(
            f"{self.file}:{self.line}: field {field}: {what}",
            file=self.file,
            line=self.line,
            field=field,
        )


class Record(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One operation as the input says it, before any rule was applied."""

    id: str
    op: Literal["upsert", "delete"] | UnsetType = UNSET
    title: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    vector: list[float] | UnsetType = UNSET
    fields: dict[str, Any] | UnsetType = UNSET


@functools.cache
def _decoders(id_field: str) -> tuple[Callable[[bytes], Record], Callable[[bytes], Record]]:
    """The JSON and msgpack decoders for input that calls the id ``id_field``."""
    form: type[Record] = Record
    if id_field != "id":
        # What comes out has Record's attributes; only the name in the input differs.
        form = cast(
            "type[Record]",
            msgspec.defstruct(
                "Record",
                [(field.name, field.type, field.default) for field in structs.fields(Record)],
                rename={"id": id_field},
                forbid_unknown_fields=True,
                kw_only=True,
            ),
        )
    return msgspec.json.Decoder(form).decode, msgspec.msgpack.Decoder(form).decode


_to_msgpack = msgspec.msgpack.Encoder(order="deterministic").encode


def encode_operation(operation: Operation) -> bytes:
    """The operation as msgpack: the same bytes for the same values, whatever order they came in."""
    return _to_msgpack(operation)


def parse_json(line: bytes, rules: DocumentRules, place: Place) -> Operation:
    """Read one operation from JSON (UTF-8); a key given twice is refused.

    Raises:
        BadDocument: names the file, the line and the field.
    """
    record = _decode(_decoders(rules.id_field)[0], line, "JSON", place)
    operation = operation_of(record, rules, place)
    if _may_repeat_a_key(line, record):
        _refuse_repeated_keys(line, place)
    return operation


def parse_msgpack(data: bytes, rules: DocumentRules, place: Place) -> Operation:
    """Read one operation from a msgpack map of the same form as the JSON object.

    Raises:
        BadDocument: names the file, the record's number as ``line``, and the field.
    """
    return operation_of(_decode(_decoders(rules.id_field)[1], data, "msgpack", place), rules, place)


def operation_of(record: Record, rules: DocumentRules, place: Place) -> Operation:
    """Apply the rules to what the input said.

    Raises:
        BadDocument: names the file, the line and the field.
    """
    if not record.id:
        raise place.refusal("id", "is empty")
    if len(record.id.encode()) > MAX_ID_BYTES:
        raise place.refusal("id", f"is longer than {MAX_ID_BYTES} bytes of UTF-8")
    if record.op == "delete":
        for field in ("title", "text", "vector", "fields"):
            if getattr(record, field) is not UNSET:
                raise place.refusal(field, "a delete carries nothing but the id")
        return Delete(record.id)
    title = "" if record.title is UNSET else record.title
    text = "" if record.text is UNSET else record.text
    fields = {} if record.fields is UNSET else record.fields
    vector = _vector(record.vector, rules, place)
    if vector is None and not title.strip() and not text.strip():
        raise place.refusal("text", "there is neither a title nor a text; nothing could be found")
    if fields:
        _check_value(fields, "fields", 0, place)
    return Upsert(record.id, title, text, vector, fields)


def _vector(values: list[float] | UnsetType, rules: DocumentRules, place: Place) -> bytes | None:
    if values is UNSET:
        if rules.vectors == "required":
            raise place.refusal(
                "vector",
                f"is missing; with the precomputed embedder each document brings its "
                f"{rules.dimensions} numbers",
            )
        return None
    if rules.vectors == "forbidden":
        raise place.refusal(
            "vector",
            "this home's embedder computes vectors itself; leave it out, or make a home for ready "
            "ones with `genctl init --embedder precomputed --dimensions N`",
        )
    if len(values) != rules.dimensions:
        raise place.refusal(
            "vector",
            f"has {len(values)} numbers, but this home's embedder wants {rules.dimensions}",
        )
    rounded = array("f", values)
    length = math.hypot(*rounded)
    if not math.isfinite(length):
        raise place.refusal("vector", "holds a number that is not finite as a float32")
    if length == 0:
        raise place.refusal("vector", "is all zeros and so points nowhere")
    if not MIN_VECTOR_LENGTH <= length <= MAX_VECTOR_LENGTH:
        raise place.refusal(
            "vector",
            f"has the length {length:.3g}; scale it to one from {MIN_VECTOR_LENGTH:.0e} to "
            f"{MAX_VECTOR_LENGTH:.0e}",
        )
    if sys.byteorder == "big":
        rounded.byteswap()
    return rounded.tobytes()


def _check_value(value: Any, path: str, depth: int, place: Place) -> None:
    if depth > MAX_FIELD_DEPTH:
        raise place.refusal("fields", f"is nested deeper than {MAX_FIELD_DEPTH} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise place.refusal(path, f"has a key that is not a string: {key!r}")
            _check_value(inner, f"{path}.{key}", depth + 1, place)
    elif isinstance(value, list):
        for inner in value:
            _check_value(inner, path, depth + 1, place)
    elif not isinstance(value, str | bool | None):
        _check_number(value, path, place)


def _check_number(value: Any, path: str, place: Place) -> None:
    # JSON has no others, but msgpack has timestamps and bytes, and Python has larger integers.
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise place.refusal(path, "holds an integer beyond 64 bits")
    elif not isinstance(value, float):
        raise place.refusal(path, f"holds a {type(value).__name__}, which JSON does not have")
    elif not math.isfinite(value):
        raise place.refusal(path, "holds a number that is not finite")


def _decode(decode: Callable[[bytes], Record], data: bytes, language: str, place: Place) -> Record:
    try:
        return decode(data)
    except UnicodeDecodeError as error:
        raise place.refusal("document", f"is not UTF-8: {error.reason}") from error
    except msgspec.ValidationError as error:
        raise _invalid(str(error), place) from error
    except msgspec.DecodeError as error:
        raise place.refusal("document", f"is not {language}: {error}") from error
    except RecursionError as error:
        raise place.refusal("document", "is nested too deep") from error


def _invalid(message: str, place: Place) -> BadDocument:
    named = _NAMED_FIELD.search(message)
    if named and message.startswith("Object contains unknown"):
        return place.refusal(named[1], "is unknown; what is your own goes under `fields`")
    if named:
        return place.refusal(named[1], "is missing")
    path = _PATH.search(message)
    if path is None and message.startswith("Expected `object`, got `array`"):
        message = "is an array; one document a line is wanted: jq -c '.[]' makes that of it"
    return place.refusal(path[1] if path else "document", message)


def _count_keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_count_keys, value.values()))
    return sum(map(_count_keys, value)) if isinstance(value, list) else 0


def _may_repeat_a_key(line: bytes, record: Record) -> bool:
    # The decoder keeps the last of two equal keys and says nothing. Every key in the text ends in
    # a quote and a colon, so as many of those as there are keys in the result prove that none was
    # dropped; more of them may also be text, which only the slow parser can tell.
    given = (record.op, record.title, record.text, record.vector, record.fields)
    keys = 1 + sum(value is not UNSET for value in given)
    if record.fields is not UNSET:
        keys += _count_keys(record.fields)
    return line.count(b":") != keys and len(_KEY.findall(line)) != keys


def _refuse_repeated_keys(line: bytes, place: Place) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise place.refusal(key, "is given twice")
            seen.add(key)

    json.loads(line, object_pairs_hook=unique)
