"""Where a node can get an artifact's bytes from, cheapest first, and how each of them is doing."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from manifests.errors import GenctlError, PeerCorrupt
from manifests.names import artifact_key, symbol_key, table_key
from replicator.health import PEER_FAILURES_IN_A_ROW, PEER_REST_S, Health
from replicator.repair_events import emit
from replicator.runs import Run
from replicator.tally import Kind
from store.port import Store
from store.spread import symbol_store
from symbols.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Source:
    """A peer, which has artifacts whole, or one of the stores, which has their symbols."""

    kind: Kind
    store: Store
    health: Health = field(default_factory=Health, compare=False)

    @property
    def url(self) -> str:
        """How people name it."""
        return self.store.url


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a source something is to be found."""

    source: Source
    key: str
    offset: int


@dataclass(frozen=True, slots=True)
class Supply:
    """What a node's transfers draw on, and within what bounds.

    ``now_s`` is a clock that never goes back, in seconds. A transfer that moves fewer than
    ``min_bytes_per_s`` from end to end is given up, and so is one once ``is_over`` says so. No read
    is asked for a second time before ``hedge_after_s``: under a cap all of them take their time.
    ``healths`` of peers, by URL, outlive a transfer.
    """

    peers: tuple[Store, ...]
    stores: tuple[Store, ...]
    reads_at_once: int
    min_bytes_per_s: int
    now_s: Callable[[], float]
    healths: dict[str, Health] = field(default_factory=dict)
    hedge_after_s: float = 0.0
    is_over: Callable[[], bool] = lambda: False


class Sources:
    """All that a transfer can draw on. Safe to use from several threads.

    ``now_s`` is a clock that never goes back, in seconds; ``healths`` is what is known already of
    peers, by URL, and is added to.
    """

    def __init__(
        self,
        peers: Sequence[Store],
        stores: Sequence[Store],
        now_s: Callable[[], float],
        healths: dict[str, Health] | None = None,
    ) -> None:
        known = {} if healths is None else healths
        self.peers = tuple(
            Source(
                "peer",
                peer,
                known.setdefault(peer.url, Health(PEER_FAILURES_IN_A_ROW, PEER_REST_S)),
            )
            for peer in peers
        )
        # A new transfer asks every store anew: without them there is none.
        self.stores = tuple(Source("store", store) for store in stores)
        self._now_s = now_s
        self._lock = threading.Lock()
        self._absent: set[tuple[str, str]] = set()
        self._errors: dict[str, GenctlError] = {}

    def of_run(self, artifact_id: str, run: Run) -> list[Place]:
        """Who may have a run: peers in turn, then the store its symbol is kept in, then others."""
        found = []
        if run.geometry.is_source(run.number):
            offset = run.in_artifact.offset
            key = artifact_key(artifact_id)
            turn = run.number + run.first
            found = [Place(peer, key, offset) for peer in _rotated(self.peers, turn)]
        key = symbol_key(artifact_id, run.number)
        offset = run.in_symbol.offset
        found += [Place(store, key, offset) for store in self._stores_of(artifact_id, run.number)]
        return self._worth_asking(found)

    def of_table(self, artifact_id: str, geometry: Geometry) -> Iterator[tuple[Place, int | None]]:
        """Who may have the table, and with which symbol (``None``: by itself).

        To be asked one after the other. At a peer that rests, perhaps since it was asked a moment
        ago, the stores take over: where one is silent others may be, each would take its time, and
        a table is small. The other peers are asked last.
        """
        key = table_key(artifact_id)
        peers = deque(_rotated(self.peers, int(artifact_id[:4], 16)))
        while peers and self.may_ask(peers[0]):
            yield Place(peers[0], key, 0), None
            if self.may_ask(peers[0]):
                peers.popleft()
        for number in range(geometry.m):
            offset = geometry.table_range(number).offset
            for store in self._stores_of(artifact_id, number):
                yield Place(store, symbol_key(artifact_id, number), offset), number
        for peer in peers:
            yield Place(peer, key, 0), None

    def is_absent(self, place: Place) -> bool:
        """Whether the source said that it has no such object."""
        return (place.source.url, place.key) in self._absent

    def may_ask(self, source: Source) -> bool:
        """Whether the source is worth asking now."""
        return source.health.may_ask(self._now_s())

    def unavailable(self) -> GenctlError | None:
        """Why a store is not asked now, if there is one that is not: what it has is not lost."""
        for store in self.stores:
            if not self.may_ask(store):
                return self._errors.get(store.url)
        return None

    def failures(self) -> dict[str, GenctlError]:
        """By URL, the last error of each source that did not answer as it should."""
        with self._lock:
            return dict(sorted(self._errors.items()))

    def absent(self, place: Place) -> None:
        """The source has no such object; it is not asked for it again."""
        with self._lock:
            self._absent.add((place.source.url, place.key))

    def failed(self, place: Place, error: GenctlError) -> None:
        """The source did not answer as it should; one that rests from now on is told of."""
        source = place.source
        with self._lock:
            was_asked = self.may_ask(source)
            source.health.failed(self._now_s())
            is_demoted = was_asked and not self.may_ask(source)
            self._errors[source.url] = error
        if is_demoted:
            emit(
                "source_demoted",
                kind=source.kind,
                source=source.url,
                error=error.name,
                message=error.message,
            )

    def lied(self, place: Place, error: PeerCorrupt) -> None:
        """The peer sent other bytes than those it was asked for."""
        with self._lock:
            place.source.health.lied(self._now_s())
        emit("peer_corrupt", peer=place.source.url, key=place.key, message=error.message)

    def succeeded(self, place: Place) -> None:
        """The source did what it was asked."""
        with self._lock:
            place.source.health.succeeded(self._now_s())

    def _stores_of(self, artifact_id: str, number: int) -> tuple[Source, ...]:
        return _rotated(self.stores, symbol_store(artifact_id, number, len(self.stores)))

    def _worth_asking(self, places: list[Place]) -> list[Place]:
        return [
            place for place in places if not self.is_absent(place) and self.may_ask(place.source)
        ]


def corrupt(place: Place, offset_bytes: int = 0) -> PeerCorrupt:
    """The error for a peer that sent wrong bytes, at so many bytes from the place."""
    return PeerCorrupt(
        f"{place.source.url} sent other bytes than {place.key} has at "
        f"{place.offset + offset_bytes}; it is not asked for now. Scrub that node, or take it out "
        "of the peers",
        peer=place.source.url,
        key=place.key,
    )


def _rotated(sources: tuple[Source, ...], turn: int) -> tuple[Source, ...]:
    if not sources:
        return ()
    first = turn % len(sources)
    return sources[first:] + sources[:first]
