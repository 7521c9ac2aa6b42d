"""Artifacts and roots by name: nothing was built for them."""

from __future__ import annotations

from builder.reachable import Root
from manifests.generation import ArtifactFile, SymbolSet
from manifests.identifiers import content_id
from symbols.geometry import choose, describe


def artifact(name: str, size_bytes: int = 100_000, store_count: int = 1) -> ArtifactFile:
    return ArtifactFile(
        name=name,
        size_bytes=size_bytes,
        blake3=content_id(name.encode()),
        symbols=symbols(size_bytes, store_count),
    )


def symbols(size_bytes: int, store_count: int) -> SymbolSet:
    geometry = choose(size_bytes, store_count)
    return describe(geometry, b"\0" * geometry.table_size_bytes)


ONE, TWO, THREE = artifact("one"), artifact("two"), artifact("three")


def root(name: str, *artifacts: ArtifactFile, is_stored: bool = True) -> Root:
    return Root(name, (f"why {name}",), artifacts, f"manifest of {name}", is_stored)
