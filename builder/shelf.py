"""The shelf: repair symbols that are made at build time and wait to be published.

``HOME/symbols/<artifact id>/`` holds the table and one file a repair symbol. Everything on it can
be made again from the artifact, so it is emptied once the store has the symbols.
"""

from __future__ import annotations

from pathlib import Path

from durable import files
from index.residence import Residence
from index.verification import check_artifact
from manifests.errors import BadSymbolSet
from manifests.generation import ArtifactFile, SymbolSet
from symbols.encode import Encoded, encode, object_parts
from symbols.geometry import choose, describe, from_manifest
from symbols.table import check_chunk, check_table

TABLE_FILE = "table"


class Shelf:
    """Encodes artifacts and remembers what was encoded."""

    def __init__(self, folder: Path, residence: Residence) -> None:
        self._folder = folder
        self._residence = residence

    def encode(self, path: Path, artifact_id: str) -> SymbolSet:
        """Make the repair symbols of the artifact at ``path`` and describe them.

        Raises:
            DiskFull, DiskError: the disk refuses.
        """
        folder = self._folder / artifact_id
        files.make_folder(folder)
        encoded = encode(path, choose(path.stat().st_size), folder)
        files.replace_file(folder / TABLE_FILE, [encoded.table])
        return describe(encoded.geometry, encoded.table)

    def take(self, artifact: ArtifactFile) -> Encoded:
        """The artifact with its symbols, encoded again if they are not on the shelf, or damaged.

        Everything is read and checked here: what is sent from now on is what was signed.

        Raises:
            ArtifactHashMismatch: the artifact itself is damaged or missing.
            ManifestMalformed: the manifest's description of the symbols contradicts itself.
            DiskFull, DiskError: the disk refuses.
        """
        folder = self._folder / artifact.blake3
        source = self._residence.artifact_path(artifact.blake3)
        geometry = from_manifest(artifact.size_bytes, artifact.symbols)
        check_artifact(source, artifact)
        repair = tuple(folder / f"{number:02d}" for number in range(geometry.k, geometry.m))
        try:
            encoded = Encoded(source, geometry, (folder / TABLE_FILE).read_bytes(), repair)
            if check_table(geometry, artifact.symbols, encoded.table) and _intact(encoded):
                return encoded
        except (OSError, BadSymbolSet):
            pass  # not here, or cut short: made anew below
        files.make_folder(folder)
        encoded = encode(source, geometry, folder)
        files.replace_file(folder / TABLE_FILE, [encoded.table])
        return encoded

    def drop(self, artifact: ArtifactFile) -> None:
        """Forget the artifact's symbols."""
        files.remove_tree(self._folder / artifact.blake3)


def _intact(encoded: Encoded) -> bool:
    geometry = encoded.geometry
    for number in range(geometry.k, geometry.m):
        data, _ = object_parts(encoded, number)
        for chunk in range(geometry.chunk_count(number)):
            offset, length = geometry.chunk_range(number, chunk)
            part = data[offset : offset + length]
            if not check_chunk(geometry, encoded.table, number, chunk, part):
                return False
    return True
