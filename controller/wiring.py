"""Putting parts together: stores and peers with the caps, retries and clocks that go with them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from controller import clock
from controller.settings import NodeSettings
from replicator.sources import Supply
from store.locate import open_store
from store.port import Store
from store.rate_limit import LimitedStore, RateLimit
from store.spread import SpreadStore


def open_stores(urls: Sequence[str], *, create: bool = False) -> SpreadStore:
    """The stores that ``urls`` name, as one; each is asked again when it does not answer.

    Raises:
        BadSetting, DiskFull, DiskError, StoreUnavailable: see :func:`store.locate.open_store`.
    """
    return SpreadStore([open_store(url, create=create, backoff=clock.BACKOFF) for url in urls])


def node_stores(settings: NodeSettings) -> SpreadStore:
    """A node's stores, read no faster than its settings allow."""
    return SpreadStore(
        _limited(open_stores(settings.stores).stores, settings.limits.store_bytes_per_s)
    )


def supply(settings: NodeSettings, stores: SpreadStore) -> Supply:
    """What a node's transfers draw on: its peers, and ``stores`` as :func:`node_stores` gives."""
    limits = settings.limits
    caps = (limits.store_bytes_per_s, limits.peer_bytes_per_s)
    # A transfer that is held back by a cap is not too slow.
    slowest = min([limits.min_bytes_per_s, *(cap // 2 for cap in caps if cap is not None)])
    return Supply(
        peers=_limited([_peer(url) for url in settings.peers], limits.peer_bytes_per_s),
        stores=stores.stores,
        reads_at_once=limits.reads_at_once,
        min_bytes_per_s=slowest,
        now_s=time.monotonic,
    )


def _peer(url: str) -> Store:
    from store.peer import PeerStore

    return PeerStore(url)


def _limited(stores: Sequence[Store], bytes_per_s: int | None) -> tuple[Store, ...]:
    """The same stores, all of them together within a cap."""
    if bytes_per_s is None:
        return tuple(stores)
    limit = RateLimit(bytes_per_s, time.monotonic, clock.sleep)
    return tuple(LimitedStore(store, limit) for store in stores)
