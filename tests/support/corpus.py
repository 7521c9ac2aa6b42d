"""Deterministic documents: small texts over a fixed vocabulary, and vectors of known numbers."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOCABULARY = [
    "anchor",
    "basin",
    "candle",
    "dune",
    "ember",
    "fjord",
    "glacier",
    "harbour",
    "island",
    "juniper",
    "kelp",
    "lagoon",
    "meadow",
    "nectar",
    "orchard",
    "pebble",
    "quartz",
    "river",
    "summit",
    "thicket",
    "umbra",
    "valley",
    "willow",
    "yarrow",
    "zephyr",
]
DIMENSIONS = 16

Operation = dict[str, Any]


def text_of(number: int, version: int = 0) -> str:
    """Eight words of the vocabulary and two that only this version of this document has."""
    chance = random.Random(number * 1_000_003 + version)
    return " ".join(
        [*chance.choices(VOCABULARY, k=8), f"unique{number}", f"unique{number}v{version}"]
    )


def vector_of(number: int, version: int = 0, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    """A random direction of this version of this document."""
    generator = np.random.default_rng([number, version])
    return generator.standard_normal(dimensions).astype(np.float32)


def upsert(number: int, version: int = 0, *, dimensions: int | None = None) -> Operation:
    """A document; with ``dimensions`` it brings its vector."""
    operation: Operation = {
        "id": f"d{number}",
        "title": f"Title {number}",
        "text": text_of(number, version),
        "fields": {"number": number, "version": version},
    }
    if dimensions is not None:
        operation["vector"] = vector_of(number, version, dimensions).tolist()
    return operation


def delete(number: int) -> Operation:
    """The end of a document."""
    return {"id": f"d{number}", "op": "delete"}


def upserts(
    numbers: Iterable[int], version: int = 0, *, dimensions: int | None = None
) -> list[Operation]:
    """Several documents."""
    return [upsert(number, version, dimensions=dimensions) for number in numbers]
