"""Large generations made from a seed: a real search index whose documents carry bulk.

Each document has a title and a text of words to be found by, and under ``fields`` a quarter of a
MiB of random bytes in base64: text that the index's compression cannot shorten, so that a
generation's size is the one asked for, within a percent or two. Each build adds one large artifact
(the stored documents) beside the usual small ones.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.corpus import make_corpus
from controller.new_home import init_home
from controller.settings import WriterSettings
from controller.writer import WriterHome

MIB = 1 << 20
PAYLOAD_BYTES = 256 << 10
BUILD_BYTES = 256 * MIB
# tantivy rewrites segments as soon as there are eight of one size.
MAX_BUILDS = 7
COMMIT_DOCUMENTS = 32
EMBEDDER_DIMENSIONS = 64


def make_large_home(
    folder: Path, size_bytes: int, store_urls: Sequence[str], seed: int
) -> WriterHome:
    """A writer's home in ``folder/writer`` whose newest generation has about ``size_bytes``.

    It is built in steps of 256 MiB, or in seven where that gives too many, and nothing is
    published. The same arguments give the same documents. Takes three times ``size_bytes`` on disk
    (log, artifacts, repair symbols and the input of one step) and memory for three steps.
    """
    init_home(
        folder / "writer",
        WriterSettings(
            shard="main",
            stores=tuple(store_urls),
            embedder="hashing",
            dimensions=EMBEDDER_DIMENSIONS,
        ),
    )
    writer = WriterHome(folder / "writer")
    documents = max(1, size_bytes // PAYLOAD_BYTES)
    builds = min(MAX_BUILDS, -(-size_bytes // BUILD_BYTES))
    source = folder / "large.msgpack"
    for step in range(builds):
        write_documents(
            source, range(documents * step // builds, documents * (step + 1) // builds), seed
        )
        writer.ingest([source], format_name="msgpack", commit_size=COMMIT_DOCUMENTS)
        source.unlink()
        writer.build()
    return writer


def write_documents(path: Path, numbers: range, seed: int) -> None:
    """Write the documents of these numbers (at least one) as ``genctl ingest`` reads them."""
    encode = msgspec.msgpack.Encoder().encode
    random = np.random.default_rng([seed, numbers.start])
    words = make_corpus(len(numbers), 0, seed + numbers.start).documents
    with path.open("wb") as file:
        for number, document in zip(numbers, words, strict=True):
            payload = base64.b64encode(random.bytes(PAYLOAD_BYTES * 3 // 4)).decode("ascii")
            file.write(
                encode(
                    {
                        "id": f"large-{number:06d}",
                        "title": document.title,
                        "text": document.text,
                        "fields": {"payload": payload},
                    }
                )
            )
