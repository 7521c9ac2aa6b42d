"""LanceDB's side of ``benchmarks.versions``; run by a Python that has LanceDB, not genctl perhaps.

``python lance_side.py ACTION …`` does one thing and prints one JSON object::

    version
    build FOLDER ROWS INDEX     a table, its text index, its vector index (hnsw) or none (scan)
    add FOLDER ROWS             a new version that has these rows as well
    optimize FOLDER             the new rows go into the indexes, small files into larger ones
    changes FOLDER ROWS …       both, for each of them in turn
    ask FOLDER VERSION ROWS     open that version and answer the queries in ROWS

ROWS is an ``.npz`` file with ``ids``, ``texts`` and unit ``vectors`` (float32, shape (n, 384)).
Times are in seconds and do not have the importing of LanceDB in them.

Tuned as LanceDB's documentation advises (https://docs.lancedb.com/performance): a text index
without positions of words, and with genctl's analyser; a vector index of one partition at this
size, or none at all below some 100,000 rows; ``optimize`` now and then and not after each change.
Vectors are kept in 16 bits, as genctl's are.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

TABLE = "documents"
HITS = 10
OPENINGS = 15
EFFORT = 128
"""How many candidates a search of the vector index keeps; genctl's own is of this size."""


def _rows(path: str) -> Any:
    """The rows of a file as an Arrow table."""
    arrow = import_module("pyarrow")
    with np.load(path) as rows:
        vectors = rows["vectors"].astype(np.float16)
        column = arrow.FixedSizeListArray.from_arrays(
            arrow.array(vectors.reshape(-1)), vectors.shape[1]
        )
        return arrow.table(
            {"id": rows["ids"].tolist(), "text": rows["texts"].tolist(), "vector": column}
        )


def _table(folder: str) -> Any:
    return _lancedb().connect(folder).open_table(TABLE)


def _lancedb() -> Any:
    return import_module("lancedb")


def build(folder: str, rows: str, index: str) -> dict[str, Any]:
    indexes = import_module("lancedb.index")
    data = _rows(rows)
    started = time.perf_counter()
    table = _lancedb().connect(folder).create_table(TABLE, data)
    table.create_index(
        "text",
        config=indexes.FTS(
            with_position=False, stem=True, remove_stop_words=False, ascii_folding=False
        ),
    )
    if index == "hnsw":
        table.create_index(
            "vector", config=indexes.HnswSq(distance_type="cosine", num_partitions=1)
        )
    return {"took_s": time.perf_counter() - started, "version": table.version}


def add(folder: str, rows: str) -> dict[str, Any]:
    data = _rows(rows)
    return _changed(folder, lambda table: table.add(data))


def optimize(folder: str) -> dict[str, Any]:
    return _changed(folder, lambda table: table.optimize())


def changes(folder: str, *rows: str) -> dict[str, Any]:
    taken_s: dict[str, list[float]] = {"add": [], "optimize": []}
    for each in rows:
        taken_s["add"].append(add(folder, each)["took_s"])
        taken_s["optimize"].append(optimize(folder)["took_s"])
    return taken_s


def ask(folder: str, version: str, rows: str) -> dict[str, Any]:
    """Answer each query by vector, then each by text; then open the version anew a few times."""
    with np.load(rows) as queries:
        vectors, texts = queries["vectors"], queries["texts"].tolist()
    _lancedb()
    table = _opened(folder, version)
    found: dict[str, Any] = {}
    for name, search, asked in (("vector", _by_vector, vectors), ("text", _by_text, texts)):
        found[name], found[f"{name}_s"] = [], []
        for each in asked:
            began = time.perf_counter()
            found[name].append(search(table, each))
            found[f"{name}_s"].append(time.perf_counter() - began)
    found["anew_s"] = []
    for vector, text in list(zip(vectors, texts, strict=True))[:OPENINGS]:
        began = time.perf_counter()
        table = _opened(folder, version)
        _by_vector(table, vector)
        _by_text(table, text)
        found["anew_s"].append(time.perf_counter() - began)
    return found


def _changed(folder: str, change: Callable[[Any], object]) -> dict[str, Any]:
    _lancedb()
    started = time.perf_counter()
    table = _table(folder)
    change(table)
    return {"took_s": time.perf_counter() - started, "version": table.version}


def _opened(folder: str, version: str) -> Any:
    table = _table(folder)
    table.checkout(int(version))
    return table


def _by_vector(table: Any, vector: Any) -> list[str]:
    query = table.search(vector, vector_column_name="vector").distance_type("cosine").ef(EFFORT)
    return _ids(query.select(["id", "_distance"]))


def _by_text(table: Any, text: str) -> list[str]:
    query = table.search(text, query_type="fts", fts_columns="text")
    return _ids(query.select(["id", "_score"]))


def _ids(query: Any) -> list[str]:
    found: list[str] = query.limit(HITS).to_arrow()["id"].to_pylist()
    return found


def version() -> dict[str, Any]:
    return {"lancedb": _lancedb().__version__}


if __name__ == "__main__":
    actions: dict[str, Any] = {
        each.__name__: each for each in (version, build, add, optimize, changes, ask)
    }
    print(json.dumps(actions[sys.argv[1]](*sys.argv[2:])))
