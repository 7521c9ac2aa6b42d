"""``genctl demo``: the whole story on real text, told while it happens.

Everything goes through the same homes, store and nodes as the other commands; each step prints the
command line that does the same.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from controller.docstrings import standard_library
from controller.new_home import init_home
from controller.new_node import open_node
from controller.node import BootstrapReport, NodeHome
from controller.settings import WriterSettings
from controller.terminal import plural, progress, size, table
from controller.writer import WriterHome
from index.embedding import DEFAULT_DIMENSIONS
from manifests.errors import HomeOccupied
from manifests.generation import GenerationManifest
from manifests.names import symbol_key
from query.request import Answer, Request
from replicator.plan import FetchPlan
from store.locate import open_store

LATER = ("asyncio", "sqlite3", "tomllib")
"""The packages whose text arrives with the third generation."""
CHANGED = ("json", "pathlib")
REMOVED = ("distutils", "turtle")
QUESTION = "run coroutines concurrently"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one step took."""

    step: str
    took_ms: float
    moved: str


class Demo:
    """The story, step by step, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.console = Console(highlight=False)
        self.costs: list[Cost] = []
        self.writer_folder = folder / "writer"
        self.store_folder = folder / "store"

    def heading(self, text: str, *commands: str) -> None:
        """Announce a step and the commands that do the same."""
        self.console.print()
        self.console.print(Text(text, style="bold"))
        for command in commands:
            self.console.print(Text(f"$ genctl {command}", style="dim"))

    def say(self, text: str) -> None:
        """Tell what happened."""
        self.console.print(Text(f"  {text}"), soft_wrap=False)

    @contextlib.contextmanager
    def costing(self, step: str) -> Iterator[Callable[[str], None]]:
        """Time a step; the function it gives is told what was moved."""
        moved = ""

        def tell(what: str) -> None:
            nonlocal moved
            moved = what

        started = time.perf_counter()
        yield tell
        self.costs.append(Cost(step, (time.perf_counter() - started) * 1000, moved))

    def run(self) -> None:
        """Tell the whole story."""
        documents = self._read_documents()
        base = [d for d in documents if _package(d) not in LATER]
        changes = [
            d | {"text": f"{d['text']}\n\nReviewed for the second generation."}
            for d in base
            if _package(d) in CHANGED
        ]
        changes += [{"id": d["id"], "op": "delete"} for d in base if _package(d) in REMOVED]
        later = [d for d in documents if _package(d) in LATER]

        writer = self._make_writer()
        first = self._release(writer, "base", base)
        self.heading(
            "Two nodes replicate it, checking every chunk",
            "node bootstrap node-a --store store --root writer/root.json",
            "node bootstrap node-b --store store --root writer/root.json",
        )
        nodes = [self._bootstrap(name) for name in ("node-a", "node-b")]
        self._ask(nodes[0], "split a pathname into drive and path")

        self._release(writer, "changes", changes)
        self._damage(writer, writer.built()[-1])
        self.heading(
            "Both nodes catch up from the damaged store",
            "node bootstrap node-a",
            "node bootstrap node-b",
        )
        for name in ("node-a", "node-b"):
            self._bootstrap(name)
        self._fresh_node_from_damage()

        third = self._release(writer, "more", later)
        self.heading(
            "The nodes catch up again: only what is new moves",
            "node bootstrap node-a",
            "node bootstrap node-b",
        )
        for name in ("node-a", "node-b"):
            self._bootstrap(name)

        self._time_travel(nodes[0], first, third)
        self._rollback(writer)
        self._closing()

    def _read_documents(self) -> list[dict[str, Any]]:
        self.heading("Real text: the docstrings of this Python's standard library")
        with self.costing("read the text") as moved, progress("Reading", unit="docs") as start:
            step = start(None)
            documents = []
            for document in standard_library():
                documents.append(document)
                step(1)
            text_bytes = sum(len(d["text"].encode()) for d in documents)
            moved(size(text_bytes))
        self.say(f"{plural(len(documents), 'document')}, {size(text_bytes)} of text")
        return documents

    def _make_writer(self) -> WriterHome:
        self.heading(
            "A writer's home: keys, a commit log, an empty signed record",
            "init writer --store store",
        )
        init_home(
            self.writer_folder,
            WriterSettings(
                shard="docs",
                stores=(open_store(str(self.store_folder), create=True).url,),
                embedder="hashing",
                dimensions=DEFAULT_DIMENSIONS,
            ),
        )
        self.say("give nodes writer/root.json; everything else they check for themselves")
        return WriterHome(self.writer_folder)

    def _release(
        self, writer: WriterHome, name: str, documents: list[dict[str, Any]]
    ) -> GenerationManifest:
        number = len(writer.built()) + 1
        deletes = sum(1 for d in documents if d.get("op") == "delete")
        self.heading(
            f"Generation {number}: {plural(len(documents) - deletes, 'document')}"
            + (f" changed, {deletes} deleted" if deletes else ""),
            f"ingest writer {name}.jsonl",
            "release writer",
        )
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(d) + "\n" for d in documents))
        with (
            self.costing(f"ingest {name}.jsonl") as moved,
            progress("Ingesting", unit="docs") as start,
        ):
            ingested = writer.ingest(
                [path], format_name="jsonl", commit_size=500, progress=start(len(documents))
            )
            moved(plural(ingested.commits, "commit"))
        with self.costing(f"build generation {number}") as moved, progress("Building") as start:
            start(None)
            built = writer.build()
            moved(f"{size(built.report.new_bytes if built.report else 0)} new")
        with self.costing(f"publish generation {number}") as moved, progress("Publishing") as start:
            report = writer.publish(None, start)[-1]
            writer.activate(built.manifest.generation_id)
            moved(f"{size(report.uploaded_bytes)} up")
        manifest = built.manifest
        self.say(f"{manifest.generation_id}, {plural(manifest.counts.documents, 'document')}")
        self.say(
            f"{plural(report.uploaded_artifacts, 'artifact')} uploaded as "
            f"{report.uploaded_objects} symbols, {report.reused_artifacts} already in the store"
        )
        return manifest

    def _bootstrap(self, name: str) -> NodeHome:
        node = open_node(
            self.folder / name, [str(self.store_folder)], self.writer_folder / "root.json"
        )
        step = f"{name} {'catches up' if (node.home / 'active.json').exists() else 'bootstraps'}"
        with self.costing(step) as moved, progress("Fetching") as start:

            def on_plan(plan: FetchPlan) -> Callable[[int], None]:
                return start(plan.fetch_bytes)

            report = node.bootstrap(on_plan)
            moved(f"{size(report.brought.tally.fetched_bytes)} down")
        self.say(f"{name}: {self._told(report)}")
        return node

    @staticmethod
    def _told(report: BootstrapReport) -> str:
        tally, plan = report.brought.tally, report.brought.plan
        told = f"{size(tally.fetched_bytes)} fetched, {size(plan.reuse_bytes)} reused"
        if tally.repaired_chunks:
            told += f"; {plural(tally.repaired_chunks, 'chunk')} rebuilt"
        return told

    def _damage(self, writer: WriterHome, manifest: GenerationManifest) -> None:
        self.heading("Someone damages the store: as many symbols as every artifact can lose")
        store = writer.store()
        deleted = flipped = 0
        for place, artifact in enumerate(manifest.artifacts):
            for number in range(artifact.symbols.m - artifact.symbols.k):
                key = symbol_key(artifact.blake3, number)
                if (place + number) % 2:
                    path = self.store_folder / key
                    data = bytearray(path.read_bytes())
                    data[len(data) // 3] ^= 0xFF
                    path.write_bytes(data)
                    flipped += 1
                else:
                    store.delete(key)
                    deleted += 1
        self.say(f"{deleted} symbols deleted, {flipped} with a flipped byte")

    def _fresh_node_from_damage(self) -> None:
        self.heading(
            "A third node starts from nothing but the damaged store",
            "node bootstrap node-c --store store --root writer/root.json",
        )
        node = self._bootstrap("node-c")
        same = _hits(node, QUESTION) == _hits(NodeHome(self.folder / "node-a"), QUESTION)
        self.say(f"it answers exactly as node-a does: {'yes' if same else 'NO'}")

    def _ask(self, node: NodeHome, question: str) -> None:
        self.heading("A query", f'query node-a "{question}"')
        answer = node.query(node.reader(), Request(text=question, limit=3))
        self._show(answer)

    def _show(self, answer: Answer) -> None:
        for hit in answer.hits:
            self.console.print(
                Text(f"  {hit.score:.4f}  {hit.title}"), no_wrap=True, overflow="ellipsis"
            )
        self.say(f"{answer.mode}, {answer.took_ms:.1f} ms, from {answer.generation_id}")

    def _time_travel(
        self, node: NodeHome, first: GenerationManifest, third: GenerationManifest
    ) -> None:
        then, now = first.commits.high_seq, third.commits.high_seq
        self.heading(
            f"Time travel: the same question as of commit {then} and now",
            f'query node-a "{QUESTION}" --as-of-commit-seq {then}',
        )
        reader = node.reader()
        request = Request(text=QUESTION, limit=5)
        past = node.query(reader, request, as_of_commit_seq=then)
        present = node.query(reader, request)
        table(
            [(f"as of commit {then}", "left"), (f"now, commit {now}", "left")],
            [
                [_short(a), _short(b)]
                for a, b in zip(
                    [h.id for h in past.hits], [h.id for h in present.hits], strict=True
                )
            ],
        )

    def _rollback(self, writer: WriterHome) -> None:
        reason = "the new text is not reviewed yet"
        self.heading(
            "A rollback: a newer record that names an older generation",
            f'rollback writer --reason "{reason}"',
            "node bootstrap node-a",
            "node bootstrap node-b",
        )
        with self.costing("roll back the record") as moved:
            target = writer.rollback(None, reason)
            moved("1 record")
        self.say(f"the record now names {target}")
        for name in ("node-a", "node-b"):
            self._bootstrap(name)

    def _closing(self) -> None:
        self.heading("What each step cost")
        table(
            [("took", "right"), ("moved", "right"), ("step", "left")],
            [[f"{cost.took_ms:,.0f} ms", cost.moved, cost.step] for cost in self.costs],
        )
        self.say("No process was started and none is left; README.md goes on from here.")


def run(keep: Path | None) -> None:
    """Run the demo in ``keep``, or in a folder that is removed at the end.

    Raises:
        HomeOccupied: ``keep`` is not empty.
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="genctl-demo-") as folder:
            Demo(Path(folder)).run()
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise HomeOccupied(f"{keep} is not empty; name a new folder")
    Demo(keep).run()


def _package(document: dict[str, Any]) -> str:
    name: str = document["id"]
    return name.partition(".")[0]


def _short(identity: str) -> str:
    return identity if len(identity) <= 36 else f"{identity[:35]}…"


def _hits(node: NodeHome, question: str) -> list[tuple[str, float]]:
    answer = node.query(node.reader(), Request(text=question))
    return [(hit.id, hit.score) for hit in answer.hits]
