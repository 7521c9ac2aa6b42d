"""Documents and queries made from a seed: words as frequent as in real text, vectors in clusters.

Words follow Zipf's law with Mandelbrot's offset, p(rank) ~ 1 / (rank + 2.7). They are made of
syllables, the frequent ones short. A vector is one of 200 unit directions plus noise of nearly the
same length; a query asks for words of one document with a vector near that document's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 384
VOCABULARY_WORDS = 30_000
TITLE_WORDS = 8
TEXT_WORDS = 80
SENTENCE_WORDS = 16
QUERY_WORDS = 6
CLUSTERS = 200
NOISE = 0.9
QUERY_NOISE = 0.4


@dataclass(frozen=True, slots=True)
class Document:
    """What an index is made of, but for the vector."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """A text and a vector of shape ``(384,)``."""

    text: str
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents, their unit vectors (shape ``(n, 384)``) and queries for them."""

    documents: list[Document]
    vectors: NDArray[np.float32]
    queries: list[Query]

    def write(self, path: Path) -> None:
        """Write it as ``genctl ingest`` reads it: a stream of msgpack maps."""
        encode = msgspec.msgpack.Encoder().encode
        with path.open("wb") as file:
            for document, vector in zip(self.documents, self.vectors, strict=True):
                file.write(
                    encode(
                        {
                            "id": document.id,
                            "title": document.title,
                            "text": document.text,
                            "vector": vector.tolist(),
                        }
                    )
                )


def make_corpus(documents: int, queries: int, seed: int) -> Corpus:
    """The same corpus for the same arguments, with the same numpy."""
    random = np.random.default_rng(seed)
    vocabulary = _vocabulary()
    weights = 1.0 / (np.arange(VOCABULARY_WORDS) + 2.7)
    drawn = random.choice(
        VOCABULARY_WORDS, (documents, TITLE_WORDS + TEXT_WORDS), p=weights / weights.sum()
    )
    texts = [[vocabulary[word] for word in row] for row in drawn.tolist()]
    centres = _unit(random.standard_normal((CLUSTERS, DIMENSIONS)))
    vectors = _near(centres[random.integers(CLUSTERS, size=documents)], NOISE, random)
    asked = random.choice(documents, queries, replace=queries > documents)
    near = _near(vectors[asked], QUERY_NOISE, random)
    return Corpus(
        documents=[
            Document(
                id=f"document-{number:06d}",
                title=" ".join(words[:TITLE_WORDS]).capitalize(),
                text=" ".join(_sentences(words[TITLE_WORDS:])),
            )
            for number, words in enumerate(texts)
        ],
        vectors=vectors,
        queries=[
            Query(" ".join(random.permutation(texts[row])[:QUERY_WORDS].tolist()), vector)
            for row, vector in zip(asked.tolist(), near, strict=True)
        ],
    )


def _vocabulary() -> list[str]:
    """Distinct words, most frequent first: one syllable, then two, then three."""
    syllables = [a + b for a, b in product("bdfgklmnprstvz", "aeiou")]
    words = [a + b for a, b in product(syllables, ["", "n", "r", "t"])]
    words += ["".join(parts) for parts in product(syllables, repeat=2)]
    for parts in product(syllables, repeat=3):
        if len(words) == VOCABULARY_WORDS:
            break
        words.append("".join(parts) + "s")
    return words


def _sentences(words: list[str]) -> Iterator[str]:
    for start in range(0, len(words), SENTENCE_WORDS):
        yield " ".join(words[start : start + SENTENCE_WORDS]).capitalize() + "."


def _near(
    points: NDArray[np.float32], noise: float, random: np.random.Generator
) -> NDArray[np.float32]:
    return _unit(points + noise * _unit(random.standard_normal(points.shape)))


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(
        np.float32
    )
    return scaled
