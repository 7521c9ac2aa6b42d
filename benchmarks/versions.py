"""A new version of one percent more, and an old version opened: genctl beside LanceDB.

20,000 documents with 384-dimensional vectors on both sides, the same analyser, vectors in 16 bits.
One percent is added, again and again, and each version before stays. Then the first version is
opened and answers, by vector and by text.

The two do not do the same. LanceDB adds to a table in place, for whoever can read that folder.
genctl builds a generation, publishes it signed and with repair symbols, and a node fetches,
verifies and swaps to it: each step has its own line. Whole is a process or more from start to end,
imports included; inside is what the calls take in a process that has done it before.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from benchmarks.corpus import Corpus, make_corpus
from benchmarks.harness import Disagreement, Outcome, show
from benchmarks.lance_side import HITS
from benchmarks.sides import Asked, Cost, Lance, Ours
from controller.terminal import say

PYTHON_VARIABLE = "GENCTL_LANCEDB_PYTHON"
LANCEDB_VERSION = "0.40.0"
DOCUMENTS = 20_000
ADDED = DOCUMENTS // 100
CHANGES = 5
QUERIES = 101
SEED = 20_05
MIN_RECALL = 0.95
"""Both sides must find this share of the ten nearest, or their speeds say nothing."""

STEPS = {
    "genctl": ("ingest and build: searchable", "publish and activate", "a node follows"),
    "lance": ("add: searchable", "optimize: indexed, compacted"),
}


def run() -> Outcome:
    """Build, change, ask, compare; or skip where LanceDB is absent."""
    python = os.environ.get(PYTHON_VARIABLE) or sys.executable
    try:
        version = Lance(python, Path(), "").do("version")["lancedb"]
    except (Disagreement, OSError):
        say(
            "SKIPPED: nothing was measured, because lancedb is not installed. `pip install "
            f"lancedb=={LANCEDB_VERSION}` into an environment of its own, and name its Python in "
            f"{PYTHON_VARIABLE}."
        )
        return Outcome("versions", {"skipped": "no lancedb"}, holds=None)
    corpus = make_corpus(DOCUMENTS + 2 * CHANGES * ADDED, QUERIES, SEED)
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as name:
        return _compare(corpus, Path(name), python, version)


def _compare(corpus: Corpus, folder: Path, python: str, version: str) -> Outcome:
    (folder / "genctl").mkdir()
    ours = Ours(folder / "genctl")
    indexed, scanned = (Lance(python, folder / index, index) for index in ("hnsw", "scan"))
    source, rows = _save(corpus, 0, DOCUMENTS, folder)
    first_ours, first_lance = ours.build(source), indexed.build(rows)
    scanned.build(rows)
    saved = [
        _save(corpus, start, start + ADDED, folder)
        for start in range(DOCUMENTS, len(corpus.documents), ADDED)
    ]
    # One after the other, so that what else the machine does at that moment slows both.
    by_turns = [(ours.whole(source), indexed.whole(rows)) for source, rows in saved[:CHANGES]]
    whole = {
        "genctl": _middle([costs for costs, _ in by_turns]),
        "lance": _middle([costs for _, costs in by_turns]),
    }
    inside = {
        "genctl": _middle([ours.inside(source) for source, _ in saved[CHANGES:]]),
        "lance": _middle(indexed.inside([rows for _, rows in saved[CHANGES:]])),
    }
    line, one, many = _save_queries(corpus, folder)
    asked = {
        "genctl": ours.ask(line, corpus.queries, HITS, CHANGES),
        "lance_hnsw": indexed.ask(one, many, CHANGES),
        "lance_scan": scanned.ask(one, many, CHANGES),
    }
    nearest = _nearest(corpus)
    recall = {name: _agreement(each.by_vector, nearest) for name, each in asked.items()}
    same_text = _agreement(asked["genctl"].by_text, asked["lance_hnsw"].by_text)
    _show_changes(whole, inside, first_ours, first_lance, version)
    _show_asked(asked, recall, same_text)
    figures = {"documents": DOCUMENTS, "added": ADDED, "lancedb": version}
    figures |= {"same_text_hits": round(same_text, 3)}
    for side, steps in STEPS.items():
        for step, of_whole, of_inside in zip(steps, whole[side], inside[side], strict=True):
            name = f"{side}_{step.partition(':')[0].replace(' ', '_')}"
            figures |= {
                f"{name}_whole_s": round(of_whole.took_s, 3),
                f"{name}_inside_s": round(of_inside.took_s, 3),
                f"{name}_bytes": of_whole.new_bytes,
            }
    for side, each in asked.items():
        figures |= {
            f"{side}_old_whole_s": round(each.whole_s, 3),
            f"{side}_old_anew_ms": round(1_000 * each.anew_s, 2),
            f"{side}_old_vector_ms": round(1_000 * each.vector_s, 2),
            f"{side}_old_text_ms": round(1_000 * each.text_s, 2),
            f"{side}_recall": round(recall[side], 3),
        }
    return Outcome("versions", figures, min(recall.values()) >= MIN_RECALL)


def _show_changes(
    whole: dict[str, list[Cost]],
    inside: dict[str, list[Cost]],
    first_ours: Sequence[Cost],
    first_lance: Cost,
    version: str,
) -> None:
    rows = [
        [
            f"{of_whole.took_s:.2f}",
            f"{1_000 * of_inside.took_s:.0f}",
            f"{of_whole.new_bytes:,}",
            f"{'genctl' if side == 'genctl' else 'LanceDB'}, {step}",
        ]
        for side, steps in STEPS.items()
        for step, of_whole, of_inside in zip(steps, whole[side], inside[side], strict=True)
    ]
    show(
        f"{ADDED} documents added to {DOCUMENTS:,} as a new version, genctl and LanceDB {version}",
        [("whole s", "right"), ("inside ms", "right"), ("bytes", "right"), ("", "left")],
        rows,
        [
            f"medians of {CHANGES} processes or calls; bytes are what is left on disk and is new",
            "genctl's first line has the commit log in it, documents with vectors in 32 bits; then",
            "there are the store's copy, with repair symbols, and the node's",
            (
                f"the first version: genctl {sum(each.took_s for each in first_ours):.1f} s and "
                f"{sum(each.new_bytes for each in first_ours):,} bytes, all of that; LanceDB with "
                f"its indexes {first_lance.took_s:.1f} s and {first_lance.new_bytes:,} bytes"
            ),
        ],
    )


def _show_asked(asked: dict[str, Asked], recall: dict[str, float], same_text: float) -> None:
    names = {
        "genctl": "genctl, on a node that has it",
        "lance_hnsw": "LanceDB, vectors indexed (HNSW)",
        "lance_scan": "LanceDB, vectors scanned",
    }
    show(
        "The first version opened, and its answers of ten hits",
        [
            ("whole s", "right"),
            ("anew ms", "right"),
            ("vector ms", "right"),
            ("text ms", "right"),
            ("recall@10", "right"),
            ("", "left"),
        ],
        [
            [
                f"{each.whole_s:.2f}",
                f"{1_000 * each.anew_s:.1f}",
                f"{1_000 * each.vector_s:.2f}",
                f"{1_000 * each.text_s:.2f}",
                f"{recall[side]:.3f}",
                names[side],
            ]
            for side, each in asked.items()
        ],
        [
            "whole and anew: the version opened, then one query by vector and one by text",
            "in whole, genctl checks the record's signatures; anew, that it is the same record",
            f"of LanceDB's hits by text, genctl has {same_text:.3f}",
        ],
    )


def _save(corpus: Corpus, start: int, end: int, folder: Path) -> tuple[Path, Path]:
    """Documents ``start`` to ``end`` as genctl ingests them and as LanceDB's side reads them."""
    part = Corpus(corpus.documents[start:end], corpus.vectors[start:end], [])
    source, rows = folder / f"{start}.msgpack", folder / f"{start}.npz"
    part.write(source)
    np.savez(
        rows,
        ids=np.array([document.id for document in part.documents]),
        texts=np.array([f"{document.title}\n{document.text}" for document in part.documents]),
        vectors=part.vectors,
    )
    return source, rows


def _save_queries(corpus: Corpus, folder: Path) -> tuple[Path, Path, Path]:
    """One query by vector and one by text for genctl; the same, and all, for LanceDB's side."""
    first = corpus.queries[0]
    line = folder / "queries.jsonl"
    lines = ({"id": "vector", "vector": first.vector.tolist()}, {"id": "text", "text": first.text})
    line.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in lines))
    saved = []
    for count in (1, len(corpus.queries)):
        saved.append(folder / f"queries-{count}.npz")
        asked = corpus.queries[:count]
        np.savez(
            saved[-1],
            texts=np.array([query.text for query in asked]),
            vectors=np.stack([query.vector for query in asked]),
        )
    return line, saved[0], saved[1]


def _nearest(corpus: Corpus) -> list[list[str]]:
    """For each query the ids of the ten nearest in the first version, by exact search."""
    first = corpus.vectors[:DOCUMENTS]
    return [
        [corpus.documents[row].id for row in np.argsort(-(first @ query.vector))[:HITS]]
        for query in corpus.queries
    ]


def _agreement(found: list[list[str]], wanted: list[list[str]]) -> float:
    """The mean share of ``wanted`` that was found."""
    return float(
        np.mean([len({*a} & {*b}) / len(b) for a, b in zip(found, wanted, strict=True) if b])
    )


def _middle(costs: Sequence[Sequence[Cost]]) -> list[Cost]:
    """The medians of each step."""
    return [
        Cost(median(each.took_s for each in step), int(median(each.new_bytes for each in step)))
        for step in zip(*costs, strict=True)
    ]
