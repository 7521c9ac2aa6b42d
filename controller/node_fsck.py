"""Whether all that a node should have is there, and what every file in its home is for.

Names and sizes are compared, contents are not read: that is the scrub's work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from builder.presence import NOT_THERE, refuse_missing
from controller.file_accounts import FileAccounts, files_below
from controller.new_node import KNOWN_NAMES
from durable import files
from index.residence import MANIFEST_FILE
from manifests.errors import GenerationUnknown, ManifestError
from manifests.generation import GenerationManifest, parse_manifest
from manifests.record import ControlRecord, accept_manifest

if TYPE_CHECKING:
    from controller.node import NodeHome


@dataclass(slots=True)
class NodeFsck(FileAccounts):
    """What was found in a node's home, in which these ``generations`` are."""

    generations: list[str] = field(default_factory=list)

    def refuse_missing(self) -> None:
        """Refuse a home in which something is missing.

        Raises:
            PartsMissing: something is.
        """
        refuse_missing(
            self.missing,
            self.missing_count,
            f"`genctl node repair {self.home}` fetches what the active generation lacks, `genctl "
            f"node scrub {self.home}` that of all",
        )


def check(node: NodeHome) -> NodeFsck:
    """Look at every file of a node's home.

    Raises:
        HomeLocked: another command is at work in the node.
        PointerCorrupt, TrustStateCorrupt: what should be there is not known; bootstrap the node.
        DiskError: the disk refuses.
    """
    with files.locked(node.home / "lock", "check"), files.translated(node.home):
        found = NodeFsck(node.home, generations=node.residence.resident_ids())
        record = node.record()
        active = node.pointer().active.generation_id
        if active not in found.generations:
            found.lacks(node.residence.generations / active, NOT_THERE)
        needed: set[str] = set()
        for generation_id in found.generations:
            manifest = _manifest(node, generation_id, record, found)
            if manifest is not None:
                folder = node.residence.folder(generation_id).parent
                for artifact in manifest.artifacts:
                    if artifact.blake3 not in needed:
                        needed.add(artifact.blake3)
                        path = node.residence.artifact_path(artifact.blake3)
                        found.check(path, artifact.size_bytes)
                found.check_files(folder, manifest, (MANIFEST_FILE,))
        _account_for(node, needed, found)
        return found


def _manifest(
    node: NodeHome, generation_id: str, record: ControlRecord, found: NodeFsck
) -> GenerationManifest | None:
    entry = next((e for e in record.published if e.generation_id == generation_id), None)
    try:
        data = node.residence.manifest_bytes(generation_id)
        if entry is None:
            return parse_manifest(data)
        return accept_manifest(data, entry, record.shard)
    except (GenerationUnknown, ManifestError) as error:
        path = node.residence.generations / generation_id / MANIFEST_FILE
        found.lacks(path, f"{error.name}: {error.message}")
        return None


def _account_for(node: NodeHome, needed: set[str], found: NodeFsck) -> None:
    """Have noted what nothing needs, and what nobody here made."""
    found.check_unknown_names(KNOWN_NAMES)
    generations = node.residence.generations
    for path in files_below(generations):
        if path.relative_to(generations).parts[0] not in found.generations:
            found.stray(path)
    artifact, table = "no generation names it", "no generation names its artifact"
    cut_off = "a fetch that was cut off left it, and may go on with it"
    if node.record().active not in found.generations:
        artifact = table = f"{artifact}; perhaps {cut_off}"
    found.check_by_content(node.residence.artifacts, needed, artifact)
    found.check_by_content(node.residence.tables, needed, table)
    found.check_by_content(node.home / "incoming", (), cut_off)
