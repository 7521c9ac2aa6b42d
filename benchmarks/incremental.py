"""What a small change costs to build and publish, in a small corpus and in one nine times as large.

Two homes, of 20,000 and of 180,000 documents with vectors of 384 dimensions kept as bf16, are built
from scratch and published to a folder. Then both get the same changes, one after the other: 200
documents, half of them new and half replaced. The large one gets a change of one percent as well.
Merges are not part of any of this: what is due is done by ``compact`` at the end, and reported.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.corpus import DIMENSIONS, Corpus, make_corpus
from benchmarks.harness import Outcome, run_pairs, seconds, show
from commits.documents import Upsert
from controller import clock
from controller.compaction import compact
from controller.new_home import init_home
from controller.settings import MergeSettings, WriterSettings
from controller.writer import WriterHome

SMALL, LARGE = 20_000, 180_000
CHANGED = 200
CHANGES = 8
"""Of these the first is not counted: it warms up."""
ONE_PERCENT = LARGE // 100
COMMIT_DOCUMENTS = 1_000
SEED = 20_05
MAX_SHARE_PERCENT = 3.0
EVENNESS = 0.3


@dataclass(frozen=True, slots=True)
class Cost:
    """What one build and publish took: seconds, artifact bytes written, symbol bytes sent."""

    build_s: float
    publish_s: float
    new_bytes: int
    sent_bytes: int

    @property
    def total_s(self) -> float:
        return self.build_s + self.publish_s


class Home:
    """A writer's home whose first documents are the corpus, and what its changes cost."""

    def __init__(self, folder: Path, corpus: Corpus, documents: int) -> None:
        settings = WriterSettings(
            shard="main",
            stores=(str(folder / "store"),),
            embedder="precomputed",
            dimensions=DIMENSIONS,
        )
        init_home(folder / "home", settings)
        self.writer = WriterHome(folder / "home")
        self._corpus = corpus
        self._documents = documents
        self._next = LARGE
        self.costs: list[Cost] = []
        self._commit(range(documents), range(documents))
        self.base = self._release()

    def change(self, documents: int, seed: int) -> float:
        """Commit, build and publish a change of so many documents; how long the last two took."""
        new = range(self._next, self._next + documents // 2)
        self._next = new.stop
        chance = np.random.default_rng([SEED, seed])
        replaced = chance.choice(self._documents, documents // 2, replace=False).tolist()
        contents = [*new, *chance.choice(SMALL, documents // 2, replace=False).tolist()]
        self._commit([*new, *replaced], contents)
        self.costs.append(self._release())
        return self.costs[-1].total_s

    def _commit(self, names: Sequence[int], contents: Sequence[int]) -> None:
        """Append documents of these numbers, with the words and vectors of those."""
        made = [
            Upsert(
                f"document-{name:06d}",
                title=self._corpus.documents[content].title,
                text=self._corpus.documents[content].text,
                vector=self._corpus.vectors[content].astype("<f4").tobytes(),
            )
            for name, content in zip(names, contents, strict=True)
        ]
        with self.writer.exclusively("ingest"), self.writer.log() as log:
            for start in range(0, len(made), COMMIT_DOCUMENTS):
                log.append(
                    made[start : start + COMMIT_DOCUMENTS],
                    message_id="",
                    source="benchmark",
                    now_ms=clock.now_ms(),
                )

    def _release(self) -> Cost:
        sent_bytes: list[int] = []
        build_s = seconds(self.writer.build)
        manifest = self.writer.manifest(self.writer.residence.resident_ids()[-1])
        publish_s = seconds(
            lambda: sent_bytes.extend(
                report.uploaded_bytes for report in self.writer.publish(manifest.generation_id)
            )
        )
        parent_id = manifest.commits.parent_generation_id
        before = (
            {each.blake3 for each in self.writer.manifest(parent_id).artifacts}
            if parent_id
            else set()
        )
        return Cost(
            build_s,
            publish_s,
            sum(each.size_bytes for each in manifest.artifacts if each.blake3 not in before),
            sum(sent_bytes),
        )


def row(name: str, cost: Cost) -> list[str]:
    """One line of the table."""
    return [
        name,
        f"{cost.build_s:.2f}",
        f"{cost.publish_s:.2f}",
        f"{cost.new_bytes:,}",
        f"{cost.sent_bytes:,}",
    ]


def middle(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(
        median(cost.build_s for cost in costs),
        median(cost.publish_s for cost in costs),
        int(median(cost.new_bytes for cost in costs)),
        int(median(cost.sent_bytes for cost in costs)),
    )


def run() -> Outcome:
    """Build both homes, change them in turns, compare."""
    extra = CHANGED * CHANGES + ONE_PERCENT
    corpus = make_corpus(LARGE + extra, 1, SEED)
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as name:
        homes = []
        for documents in (SMALL, LARGE):
            (Path(name) / str(documents)).mkdir()
            homes.append(Home(Path(name) / str(documents), corpus, documents))
        small, large = homes
        for home in homes:
            home.change(CHANGED, 0)
        pairs = run_pairs(
            CHANGES - 1,
            lambda number: large.change(CHANGED, number + 1),
            lambda number: small.change(CHANGED, number + 1),
        )
        on_small, on_large = middle(small.costs[1:]), middle(large.costs[1:])
        large.change(ONE_PERCENT, CHANGES)
        one_percent = large.costs[-1]

        def unwatched(_: int) -> None:
            pass

        merges = MergeSettings(shards=8)
        large.writer.settings = large.writer.settings.model_copy(update={"merges": merges})
        merged_bytes: list[int] = []
        compact_s = seconds(
            lambda: merged_bytes.append(
                compact(large.writer, None, send=False, on_start=lambda _: unwatched).written_bytes
            )
        )
    share_percent = 100 * one_percent.total_s / large.base.total_s
    bytes_ratio = on_large.new_bytes / on_small.new_bytes
    sent_ratio = on_large.sent_bytes / on_small.sent_bytes
    even = all(abs(ratio - 1) <= EVENNESS for ratio in (pairs.ratio, bytes_ratio, sent_ratio))
    holds = even and share_percent <= MAX_SHARE_PERCENT
    show(
        "Build and publish, documents with 384 dimensions as bf16, folder store",
        [
            ("", "left"),
            ("build s", "right"),
            ("publish s", "right"),
            ("written", "right"),
            ("sent", "right"),
        ],
        [
            row(f"{SMALL:,} from scratch", small.base),
            row(f"{LARGE:,} from scratch", large.base),
            row(f"{CHANGED} changed of {SMALL:,}, median", on_small),
            row(f"{CHANGED} changed of {LARGE:,}, median", on_large),
            row(f"{ONE_PERCENT:,} changed of {LARGE:,}", one_percent),
            [
                "merging the small parts of that",
                f"{compact_s:.2f}",
                "",
                f"{sum(merged_bytes):,}",
                "",
            ],
        ],
        [
            f"one percent takes {share_percent:.2f} % of a build from scratch (bound: 3 %)",
            f"{CHANGED} documents in {LARGE:,}, against {SMALL:,} (bound of each: 0.7 to 1.3):",
            f"  {pairs.ratio:.2f} the time, {bytes_ratio:.2f} written, {sent_ratio:.2f} sent",
            "vectors are not computed but come with the documents; ingest is not counted",
        ],
    )
    return Outcome(
        "incremental",
        {
            "scratch_s": round(large.base.total_s, 2),
            "one_percent_s": round(one_percent.total_s, 3),
            "one_percent_share_percent": round(share_percent, 2),
            "small_change_s": round(on_small.total_s, 3),
            "large_change_s": round(on_large.total_s, 3),
            "time_ratio": round(pairs.ratio, 3),
            "bytes_ratio": round(bytes_ratio, 3),
            "sent_ratio": round(sent_ratio, 3),
            "small_change_bytes": on_small.new_bytes,
            "large_change_bytes": on_large.new_bytes,
            "compact_s": round(compact_s, 2),
            "compact_bytes": sum(merged_bytes),
        },
        holds,
    )
