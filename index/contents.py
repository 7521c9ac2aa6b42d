"""All that a generation holds, read out of its files so that two generations can be compared.

A search looks at the best hits; a comparison looks at every document. What is read here is what the
files hold, half by half: ids and titles from the head tables, texts and fields from the text index,
vectors as the quantization kept them. Rows never leave this module, because another generation of
the same documents may number them otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import tantivy
from blake3 import blake3
from numpy.typing import NDArray

from index.heads import Head
from index.lexical import FOLDER, LexicalIndex, StoredDocument
from index.snapshot import Snapshot
from index.verification import VerifiedGeneration
from manifests.generation import GenerationManifest

BATCH_DOCUMENTS = 1_000
DIGEST_BYTES = 16

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(StoredDocument).decode


class Fingerprint(NamedTuple):
    """A document's parts as digests: two documents are the same if all of them are.

    A part that the generation lacks (a head without its text, say) is like no part of a document.
    """

    title: bytes
    text: bytes
    fields: bytes
    vector: bytes


class Occurrence(NamedTuple):
    """What BM25 knows of one term in one document."""

    frequency: float
    length: float


class TermStatistics(NamedTuple):
    """What BM25 knows of one term in all documents, those included that a merge will drop."""

    documents_with_term: float
    documents: float
    average_length: float


class Evidence(NamedTuple):
    """Why the text index matches what it matches."""

    occurrences: Mapping[str, Mapping[str, Occurrence]]
    """By document id, then by term."""
    statistics: Mapping[str, TermStatistics]
    """By term."""


class Contents:
    """A verified generation, opened to be read out whole. For one thread."""

    def __init__(self, verified: VerifiedGeneration) -> None:
        """Open it.

        Raises:
            ActivationFailed: a library refuses its files although they are the signed ones.
        """
        self.snapshot = Snapshot(verified)
        self._text = _TextContents(verified.folder / FOLDER)

    @property
    def manifest(self) -> GenerationManifest:
        """The generation's manifest."""
        return self.snapshot.manifest

    def ids(self) -> list[str]:
        """The ids of all live documents."""
        return [self.snapshot.head(row).id for row in self.snapshot.live_rows()]

    def fingerprints(self) -> dict[str, Fingerprint]:
        """Every live document by its id; takes memory for that much, not for the documents.

        An id that is live twice has a fingerprint that no document has.
        """
        found: dict[str, Fingerprint] = {}
        for rows in self._batches():
            heads = [self.snapshot.head(row) for row in rows]
            texts = self._text.stored_documents([head.id for head in heads])
            vectors = self.snapshot.vectors(rows)
            for row, head, vector in zip(rows, heads, vectors, strict=True):
                fingerprint = _fingerprint(head, texts.get(row), vector)
                if head.id in found:
                    fingerprint = Fingerprint(
                        *map(_digest, map(bytes.__add__, found[head.id], fingerprint))
                    )
                found[head.id] = fingerprint
        return found

    def vectors(self) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """The live documents' ids and stored vectors, shape ``(ids, dimensions)``, in batches."""
        for rows in self._batches():
            ids = [self.snapshot.head(row).id for row in rows]
            yield ids, self.snapshot.vectors(rows).astype(np.float32)

    def vectors_of(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The stored vectors of those of ``ids`` that are live here."""
        return {
            identity: self.snapshot.vector(row).astype(np.float32)
            for identity, row in self.snapshot.rows_of(list(ids)).items()
        }

    def terms(self) -> dict[str, int]:
        """Every term of the text index, and in how many live documents it is."""
        return self._text.terms()

    def evidence(self, text: str, ids: Sequence[str]) -> Evidence:
        """How often, in how long a document, which words of ``text`` are in those of ``ids``.

        A document that none of the words is in, or that is not here, is left out.
        """
        occurrences: dict[str, dict[str, Occurrence]] = {}
        statistics: dict[str, TermStatistics] = {}
        for row, terms in self._text.explain(text, ids):
            if terms:
                occurrences[self.snapshot.head(row).id] = {
                    term: each.occurrence for term, each in terms.items()
                }
                statistics |= {term: each.statistics for term, each in terms.items()}
        return Evidence(occurrences, statistics)

    def _batches(self) -> Iterator[list[int]]:
        rows = self.snapshot.live_rows()
        for start in range(0, len(rows), BATCH_DOCUMENTS):
            yield rows[start : start + BATCH_DOCUMENTS]


class _Explained(NamedTuple):
    occurrence: Occurrence
    statistics: TermStatistics


class _Explanation(msgspec.Struct):
    """How tantivy explains a score."""

    value: float
    description: str
    details: list[_Explanation] = []
    context: list[str] = []


_read_explanation = msgspec.json.Decoder(_Explanation).decode


class _TextContents(LexicalIndex):
    """The text index, asked for documents and reasons instead of hits."""

    def stored_documents(self, ids: Sequence[str]) -> dict[int, StoredDocument]:
        """The stored documents of ``ids``, by their rows."""
        addresses = self._addresses(ids)
        stored = [self._searcher.doc(address).get_first("document") for address in addresses]
        documents = [_decode(bytes(document or b"")) for document in stored]
        return dict(zip(self._rows(addresses), documents, strict=True))

    def terms(self) -> dict[str, int]:
        """In how many live documents each term is."""
        # Without a query to filter by, deleted documents would count.
        everything = tantivy.Query.all_query()
        return dict(self._searcher.terms_with_prefix("body", "", everything))

    def explain(self, text: str, ids: Sequence[str]) -> Iterator[tuple[int, dict[str, _Explained]]]:
        """For each of ``ids`` that is here, its row and what each matching term counts."""
        query = self._any_of(text)
        addresses = self._addresses(ids)
        for row, address in zip(self._rows(addresses), addresses, strict=True):
            try:
                explanation = query.explain(self._searcher, address).to_json()
            except ValueError:
                continue  # no term of the query is in it
            yield row, dict(_terms(_read_explanation(explanation)))

    def _rows(self, addresses: list[tantivy.DocAddress]) -> list[int]:
        return self._searcher.fast_field_values("row", addresses)  # type: ignore[return-value]

    def _addresses(self, ids: Sequence[str]) -> list[tantivy.DocAddress]:
        if not ids:
            return []
        query = tantivy.Query.term_set_query(self._index.schema, "id", list(ids))
        # An id that is there twice is still found twice.
        hits = self._searcher.search(query, 2 * len(ids), count=False).hits
        return [address for _, address in hits]


def _fingerprint(
    head: Head, stored: StoredDocument | None, vector: NDArray[np.generic]
) -> Fingerprint:
    # The title is kept twice, and both copies count.
    if stored is None or stored.id != head.id:
        return Fingerprint(_digest(_encode([head.title])), b"", b"", _digest(vector.tobytes()))
    return Fingerprint(
        _digest(_encode([head.title, stored.title])),
        _digest(stored.text.encode()),
        _digest(_encode(stored.fields)),
        _digest(vector.tobytes()),
    )


def _digest(data: bytes) -> bytes:
    return blake3(data).digest(DIGEST_BYTES)


def _terms(explanation: _Explanation) -> Iterator[tuple[str, _Explained]]:
    """The terms of an explanation: a sum, of sums or of terms, each a product of named values."""
    if not explanation.description.startswith("TermQuery"):
        for part in explanation.details:
            yield from _terms(part)
        return
    values = {
        value.description.partition(",")[0]: value.value
        for factor in explanation.details
        for value in factor.details
    }
    yield (
        explanation.context[0],
        _Explained(
            Occurrence(values["freq"], values["dl"]),
            TermStatistics(values["n"], values["N"], values["avgdl"]),
        ),
    )
