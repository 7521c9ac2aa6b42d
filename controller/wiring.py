"""Putting parts together: stores and peers with the caps, retries and clocks that go with them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from controller import clock
from controller.settings import NodeSettings
from replicator.sources import Supply
from store.locate import open_store
from store.patience import Patience
from store.port import Store
from store.rate_limit import LimitedStore, RateLimit
from store.retrying import RetryingStore
from store.spread import SpreadStore


def open_stores(urls: Sequence[str], *, create: bool = False) -> SpreadStore:
    """The stores that ``urls`` name, as one; each is asked again when it does not answer.

    Raises:
        BadSetting, DiskFull, DiskError, StoreUnavailable: see :func:`store.locate.open_store`.
    """
    return SpreadStore([open_store(url, create=create, backoff=clock.BACKOFF) for url in urls])


def node_stores(settings: NodeSettings) -> SpreadStore:
    """A node's stores, read no faster than its settings allow."""
    cap = settings.limits.store_bytes_per_s
    patience = _patience(settings, cap)
    stores = [open_store(url, backoff=clock.BACKOFF, patience=patience) for url in settings.stores]
    return SpreadStore(_limited(stores, cap))


def supply(settings: NodeSettings, stores: SpreadStore) -> Supply:
    """What a node's transfers draw on: its peers, and ``stores`` as :func:`node_stores` gives."""
    cap = settings.limits.peer_bytes_per_s
    patience = _patience(settings, cap)
    return Supply(
        peers=_limited([_peer(url, patience) for url in settings.peers], cap),
        stores=stores.stores,
        reads_at_once=settings.limits.reads_at_once,
        min_bytes_per_s=patience.min_bytes_per_s,
        now_s=time.monotonic,
    )


def _patience(settings: NodeSettings, cap: int | None) -> Patience:
    """How long a read may take: one that is held back by a cap, with others, is not too slow."""
    limits = settings.limits
    slowest = limits.min_bytes_per_s
    if cap is not None:
        slowest = min(slowest, max(1, cap // (2 * limits.reads_at_once)))
    return Patience(min_bytes_per_s=slowest)


def _peer(url: str, patience: Patience) -> Store:
    from store.peer import PeerStore

    return RetryingStore(PeerStore(url, patience=patience), clock.BUSY_BACKOFF)


def _limited(stores: Sequence[Store], bytes_per_s: int | None) -> tuple[Store, ...]:
    """The same stores, all of them together within a cap."""
    if bytes_per_s is None:
        return tuple(stores)
    limit = RateLimit(bytes_per_s, time.monotonic, clock.sleep)
    return tuple(LimitedStore(store, limit) for store in stores)
