"""Operations read from files: JSON lines, CSV and streams of msgpack maps.

A line (a CSV row, a msgpack map) is bounded while it is read, so that a file which is one endless
line is a bad document and not a matter of memory.
"""

from __future__ import annotations

import contextlib
import csv
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from commits.documents import (
    DocumentRules,
    Operation,
    Place,
    Record,
    operation_of,
    parse_json,
    parse_msgpack,
)
from commits.msgpack_stream import objects
from durable.files import translated
from manifests.errors import BadDocument, BadSetting

Format = Literal["jsonl", "csv", "msgpack"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "msgpack")

_BY_EXTENSION: dict[str, Format] = {".csv": "csv", ".msgpack": "msgpack", ".mpk": "msgpack"}
_BOM = b"\xef\xbb\xbf"
_CSV_COLUMNS = ("id", "op", "title", "text")


@dataclass(frozen=True, slots=True)
class Source:
    """A file of operations that can be read more than once.

    ``name`` is what messages call it. ``spool`` holds the content of what was not a regular file.
    """

    path: Path
    name: str
    format: Format
    spool: BinaryIO | None = None

    @contextlib.contextmanager
    def stream(self) -> Iterator[BinaryIO]:
        """Its content from the start. Raises DiskError if the system refuses to read."""
        with translated(self.path):
            if self.spool is not None:
                self.spool.seek(0)
                yield self.spool
            else:
                with self.path.open("rb") as stream:
                    yield stream


@contextlib.contextmanager
def open_source(path: Path, format: str | None = None) -> Iterator[Source]:  # noqa: A002
    """Have ``path`` ready for reading twice, in ``format`` or the one its extension names.

    A pipe or a device gives its bytes only once, so they are copied to an anonymous temporary file
    that goes with the context.

    Raises:
        BadSetting: there is no such file, it is a folder, it cannot be opened, or the format is
            unknown.
        DiskFull: no room for the copy.
    """
    if format is None:
        chosen = _BY_EXTENSION.get(path.suffix.lower(), "jsonl")
    elif format in FORMATS:
        chosen = format
    else:
        raise BadSetting(f"format {format!r} is unknown; choose one of {', '.join(FORMATS)}")
    if path.is_dir():
        raise BadSetting(f"{path} is a folder; name the files in it", path=str(path))
    try:
        stream = path.open("rb")
    except OSError as error:
        raise BadSetting(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    with contextlib.ExitStack() as stack:
        with stream:
            if path.is_file():
                spool = None
            else:
                spool = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile()))
                with translated(path):
                    shutil.copyfileobj(stream, spool)
        yield Source(path, str(path), chosen, spool)


def read_operations(source: Source, rules: DocumentRules) -> Iterator[tuple[int, Operation]]:
    """Yield ``(line, operation)`` in the order of the file; lines count from 1.

    For CSV the line is the one a row starts on, for msgpack the number of the map.

    Raises:
        BadDocument: the first operation that breaks a rule; names the file, the line and the field.
        DiskError: the system refused to read.
    """
    readers = {"jsonl": _read_jsonl, "csv": _read_csv, "msgpack": _read_msgpack}
    with source.stream() as stream:
        yield from readers[source.format](stream, source.name, rules)


_NOT_PLAIN_TEXT = {
    b"\x1f\x8b": "is compressed with gzip; unpack the file first",
    b"\xff\xfe": "is UTF-16; convert the file first: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "is UTF-16; convert the file first: iconv -f UTF-16 -t UTF-8",
}


def _lines(stream: BinaryIO, name: str, limit_bytes: int) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := stream.readline(limit_bytes + 1):
        number += 1
        if len(line) > limit_bytes and not line.endswith(b"\n"):
            raise Place(name, number).refusal("document", f"is longer than {limit_bytes} bytes")
        if number == 1:
            for start, advice in _NOT_PLAIN_TEXT.items():
                if line.startswith(start):
                    raise Place(name, 1).refusal("document", advice)
            line = line.removeprefix(_BOM)
        yield number, line


def _read_jsonl(
    stream: BinaryIO, name: str, rules: DocumentRules
) -> Iterator[tuple[int, Operation]]:
    for number, line in _lines(stream, name, rules.max_line_bytes):
        if not line.isspace() and line:
            yield number, parse_json(line, rules, Place(name, number))


def _read_msgpack(
    stream: BinaryIO, name: str, rules: DocumentRules
) -> Iterator[tuple[int, Operation]]:
    def refusal(number: int, what: str) -> BadDocument:
        return Place(name, number).refusal("document", what)

    for number, data in objects(stream, rules.max_line_bytes, refusal):
        yield number, parse_msgpack(data, rules, Place(name, number))


class _CsvLines:
    """The lines of a CSV file as the csv module wants them, with the row they add up to bounded."""

    def __init__(self, stream: BinaryIO, name: str, limit_bytes: int) -> None:
        self._lines = _lines(stream, name, limit_bytes)
        self._name = name
        self._limit_bytes = limit_bytes
        self._row_bytes = 0
        self._next_line = 1
        self.row = Place(name, 1)

    def start_row(self) -> None:
        """What is asked for next begins a row."""
        self._row_bytes = 0
        self.row = Place(self._name, self._next_line)

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            self._next_line = number + 1
            self._row_bytes += len(line)
            if self._row_bytes > self._limit_bytes + 1:
                raise self.row.refusal("document", f"is longer than {self._limit_bytes} bytes")
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                place = Place(self._name, number)
                raise place.refusal("document", f"is not UTF-8: {error.reason}") from error


def _read_csv(stream: BinaryIO, name: str, rules: DocumentRules) -> Iterator[tuple[int, Operation]]:
    # The module's own limit is one for the whole process; the bound that counts is in _CsvLines.
    csv.field_size_limit(max(csv.field_size_limit(), rules.max_line_bytes + 1))
    lines = _CsvLines(stream, name, rules.max_line_bytes)
    rows = _csv_rows(lines)
    for _, named in rows:
        header = ["id" if column == rules.id_field else column for column in named]
        _check_header(header, rules.id_field, Place(name, 1))
        for place, row in rows:
            yield place.line, operation_of(_csv_record(header, row, place), rules, place)


def _csv_rows(lines: _CsvLines) -> Iterator[tuple[Place, list[str]]]:
    reader = csv.reader(iter(lines), strict=True)
    while True:
        lines.start_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise lines.row.refusal("document", f"is not CSV: {error}") from error
        if row:
            yield lines.row, row


def _check_header(header: list[str], id_field: str, place: Place) -> None:
    if "id" not in header:
        raise place.refusal(
            "id", f"the first line of a CSV file names the columns; none is `{id_field}`"
        )
    if "vector" in header:
        raise place.refusal("vector", "CSV cannot carry vectors; use jsonl or msgpack")
    for position, column in enumerate(header):
        if not column.strip():
            raise place.refusal("document", f"column {position + 1} has no name")
        if column in header[:position]:
            raise place.refusal(column, "is the name of two columns")


def _csv_record(header: list[str], row: list[str], place: Place) -> Record:
    if len(row) != len(header):
        raise place.refusal("document", f"has {len(row)} cells under {len(header)} columns")
    cells = dict(zip(header, row, strict=True))
    op = cells.get("op", "")
    if op not in ("", "upsert", "delete"):
        raise place.refusal("op", f"is {op!r}; it is `upsert`, `delete` or empty")
    fields = {name: cell for name, cell in cells.items() if name not in _CSV_COLUMNS}
    record = Record(id=cells["id"])
    if op == "delete":
        # A table gives a deleted row cells too; empty ones say nothing.
        record.op = "delete"
        fields = {name: cell for name, cell in fields.items() if cell}
    if cells.get("title"):
        record.title = cells["title"]
    if cells.get("text"):
        record.text = cells["text"]
    if fields:
        record.fields = fields
    return record
