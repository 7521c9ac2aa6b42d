"""The text half of a generation: one tantivy index of immutable segment files.

Title and text are analysed together as one field, ``body``, by tantivy's ``en_stem`` analyser
(simple tokenizer, words of fewer than 40 bytes, lower case, English Snowball stemmer; figures in
ADR 0003). ``id`` is one untouched term, ``row`` a fast field that ties a hit to its head and its
vector, ``document`` the stored document. The analyser is built into tantivy, so any tantivy 0.27
program can open the files.

A new generation's files are made in a work folder that starts as hard links to the parent's: old
segments are never rewritten, new documents are new segments, deletes are new small files. Which
segments are merged is for the builder to say (:mod:`index.segments` tells how).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tantivy

from durable import files
from index.segments import Meta, Segment, link_segments, read_meta, write_meta
from manifests.errors import ActivationFailed, BadQuery
from manifests.generation import LexicalSettings

FOLDER = "lexical"
SETTINGS = LexicalSettings(
    library="tantivy 0.27",
    analyzer="en_stem: simple, fewer than 40 bytes, lower case, English Snowball stemmer",
    fields=("body", "id", "row", "document"),
)
MAX_SYNTAX_CHARACTERS = 4_096
MAX_BRACKETS = 100
_UNMERGED_SEGMENTS = 7
"""Up to so many segments in one index are left by tantivy as they are; it merges eight."""
_HEAP_BYTES_SMALL = 64_000_000
_HEAP_BYTES_LARGE = 256_000_000


class StoredDocument(msgspec.Struct, frozen=True, array_like=True):
    """A document as the index keeps it, to be given back whole."""

    id: str
    title: str
    text: str
    fields: dict[str, Any]


def _schema() -> tantivy.Schema:
    return (
        tantivy.SchemaBuilder()
        .add_text_field("id", tokenizer_name="raw", index_option="basic")
        .add_unsigned_field("row", fast=True)
        .add_text_field("body", tokenizer_name="en_stem")
        .add_bytes_field("document", stored=True)
        .build()
    )


def _analyzer() -> tantivy.TextAnalyzer:
    """What tantivy registers as ``en_stem``, for query texts."""
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.remove_long(40))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.stemmer("english"))
        .build()
    )


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    # pyo3's PanicException derives from BaseException; a panic inside tantivy is an answer too.
    try:
        yield
    except (ValueError, OSError) as error:
        raise ActivationFailed(f"tantivy failed while {doing}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ActivationFailed(f"tantivy panicked while {doing}: {error}") from error


def add_documents(
    folder: Path, documents: Iterable[tuple[int, StoredDocument]], *, threads: int
) -> Meta:
    """Make an index of ``documents``, pairs of row and document, in an empty folder.

    One thread makes one segment of them; 0 stands for as many threads as there are cores.

    Raises:
        DiskFull, DiskError: tantivy could not write.
    """
    encode = msgspec.msgpack.Encoder().encode
    heap_bytes = _HEAP_BYTES_SMALL if threads == 1 else _HEAP_BYTES_LARGE
    with _writing(folder):
        index = tantivy.Index(_schema(), path=str(folder))
        writer = index.writer(heap_bytes, num_threads=threads)
        for row, document in documents:
            entry = tantivy.Document()
            entry.add_text("id", document.id)
            entry.add_unsigned("row", row)
            entry.add_text("body", f"{document.title}\n{document.text}")
            entry.add_bytes("document", encode(document))
            writer.add_document(entry)
        writer.commit()
        writer.wait_merging_threads()
    return read_meta(folder)


def delete_documents(folder: Path, meta: Meta, ids: Collection[str]) -> Meta:
    """Delete the documents of ``ids`` from the segments of ``meta``, whose files are in ``folder``.

    New files of deletes come into the folder; ``meta.json`` is left as it is. Pieces of the index
    are made in folders beside it.

    Raises:
        DiskFull, DiskError: tantivy could not write.
    """
    segments: list[Segment] = []
    opstamp = meta.opstamp
    for start in range(0, len(meta.segments), _UNMERGED_SEGMENTS):
        group = meta.segments[start : start + _UNMERGED_SEGMENTS]
        piece = folder.with_name(f"{folder.name}-{meta.opstamp}-{start}")
        files.make_folder(piece)
        link_segments(folder, group, piece)
        write_meta(piece, meta.of(group))
        with _writing(piece):
            writer = tantivy.Index.open(str(piece)).writer(_HEAP_BYTES_SMALL, num_threads=1)
            for identity in ids:
                writer.delete_documents_by_term("id", identity)
            writer.commit()
            writer.wait_merging_threads()
        changed = read_meta(piece)
        link_segments(piece, changed.segments, folder)
        # tantivy forgets segments without live documents, and keeps no order.
        left = {segment.segment_id: segment for segment in changed.segments}
        segments += [left[each.segment_id] for each in group if each.segment_id in left]
        opstamp = max(opstamp, changed.opstamp)
    return msgspec.structs.replace(meta.of(segments), opstamp=opstamp)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise files.write_failure(folder, f"tantivy: {error}") from error


class LexicalIndex:
    """A verified index, opened for reading."""

    def __init__(self, folder: Path) -> None:
        """Open it.

        Raises:
            ActivationFailed: tantivy refuses the files.
        """
        with _translated(f"opening {folder}"):
            self._index = tantivy.Index.open(str(folder))
            self._searcher = self._index.searcher()
        self._analyzer = _analyzer()

    @property
    def documents(self) -> int:
        """How many live documents it holds."""
        return self._searcher.num_docs

    def search(
        self, text: str, limit: int, *, syntax: bool = False
    ) -> tuple[list[int], list[float]]:
        """The rows and BM25 scores of the best ``limit`` documents, best first.

        ``text`` is plain words, any of which may match, unless ``syntax`` asks for tantivy's query
        language.

        Raises:
            BadQuery: ``syntax`` was asked for and the text does not parse.
        """
        if syntax:
            # tantivy's parser recurses into brackets, and a stack that overflows ends the process.
            if len(text) > MAX_SYNTAX_CHARACTERS or sum(map(text.count, "([{")) > MAX_BRACKETS:
                raise BadQuery(
                    f"a query in tantivy's language has at most {MAX_SYNTAX_CHARACTERS} characters "
                    f"and {MAX_BRACKETS} brackets",
                    field="text",
                )
            try:
                query = self._index.parse_query(text, ["body"])
                hits = self._searcher.search(query, limit, count=False).hits
            except ValueError as error:
                raise BadQuery(f"cannot answer the query: {error}", text=text) from error
        else:
            hits = self._searcher.search(self._any_of(text), limit, count=False).hits
        rows = self._searcher.fast_field_values("row", [address for _, address in hits])
        return rows, [score for score, _ in hits]  # type: ignore[return-value]

    def _any_of(self, text: str) -> tantivy.Query:
        """The query for any of the words of ``text``, cut up as documents are; none is syntax."""
        terms = dict.fromkeys(self._analyzer.analyze(text))
        schema = self._index.schema
        return tantivy.Query.boolean_query(
            [
                (tantivy.Occur.Should, tantivy.Query.term_query(schema, "body", term, "freq"))
                for term in terms
            ]
        )

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        """The rows of those documents among ``ids`` that are in the index, in no order."""
        if not ids:
            return []
        query = tantivy.Query.term_set_query(self._index.schema, "id", ids)
        hits = self._searcher.search(query, len(ids), count=False).hits
        return self._searcher.fast_field_values("row", [address for _, address in hits])  # type: ignore[return-value]

    def document(self, identity: str) -> StoredDocument | None:
        """The document of this id, or ``None``."""
        query = tantivy.Query.term_set_query(self._index.schema, "id", [identity])
        for _, address in self._searcher.search(query, 1, count=False).hits:
            stored = self._searcher.doc(address).get_first("document")
            return msgspec.msgpack.decode(bytes(stored or b""), type=StoredDocument)
        return None

    def live_documents(self, but: Collection[int] = ()) -> Iterator[tuple[int, StoredDocument]]:
        """The live documents with their rows, in order of rows; those of the rows ``but`` not."""
        everything = tantivy.Query.all_query()
        hits = self._searcher.search(everything, max(1, self.documents), count=False).hits
        addresses = [address for _, address in hits]
        rows = np.array(self._searcher.fast_field_values("row", addresses), dtype=np.uint64)
        decode = msgspec.msgpack.Decoder(StoredDocument).decode
        for place in np.argsort(rows).tolist():
            row = int(rows[place])
            if row not in but:
                stored = self._searcher.doc(addresses[place]).get_first("document")
                yield row, decode(bytes(stored or b""))
