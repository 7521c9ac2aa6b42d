"""Queries as they come in and answers as they go out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from index.snapshot import Hit, Mode
from manifests.errors import BadQuery

MAX_HITS = 1000
MAX_TEXT_CHARACTERS = 64 * 1024
MAX_LINE_BYTES = 1024 * 1024
UNIT_TOLERANCE = 0.01
"""A vector whose squared length is this near to 1 is taken for a unit vector as it is."""
MAX_SHOWN_CHARACTERS = 40
_TimeWithOffset = Annotated[datetime, msgspec.Meta(tz=True)]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One query. Without a ``mode``, both halves answer where both can."""

    text: str | None = None
    vector: NDArray[np.float32] | None = None
    mode: Mode | None = None
    limit: int = 10
    syntax: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The hits of one query, all from one generation, and which generation that was.

    ``published_at`` is there when the query asked for a time: when that generation was published.
    """

    generation_id: str
    commit_seq: int
    published_at: str | msgspec.UnsetType = msgspec.UNSET
    mode: Mode
    took_ms: float
    hits: list[Hit]

    def published(self, at: str) -> Answer:
        """The same answer, which tells when its generation was published."""
        return msgspec.structs.replace(self, published_at=at)


class QueryLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a file of queries."""

    id: str
    text: str | None = None
    vector: list[float] | None = None

    def array(self) -> NDArray[np.float32] | None:
        """The vector as float32, shape ``(len(vector),)``; what overflows becomes infinity."""
        with np.errstate(over="ignore"):
            return None if self.vector is None else np.array(self.vector, np.float32)


def point_in_time(text: str) -> datetime:
    """The time that ``text`` gives, in UTC.

    RFC 3339 with an offset (https://www.rfc-editor.org/rfc/rfc3339#section-5.6).

    Raises:
        BadQuery: it is no such time.
    """
    try:
        return msgspec.convert(text, _TimeWithOffset).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError, UnicodeEncodeError) as error:
        shown = text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
        raise BadQuery(
            f"as of {shown!r}: write date, time and offset from UTC, as in 2026-11-20T12:00:00Z or "
            "2026-11-20T13:00:00+01:00",
            field="as_of_time",
        ) from error


def settle(request: Request, dimensions: int, *, computes: bool) -> Request:
    """Check a query against the index it is for and choose its mode.

    Args:
        request: the query; its vector, if it has one, of any shape.
        dimensions: how long the index's vectors are.
        computes: whether a text can be embedded here.

    Raises:
        BadQuery: neither text nor vector, a vector that the index cannot compare, a mode that lacks
            what it needs, a text or a number of hits beyond the limits.
    """
    text, vector = request.text, request.vector
    if not 1 <= request.limit <= MAX_HITS:
        raise BadQuery(f"-k {request.limit}: ask for 1 to {MAX_HITS} hits", field="k")
    if text is not None and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadQuery("text: is not valid Unicode", field="text") from error
    if text is not None and len(text) > MAX_TEXT_CHARACTERS:
        raise BadQuery(f"text: longer than {MAX_TEXT_CHARACTERS} characters", field="text")
    if vector is not None:
        vector = _unit_vector(vector, dimensions)
    has_text, has_vector = bool(text and text.strip()), vector is not None
    if not has_text and not has_vector:
        raise BadQuery("a query needs a text or a vector", field="text")
    vector_half = has_vector or (has_text and computes)
    mode = request.mode or (
        "hybrid" if has_text and vector_half else "lexical" if has_text else "vector"
    )
    if mode != "vector" and not has_text:
        raise BadQuery(f"mode {mode} needs a text", field="text")
    if mode != "lexical" and not vector_half:
        raise BadQuery(
            f"mode {mode} needs a vector: this index's vectors came with its documents, so a text "
            "cannot be embedded here. Give the query's vector too, or ask with --mode lexical",
            field="vector",
        )
    return msgspec.structs.replace(request, mode=mode, vector=vector)


def _unit_vector(vector: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    if vector.shape != (dimensions,):
        raise BadQuery(
            f"vector: has {vector.size} numbers, this index compares {dimensions}", field="vector"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        length_squared = float(vector.dot(vector))
    if abs(length_squared - 1) < UNIT_TOLERANCE:
        return vector
    exact = vector.astype(np.float64)
    length = math.sqrt(exact.dot(exact))
    if not math.isfinite(length):
        raise BadQuery("vector: holds NaN or infinity", field="vector")
    if length == 0:
        raise BadQuery("vector: is all zeros, which has no direction", field="vector")
    return (exact / length).astype(np.float32)


def read_queries(path: Path) -> Iterator[tuple[int, QueryLine]]:
    """The queries of a JSON Lines file with their line numbers; blank lines are skipped.

    Raises:
        BadQuery: naming file, line and field.
    """
    decode = msgspec.json.Decoder(QueryLine).decode
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise BadQuery(
                        f"{path}:{number}: longer than {MAX_LINE_BYTES} bytes",
                        file=str(path),
                        line=number,
                    )
                if line.strip():
                    try:
                        yield number, decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError) as error:
                        raise BadQuery(
                            f"{path}:{number}: {error}", file=str(path), line=number
                        ) from error
    except OSError as error:
        raise BadQuery(f"{path}: {error.strerror}", file=str(path)) from error
