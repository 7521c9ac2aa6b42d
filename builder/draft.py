"""The files of a generation in the making: written, fsynced, named by content, encoded, listed.

The draft's folder has the layout of a generation. Files kept from the parent are hard links; each
new file is linked into the home's artifacts as soon as its content id is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from durable import files
from index import lexical
from index.heads import Head, head_table_parts
from index.residence import Residence
from index.tombstones import tombstone_bytes
from index.vector_shard import write_shard
from index.verification import file_id
from manifests.generation import (
    Artifact,
    HeadsArtifact,
    LexicalArtifact,
    Quantization,
    SymbolSet,
    TombstonesArtifact,
    VectorArtifact,
)

ONE_SHARD_VECTORS = 2_000
"""Up to so many new vectors make one shard; more make two, built at the same time (ADR 0010)."""

Encode = Callable[[Path, str], SymbolSet]
"""Makes the repair symbols of an artifact, given its file and its id."""


class Draft:
    """Collects the artifacts of one build; as a context, it clears its folder at the end."""

    def __init__(self, residence: Residence, folder: Path, encode: Encode) -> None:
        self._residence = residence
        self._encode = encode
        self.folder = folder
        self.artifacts: list[Artifact] = []
        files.remove_tree(folder)
        for kind in (lexical.FOLDER, "vectors", "heads", "tombstones"):
            files.make_folder(folder / kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        files.remove_tree(self.folder)

    def keep(self, artifact: Artifact) -> None:
        """Take an artifact of the parent over as it is."""
        self._link(artifact)
        self.artifacts.append(artifact)

    def add_vectors(
        self, first_row: int, vectors: NDArray[np.float32], quantization: Quantization
    ) -> None:
        """Write shards of ``vectors``, shape ``(n, D)``, with n > 0: one, or two side by side."""
        parts = np.array_split(vectors, 1 if len(vectors) <= ONE_SHARD_VECTORS else 2)
        firsts = [first_row, first_row + len(parts[0])][: len(parts)]
        names = [f"vectors/{first:012d}.usearch" for first in firsts]
        with ThreadPoolExecutor(len(parts)) as pool:
            for written in [
                pool.submit(write_shard, self.folder / name, first, part, quantization)
                for name, first, part in zip(names, firsts, parts, strict=True)
            ]:
                written.result()
        for name, first, part in zip(names, firsts, parts, strict=True):
            count, dimensions = part.shape
            self.artifacts.append(
                VectorArtifact(
                    **self._take_in(name),
                    first_row=first,
                    vectors=count,
                    dimensions=dimensions,
                    quantization=quantization,
                    metric="cos",
                )
            )

    def add_heads(self, first_row: int, heads: Sequence[Head]) -> None:
        """Write the head table of the new rows, at least one."""
        name = f"heads/{first_row:012d}.heads"
        files.replace_file(self.folder / name, head_table_parts(heads))
        self.artifacts.append(
            HeadsArtifact(**self._take_in(name), first_row=first_row, rows=len(heads))
        )

    def add_tombstones(self, high_seq: int, rows: Sequence[int]) -> None:
        """Write the rows that this build takes out, at least one."""
        name = f"tombstones/{high_seq:012d}.rows"
        files.replace_file(self.folder / name, [tombstone_bytes(rows)])
        self.artifacts.append(TombstonesArtifact(**self._take_in(name), rows=len(rows)))

    def change_lexical(
        self,
        parent: Iterable[LexicalArtifact],
        documents: Iterable[tuple[int, lexical.StoredDocument]],
        added: int,
        gone: Sequence[str],
    ) -> None:
        """Apply the new documents and the deletes to the parent's text index."""
        meta = f"{lexical.FOLDER}/{lexical.META_FILE}"
        known = {artifact.name: artifact for artifact in parent}
        for artifact in known.values():
            if artifact.name != meta:
                self._link(artifact)
        if meta in known:
            # tantivy replaces this file; a copy keeps the artifact out of its reach.
            source = self._residence.artifact_path(known.pop(meta).blake3)
            with files.translated(source):
                data = source.read_bytes()
            files.replace_file(self.folder / meta, [data])
        for name in lexical.write_lexical(self.folder / lexical.FOLDER, documents, added, gone):
            path = f"{lexical.FOLDER}/{name}"
            self.artifacts.append(known.get(path) or LexicalArtifact(**self._take_in(path)))

    def _link(self, artifact: Artifact) -> None:
        source = self._residence.artifact_path(artifact.blake3)
        files.link_file(source, self.folder / artifact.name)

    def _take_in(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        files.fsync_file(path)
        artifact_id = file_id(path)
        self._residence.take_in(path, artifact_id)
        return {
            "name": name,
            "size_bytes": path.stat().st_size,
            "blake3": artifact_id,
            "symbols": self._encode(path, artifact_id),
        }
