"""A node's trust state with the clocks that go with it, and how an operator sets it anew."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from activator.pointer import PointerFile
from controller import clock, settings
from durable import files
from manifests.errors import DiskError, PointerCorrupt
from manifests.identifiers import content_id
from replicator.trust import Surroundings, Trust
from store.server_time import server_time
from store.signed import trusted_root

if TYPE_CHECKING:
    from controller.node import NodeHome

ROOT_FILE = "root.json"
"""Under this name a node keeps the root of trust that it was given."""
PREPARED_FOLDER = f"{files.TEMPORARY_PREFIX}repin"


def trust_of(node: NodeHome) -> Trust:
    """The trust state of ``node``."""
    return Trust(
        node.home / "trust", node.root_bytes(), _surroundings(node), node.settings.minimum_version
    )


def repin(node: NodeHome, root: bytes, minimum_version: int | None = None) -> None:
    """Give a node another root of trust, or the same anew, and set its marks by the store's record.

    Nothing is believed before the record was verified under ``root`` as a new node would do it;
    generations and the pointer stay. A kill at any moment is made good by doing it again.
    ``minimum_version`` replaces the one that the node was given; without it that one holds.

    Raises:
        UnsignedRecord, WrongRecordType: ``root`` is no root of trust, or not the record's.
        BelowMinimumVersion: the record is older than the minimum version.
        TrustError, StoreUnavailable …: see :meth:`replicator.trust.Trust.refresh`; the node's trust
            state is what it was.
    """
    trusted_root(root)
    with files.locked(node.home / "lock", "re-pin"):
        files.remove_temporaries(node.home)
        known = settings.load(node.home / settings.NODE_FILE, settings.NodeSettings, "a node")
        if minimum_version is None:
            minimum_version = known.minimum_version
        # Not beside the pointer: there, a trust state without a mark is one that was lost.
        prepared, root_path = node.home / PREPARED_FOLDER / "trust", node.home / ROOT_FILE
        fresh = Trust(prepared, root, _surroundings(node), minimum_version)
        fresh.refresh(node.stores())
        node.leave_receipt("repin", "root", before=_hash_of(root_path), after=content_id(root))
        settings.save(
            node.home / settings.NODE_FILE,
            known.model_copy(update={"minimum_version": minimum_version}),
        )
        Trust(node.home / "trust", root, _surroundings(node)).take_over(
            prepared, lambda: files.replace_file(root_path, [root])
        )
        files.remove_tree(prepared.parent)


def _hash_of(path: Path) -> str | None:
    try:
        return content_id(files.read_file(path))
    except OSError:
        return None  # it is what is being replaced


def _surroundings(node: NodeHome) -> Surroundings:
    limits = node.settings.limits
    cap = limits.store_bytes_per_s
    return Surroundings(
        now=clock.now,
        store_time=lambda: server_time(node.settings.stores),
        quarantine=node.quarantine.add,
        # What a cap holds back is not too slow.
        min_bytes_per_s=min(
            limits.min_bytes_per_s, limits.min_bytes_per_s if cap is None else max(1, cap // 2)
        ),
        shard=_served_shard(node),
    )


def _served_shard(node: NodeHome) -> str | None:
    """The shard that is served here; ``None`` for a new node or a damaged pointer."""
    with contextlib.suppress(PointerCorrupt, DiskError):
        pointer = PointerFile(node.home).read()
        return None if pointer is None else pointer.shard
    return None
