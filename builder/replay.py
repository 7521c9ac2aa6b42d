"""Replay: rebuild a generation from the commit log alone, and compare it with the shipped one.

It is the deepest audit there is. No document may differ, the hits of the text index and of exact
vector search agree to 99.95 %, and each term is in as many documents. The rebuild is one build of
the whole log, so it shares neither rows nor segments nor shards with what was shipped, and no error
with it either.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from builder.agreement import Agreement, agreement, bm25, overlap
from builder.build import BuildSettings, build_generation
from builder.changes import plan_build
from builder.compare import DocumentChanges, compare_documents
from commits.local_log import LocalCommitLog
from index.contents import Contents
from index.residence import Residence
from index.verification import VerifiedGeneration, verify_generation
from index.words import words
from manifests.errors import CommitRangeGap
from manifests.generation import GenerationManifest
from manifests.vectors import vector_from_text

LEAST_AGREEMENT_PERCENT = 99.95
HITS = 10
"""How many of the best hits are compared."""

POOLED_HITS = 3 * HITS
"""So many of each side's best are scored on both sides, so that each finds the other's."""

WORDS_A_QUERY = 6


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which queries are asked besides the golden ones: so many of each kind, by this seed."""

    documents: int
    seed: int


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay found.

    Attributes:
        manifest: the shipped generation's.
        rebuilt_documents: how many documents the log comes to.
        changes: from the rebuilt generation to the shipped one.
        terms: those that the two text indexes have in another number of documents.
        lexical: hits of the text index, both sides scored under the rebuilt one's statistics.
        lexical_as_served: the same as queries see them, where deleted documents still count.
        exact_vectors: hits of a scan over all stored vectors.
        approximate_vectors: hits of the graphs, which two builds need not share.
    """

    manifest: GenerationManifest
    rebuilt_documents: int
    changes: DocumentChanges
    terms: tuple[str, ...]
    lexical: Agreement
    lexical_as_served: Agreement
    exact_vectors: Agreement
    approximate_vectors: Agreement

    @property
    def agrees(self) -> bool:
        """Whether the shipped generation is what the log comes to."""
        hits_agree = all(
            each.percent >= LEAST_AGREEMENT_PERCENT for each in (self.lexical, self.exact_vectors)
        )
        return not self.changes and not self.terms and hits_agree


def rebuild(
    log: LocalCommitLog,
    shipped: GenerationManifest,
    scratch: Path,
    settings: BuildSettings,
) -> VerifiedGeneration:
    """Build the commits up to the shipped generation's last one, in the folder ``scratch``.

    Raises:
        CommitRangeGap: the log ends before that commit, or it is another log.
        LogCorrupt: the log is damaged.
        DiskFull, DiskError: the disk refuses.
    """
    commits = shipped.commits
    if log.head.commit_seq < commits.high_seq:
        raise CommitRangeGap(
            f"the log ends at commit {log.head.commit_seq}, but {shipped.generation_id} was built "
            f"up to commit {commits.high_seq}; give the whole log with --log",
            generation_id=shipped.generation_id,
            log_commit_seq=log.head.commit_seq,
        )
    plan = plan_build(log.read(1, commits.high_seq), 1, None)
    if plan.head_commit_id != commits.head_commit_id:
        raise CommitRangeGap(
            f"commit {commits.high_seq} of the log is {plan.head_commit_id[:12]}…, but "
            f"{shipped.generation_id} was built up to {commits.head_commit_id[:12]}…: another log",
            generation_id=shipped.generation_id,
            log_commit_id=plan.head_commit_id,
            head_commit_id=commits.head_commit_id,
        )
    residence = Residence(scratch)
    residence.prepare()
    report = build_generation(plan, None, residence, scratch / "draft", settings, shipped.built_at)
    return verify_generation(report.manifest, residence.folder(report.manifest.generation_id))


def compare(shipped: Contents, rebuilt: Contents, sampling: Sampling) -> ReplayReport:
    """Compare all documents of two generations, and the answers to golden and sampled queries."""
    changes = compare_documents(rebuilt.fingerprints(), shipped.fingerprints())
    theirs, ours = shipped.terms(), rebuilt.terms()
    terms = sorted(
        term for term in theirs.keys() | ours.keys() if theirs.get(term, 0) != ours.get(term, 0)
    )
    texts, vectors = _queries(shipped.manifest, rebuilt, sampling)
    lexical, as_served = _compare_lexical(shipped, rebuilt, texts)
    exact, approximate = _compare_vectors(shipped, rebuilt, vectors)
    return ReplayReport(
        manifest=shipped.manifest,
        rebuilt_documents=rebuilt.manifest.counts.documents,
        changes=changes,
        terms=tuple(terms),
        lexical=lexical,
        lexical_as_served=as_served,
        exact_vectors=exact,
        approximate_vectors=approximate,
    )


def _queries(
    shipped: GenerationManifest, rebuilt: Contents, sampling: Sampling
) -> tuple[list[str], NDArray[np.float32]]:
    """The texts, and the vectors of shape ``(queries, dimensions)``: golden ones, then sampled.

    A sampled text is some words of a document, in no order; a sampled vector lies between two
    documents', so that its neighbours are not only the one it came from.
    """
    golden = shipped.activation.golden_queries
    texts = [query.text for query in golden if query.text is not None]
    vectors = [
        np.array(vector_from_text(query.vector), np.float32)
        for query in golden
        if query.vector is not None
    ]
    chance = random.Random(sampling.seed)  # noqa: S311 - a sample, not a secret
    ids = sorted(rebuilt.ids())
    chosen = chance.sample(ids, min(sampling.documents, len(ids)))
    for identity in chosen:
        document = rebuilt.snapshot.document(identity)
        found = sorted(set(words(f"{document.title} {document.text}"))) if document else []
        if found:
            texts.append(" ".join(chance.sample(found, min(WORDS_A_QUERY, len(found)))))
    stored = rebuilt.vectors_of(chosen)
    for one, other in zip(chosen, chosen[1:] + chosen[:1], strict=True):
        between = stored[one] + stored[other]
        vectors.append(between if between.any() else stored[one])
    dimensions = rebuilt.manifest.embedder.dimensions
    return texts, _unit(np.array(vectors, np.float32).reshape(len(vectors), dimensions))


def _compare_lexical(
    shipped: Contents, rebuilt: Contents, texts: Sequence[str]
) -> tuple[Agreement, Agreement]:
    compared, served = Agreement(), Agreement()
    for text in texts:
        found = [
            [
                hit.id
                for hit in side.snapshot.search(
                    text=text, vector=None, mode="lexical", limit=POOLED_HITS
                )
            ]
            for side in (shipped, rebuilt)
        ]
        served += overlap(found[0][:HITS], found[1][:HITS])
        pool = sorted({*found[0], *found[1]})
        theirs, ours = shipped.evidence(text, pool), rebuilt.evidence(text, pool)
        statistics = {**theirs.statistics, **ours.statistics}
        scores = [
            {identity: bm25(terms, statistics) for identity, terms in side.occurrences.items()}
            for side in (theirs, ours)
        ]
        compared += agreement(scores[0], scores[1], HITS)
    return compared, served


def _compare_vectors(
    shipped: Contents, rebuilt: Contents, queries: NDArray[np.float32]
) -> tuple[Agreement, Agreement]:
    compared, served = Agreement(), Agreement()
    found = [_scan(side, queries) for side in (shipped, rebuilt)]
    pools = [sorted({*one, *other}) for one, other in zip(*found, strict=True)]
    pooled = sorted({identity for pool in pools for identity in pool})
    stored = [side.vectors_of(pooled) for side in (shipped, rebuilt)]
    for query, pool in zip(queries, pools, strict=True):
        scores = [
            {
                identity: _cosine(query, vectors[identity])
                for identity in pool
                if identity in vectors
            }
            for vectors in stored
        ]
        compared += agreement(scores[0], scores[1], HITS)
        hits = [
            [
                hit.id
                for hit in side.snapshot.search(text=None, vector=query, mode="vector", limit=HITS)
            ]
            for side in (shipped, rebuilt)
        ]
        served += overlap(*hits)
    return compared, served


def _scan(side: Contents, queries: NDArray[np.float32]) -> list[list[str]]:
    """For each query the ids of the nearest ``POOLED_HITS`` documents, all of them looked at."""
    ids: list[str] = []
    places = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    for batch, vectors in side.vectors():
        fresh = np.arange(len(ids), len(ids) + len(batch))
        places = np.hstack([places, np.broadcast_to(fresh, (len(queries), len(batch)))])
        scores = np.hstack([scores, queries @ _unit(vectors).T])
        ids += batch
        best = np.argsort(-scores, axis=1, kind="stable")[:, :POOLED_HITS]
        places = np.take_along_axis(places, best, axis=1)
        scores = np.take_along_axis(scores, best, axis=1)
    return [[ids[place] for place in line] for line in places.tolist()]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-30)).astype(np.float32)
    return scaled


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / max(float(np.sqrt((a @ a) * (b @ b))), 1e-30))
