"""What a build costs over tantivy and usearch alone, from the same documents.

Ours is ``WriterHome.build``: read and check the commit log, write both indexes and the head table,
hash every file, encode repair symbols, verify, open, ask golden queries, seal, make resident, all
of it durably. The other side has the documents in memory, writes both indexes with the same schema,
analyser, memory, threads and quantization, and fsyncs them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import tantivy
from usearch.index import Index

from benchmarks.corpus import DIMENSIONS, Corpus, make_corpus
from benchmarks.harness import Disagreement, Outcome, run_pairs, show
from controller.new_home import init_home
from controller.settings import WriterSettings
from controller.writer import WriterHome
from durable import files

DOCUMENTS = 20_000
SEED = 20_241
PAIRS = 7
MAX_RATIO = 1.25
HEAP_BYTES = 256_000_000
META = "meta.json"
STAGES = ("read the log", "tantivy", "usearch", "heads", "fsync, hash, encode", "verify and seal")

ENDS_IN = {
    ("draft", "lexical"): "tantivy",
    ("draft", "vectors"): "usearch",
    ("draft", "heads"): "heads",
    ("artifacts",): "fsync, hash, encode",
    ("symbols",): "fsync, hash, encode",
    ("generations",): "verify and seal",
}
Stages = dict[str, float]


class Watch:
    """Tells a build's stages apart by the changes to the disk that ``durable`` reports.

    The time up to a change belongs to the stage that ends in such a change. Nothing that is timed
    is touched.
    """

    def __init__(self) -> None:
        self._home: Path | None = None
        self._events: list[tuple[float, tuple[str, ...]]] = []
        files.observe(self._observe)

    def _observe(self, step: str, path: Path) -> None:
        if self._home is not None:
            now = time.perf_counter()
            place = path.relative_to(self._home).parts
            self._events.append((now, ("generations",) if step == "remove" else place))

    def build(self, home: Path) -> tuple[WriterHome, Stages]:
        """Build in ``home`` and say how long each stage took, in seconds."""
        writer = WriterHome(home)
        self._home, self._events = home, []
        started = before = time.perf_counter()
        writer.build()
        self._events.append((time.perf_counter(), ("generations",)))
        self._home = None
        stages: Stages = defaultdict(float)
        for at, place in self._events:
            kind = ENDS_IN.get(place[:1]) or ENDS_IN.get(place[:2], "read the log")
            stages[kind] += at - before
            before = at
        return writer, stages | {"all": before - started}


def build_direct(corpus: Corpus, folder: Path) -> Stages:
    """The two indexes as an engineer writes them; seconds for each."""
    lexical, shard = folder / "lexical", folder / "vectors.usearch"
    lexical.mkdir(parents=True)
    started = time.perf_counter()
    schema = (
        tantivy.SchemaBuilder()
        .add_text_field("id", tokenizer_name="raw", index_option="basic")
        .add_unsigned_field("row", fast=True)
        .add_text_field("body", tokenizer_name="en_stem")
        .add_bytes_field("document", stored=True)
        .build()
    )
    writer = tantivy.Index(schema, path=str(lexical)).writer(HEAP_BYTES, num_threads=0)
    encode = msgspec.msgpack.Encoder().encode
    for row, document in enumerate(corpus.documents):
        entry = tantivy.Document()
        entry.add_text("id", document.id)
        entry.add_unsigned("row", row)
        entry.add_text("body", f"{document.title}\n{document.text}")
        entry.add_bytes("document", encode((document.id, document.title, document.text, {})))
        writer.add_document(entry)
    writer.commit()
    writer.wait_merging_threads()
    _fsync([*lexical.iterdir(), lexical])
    written = time.perf_counter()
    vectors = Index(ndim=DIMENSIONS, metric="cos", dtype="bf16")
    vectors.add(np.arange(len(corpus.vectors), dtype=np.uint64), corpus.vectors)
    vectors.save(str(shard))
    _fsync([shard, folder])
    ended = time.perf_counter()
    return {"tantivy": written - started, "usearch": ended - written, "all": ended - started}


def _fsync(paths: Iterable[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def make_home(corpus: Corpus, folder: Path) -> Path:
    """A writer's home whose log holds ``corpus`` and that has built nothing yet."""
    home = folder / "log-only"
    settings = WriterSettings(
        shard="main", stores=(str(folder / "store"),), embedder="precomputed", dimensions=DIMENSIONS
    )
    init_home(home, settings)
    source = folder / "corpus.msgpack"
    corpus.write(source)
    WriterHome(home).ingest([source], format_name="msgpack", commit_size=1000)
    source.unlink()
    return home


def check_same_work(writer: WriterHome, direct: Path, documents: int) -> None:
    """Both sides must have made the same kind of index over the same number of documents.

    Raises:
        Disagreement: they have not.
    """
    (manifest,) = writer.built()
    ours = writer.residence.folder(manifest.generation_id)
    texts, vectors = [], []
    for lexical, shards in (
        (ours / "lexical", sorted((ours / "vectors").iterdir())),
        (direct / "lexical", [direct / "vectors.usearch"]),
    ):
        index = tantivy.Index.open(str(lexical))
        texts.append(
            (json.loads((lexical / META).read_text())["schema"], index.searcher().num_docs)
        )
        found = [Index.metadata(str(shard)) or {} for shard in shards]
        # The same kind of graph, and as many vectors, in however many shards.
        counts = sum(int(each.pop("count_present")) for each in found)
        kinds = [{key: str(value) for key, value in each.items()} for each in found]
        vectors.append((counts, kinds[0], all(kind == kinds[0] for kind in kinds)))
    if texts[0] != texts[1] or vectors[0] != vectors[1] or texts[0][1] != documents:
        raise Disagreement(f"not the same work: {texts} {vectors}")


def run() -> Outcome:
    """Measure pairs of builds, each in a fresh folder."""
    corpus = make_corpus(DOCUMENTS, 0, SEED)
    watch = Watch()
    ours_stages: list[Stages] = []
    direct_stages: list[Stages] = []
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as name:
        folder = Path(name)
        log_only = make_home(corpus, folder)
        last_direct, last_home = folder / "direct", folder / "home"

        def ours(_: int) -> float:
            shutil.rmtree(last_home, ignore_errors=True)
            shutil.copytree(log_only, last_home)
            os.sync()  # neither side waits for what was written before it
            ours_stages.append(watch.build(last_home)[1])
            return ours_stages[-1]["all"]

        def direct(_: int) -> float:
            shutil.rmtree(last_direct, ignore_errors=True)
            os.sync()
            direct_stages.append(build_direct(corpus, last_direct))
            return direct_stages[-1]["all"]

        run_pairs(1, ours, direct)  # both warm
        check_same_work(WriterHome(last_home), last_direct, DOCUMENTS)
        del ours_stages[:], direct_stages[:]
        pairs = run_pairs(PAIRS, ours, direct)

    low, high = pairs.quartiles
    figures = {
        "documents": DOCUMENTS,
        "ratio": round(pairs.ratio, 3),
        "build_s": round(pairs.ours_median_s, 3),
        "direct_s": round(pairs.other_median_s, 3),
        "added_s": round(pairs.difference_s, 3),
        "stages_s": {stage: round(_median(ours_stages, stage), 3) for stage in STAGES},
        "direct_stages_s": {
            stage: round(_median(direct_stages, stage), 3) for stage in ("tantivy", "usearch")
        },
    }
    rows = [
        [
            f"{_median(ours_stages, stage):.3f}",
            f"{_median(direct_stages, stage):.3f}" if stage in direct_stages[0] else "–",
            stage,
        ]
        for stage in (*STAGES, "all")
    ]
    show(
        f"A build of {DOCUMENTS:,} documents: genctl and the libraries alone",
        [("genctl s", "right"), ("direct s", "right"), ("stage", "left")],
        rows,
        [
            (
                f"ratio {pairs.ratio:.3f}, holds when at most {MAX_RATIO} "
                f"({PAIRS} pairs, middle half {low:.3f}–{high:.3f})"
            ),
            "medians; with genctl, each library's files are fsynced under `fsync, hash, encode`",
        ],
    )
    return Outcome("build", figures, pairs.ratio <= MAX_RATIO)


def _median(stages: list[Stages], stage: str) -> float:
    return median(each[stage] for each in stages)
