"""Scrubbing the stores: every object of every retained generation is read, lost ones sent again.

What compares and mends is :class:`builder.publish.Publisher`, as when a published generation is
published again; here its stores are watched, so that what was found can be told store by store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from builder.publish import Progress
from controller import wiring
from controller.record_return import put_back
from controller.settings import NodeSettings
from controller.watched_store import StoreFindings, WatchedStore
from controller.writer import WriterHome
from durable import files
from manifests.canonical import to_canonical
from manifests.errors import DiskError, DiskFull, GenctlError, OperatorError
from manifests.generation import ArtifactFile
from manifests.names import CONTROL_TARGET, metadata_key
from manifests.record import ControlRecord, accept_manifest
from replicator.scrub import mend_artifact
from store.signed import trusted_root
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
    record was replaced by the one that this home signed last.
    """

    generation_ids: tuple[str, ...]
    mended_artifacts: int
    stores: tuple[StoreFindings, ...]
    unmended: tuple[GenctlError, ...]
    put_back: bool

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
    signed metadata is mended, from a store that has it whole, then damaged artifacts of the
    writer's home, from what the stores have. Those that cannot be are reported, and so is what
    stands in a symbol's place and cannot be removed; everything else is checked all the same.

    Args:
        writer: the home.
        on_start: told how many bytes are to be checked; gives the progress callback.
        even_newer: see :func:`controller.record_return.put_back`.

    Raises:
        ObjectMissing, UnsignedRecord, TrustError: signed metadata is lost or damaged, and no other
            store has it.
        ManifestError: a manifest is damaged in the writer's home.
        HomeLocked, WriterFenced, StoreUnavailable, DiskFull, DiskError: see
            :meth:`WriterHome.restore`.
    """
    watched = _Watched(writer)
    with watched.exclusively("scrub"):
        was_put_back = put_back(watched, even_newer=even_newer)
        watched.store().mend(metadata_key(""))
        record = watched.current().signed.record
        artifacts = _artifacts(writer, record)
        mended_artifacts, failures = _mend_home(writer, artifacts)
        _restore_metadata(watched, record)
    progress = on_start(
        sum(
            from_manifest(each.size_bytes, each.symbols).stored_size_bytes
            for each in artifacts.values()
            if each.blake3 not in failures
        )
    )
    generation_ids = tuple(entry.generation_id for entry in record.retained_entries())
    watched.restore(generation_ids, progress, but=failures)
    return StoresReport(
        generation_ids,
        mended_artifacts,
        watched.findings(),
        tuple(failures.values()),
        was_put_back,
    )


def _artifacts(writer: WriterHome, record: ControlRecord) -> dict[str, ArtifactFile]:
    """The artifacts of all retained generations, each once."""
    return {
        artifact.blake3: artifact
        for entry in record.retained_entries()
        for artifact in accept_manifest(
            writer.residence.manifest_bytes(entry.generation_id), entry, record.shard
        ).artifacts
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
    residence.mend_links()
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
