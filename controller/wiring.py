"""Putting parts together: stores and peers with the caps, retries and clocks that go with them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from controller import clock
from controller.settings import NodeSettings
from manifests.errors import BadSetting
from replicator.download import HEDGE_FACTOR
from replicator.health import Health
from replicator.runs import RUN_SIZE_BYTES
from replicator.sources import Supply
from store.locate import open_store
from store.patience import DEFAULT_PATIENCE, PEER_PATIENCE, Patience
from store.port import Store
from store.rate_limit import LimitedStore, RateLimit
from store.retrying import RetryingStore
from store.s3_address import parse_address
from store.spread import SpreadStore


def open_stores(urls: Sequence[str], *, create: bool = False) -> SpreadStore:
    """The stores that ``urls`` name, as one; each is asked again when it does not answer.

    Raises:
        BadSetting: two of them are one and the same bucket and prefix, or folder.
        BadSetting, DiskFull, DiskError, StoreUnavailable: see :func:`store.locate.open_store`.
    """
    stores = [open_store(url, create=create, backoff=clock.BACKOFF) for url in urls]
    _refuse_same([store.url for store in stores])
    return SpreadStore(stores)


def _refuse_same(urls: Sequence[str]) -> None:
    """Refuse one place under two URLs: losing it would be losing two stores."""
    known: dict[tuple[object, ...], str] = {}
    for url in urls:
        place = parse_address(url).place if url.startswith("s3://") else _place_of_folder(url)
        if place in known:
            raise BadSetting(
                f"the stores {known[place]} and {url} are one and the same; name each once",
                store=url,
            )
        known[place] = url


def _place_of_folder(path: str) -> tuple[object, ...]:
    """What tells a folder from others: itself if it is there, or else the name it would have."""
    try:
        found = Path(path).stat()
    except OSError:
        return (os.path.realpath(path),)
    return (found.st_dev, found.st_ino)


def node_stores(settings: NodeSettings) -> SpreadStore:
    """A node's stores, read no faster than its settings allow."""
    cap = settings.limits.store_bytes_per_s
    patience = _patience(settings, cap)
    stores = [open_store(url, backoff=clock.BACKOFF, patience=patience) for url in settings.stores]
    return SpreadStore(_limited(stores, cap))


def supply(
    settings: NodeSettings,
    stores: SpreadStore,
    healths: dict[str, Health] | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> Supply:
    """What a node's transfers draw on: its peers, and ``stores`` as :func:`node_stores` gives.

    ``healths`` is what the node knows of its peers' health, and is added to; ``is_over`` ends a
    transfer.
    """
    limits = settings.limits
    caps = [cap for cap in (limits.store_bytes_per_s, limits.peer_bytes_per_s) if cap is not None]
    patience = _patience(settings, limits.peer_bytes_per_s, PEER_PATIENCE)
    # Under a cap reads come one after the other: what a kill leaves is then of some use.
    reads_at_once = min([limits.reads_at_once, *(max(1, cap // RUN_SIZE_BYTES) for cap in caps)])
    return Supply(
        peers=_limited([_peer(url, patience) for url in settings.peers], limits.peer_bytes_per_s),
        stores=stores.stores,
        reads_at_once=reads_at_once,
        min_bytes_per_s=min([limits.min_bytes_per_s, *(max(1, cap // 2) for cap in caps)]),
        now_s=time.monotonic,
        healths={} if healths is None else healths,
        hedge_after_s=HEDGE_FACTOR * reads_at_once * RUN_SIZE_BYTES / min(caps) if caps else 0.0,
        is_over=is_over,
    )


def _patience(
    settings: NodeSettings, cap: int | None, usual: Patience = DEFAULT_PATIENCE
) -> Patience:
    """How long a read may take: one that is held back by a cap, with others, is not too slow."""
    limits = settings.limits
    slowest = limits.min_bytes_per_s
    if cap is not None:
        slowest = min(slowest, max(1, cap // (2 * limits.reads_at_once)))
    return replace(usual, min_bytes_per_s=slowest)


def _peer(url: str, patience: Patience) -> Store:
    from store.peer import PeerStore

    return RetryingStore(PeerStore(url, patience=patience), clock.BUSY_BACKOFF)


def _limited(stores: Sequence[Store], bytes_per_s: int | None) -> tuple[Store, ...]:
    """The same stores, all of them together within a cap."""
    if bytes_per_s is None:
        return tuple(stores)
    limit = RateLimit(bytes_per_s, time.monotonic, clock.sleep)
    return tuple(LimitedStore(store, limit) for store in stores)
