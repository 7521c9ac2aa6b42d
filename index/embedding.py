"""The embedder port and the embedders that are built in.

The writer embeds documents and every node embeds queries, so both sides stand on this module; what
makes them agree is the embedder's identity: a name, a revision hash and golden texts with their
vectors, all under the signed manifest.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.words import words
from manifests.errors import BadQuery, BadSetting, EmbedderMismatch
from manifests.generation import EmbedderRecord, GoldenEmbedding
from manifests.identifiers import content_id
from manifests.vectors import vector_to_text

MAX_DIMENSIONS = 8192
DEFAULT_DIMENSIONS = 384
_STOP = (
    "a an and are as at be but by for from has have if in into is it its no not of on or such that "
    "the their then there these they this to was were will with"
)
_STOP_WORDS = frozenset(_STOP.split())

GOLDEN_TEXTS = (
    "a generation is immutable",
    "Reciprocal rank fusion of two rankings",
    "naïve café — 日本語 ΑΒΓ",
    "0",
)


class Embedder(Protocol):
    """Turns text into vectors, and can say exactly what it is."""

    @property
    def name(self) -> str:
        """The name by which a setting chooses it."""
        ...

    @property
    def revision(self) -> str:
        """BLAKE3 hex of all that decides its output: code version, parameters, weights."""
        ...

    @property
    def dimensions(self) -> int:
        """The length of every vector it makes."""
        ...

    @property
    def computes(self) -> bool:
        """Whether it makes vectors itself; if not, documents and queries must bring theirs."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape ``(len(texts), dimensions)``.

        Raises:
            BadQuery: it does not compute vectors.
        """
        ...


class HashingEmbedder:
    """Signed feature hashing of the 4-grams of words (Weinberger et al., ICML 2009).

    A text is the 4-grams of its words (``<fox>`` has ``<fox`` and ``fox>``), the commonest English
    words left out. Each of a word's ``g`` grams counts ``1 / sqrt(g)``, so that long words do not
    drown short ones; a gram weighs the root of its count. CRC-32 chooses dimension and sign.
    Deterministic on every machine and nothing to install: it forgives spelling and inflection, it
    knows no meaning.
    """

    name = "hashing"
    computes = True

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        recipe = f"hashing/1 crc32 4-grams 1/sqrt(g) sqrt(count) D={dimensions} stop={_STOP}"
        self.revision = content_id(recipe.encode())

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See :meth:`Embedder.embed`. A text without words gets the first unit vector."""
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float64)
        known: dict[str, list[int]] = {}
        for vector, text in zip(vectors, texts, strict=True):
            counts = Counter(words(text))
            for stop_word in _STOP_WORDS & counts.keys():
                del counts[stop_word]
            grams = [known.get(word) or known.setdefault(word, _grams(word)) for word in counts]
            if grams:
                lengths = np.fromiter(map(len, grams), np.int64)
                shares = np.fromiter(counts.values(), np.float64) / np.sqrt(lengths)
                codes, places = np.unique(
                    np.fromiter(chain.from_iterable(grams), np.int64), return_inverse=True
                )
                weights = np.sqrt(np.bincount(places, np.repeat(shares, lengths)))
                signs = np.where(codes & 0x80000000, -1.0, 1.0)
                buckets = (codes & 0x7FFFFFFF) % self.dimensions
                vector[:] = np.bincount(buckets, weights * signs, self.dimensions)
            if not vector.any():
                vector[0] = 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)


def _grams(word: str) -> list[int]:
    """The CRC-32 of each 4-gram of a word; a shorter word is one gram."""
    marked = f"<{word}>"
    grams = [marked[start : start + 4] for start in range(max(1, len(marked) - 3))]
    return [zlib.crc32(gram.encode("utf-8")) for gram in grams]


class PrecomputedEmbedder:
    """Vectors come with the documents and with the queries; nothing is computed here."""

    name = "precomputed"
    computes = False

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.revision = content_id(f"precomputed/1 D={dimensions}".encode())

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Always refuses: see the class."""
        raise BadQuery(
            "this index's vectors came with its documents, so a text cannot be embedded here; "
            "give the query's vector too, or ask with --mode lexical",
            embedder=self.name,
        )


_EMBEDDERS: dict[str, Callable[[int], Embedder]] = {
    "hashing": HashingEmbedder,
    "precomputed": PrecomputedEmbedder,
}
EMBEDDER_NAMES = tuple(_EMBEDDERS)


def make_embedder(name: str, dimensions: int) -> Embedder:
    """The embedder of this name.

    Raises:
        BadSetting: no such embedder, or a number of dimensions it cannot have.
    """
    if name not in _EMBEDDERS:
        raise BadSetting(f"no embedder is called {name!r}; there are {', '.join(EMBEDDER_NAMES)}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise BadSetting(f"{dimensions} dimensions: must be 1 to {MAX_DIMENSIONS}")
    return _EMBEDDERS[name](dimensions)


def embedder_like(wanted: EmbedderRecord) -> Embedder:
    """The embedder that a manifest names, made here; whether it is the same is to be checked.

    Raises:
        EmbedderMismatch: this genctl has none of that name, or none of that many dimensions.
    """
    try:
        return make_embedder(wanted.name, wanted.dimensions)
    except BadSetting as error:
        raise EmbedderMismatch(
            f"the embedder cannot be made here: {error.message}. Install a genctl that has it",
            field="name",
            embedder=wanted.name,
        ) from error


def embedder_record(embedder: Embedder) -> EmbedderRecord:
    """What a manifest says of the embedder; the golden vectors are computed here and now."""
    golden: tuple[GoldenEmbedding, ...] = ()
    if embedder.computes:
        golden = tuple(
            GoldenEmbedding(text=text, vector=vector_to_text(vector.tolist()))
            for text, vector in zip(GOLDEN_TEXTS, embedder.embed(GOLDEN_TEXTS), strict=True)
        )
    return EmbedderRecord(
        name=embedder.name,
        revision=embedder.revision,
        dimensions=embedder.dimensions,
        golden=golden,
    )
