"""Scrubbing the stores: every object of every retained generation is read, lost ones sent again.

What compares and mends is :class:`builder.publish.Publisher`, as when a published generation is
published again; here its stores are watched, so that what was found can be told store by store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from builder.publish import Progress
from controller import wiring
from controller.published_manifests import ManifestsHere, manifest_in_stores, manifest_place
from controller.record_return import put_back
from controller.settings import NodeSettings
from controller.watched_store import StoreFindings, WatchedStore
from controller.writer import WriterHome
from durable import files
from manifests.canonical import to_canonical
from manifests.errors import DiskError, DiskFull, GenctlError, OperatorError, PartsMissing
from manifests.generation import ArtifactFile, GenerationManifest
from manifests.names import CONTROL_TARGET, metadata_key
from manifests.record import ControlRecord, accept_manifest
from replicator.scrub import mend_artifact
from store.signed import SignedState, trusted_root
from store.sound_metadata import is_sound
from store.spread import MAX_MIRRORED_SIZE_BYTES, SpreadStore
from symbols.geometry import from_manifest

INCOMING = f"{files.TEMPORARY_PREFIX}incoming"
"""Where a lost artifact arrives; the next command clears what a scrub that was killed left."""


@dataclass(frozen=True, slots=True)
class StoresReport:
    """What a scrub of the stores found and did; without ``failures`` everything is whole now.

    ``unmended`` say, artifact by artifact, what is damaged in the writer's home and could not be
    mended; what the stores hold of these was left as it is. ``put_back`` says whether the
    record was replaced by the one that this home signed last; ``taken_back`` are generations whose
    manifest the home had lost, which are there again; ``relinked_files`` are lost or replaced files
    of other generations, whose artifacts the home has.
    """

    generation_ids: tuple[str, ...]
    mended_artifacts: int
    stores: tuple[StoreFindings, ...]
    unmended: tuple[GenctlError, ...]
    put_back: bool
    taken_back: tuple[str, ...]
    relinked_files: int

    @property
    def obstructions(self) -> tuple[GenctlError, ...]:
        """In the place of which symbols something stands that must be moved away first."""
        return tuple(error for store in self.stores for error in store.obstructions)

    @property
    def failures(self) -> tuple[GenctlError, ...]:
        """All that is not whole."""
        return self.unmended + self.obstructions


def scrub(
    writer: WriterHome, on_start: Callable[[int], Progress], *, even_newer: bool = False
) -> StoresReport:
    """Check all that the stores should hold, and send again what is lost or damaged.

    The record is put back first if the store shows an older one than was signed here, then other
    signed metadata is mended, from a store that has it whole, then lost generations and damaged
    artifacts of the writer's home, from what the stores have. Those that cannot be are reported,
    and so is what stands in a symbol's place and cannot be removed; everything else is checked all
    the same.

    Args:
        writer: the home.
        on_start: told how many bytes are to be checked; gives the progress callback.
        even_newer: see :func:`controller.record_return.put_back`.

    Raises:
        ObjectMissing, UnsignedRecord, TrustError: signed metadata is lost or damaged, and no other
            store has it.
        HomeLocked, WriterFenced, StoreUnavailable, DiskFull, DiskError: see
            :meth:`WriterHome.restore`.
    """
    watched = _Watched(writer)
    with watched.exclusively("scrub"):
        was_put_back = put_back(watched, even_newer=even_newer)
        watched.store().mend(metadata_key(""))
        signed = watched.current().signed
        watched.publisher().check_own(signed.record)  # nothing of another home's is taken in
        generations, unmended = _wanted(writer, signed)
        mended_artifacts, failures = _mend_home(writer, _artifacts(generations))
        whole = [each for each in generations if not each.is_lost or each.take_in(writer, failures)]
        relinked_files = writer.residence.mend_links()
        _restore_metadata(watched, signed.record)
    retained = [each for each in whole if each.is_retained]
    progress = on_start(
        sum(
            from_manifest(each.size_bytes, each.symbols).stored_size_bytes
            for each in _artifacts(retained).values()
            if each.blake3 not in failures
        )
    )
    generation_ids = tuple(each.manifest.generation_id for each in retained)
    watched.restore(generation_ids, progress, but=failures)
    return StoresReport(
        generation_ids,
        mended_artifacts,
        watched.findings(),
        (*unmended, *failures.values()),
        was_put_back,
        tuple(each.manifest.generation_id for each in whole if each.is_lost),
        relinked_files,
    )


class _Generation(NamedTuple):
    """A generation that must be in the home; ``is_lost`` if its manifest was not.

    One that is not ``is_retained`` was revoked: what the stores have of it is not looked at.
    """

    manifest: GenerationManifest
    data: bytes
    is_lost: bool
    is_retained: bool

    def take_in(self, writer: WriterHome, failures: Collection[str]) -> bool:
        """Have it be in the home, unless an artifact could not be had; whether it is."""
        if any(artifact.blake3 in failures for artifact in self.manifest.artifacts):
            return False
        writer.residence.assemble(self.manifest, self.data)
        return True


def _wanted(writer: WriterHome, signed: SignedState) -> tuple[list[_Generation], list[GenctlError]]:
    """The retained generations, and those that the home lost; the latter from the stores.

    Besides, why each of the others could not be had.
    """
    record, retained = signed.record, signed.record.retained_entries()
    wanted: list[_Generation] = []
    failures: list[GenctlError] = []
    manifests = ManifestsHere(writer, record)
    for entry in record.published:
        found = manifests.get(entry.generation_id)
        is_retained = entry in retained
        if isinstance(found, bytes):
            if is_retained:
                manifest = accept_manifest(found, entry, record.shard)
                wanted.append(_Generation(manifest, found, False, is_retained))
            continue
        data = manifest_in_stores(writer, signed, entry)
        if data is not None:
            manifest = accept_manifest(data, entry, record.shard)
            wanted.append(_Generation(manifest, data, True, is_retained))
            continue
        failures.append(
            PartsMissing(
                f"{manifest_place(writer, entry.generation_id)} in {writer.home}: {found}; no "
                "store has that manifest",
                generation_id=entry.generation_id,
            )
        )
    return wanted, failures


def _artifacts(generations: Sequence[_Generation]) -> dict[str, ArtifactFile]:
    """The artifacts of generations, each once."""
    return {
        artifact.blake3: artifact for each in generations for artifact in each.manifest.artifacts
    }


def _mend_home(
    writer: WriterHome, artifacts: dict[str, ArtifactFile]
) -> tuple[int, dict[str, GenctlError]]:
    """Mend the damaged artifacts of the home from the stores.

    Returns how many were mended, and by its id why each of the others could not be.
    """
    supply = wiring.supply(NodeSettings(stores=writer.settings.stores), writer.store())
    residence = writer.residence
    damaged = [each for each in artifacts.values() if not residence.holds(each)]
    failures: dict[str, GenctlError] = {}
    for artifact in damaged:
        try:
            mend_artifact(residence, artifact, supply, writer.home / INCOMING, lambda _: None)
        except (DiskFull, DiskError):
            raise  # the next one would fare no better
        except OperatorError as error:
            failures[artifact.blake3] = error
    files.remove_tree(writer.home / INCOMING)
    return len(damaged) - len(failures), failures


def _restore_metadata(watched: _Watched, record: ControlRecord) -> None:
    """Put back the newest root of trust in the first store and the control record's target.

    The copies in other stores follow when a generation is published.
    """
    first = watched.store().stores[0]
    root = watched.root_bytes()
    key = metadata_key(f"{trusted_root(root).version}.root.json")
    found = first.get_versioned(key, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
    # One with more signatures than this home knows of is as good.
    if found is None or not is_sound(key, found.data, ()):
        first.compare_and_swap(key, root, None if found is None else found.version)
    watched.repository().restore_target(CONTROL_TARGET, to_canonical(record))


class _Watched(WriterHome):
    """The same home, whose stores are watched."""

    def __init__(self, writer: WriterHome) -> None:
        super().__init__(writer.home)
        self._watched = tuple(WatchedStore(store) for store in writer.store().stores)
        self._spread = SpreadStore(self._watched)

    def store(self) -> SpreadStore:
        """The watched stores, as one."""
        return self._spread

    def findings(self) -> tuple[StoreFindings, ...]:
        """What was found, store by store."""
        return tuple(store.findings() for store in self._watched)
