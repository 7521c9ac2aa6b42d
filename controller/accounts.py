"""Whether a writer's home and its stores hold all that they should, and nothing else: fsck.

Nothing is changed, and no content is read: that is a scrub's work.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.collect import survey
from builder.garbage import StoreTally
from builder.presence import Missing, Presence
from controller import clock
from controller.collection_plan import marks_of, named_keys
from controller.home_garbage import HomeGarbage, home_garbage
from controller.roots import leased, root_all
from controller.writer import WriterHome
from durable import files
from manifests.errors import WriterFenced
from manifests.generation import parse_manifest
from manifests.identifiers import is_generation_id
from manifests.names import metadata_key
from manifests.retention import Retention
from store.leases import FoundLeases, leases_in
from store.signed import trusted_root

PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Accounts:
    """What there is and what is not.

    Attributes:
        generation_ids: the generations that must be in the stores, oldest first.
        missing: what should be there, in the stores and in the home.
        stores: what each store holds; orphans are its garbage and what is young.
        home: what nothing needs in the home.
        home_unknown: files in the home that genctl would not have put there.
        leases: all that there are.
    """

    generation_ids: tuple[str, ...]
    missing: tuple[Missing, ...]
    stores: tuple[StoreTally, ...]
    home: HomeGarbage
    home_unknown: tuple[str, ...]
    leases: FoundLeases


def accounts(writer: WriterHome) -> Accounts:
    """Compare what is there with what the record, leases and the home's generations need.

    Raises:
        WriterFenced: another home writes to this shard; or the record was moved meanwhile, so that
            what seems to be missing may not be.
        ManifestError: a manifest is damaged in the home.
        UnsignedRecord, ObjectMissing, TrustError: the record cannot be read.
        StoreUnavailable, DiskError: a store or the disk does not answer.
    """
    now, current = clock.now(), writer.current()
    record = current.signed.record
    writer.publisher().check_own(record)
    leases = leases_in(writer.store())
    kept = Retention({each.generation_id: (PUBLISHED,) for each in record.published}, ())
    rooted = root_all(writer, record, kept, leased(leases, now))
    marks = marks_of(writer, current.signed, rooted, leases, now)
    roots = range(1, trusted_root(writer.root_bytes()).version + 1)
    mirrored = named_keys(current.signed) | {metadata_key(f"{each}.root.json") for each in roots}
    stores = writer.store().stores
    presence = Presence(rooted.reach, stores, mirrored)
    tallies = survey(stores, marks, presence.saw)
    missing = (*presence.missing(), *_missing_at_home(writer))
    if missing and writer.current().token != current.token:
        raise WriterFenced(
            "the record was moved while this command looked, so that what it missed may be there; "
            "run it again"
        )
    return Accounts(
        generation_ids=tuple(root.name for root in rooted.reach.roots if root.is_stored),
        missing=missing,
        stores=tuple(tallies),
        home=home_garbage(writer, rooted),
        home_unknown=tuple(_unknown_at_home(writer)),
        leases=leases,
    )


def _missing_at_home(writer: WriterHome) -> Iterator[Missing]:
    """What resident generations lack, of their own files and of the artifacts behind them."""
    residence = writer.residence
    told: set[str] = set()
    for generation_id in residence.resident_ids():
        for artifact in parse_manifest(residence.manifest_bytes(generation_id)).artifacts:
            paths = [residence.folder(generation_id) / artifact.name]
            if artifact.blake3 not in told:
                told.add(artifact.blake3)
                paths.append(residence.artifact_path(artifact.blake3))
            for path in paths:
                what = _wrong(path, artifact.size_bytes)
                if what is not None:
                    place = path.relative_to(writer.home)
                    yield Missing(str(writer.home), str(place), what)


def _wrong(path: Path, size_bytes: int) -> str | None:
    """How a file is not a plain one of this size; ``None`` if it is."""
    with files.translated(path):
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return "it is not there"
    if not stat.S_ISREG(found.st_mode):
        return "it is no plain file"
    if found.st_size != size_bytes:
        return f"it has {found.st_size} bytes, and should have {size_bytes}"
    return None


def _unknown_at_home(writer: WriterHome) -> Iterator[str]:
    """Files in the folders of generations and artifacts that genctl would not have put there."""
    residence = writer.residence
    artifacts = {artifact_id for artifact_id, _ in residence.kept_artifacts()}
    for folder in (residence.artifacts, residence.generations):
        with files.translated(folder):
            names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        for name in names:
            is_known = name in artifacts or is_generation_id(name)
            if not is_known and not name.startswith(files.TEMPORARY_PREFIX):
                yield f"{folder.name}/{name}"
