"""How good the answers are: SciFact through the whole pipeline, by the command line alone.

init, ingest, build, release, node bootstrap, then ``genctl query --queries`` for the 300 test
queries in each mode, scored with nDCG@10 and compared with what is published for BM25 and for
all-MiniLM-L6-v2. The data is not part of the project: without it this says so and passes.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from benchmarks.harness import Outcome, finish, show
from controller.terminal import say

SCIFACT_VARIABLE = "GENCTL_SCIFACT"
DEFAULT_SCIFACT = Path(__file__).parents[2] / "shared" / "data" / "scifact"
EMBEDDINGS = "emb_all-MiniLM-L6-v2_f32.npz"
DIMENSIONS = 384
DEPTH = 10
GENCTL = Path(sys.executable).with_name("genctl")

Judgements = dict[str, dict[str, int]]


class Bound(NamedTuple):
    """What a mode must reach: nDCG@10 from ``least`` to ``most``, and where that is from."""

    least: float
    most: float
    published: str


BOUNDS = {
    "lexical": Bound(0.661, 1.0, "0.665 BM25 (BEIR)"),
    "vector": Bound(0.640, 0.650, "0.645 all-MiniLM-L6-v2"),
    "hybrid": Bound(0.695, 1.0, "none; at least 0.695"),
}


def read_judgements(path: Path) -> Judgements:
    """Query id → document id → grade."""
    judgements: Judgements = defaultdict(dict)
    for line in path.read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        judgements[query][document] = int(grade)
    return judgements


def ndcg(ranked: list[str], grades: dict[str, int]) -> float:
    """Normalised discounted cumulative gain of the first ten (Järvelin and Kekäläinen, 2002).

    The gain is the grade, the discount log2(rank + 1); the ideal ranking is over the judged ones.
    """

    def gain(values: list[int]) -> float:
        return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(values[:DEPTH], 1))

    return gain([grades.get(each, 0) for each in ranked]) / gain(
        sorted(grades.values(), reverse=True)
    )


def mean_ndcg(answers: dict[str, list[str]], judgements: Judgements) -> tuple[float, int]:
    """The mean over the queries that have a relevant document, and how many those are."""
    scored = [
        ndcg(answers.get(query, []), grades)
        for query, grades in judgements.items()
        if any(grade > 0 for grade in grades.values())
    ]
    return sum(scored) / len(scored), len(scored)


def genctl(*arguments: str | Path) -> list[dict[str, Any]]:
    """Run one command and read the JSON lines that it prints."""
    command = [str(GENCTL), *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return [json.loads(line) for line in done.stdout.splitlines()]


def join(source: Path, target: Path, vectors: Any) -> None:
    """Write ``source`` (JSON Lines) with one vector more a line, in the same order."""
    lines = source.read_text().splitlines()
    with target.open("w") as file:
        for line, vector in zip(lines, vectors.tolist(), strict=True):
            file.write(json.dumps(json.loads(line) | {"vector": vector}) + "\n")


def run_pipeline(scifact: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """From the data to answers: mode → query id → document ids, and what the building took."""
    embeddings = np.load(scifact / EMBEDDINGS)
    corpus, queries = folder / "corpus.jsonl", folder / "queries.jsonl"
    join(scifact / "corpus.jsonl", corpus, embeddings["X"])
    join(scifact / "queries.test.jsonl", queries, embeddings["Q"])
    home, node, store = folder / "writer", folder / "node", folder / "store"
    precomputed = ("--embedder", "precomputed", "--dimensions", str(DIMENSIONS))
    genctl("init", home, "--store", store, *precomputed, "--json")
    genctl("ingest", home, corpus, "--json")
    started = time.perf_counter()
    genctl("build", home, "--json")
    build_s = time.perf_counter() - started
    (released,) = genctl("release", home, "--json")
    genctl("node", "bootstrap", node, "--store", store, "--root", home / "root.json", "--json")
    costs = {
        "documents": released["documents"],
        "bytes": released["bytes"],
        "build_s": round(build_s, 2),
    }
    answers = {
        mode: {
            answer["query_id"]: [hit["id"] for hit in answer["hits"]]
            for answer in genctl("query", node, "--queries", queries, "--mode", mode, "-k", "10")
        }
        for mode in BOUNDS
    }
    return answers, costs


def run(scifact: Path | None = None) -> Outcome:
    """Measure the three modes, or skip where the data is absent."""
    place = scifact or Path(os.environ.get(SCIFACT_VARIABLE) or DEFAULT_SCIFACT)
    if not (place / EMBEDDINGS).exists():
        say(
            f"SKIPPED: nothing was measured, because SciFact is not at {place}; "
            f"{SCIFACT_VARIABLE} or --scifact names another place."
        )
        return Outcome("quality", {"skipped": f"no SciFact at {place}"}, holds=None)
    judgements = read_judgements(place / "qrels.test.tsv")
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as folder:
        answers, costs = run_pipeline(place, Path(folder))
    figures: dict[str, Any] = dict(costs)
    rows: list[list[str]] = []
    holds, judged = True, 0
    for mode, bound in BOUNDS.items():
        score, judged = mean_ndcg(answers[mode], judgements)
        reached = bound.least <= round(score, 4) <= bound.most
        holds = holds and reached
        figures[f"{mode}_ndcg10"] = round(score, 4)
        rows.append([f"{score:.4f}", mode, bound.published, "yes" if reached else "NO"])
    show(
        f"SciFact, {judged} test queries with relevant documents, nDCG@{DEPTH}",
        [("nDCG@10", "right"), ("mode", "left"), ("published", "left"), ("holds", "left")],
        rows,
        [
            "holds: lexical at least 0.661, vector 0.640 to 0.650, hybrid at least 0.695",
            (
                f"{costs['documents']:,} documents, {costs['bytes']:,} bytes, "
                f"`genctl build` {costs['build_s']} s"
            ),
        ],
    )
    return Outcome("quality", figures | {"queries": judged}, holds)


@click.command()
@click.option(
    "--scifact",
    type=click.Path(path_type=Path),
    help=f"The folder with the data; by default ${SCIFACT_VARIABLE} or {DEFAULT_SCIFACT}.",
)
def main(scifact: Path | None) -> None:
    """Measure the quality of search results on SciFact."""
    sys.exit(finish(run(scifact)))


if __name__ == "__main__":
    main()
