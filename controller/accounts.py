"""Whether a writer's home and its stores hold all that they should, and nothing else: fsck.

Nothing is changed, and no content is read: that is a scrub's work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice

from builder.collect import survey
from builder.garbage import StoreTally
from builder.presence import Missing, Presence, refuse_missing
from commits.segment import MARK_NAME
from controller import clock
from controller.collection_plan import marks_of, named_keys
from controller.file_accounts import MAX_TOLD, FileAccounts, files_below
from controller.home_garbage import HomeGarbage, home_garbage
from controller.new_home import KNOWN_NAMES
from controller.published_manifests import ManifestsHere
from controller.roots import Rooted, leased, root_all
from controller.writer import WriterHome
from durable import files
from index.residence import MANIFEST_FILE
from manifests.errors import WriterFenced
from manifests.generation import parse_manifest
from manifests.names import metadata_key
from manifests.record import ControlRecord
from manifests.retention import Retention
from store.leases import FoundLeases, leases_in
from store.signed import trusted_root

PUBLISHED = "published"


# What files may be called, by the folder that they are in.
_NAMES = {
    "log": re.compile(rf"[0-9]{{12}}\.log|{MARK_NAME}"),
    "merges": re.compile(r"[0-9a-f]{64}\.json|lock"),
    "symbols": re.compile(r"[0-9a-f]{64}/(?:table|[0-9]{2,3})"),
}


@dataclass(frozen=True, slots=True)
class Accounts:
    """What there is and what is not.

    Attributes:
        generation_ids: the generations that must be in the stores, oldest first.
        missing: the first of what should be there, in the home and in the stores.
        missing_count: how much that is in all.
        stores: what each store holds; orphans are its garbage and what is young.
        home: the garbage in the home, which the next collection removes.
        files: what else is in the home: what was cut off there, and what genctl has not put there.
        leases: all that there are.
    """

    generation_ids: tuple[str, ...]
    missing: tuple[Missing, ...]
    missing_count: int
    stores: tuple[StoreTally, ...]
    home: HomeGarbage
    files: FileAccounts
    leases: FoundLeases

    def refuse_missing(self) -> None:
        """Refuse a home of which something is missing.

        Raises:
            PartsMissing: something is.
        """
        refuse_missing(self.missing, self.missing_count)


def accounts(writer: WriterHome) -> Accounts:
    """Compare what is there with what the record, leases and the home's generations need.

    A generation that the home lost is judged by its manifest in the stores.

    Raises:
        WriterFenced: another home writes to this shard; or the record was moved meanwhile, so that
            what seems to be missing may not be.
        RecordPutBack, ForeignRecord: the record is not the one that this home signed last.
        UnsignedRecord, ObjectMissing, TrustError: the record cannot be read.
        StoreUnavailable, DiskError: a store or the disk does not answer.
    """
    now, current = clock.now(), writer.current()
    record = current.signed.record
    writer.refuse_anothers(current)
    with writer.store().needing_all():
        leases = leases_in(writer.store())
    kept = Retention({each.generation_id: (PUBLISHED,) for each in record.published}, ())
    rooted = root_all(writer, current.signed, kept, leased(leases, now))
    marks = marks_of(writer, current.signed, rooted, leases, now)
    roots = range(1, trusted_root(writer.root_bytes()).version + 1)
    mirrored = named_keys(current.signed) | {metadata_key(f"{each}.root.json") for each in roots}
    stores = writer.store().stores
    presence = Presence(rooted.reach, stores, mirrored)
    tallies = survey(stores, marks, presence.saw)
    at_home = _files(writer, record, rooted)
    first, count = _counted(chain(rooted.lost, presence.missing()))
    missing = (*first, *at_home.missing)[:MAX_TOLD]
    if missing and writer.current().token != current.token:
        raise WriterFenced(
            "the record was moved while this command looked, so that what it missed may be there; "
            "run it again"
        )
    return Accounts(
        generation_ids=tuple(root.name for root in rooted.reach.roots if root.is_stored),
        missing=missing,
        missing_count=count + at_home.missing_count,
        stores=tuple(tallies),
        home=home_garbage(writer, rooted),
        files=at_home,
        leases=leases,
    )


def _counted(missing: Iterable[Missing]) -> tuple[list[Missing], int]:
    """The first of them, and how many there are."""
    rest = iter(missing)
    first = list(islice(rest, MAX_TOLD))
    return first, len(first) + sum(1 for _ in rest)


def _files(writer: WriterHome, record: ControlRecord, rooted: Rooted) -> FileAccounts:
    """What the home lacks, artifacts and generations' files, and what is there besides.

    What :class:`HomeGarbage` counts is left out: what leaves goes whole.
    """
    residence = writer.residence
    found = FileAccounts(writer.home)
    with files.translated(writer.home):
        found.check_unknown_names(KNOWN_NAMES)
        _check_generations(writer, record, rooted, found)
        here = {artifact_id for artifact_id, _ in residence.kept_artifacts()}
        found.check_by_content(residence.artifacts, here, "it is no plain file")
        found.check_by_content(residence.tables, here, "its artifact is not here")
        for folder, names in _NAMES.items():
            for path in files_below(writer.home / folder):
                if not names.fullmatch(str(path.relative_to(writer.home / folder))):
                    found.stray(path)
        for path in files_below(writer.home / "draft"):
            found.orphan(path, "a build that is under way, or was cut off")
    return found


def _check_generations(
    writer: WriterHome, record: ControlRecord, rooted: Rooted, found: FileAccounts
) -> None:
    """Look at the generations' folders, and the artifacts behind them."""
    residence = writer.residence
    looked_at: set[str] = set()
    resident = residence.resident_ids()
    manifests = ManifestsHere(writer, record)
    for generation_id in resident:
        data = manifests.get(generation_id)
        if generation_id in rooted.leaving or isinstance(data, str):
            continue
        manifest = parse_manifest(data)
        for artifact in manifest.artifacts:
            if artifact.blake3 not in looked_at:
                looked_at.add(artifact.blake3)
                found.check(residence.artifact_path(artifact.blake3), artifact.size_bytes)
        folder = residence.folder(generation_id).parent
        found.check_files(folder, manifest, (MANIFEST_FILE,))
    for path in files_below(residence.generations):
        if path.relative_to(residence.generations).parts[0] not in resident:
            found.stray(path)
