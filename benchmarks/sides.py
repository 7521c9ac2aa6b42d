"""The two sides of ``benchmarks.versions``: genctl, and LanceDB in processes of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import lance_side
from benchmarks.corpus import DIMENSIONS, Query
from benchmarks.harness import Disagreement, seconds
from benchmarks.served import program
from controller.new_home import init_home
from controller.new_node import open_node
from controller.node import NodeHome
from controller.settings import WriterSettings
from controller.writer import WriterHome
from query.reader import Reader
from query.request import Request

COMMIT_DOCUMENTS = 1_000
HALVES = ("vector", "text")


class File(NamedTuple):
    """A file as it is on disk, whatever other names it has."""

    path: Path
    modified_ns: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step of a change took in seconds, and the new bytes that it left on disk."""

    took_s: float
    new_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What reading an old version took, medians in seconds, and the ids that each query found.

    Attributes:
        whole_s: a process that opens it and answers one query of either kind.
        anew_s: the same in a process that has done it before.
        vector_s: a query by vector of the version that is open.
        text_s: a query by text.
        by_vector: ten ids a query, best first.
        by_text: up to ten ids a query.
    """

    whole_s: float
    anew_s: float
    vector_s: float
    text_s: float
    by_vector: list[list[str]]
    by_text: list[list[str]]


class Lance:
    """A table of LanceDB's. Each action is a process; ``benchmarks.lance_side`` tells which."""

    def __init__(self, python: str, folder: Path, index: str) -> None:
        self._python = python
        self._folder = folder
        self._index = index
        self._first_version = 0

    def do(self, action: str, *arguments: object) -> Any:
        """Do one thing, and give what it printed.

        Raises:
            Disagreement: it failed.
            OSError: there is no such Python.
        """
        command = [self._python, "-P", lance_side.__file__, action, *map(str, arguments)]
        return json.loads(_run(command))

    def build(self, rows: Path) -> Cost:
        """The first version."""
        built = self.do("build", self._folder, rows, self._index)
        self._first_version = built["version"]
        return Cost(built["took_s"], _new_bytes({}, self._folder))

    def whole(self, rows: Path) -> list[Cost]:
        """A new version by two processes: added, then optimized."""
        return [
            _cost(self._folder, lambda: self.do("add", self._folder, rows)),
            _cost(self._folder, lambda: self.do("optimize", self._folder)),
        ]

    def inside(self, rows: Sequence[Path]) -> list[list[Cost]]:
        """The same for several in one process."""
        taken_s = self.do("changes", self._folder, *rows)
        pairs = zip(taken_s["add"], taken_s["optimize"], strict=True)
        return [[Cost(each) for each in pair] for pair in pairs]

    def ask(self, one: Path, many: Path, times: int) -> Asked:
        """Open the first version and answer."""
        line = ("ask", self._folder, self._first_version)
        whole_s = median(seconds(lambda: self.do(*line, one)) for _ in range(times))
        found = self.do(*line, many)
        anew_s, vector_s, text_s = (median(found[f"{each}_s"]) for each in ("anew", *HALVES))
        return Asked(whole_s, anew_s, vector_s, text_s, *(found[each] for each in HALVES))


class Ours:
    """A writer, a folder store, and a node."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        settings = WriterSettings(
            shard="main",
            stores=(str(folder / "store"),),
            embedder="precomputed",
            dimensions=DIMENSIONS,
        )
        init_home(folder / "writer", settings)
        self._writer = WriterHome(folder / "writer")
        self._node = open_node(folder / "node", settings.stores, folder / "writer" / "root.json")
        self._first_seq = 0

    def build(self, source: Path) -> list[Cost]:
        """The first version, in the steps of :meth:`inside`."""
        costs = self.inside(source)
        self._first_seq = self._node.pointer().active.high_seq
        return costs

    def whole(self, source: Path) -> list[Cost]:
        """A new version by commands: built, published and active, on the node."""
        home, node = self._folder / "writer", self._folder / "node"

        def build() -> None:
            _genctl("ingest", home, source, "--commit-size", COMMIT_DOCUMENTS)
            _genctl("build", home)

        return [
            _cost(self._folder, build),
            _cost(self._folder, lambda: _genctl("release", home)),
            _cost(self._folder, lambda: _genctl("node", "bootstrap", node)),
        ]

    def inside(self, source: Path) -> list[Cost]:
        """The same by calls in this process."""
        steps = (lambda: self._build(source), self._release, self._node.bootstrap)
        return [_cost(self._folder, step) for step in steps]

    def ask(self, one: Path, queries: Sequence[Query], hits: int, times: int) -> Asked:
        """Open the first version on the node, which has it, and answer."""
        node, as_of = self._folder / "node", f"--as-of-commit-seq={self._first_seq}"
        whole_s = median(
            seconds(lambda: _genctl("query", node, "--queries", one, as_of)) for _ in range(times)
        )
        by_vector = [Request(vector=query.vector, limit=hits) for query in queries]
        by_text = [Request(text=query.text, mode="lexical", limit=hits) for query in queries]

        def find(home: NodeHome, reader: Reader, request: Request) -> list[str]:
            answer = home.query(reader, request, as_of_commit_seq=self._first_seq)
            return [hit.id for hit in answer.hits]

        def open_anew(number: int) -> None:
            home = NodeHome(node)
            reader = home.reader()
            find(home, reader, by_vector[number])
            find(home, reader, by_text[number])

        home = NodeHome(node)
        reader = home.reader()
        found: list[tuple[float, list[str]]] = []
        for request in (*by_vector, *by_text):
            ids: list[list[str]] = []
            taken_s = seconds(lambda: ids.append(find(home, reader, request)))  # noqa: B023
            found.append((taken_s, ids[0]))
        vector, text = found[: len(queries)], found[len(queries) :]
        openings = range(lance_side.OPENINGS)
        return Asked(
            whole_s,
            median(seconds(lambda: open_anew(number)) for number in openings),  # noqa: B023
            median(taken_s for taken_s, _ in vector),
            median(taken_s for taken_s, _ in text),
            [ids for _, ids in vector],
            [ids for _, ids in text],
        )

    def _build(self, source: Path) -> None:
        self._writer.ingest([source], format_name="msgpack", commit_size=COMMIT_DOCUMENTS)
        self._writer.build()

    def _release(self) -> None:
        newest = self._writer.residence.resident_ids()[-1]
        self._writer.publish(newest)
        self._writer.activate(newest)


def _genctl(*arguments: object) -> None:
    _run([str(program("genctl")), *map(str, arguments)])


def _run(command: Sequence[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Disagreement(f"{' '.join(command)}: {ended.stderr[-500:]}")
    return ended.stdout


def _cost(folder: Path, step: Callable[[], object]) -> Cost:
    before = _files(folder)
    took_s = seconds(step)
    return Cost(took_s, _new_bytes(before, folder))


def _new_bytes(before: Mapping[int, File], folder: Path) -> int:
    """The bytes of files that were not there, or are others now, and what was appended."""
    new_bytes = 0
    for inode, file in _files(folder).items():
        known = before.get(inode)
        if known is None or known.path != file.path or known.size_bytes > file.size_bytes:
            is_same = known is not None and known.modified_ns == file.modified_ns
            new_bytes += 0 if is_same else file.size_bytes
        else:
            new_bytes += file.size_bytes - known.size_bytes
    return new_bytes


def _files(folder: Path) -> dict[int, File]:
    """Every file once, by its inode."""
    found: dict[int, File] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            entry = path.stat()
            found.setdefault(entry.st_ino, File(path, entry.st_mtime_ns, entry.st_size))
    return found
