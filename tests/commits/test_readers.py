import io
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commits.documents import Delete, DocumentRules, Operation, Place, Upsert
from commits.msgpack_stream import objects
from commits.readers import open_source, read_operations
from manifests.errors import BadDocument, BadSetting, DiskError
from tests.commits.samples import BROUGHT, COMPUTED

SMALL = DocumentRules(dimensions=4, vectors="forbidden", max_line_bytes=100)
pack = msgspec.msgpack.encode


def read(
    path: Path, data: bytes, rules: DocumentRules = COMPUTED, form: str | None = None
) -> list[tuple[int, Operation]]:
    path.write_bytes(data)
    with open_source(path, form) as source:
        first = list(read_operations(source, rules))
        assert first == list(read_operations(source, rules)), "a source can be read twice"
    return first


def refused_line(path: Path, data: bytes, rules: DocumentRules = COMPUTED) -> tuple[Any, Any]:
    with pytest.raises(BadDocument) as refused:
        read(path, data, rules)
    assert str(refused.value).startswith(f"{path}:{refused.value.facts['line']}: field ")
    return refused.value.facts["line"], refused.value.facts["field"]


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"id":"a","text":"t"}\r\n\n  \t\n{"id":"b","op":"delete"}'
    assert read(tmp_path / "x.jsonl", data) == [(1, Upsert("a", text="t")), (4, Delete("b"))]


def test_row_66_a_line_that_is_not_json_is_named(tmp_path: Path) -> None:
    data = b'{"id":"a","text":"t"}\n{"id":"b","text":\n'
    assert refused_line(tmp_path / "x.jsonl", data) == (2, "document")


def test_row_66_an_oversized_line_is_named_and_not_held_in_memory() -> None:
    class Endless(io.RawIOBase):
        """A first line, and then one without an end."""

        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self.given += len(buffer)
            assert self.given < 2**20, "it went on reading"
            buffer[:] = b"x" * len(buffer)
            return len(buffer)

    from commits.readers import _read_jsonl

    with pytest.raises(BadDocument, match=r"^endless:1: field document: is longer than 100 bytes"):
        list(_read_jsonl(io.BufferedReader(Endless()), "endless", SMALL))


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_a_line_of_exactly_the_limit_is_read(tmp_path: Path, ending: bytes) -> None:
    line = b'{"id":"a","text":"' + b"x" * 80 + b'"}'
    assert len(line) == 100
    assert len(read(tmp_path / "x.jsonl", line + ending, SMALL)) == 1
    assert refused_line(tmp_path / "x.jsonl", b" " + line + ending, SMALL) == (1, "document")


def test_csv_columns_beyond_the_known_ones_become_fields(tmp_path: Path) -> None:
    data = (
        b'\xef\xbb\xbfid,title,text,op,year\r\na,T,"two\nlines, ""q""",,1999\r\n\r\nb,,,delete,\r\n'
    )
    assert read(tmp_path / "x.csv", data) == [
        (2, Upsert("a", "T", 'two\nlines, "q"', None, {"year": "1999"})),
        (5, Delete("b")),
    ]


@pytest.mark.parametrize(
    ("data", "line", "field"),
    [
        (b"title,text\nT,t\n", 1, "id"),
        (b"id,text,text\n", 1, "text"),
        (b"id,,text\n", 1, "document"),
        (b"id,vector\n", 1, "vector"),
        (b"id,text\na\n", 2, "document"),
        (b"id,text\na,b,c\n", 2, "document"),
        (b"id,text\na,t\n,t\n", 3, "id"),
        (b"id,text\na,\n", 2, "text"),
        (b"id,text,op\na,t,remove\n", 2, "op"),
        (b"id,text,op\na,t,delete\n", 2, "text"),
        (b"id,x,op\na,t,delete\n", 2, "fields"),
        (b'id,text\na,"one\ntwo\n', 2, "document"),
        (b'id,text\na,"t"x\n', 2, "document"),
        (b"id,text\na,t\nb,\xff\n", 3, "document"),
        (b'id,text\na,"' + b"x\n" * 60 + b'"\n', 2, "document"),
        (b"id,text\na," + b"x" * 200 + b"\n", 2, "document"),
    ],
)
def test_row_66_bad_csv_is_refused_by_line_and_field(
    tmp_path: Path, data: bytes, line: int, field: str
) -> None:
    assert refused_line(tmp_path / "x.csv", data, SMALL) == (line, field)


def test_a_csv_cell_may_be_longer_than_the_csv_modules_own_limit(tmp_path: Path) -> None:
    data = b"id,text\na," + b"x" * 300_000 + b"\n"
    assert len(read(tmp_path / "x.csv", data)) == 1


def test_an_empty_file_holds_no_operations(tmp_path: Path) -> None:
    assert [read(tmp_path / f"x.{end}", b"") for end in ("jsonl", "csv", "msgpack")] == [[], [], []]


def test_a_msgpack_stream_reads_like_json(tmp_path: Path) -> None:
    data = pack({"id": "a", "vector": [0.5, 1, -1.0, 2]}) + pack({"id": "b", "op": "delete"})
    (_, upsert), (number, delete) = read(tmp_path / "x.msgpack", data, BROUGHT)
    assert (upsert.id, number, delete) == ("a", 2, Delete("b"))


@pytest.mark.parametrize(
    ("second", "field"),
    [
        (pack({"id": "b", "text": "t"})[:-1], "document"),
        (b"\xc1", "document"),
        (pack([1]), "document"),
        (pack({"id": b"b", "text": "t"}), "id"),
        (pack({"id": "b", "text": "t", "fields": {"x": b"bytes"}}), "fields.x"),
        (pack({"id": "b", "text": "t", "fields": {"x": float("nan")}}), "fields.x"),
        (pack({"id": "b", "text": "t", "fields": {"x": 2**64 - 1}}), "fields.x"),
        (b"\x83\xa2id\xa1b\xa4text\xa1t\xa6fields\x81\xa1x\xd6\xff\0\0\0\0", "fields.x"),
        (b"\x82\xa2id\xa3\xed\xa0\x80\xa4text\xa1t", "document"),
        (pack({"id": "b", "text": "x" * 200}), "document"),
        (b"\x82\xa2id\xdb\xff\xff\xff\xff", "document"),
        (b"\xdf\xff\xff\xff\xff", "document"),
        (b"\x81\xa2id" + b"\x91" * 99, "document"),
    ],
)
def test_row_66_bad_msgpack_is_refused_by_number_and_field(
    tmp_path: Path, second: bytes, field: str
) -> None:
    data = pack({"id": "a", "text": "t"}) + second
    assert refused_line(tmp_path / "x.msgpack", data, SMALL) == (2, field)


def test_a_msgpack_vector_with_a_nan_is_refused(tmp_path: Path) -> None:
    data = pack({"id": "a", "vector": [1.0, float("nan"), 1.0, 1.0]})
    assert refused_line(tmp_path / "x.msgpack", data, BROUGHT) == (1, "vector")


anything: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.lists(st.floats(allow_nan=False), max_size=40)
        | st.dictionaries(st.text(max_size=5), inner, max_size=20)
    ),
    max_leaves=30,
)


@settings(print_blob=True, deadline=None)
@given(st.lists(anything, max_size=5))
def test_a_msgpack_stream_is_cut_exactly_between_its_objects(parts: list[Any]) -> None:
    def refusal(number: int, what: str) -> BadDocument:
        return Place("stream", number).refusal("document", what)

    encoded = [pack(part) for part in parts]
    found = list(objects(io.BytesIO(b"".join(encoded)), 2**20, refusal))
    assert found == list(enumerate(encoded, start=1))


def test_a_path_that_is_missing_or_a_folder_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="No such file"), open_source(tmp_path / "none.jsonl"):
        pass
    with pytest.raises(BadSetting, match="is a folder"), open_source(tmp_path):
        pass


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(BadSetting, match="jsonl, csv, msgpack"), open_source(tmp_path / "x", "xml"):
        pass


def test_the_format_argument_goes_before_the_extension(tmp_path: Path) -> None:
    data = b'{"id":"a","text":"t"}\n'
    assert len(read(tmp_path / "x.csv", data, form="jsonl")) == 1


def test_a_pipe_is_spooled_and_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b'{"id":"a","text":"t"}\n',))
    writer.start()
    with open_source(path) as source:
        writer.join()
        assert [list(read_operations(source, COMPUTED)) for _ in range(2)] == [
            [(1, Upsert("a", text="t"))]
        ] * 2


def test_a_failing_read_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"{}")
    with open_source(tmp_path / "x.jsonl") as source:
        (tmp_path / "x.jsonl").unlink()
        with pytest.raises(DiskError):
            list(read_operations(source, COMPUTED))
