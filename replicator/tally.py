"""What fetches moved and mended: counted while they run, and told afterwards."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from manifests.errors import GenctlError

Kind = Literal["peer", "store"]


@dataclass(frozen=True, slots=True)
class FetchTally:
    """The bytes that were moved, by where from, and what was mended with them.

    ``sources`` maps a peer's or a store's URL to the bytes that came from it; ``resumed_bytes``
    were found on the disk, left by a fetch that was cut off or in a damaged artifact;
    ``corrupt_peers`` sent other bytes than they were asked for; ``failures`` has, by URL, the last
    error of each source that did not answer as it should.
    """

    sources: dict[str, int] = field(default_factory=dict)
    peer_bytes: int = 0
    store_bytes: int = 0
    resumed_bytes: int = 0
    damaged_symbols: int = 0
    repaired_artifacts: int = 0
    repaired_chunks: int = 0
    repaired_bytes: int = 0
    corrupt_peers: tuple[str, ...] = ()
    failures: dict[str, GenctlError] = field(default_factory=dict)

    @property
    def fetched_bytes(self) -> int:
        """All that was moved, from wherever."""
        return self.peer_bytes + self.store_bytes


class Counting:
    """Counts what several threads do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sources: Counter[str] = Counter()
        self._kinds: Counter[Kind] = Counter()
        self._resumed_bytes = 0
        self._damaged: set[tuple[str, int]] = set()
        self._repaired_artifacts: set[str] = set()
        self._repaired_chunks = 0
        self._repaired_bytes = 0
        self._corrupt_peers: set[str] = set()

    def lied(self, url: str) -> None:
        """A peer sent other bytes than those it was asked for."""
        with self._lock:
            self._corrupt_peers.add(url)

    def moved(self, kind: Kind, url: str, size_bytes: int) -> None:
        """So many bytes came from there."""
        with self._lock:
            self._sources[url] += size_bytes
            self._kinds[kind] += size_bytes

    def resumed(self, size_bytes: int) -> None:
        """So many good bytes were on the disk already."""
        with self._lock:
            self._resumed_bytes += size_bytes

    def damaged(self, artifact_id: str, number: int) -> None:
        """A symbol is lost, or not all of it is what was signed."""
        with self._lock:
            self._damaged.add((artifact_id, number))

    def damaged_of(self, artifact_id: str) -> list[int]:
        """The symbols of an artifact that were found lost or damaged."""
        with self._lock:
            return sorted(number for found, number in self._damaged if found == artifact_id)

    def repaired(self, artifact_id: str, size_bytes: int) -> None:
        """A chunk of so many bytes was rebuilt from others."""
        with self._lock:
            self._repaired_artifacts.add(artifact_id)
            self._repaired_chunks += 1
            self._repaired_bytes += size_bytes

    def tally(self) -> FetchTally:
        """All of it so far."""
        with self._lock:
            return FetchTally(
                sources=dict(sorted(self._sources.items())),
                peer_bytes=self._kinds["peer"],
                store_bytes=self._kinds["store"],
                resumed_bytes=self._resumed_bytes,
                damaged_symbols=len(self._damaged),
                repaired_artifacts=len(self._repaired_artifacts),
                repaired_chunks=self._repaired_chunks,
                repaired_bytes=self._repaired_bytes,
                corrupt_peers=tuple(sorted(self._corrupt_peers)),
            )
