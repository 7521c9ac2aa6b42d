"""What the next bootstrap of a node is going to move, and how long that will take."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from activator.pointer import PointerFile
from controller import wiring
from controller.node import NodeHome
from controller.settings import NodeLimits
from controller.throughput import Throughput, last_throughput
from durable import files
from manifests.errors import PointerCorrupt
from manifests.generation import GenerationManifest
from replicator.bring import manifest_of
from replicator.forecast import Forecast, forecast
from replicator.plan import plan_fetch

ASSUMED_BYTES_PER_S = 100_000_000
SMALL_BYTES_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a transfer will take, and what says so."""

    seconds: float
    basis: str


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What a bootstrap is going to do, and the room it has."""

    manifest: GenerationManifest
    forecast: Forecast
    estimate: Estimate
    disk_free_bytes: int
    held_back: bool
    """Whether this node was rolled back from it: it is fetched, and not served."""


def plan(node: NodeHome) -> NodePlan:
    """Refresh the signed record and foresee the bootstrap to what it says; nothing is fetched.

    What is here is read and checked, as the bootstrap does.

    Raises:
        TrustError, NothingPublished, ManifestError, HomeLocked, ObjectMissing, StoreUnavailable,
            TransferDeadline, BodyMismatch: as :meth:`NodeHome.bootstrap`.
    """
    with files.locked(node.home / "lock", "plan"):
        stores = node.stores()
        trusted = node.trust().refresh(stores)
        manifest = manifest_of(trusted.record.active_entry(), trusted, node.residence)
        transfer = plan_fetch(manifest, node.residence.holds)
        supply = wiring.supply(node.settings, stores)
        foreseen = forecast(transfer, node.residence, supply, node.home / "incoming")
    with files.translated(node.home):
        free_bytes = shutil.disk_usage(node.home).free
    estimate = estimate_of(foreseen, node.settings.limits, last_throughput(node.home))
    held_back = _held_back(node) == manifest.generation_id
    return NodePlan(manifest, foreseen, estimate, free_bytes, held_back)


def _held_back(node: NodeHome) -> str | None:
    try:
        pointer = PointerFile(node.home).read()
    except PointerCorrupt:
        return None  # the bootstrap sets it anew, and holds nothing back
    return pointer.held_back if pointer else None


def estimate_of(foreseen: Forecast, limits: NodeLimits, last: Throughput | None) -> Estimate:
    """How long a transfer takes at the last one's rate, or at one assumed, or at a lower cap.

    The caps on stores and on peers hold side by side; whichever takes longer counts.
    """
    if last is None:
        rate, basis = float(ASSUMED_BYTES_PER_S), "assumed 100 MB/s"
    else:
        rate, basis = last.bytes_per_s, f"measured {_rate(last.bytes_per_s)}"
    estimate = Estimate(foreseen.fetch_bytes / rate, basis)
    for name, cap, size_bytes in (
        ("store_bytes_per_s", limits.store_bytes_per_s, foreseen.bytes_from("store")),
        ("peer_bytes_per_s", limits.peer_bytes_per_s, foreseen.bytes_from("peer")),
    ):
        if cap is not None and size_bytes / cap > estimate.seconds:
            estimate = Estimate(size_bytes / cap, f"limited by {name}, {_rate(cap)}")
    return estimate


def _rate(bytes_per_s: float) -> str:
    small = bytes_per_s < SMALL_BYTES_PER_S
    return f"{bytes_per_s / 1e3:.1f} kB/s" if small else f"{bytes_per_s / 1e6:.1f} MB/s"
