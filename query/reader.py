"""A reader answers queries from one node's generations.

Snapshots stay open between queries; which one a query reads is decided once, before it starts. A
generation is held (:mod:`index.in_use`) as long as its snapshot is in use anywhere.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from index import in_use
from index.embedding import Embedder, embedder_record
from index.in_use import HeldGeneration
from index.residence import Residence
from index.snapshot import Snapshot
from manifests.errors import EmbedderMismatch, GenerationUnknown
from manifests.invariants import check_embedder
from manifests.record import GenerationEntry
from query.request import Answer, Request, settle

MAX_OPEN_SNAPSHOTS = 4


@dataclass(frozen=True, slots=True)
class _Opened:
    """A snapshot, and why its vectors cannot be searched with this node's embedder, if so."""

    snapshot: Snapshot
    mismatch: EmbedderMismatch | None


class Reader:
    """Opens generations and searches them."""

    def __init__(
        self,
        residence: Residence,
        shard: str,
        embedder: Embedder,
        bring: Callable[[GenerationEntry], HeldGeneration],
    ) -> None:
        """Read from ``residence``; ``bring`` fetches a retained generation that is not there."""
        self._residence = residence
        self._shard = shard
        self._embedder = embedder
        self._bring = bring
        self._open: OrderedDict[str, _Opened] = OrderedDict()

    def snapshot(self, entry: GenerationEntry) -> Snapshot:
        """The opened generation of ``entry``; every byte of it was verified before opening.

        Raises:
            ArtifactHashMismatch, ManifestError: what is on disk is not what was signed.
            ActivationFailed: a library refuses the files.
        """
        return self._opened(entry).snapshot

    def _opened(self, entry: GenerationEntry) -> _Opened:
        opened = self._open.get(entry.generation_id)
        if opened is None:
            held = self._held(entry)
            mismatch = None
            try:
                check_embedder(held.verified.manifest, embedder_record(self._embedder))
            except EmbedderMismatch as error:
                mismatch = error
            snapshot = Snapshot(held.verified)
            # Who was handed the snapshot may need it for longer than this keeps it open.
            held.hold.keep_with(snapshot)
            opened = _Opened(snapshot, mismatch)
            while len(self._open) >= MAX_OPEN_SNAPSHOTS:
                self._open.popitem(last=False)
            self._open[entry.generation_id] = opened
        self._open.move_to_end(entry.generation_id)
        return opened

    def _held(self, entry: GenerationEntry) -> HeldGeneration:
        """The generation verified; held before its first byte is read."""
        try:
            hold = in_use.hold(self._residence.folder(entry.generation_id).parent)
            return HeldGeneration(self._residence.reopen(entry, self._shard), hold)
        except GenerationUnknown:
            return self._bring(entry)

    def answer(self, request: Request, entry: GenerationEntry) -> Answer:
        """Answer one query from one generation, start to end.

        Words can be looked up in any generation; vectors only in those of this node's embedder.

        Raises:
            BadQuery: see :func:`query.request.settle`.
            EmbedderMismatch: its documents were embedded with something else than this node has.
            ArtifactHashMismatch, ManifestError, ActivationFailed: see :meth:`snapshot`.
        """
        opened, embedder = self._opened(entry), self._embedder
        if opened.mismatch is not None and request.mode != "lexical":
            raise opened.mismatch
        return search(opened.snapshot, embedder, request)


def search(snapshot: Snapshot, embedder: Embedder, request: Request) -> Answer:
    """Check a query, embed its text where that is needed, and search ``snapshot``.

    Raises:
        BadQuery: see :func:`query.request.settle`.
    """
    started = time.perf_counter()
    settled = settle(request, embedder.dimensions, computes=embedder.computes)
    mode, vector = settled.mode or "hybrid", settled.vector
    if vector is None and mode != "lexical" and settled.text is not None:
        vector = embedder.embed([settled.text])[0]
    hits = snapshot.search(
        text=settled.text, vector=vector, mode=mode, limit=settled.limit, syntax=settled.syntax
    )
    return Answer(
        generation_id=snapshot.manifest.generation_id,
        commit_seq=snapshot.manifest.commits.high_seq,
        mode=mode,
        took_ms=round((time.perf_counter() - started) * 1000, 3),
        hits=hits,
    )
