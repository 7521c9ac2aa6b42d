"""Where generations live on one machine, be it the writer's or a node's.

::

    HOME/artifacts/<blake3>                   every artifact once, named by its content
    HOME/tables/<blake3>                      the hashes of its chunks, where it was fetched
    HOME/generations/<generation_id>/manifest.json
    HOME/generations/<generation_id>/files/<artifact name>     hard links to the above

A generation's folder appears by one rename, whole. Generations that share an artifact share its
bytes on disk.
"""

from __future__ import annotations

import contextlib
import re
import stat
from pathlib import Path

from durable import files
from index.verification import (
    ReadFiles,
    VerifiedGeneration,
    check_artifact,
    move_verified,
    verify_generation,
)
from manifests.errors import ArtifactHashMismatch, DiskError, GenerationUnknown, ManifestError
from manifests.generation import ArtifactFile, GenerationManifest, parse_manifest
from manifests.identifiers import is_generation_id
from manifests.record import GenerationEntry, accept_manifest

MANIFEST_FILE = "manifest.json"
_ARTIFACT_ID = re.compile(r"[0-9a-f]{64}")


class Residence:
    """The generations kept under one home folder."""

    def __init__(self, home: Path) -> None:
        self.artifacts = home / "artifacts"
        self.tables = home / "tables"
        self.generations = home / "generations"

    def prepare(self) -> None:
        """Create the folders and clear what interrupted commands left. The caller holds the lock.

        Raises:
            DiskFull, DiskError: the disk refuses.
        """
        for folder in (self.artifacts, self.tables, self.generations):
            files.make_folder(folder)
            files.remove_temporaries(folder)

    def artifact_path(self, artifact_id: str) -> Path:
        """Where an artifact's bytes are, or will be."""
        return self.artifacts / artifact_id

    def folder(self, generation_id: str) -> Path:
        """Where a generation's files are, under their names."""
        return self.generations / generation_id / "files"

    def resident_ids(self) -> list[str]:
        """The generations that are here, oldest first."""
        if not self.generations.is_dir():
            return []
        return sorted(p.name for p in self.generations.iterdir() if is_generation_id(p.name))

    def manifest_bytes(self, generation_id: str) -> bytes:
        """The exact bytes of a resident generation's manifest.

        Raises:
            GenerationUnknown: it is not here.
        """
        path = self.generations / generation_id / MANIFEST_FILE
        if not is_generation_id(generation_id) or not path.exists():
            raise GenerationUnknown(
                f"generation {generation_id} is not here; `genctl generations` at the writer and "
                "`genctl node status` at a node list what is",
                generation_id=generation_id,
            )
        with files.translated(path):
            return files.read_file(path)

    def take_in(self, path: Path, artifact_id: str) -> None:
        """Keep the file at ``path``, whose content was just found to have this id.

        It takes the place of an older file of that name, which might have been damaged since.
        """
        fresh = self.artifacts / f"{files.TEMPORARY_PREFIX}{artifact_id}"
        files.link_file(path, fresh)
        files.move(fresh, self.artifact_path(artifact_id))
        files.remove_file(fresh)  # still there when both names were the same file before

    def holds(self, artifact: ArtifactFile, seen: ReadFiles | None = None) -> bool:
        """Whether the artifact is here and intact; all of it is read unless it was ``seen``."""
        with contextlib.suppress(ArtifactHashMismatch, DiskError):
            check_artifact(self.artifact_path(artifact.blake3), artifact, seen)
            return True
        return False

    def has_its_size(self, artifact: ArtifactFile) -> bool:
        """Whether a plain file of the artifact's size is here: intact, or to be mended in place."""
        path = self.artifact_path(artifact.blake3)
        return files.plain_size_bytes(path) == artifact.size_bytes

    def growth_bytes(self, artifact: ArtifactFile, incoming: Path) -> int:
        """How much more of the disk an artifact takes once it is whole here.

        What is there of it already, in its place or in ``incoming``, may have holes where symbols
        were lost.
        """
        path = self.artifact_path(artifact.blake3)
        if not self.has_its_size(artifact):
            path = incoming / artifact.blake3
        return max(0, artifact.size_bytes - files.held_size_bytes(path))

    def mend_links(self, verified: VerifiedGeneration | None = None) -> int:
        """Give every resident generation the present copy of each artifact it shares.

        A damaged artifact that was fetched again is a new file; generations that were linked to
        the old one are linked to it, and a file that a generation has lost is there again. The one
        that was just ``verified`` needs no look. Reads every manifest.

        Returns:
            How many files were lost, or of older copies.

        Raises:
            DiskFull, DiskError: the disk refuses.
        """
        whole = verified.manifest.generation_id if verified else None
        mended = 0
        for generation_id in self.resident_ids():
            if generation_id == whole:
                continue
            with contextlib.suppress(ManifestError, GenerationUnknown):
                manifest = parse_manifest(self.manifest_bytes(generation_id))
                for artifact in manifest.artifacts:
                    fresh = self.artifact_path(artifact.blake3)
                    target = self.folder(generation_id) / artifact.name
                    if self.has_its_size(artifact) and not (
                        target.exists() and target.samefile(fresh)
                    ):
                        draft = target.with_name(f"{files.TEMPORARY_PREFIX}{target.name}")
                        files.remove_file(draft)
                        files.make_folder(draft.parent)
                        files.link_file(fresh, draft)
                        files.move(draft, target)
                        mended += 1
        return mended

    def assemble(
        self, manifest: GenerationManifest, manifest_bytes: bytes, seen: ReadFiles | None = None
    ) -> VerifiedGeneration:
        """Make a generation resident from its artifacts, which are all here, and verify it.

        A folder that is already there is replaced if any of its files is not the artifact's.

        Raises:
            ArtifactHashMismatch: an artifact is damaged or missing.
            DiskFull, DiskError: the disk refuses.
        """
        home = self.generations / manifest.generation_id
        with contextlib.suppress(ArtifactHashMismatch):
            verified = verify_generation(manifest, self.folder(manifest.generation_id), seen)
            path = home / MANIFEST_FILE
            with files.translated(path):
                same = path.is_file() and path.read_bytes() == manifest_bytes
            if not same:
                files.replace_file(path, [manifest_bytes])
            return verified
        draft = self.generations / f"{files.TEMPORARY_PREFIX}{manifest.generation_id}"
        damaged = self.generations / f"{files.TEMPORARY_PREFIX}damaged-{manifest.generation_id}"
        files.remove_tree(draft)
        folders = {draft / "files"}
        folders |= {(draft / "files" / artifact.name).parent for artifact in manifest.artifacts}
        for folder in sorted(folders):
            files.make_folder(folder)
        for artifact in manifest.artifacts:
            files.link_file(self.artifact_path(artifact.blake3), draft / "files" / artifact.name)
        for folder in sorted(folders):
            files.fsync_folder(folder)
        files.replace_file(draft / MANIFEST_FILE, [manifest_bytes])
        verified = verify_generation(manifest, draft / "files", seen)
        if home.exists():
            files.remove_tree(damaged)
            files.move(home, damaged)
        verified = move_verified(verified, draft, home)
        files.remove_tree(damaged)
        return verified

    def reopen(self, entry: GenerationEntry, shard: str) -> VerifiedGeneration:
        """Verify a resident generation against what a signed record says of it.

        Raises:
            GenerationUnknown: it is not here.
            ManifestError: its manifest is not the one the record names.
            ArtifactHashMismatch: one of its files is damaged.
        """
        manifest = accept_manifest(self.manifest_bytes(entry.generation_id), entry, shard)
        return verify_generation(manifest, self.folder(entry.generation_id))

    def set_aside(self, generation_id: str) -> Path:
        """Have a generation be resident no more; one that is not here is no error.

        Its folder goes by one rename, so that a crash leaves it whole or not at all, to the path
        that is returned, for the caller to remove. Its artifacts stay until :meth:`discard`. The
        caller holds the lock.

        Raises:
            GenerationUnknown: this is no generation's id.
            DiskError: the disk refuses.
        """
        if not is_generation_id(generation_id):
            raise GenerationUnknown(
                f"{generation_id!r} is not the id of a generation", generation_id=generation_id
            )
        folder = self.generations / generation_id
        leaving = self.generations / f"{files.TEMPORARY_PREFIX}forgotten-{generation_id}"
        files.remove_tree(leaving)
        if folder.exists():
            files.move(folder, leaving)
        return leaving

    def kept_artifacts(self) -> list[tuple[str, int]]:
        """The artifacts that are here, whatever for: ``(artifact id, bytes)``, in order of the ids.

        Raises:
            DiskError: the disk refuses.
        """
        if not self.artifacts.is_dir():
            return []
        found = []
        with files.translated(self.artifacts):
            for path in self.artifacts.iterdir():
                if _ARTIFACT_ID.fullmatch(path.name):
                    entry = path.lstat()
                    if stat.S_ISREG(entry.st_mode):
                        found.append((path.name, entry.st_size))
        return sorted(found)

    def discard(self, artifact_id: str) -> None:
        """Remove an artifact, and its table if there is one; an absent one is no error.

        The caller holds the lock, and knows that nothing needs it.

        Raises:
            DiskError: the disk refuses.
        """
        # The artifact last: as long as it is there, it is found again after a crash.
        files.remove_file(self.tables / artifact_id)
        files.remove_file(self.artifacts / artifact_id)
