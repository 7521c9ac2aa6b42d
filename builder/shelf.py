"""The shelf: repair symbols that are made at build time and wait to be published.

``HOME/symbols/<artifact id>/`` holds the table and one file a repair symbol. Everything on it can
be made again from the artifact, so it is emptied once the store has the symbols.
"""

from __future__ import annotations

from pathlib import Path

from durable import files
from index.residence import Residence
from index.verification import check_artifact
from manifests.errors import BadSymbolSet, DiskError
from manifests.generation import ArtifactFile, SymbolSet
from symbols.encode import Encoded, encode, object_parts
from symbols.geometry import choose, describe, from_manifest
from symbols.table import check_chunk, check_table

TABLE_FILE = "table"


class Shelf:
    """Encodes artifacts and remembers what was encoded."""

    def __init__(self, folder: Path, residence: Residence, store_count: int) -> None:
        self._folder = folder
        self._residence = residence
        self._store_count = store_count

    def encode(self, path: Path, artifact_id: str) -> SymbolSet:
        """Make the repair symbols of the artifact at ``path`` and describe them.

        Raises:
            DiskFull, DiskError: the disk refuses.
        """
        folder = self._folder / artifact_id
        files.make_folder(folder)
        encoded = encode(path, choose(path.stat().st_size, self._store_count), folder)
        files.replace_file(folder / TABLE_FILE, [encoded.table])
        return describe(encoded.geometry, encoded.table)

    def take(self, artifact: ArtifactFile) -> Encoded:
        """The artifact's symbols, encoded again if they are not on the shelf, or damaged.

        The table and the repair symbols are read and checked here, the artifact itself only if it
        is encoded again: :meth:`object_parts` checks what is sent of it.

        Raises:
            ArtifactHashMismatch: the artifact itself is damaged or missing.
            ManifestMalformed: the manifest's description of the symbols contradicts itself.
            BadSymbolSet: the manifest describes symbols that are not this artifact's.
            DiskFull, DiskError: the disk refuses.
        """
        folder = self._folder / artifact.blake3
        source = self._residence.artifact_path(artifact.blake3)
        geometry = from_manifest(artifact.size_bytes, artifact.symbols)
        repair = tuple(folder / f"{number:02d}" for number in range(geometry.k, geometry.m))
        try:
            encoded = Encoded(source, geometry, files.read_file(folder / TABLE_FILE), repair)
            if check_table(geometry, artifact.symbols, encoded.table) and all(
                _is_intact(encoded, number, object_parts(encoded, number)[0])
                for number in range(geometry.k, geometry.m)
            ):
                return encoded
        except (OSError, BadSymbolSet, DiskError):
            pass  # not here, or cut short: made anew below
        check_artifact(source, artifact)
        files.make_folder(folder)
        encoded = encode(source, geometry, folder)
        if not check_table(geometry, artifact.symbols, encoded.table):
            raise BadSymbolSet(
                f"the symbols of {artifact.name} are not the ones that the manifest describes: it "
                "was built by a defective genctl or damaged meanwhile; build the generation again",
                artifact=artifact.name,
            )
        files.replace_file(folder / TABLE_FILE, [encoded.table])
        return encoded

    @staticmethod
    def object_parts(artifact: ArtifactFile, encoded: Encoded, number: int) -> list[memoryview]:
        """The stored object of one symbol, every byte of it read and compared with the table.

        ``encoded`` is what :meth:`take` gave for ``artifact``; what is sent is what was signed.

        Raises:
            ArtifactHashMismatch: the artifact was damaged or removed.
            BadSymbolSet: a repair symbol was damaged since it was taken; run the command again.
            DiskError: the disk refuses.
        """
        try:
            parts = object_parts(encoded, number)
            if _is_intact(encoded, number, parts[0]):
                return parts
        except (BadSymbolSet, DiskError):
            check_artifact(encoded.source, artifact)
            raise
        check_artifact(encoded.source, artifact)
        raise BadSymbolSet(
            f"symbol {number} of {artifact.name} changed while it was published; run it again",
            artifact=artifact.name,
            symbol=number,
        )

    def drop(self, artifact: ArtifactFile) -> None:
        """Forget the artifact's symbols."""
        files.remove_tree(self._folder / artifact.blake3)


def _is_intact(encoded: Encoded, number: int, data: memoryview) -> bool:
    """Whether ``data`` is that of symbol ``number``, by the table."""
    geometry = encoded.geometry
    for chunk in range(geometry.chunk_count(number)):
        offset, length = geometry.chunk_range(number, chunk)
        if not check_chunk(geometry, encoded.table, number, chunk, data[offset : offset + length]):
            return False
    return True
