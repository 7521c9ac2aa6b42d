"""The files of a generation in the making: written, fsynced, named by content, encoded, listed.

The draft's folder has the layout of a generation. Files kept from the parent are hard links; each
new file is linked into the home's artifacts as soon as its content id is known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from builder.new_artifacts import Encode, NewArtifact, describe
from builder.prepared_merges import PreparedMerge
from builder.scale_out import Workforce
from durable import files
from index import lexical
from index.heads import Head, head_table_parts
from index.residence import Residence
from index.segments import (
    META_FILE,
    Meta,
    Segment,
    link_segments,
    read_meta,
    segment_files,
    write_meta,
)
from index.tombstones import read_tombstones, tombstone_bytes
from index.verification import ReadFiles
from manifests.generation import (
    Artifact,
    HeadsArtifact,
    LexicalArtifact,
    Quantization,
    TombstonesArtifact,
    VectorArtifact,
)

ONE_SHARD_VECTORS = 2_000
"""Up to so many new vectors make one shard; more make two, built at the same time (ADR 0010)."""

META_NAME = f"{lexical.FOLDER}/{META_FILE}"


def new_shards(documents: int) -> int:
    """How many vector shards so many new documents make, and at most how many text segments."""
    return 0 if documents == 0 else 1 if documents <= ONE_SHARD_VECTORS else 2


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

    def described(self, folder: Path, name: str) -> dict[str, Any]:
        """See :func:`builder.new_artifacts.describe`."""
        return describe(folder, name, self._encode)

    def holds(self, artifacts: Sequence[Artifact], seen: ReadFiles) -> bool:
        """Whether the home has them all, intact; what was ``seen`` is not read again."""
        return all(self._residence.holds(artifact, seen) for artifact in artifacts)

    def take_in(self, made: Iterable[NewArtifact]) -> None:
        """Have the home keep what was made elsewhere; it is not yet part of the draft."""
        for each in made:
            self._residence.take_in(each.path, each.artifact.blake3)

    def keep(self, artifact: Artifact) -> None:
        """Take an artifact that the home has over as it is."""
        self._link(artifact)
        self.artifacts.append(artifact)

    def add_rows(
        self,
        first_row: int,
        vectors: NDArray[np.float32],
        heads: Sequence[Head],
        quantization: Quantization,
        workforce: Workforce,
    ) -> None:
        """Write the vectors, shape ``(n, D)``, and heads of n > 0 new rows.

        That is one shard and one head table, or two of each, the shards side by side.
        """
        parts = np.array_split(vectors, new_shards(len(vectors)))
        places = [0, len(parts[0])][: len(parts)]
        names = [f"{first_row + place:012d}" for place in places]
        workforce.write_shards(
            [
                (
                    self.folder / f"vectors/{name}.usearch",
                    np.arange(first_row + place, first_row + place + len(part), dtype=np.uint64),
                    part,
                )
                for name, place, part in zip(names, places, parts, strict=True)
            ],
            quantization,
        )
        for name, place, part in zip(names, places, parts, strict=True):
            count, dimensions = part.shape
            self.artifacts.append(
                VectorArtifact(
                    **self._take_in(f"vectors/{name}.usearch"),
                    first_row=first_row + place,
                    vectors=count,
                    dimensions=dimensions,
                    quantization=quantization,
                    metric="cos",
                )
            )
            table = f"heads/{name}.heads"
            files.replace_file(self.folder / table, head_table_parts(heads[place : place + count]))
            self.artifacts.append(
                HeadsArtifact(**self._take_in(table), first_row=first_row + place, rows=count)
            )

    def tombstones(self, artifact: TombstonesArtifact) -> NDArray[np.uint64]:
        """The rows of a tombstones file that the home has, ascending."""
        return read_tombstones([self._residence.artifact_path(artifact.blake3)])

    def add_tombstones(self, high_seq: int, rows: Collection[int]) -> None:
        """Write a file of rows that are taken out, at least one."""
        name = f"tombstones/{high_seq:012d}.rows"
        files.replace_file(self.folder / name, [tombstone_bytes(rows)])
        self.artifacts.append(TombstonesArtifact(**self._take_in(name), rows=len(rows)))

    def change_lexical(
        self,
        parent: Sequence[LexicalArtifact],
        merges: Sequence[PreparedMerge],
        live_rows: Callable[[], Collection[int]],
        documents: Iterable[tuple[int, lexical.StoredDocument]],
        added: int,
        gone: Collection[str],
    ) -> None:
        """Apply merges, deletes and new documents to the parent's text index, in this order.

        Args:
            parent: its artifacts; none for the first generation.
            merges: those of text whose inputs the parent has.
            live_rows: gives the parent's.
            documents: the new ones with their rows, each id once.
            added: how many there are.
            gone: ids whose documents in the parent are replaced or deleted.
        """
        folder = self.folder / lexical.FOLDER
        known: dict[str, Artifact] = {}
        for artifact in (*parent, *(each for merge in merges for each in merge.artifacts)):
            if artifact.name != META_NAME:
                self._link(artifact)
                known[artifact.name] = artifact
        meta = None
        if parent:
            meta = self._merged(self._meta_of(parent), merges, live_rows)
            if gone:
                meta = lexical.delete_documents(folder, meta, gone)
        if added or meta is None:
            meta = self._with_new(meta, documents, added)
        write_meta(folder, meta)
        for name in (META_FILE, *segment_files(folder, meta.segments)):
            path = f"{lexical.FOLDER}/{name}"
            self.artifacts.append(known.get(path) or LexicalArtifact(**self._take_in(path)))

    def _meta_of(self, parent: Sequence[LexicalArtifact]) -> Meta:
        artifact = next(each for each in parent if each.name == META_NAME)
        folder = self.folder / "parent"
        files.make_folder(folder)
        files.link_file(self._residence.artifact_path(artifact.blake3), folder / META_FILE)
        return read_meta(folder)

    def _merged(
        self, meta: Meta, merges: Sequence[PreparedMerge], live_rows: Callable[[], Collection[int]]
    ) -> Meta:
        """``meta`` with what the merges made in the place of what they replace."""
        for merge in merges:
            replaced = {each.name.partition("/")[2].partition(".")[0] for each in merge.replaced}
            place = next(n for n, each in enumerate(meta.segments) if each.name in replaced)
            inputs = [each for each in meta.segments if each.name in replaced]
            made = meta.of(Segment(each.segment_id, each.max_doc) for each in merge.segments)
            if sum(each.live for each in made.segments) != sum(each.live for each in inputs):
                made = self._without_outdated(made, live_rows)
            others = [each for each in meta.segments if each.name not in replaced]
            meta = made.of((*others[:place], *made.segments, *others[place:]))
        return meta

    def _without_outdated(self, made: Meta, live_rows: Callable[[], Collection[int]]) -> Meta:
        """The merged segments without the documents that died since they were merged."""
        folder = self.folder / lexical.FOLDER
        piece = self.folder / f"merged-{made.segments[0].name}"
        files.make_folder(piece)
        link_segments(folder, made.segments, piece)
        write_meta(piece, made)
        dead = lexical.LexicalIndex(piece).live_documents(but=set(live_rows()))
        return lexical.delete_documents(folder, made, [document.id for _, document in dead])

    def _with_new(
        self, meta: Meta | None, documents: Iterable[tuple[int, lexical.StoredDocument]], added: int
    ) -> Meta:
        piece = self.folder / "new"
        files.make_folder(piece)
        # The first generation is the one that wants all cores; later ones must not add more
        # segments than a merge is planned for.
        many = added > ONE_SHARD_VECTORS
        threads = 1 if not many else 0 if meta is None else new_shards(added)
        new = lexical.add_documents(piece, documents, threads=threads)
        link_segments(piece, new.segments, self.folder / lexical.FOLDER)
        if meta is None:
            return new
        opstamp = max(meta.opstamp, new.opstamp)
        return Meta(meta.index_settings, (*meta.segments, *new.segments), meta.schema, opstamp)

    def _link(self, artifact: Artifact) -> None:
        source = self._residence.artifact_path(artifact.blake3)
        files.link_file(source, self.folder / artifact.name)

    def _take_in(self, name: str) -> dict[str, Any]:
        fields = self.described(self.folder, name)
        self._residence.take_in(self.folder / name, fields["blake3"])
        return fields
