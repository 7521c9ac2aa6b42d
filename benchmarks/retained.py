"""What a thousand retained generations cost those who look at them.

Each is a real one: a commit of one document, built, published to a folder and signed. Then, as
whole commands: the list of generations, and the plan of a collection. In one process, on a node
that has the oldest ones and the newest: a refresh and a bootstrap that find nothing new, and a
query of the oldest that chooses, verifies and opens it anew. Reported beside that: what the first
such query of a process takes, and what a publish costs, which grows with the record that it signs.
"""

from __future__ import annotations

import functools
import gc
import json
import multiprocessing
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.harness import Disagreement, Outcome, seconds, show
from benchmarks.served import columns, program
from benchmarks.trust import MANY, MAX_REFRESH_MS, refresh_ms
from controller.new_home import init_home
from controller.new_node import open_node
from controller.node import NodeHome
from controller.settings import WriterSettings
from controller.terminal import say
from controller.writer import WriterHome
from query.request import Request

DIMENSIONS = 64
MAX_LIST_S = 1.0
MAX_PLAN_S = 5.0
MAX_OPEN_MS = 50.0
MAX_BOOTSTRAP_MS = 150.0
HELD = 128
"""How many generations the node has; what it does with nothing new must not grow with them."""
COMMANDS = 5
OPENINGS = 31
COMPARED = 20
"""Of so many publishes, the first and the last, the median is reported."""
REPORTED_EVERY = 100


@dataclass(frozen=True, slots=True)
class Kept:
    """A writer that retains many generations, and a node with the oldest ones and the newest."""

    writer: WriterHome
    node: NodeHome
    publish_s: list[float]


@dataclass(frozen=True, slots=True)
class Opened:
    """What opening the oldest generation takes: the first time, and the median after that."""

    first_ms: float
    again_ms: float


def _keep(folder: Path, count: int) -> Kept:
    settings = WriterSettings(
        shard="main", stores=(str(folder / "store"),), embedder="hashing", dimensions=DIMENSIONS
    )
    init_home(folder / "writer", settings)
    writer = WriterHome(folder / "writer")
    node = open_node(folder / "node", settings.stores, folder / "writer" / "root.json")
    source = folder / "commit.jsonl"
    publish_s = []
    for number in range(1, count + 1):
        document = {"id": f"d{number}", "text": f"word{number} among the common text"}
        source.write_text(json.dumps(document) + "\n", "utf-8")
        writer.ingest([source], format_name="jsonl", commit_size=1)
        generation_id = writer.build().manifest.generation_id
        publish_s.append(seconds(functools.partial(writer.publish, generation_id)))
        if number < HELD or number == count:
            writer.activate(generation_id)
            node.bootstrap()
        if number % REPORTED_EVERY == 0:
            say(f"  {number:,} of {count:,} generations published")
    return Kept(writer, node, publish_s)


def _command_s(*arguments: object) -> float:
    """How long a command takes from start to end: the median of several."""
    command = [str(program("genctl")), *map(str, arguments)]

    def run_it() -> None:
        ended = subprocess.run(command, capture_output=True, check=False)
        if ended.returncode:
            raise Disagreement(f"{command}: {ended.stderr[-500:].decode()}")

    return median(seconds(run_it) for _ in range(COMMANDS))


def _open(node: NodeHome, count: int) -> Opened:
    """A query of the oldest generation, which no reader has open yet."""
    request = Request(text="common", mode="lexical")

    def ask() -> None:
        answer = node.query(node.reader(), request, as_of_commit_seq=1)
        if (
            answer.commit_seq != 1
            or len(answer.hits) != 1
            or node.pointer().active.high_seq != count
        ):
            raise Disagreement("the oldest generation was not what answered")

    first_s = seconds(ask)
    return Opened(1_000 * first_s, 1_000 * median(seconds(ask) for _ in range(OPENINGS)))


def _first_open_ms(home: Path, count: int) -> float:
    """The first query of the oldest generation in a process of its own, which imported the rest."""
    context = multiprocessing.get_context("spawn")
    first_ms = []
    for _ in range(COMMANDS):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            first_ms.append(pool.submit(_opened_at, home, count).result().first_ms)
    return median(first_ms)


def _opened_at(home: Path, count: int) -> Opened:
    return _open(NodeHome(home), count)


def run() -> Outcome:
    """Make them, then look at them in each of these ways."""
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as name:
        made_s: list[Kept] = []
        whole_s = seconds(lambda: made_s.append(_keep(Path(name), MANY)))
        [kept] = made_s
        home = kept.writer.home
        retained = len(kept.node.record().retained)
        if retained != MANY:
            raise Disagreement(f"{retained} generations are retained, not {MANY}")
        # A node's process has not made a thousand generations: what that left in memory would be
        # looked through again and again while this one reads the record.
        gc.collect()
        gc.freeze()
        list_s = _command_s("generations", home)
        plan_s = _command_s("gc", home, "--dry-run")
        refreshed_ms = refresh_ms(kept.node)
        held = len(kept.node.residence.resident_ids())
        if held != HELD:
            raise Disagreement(f"the node has {held} generations, not {HELD}")
        followed_ms = 1_000 * median(seconds(kept.node.bootstrap) for _ in range(COMMANDS))
        opened_ms = _open(kept.node, MANY).again_ms
        first_opened_ms = _first_open_ms(kept.node.home, MANY)
    first_ms = 1_000 * median(kept.publish_s[:COMPARED])
    last_ms = 1_000 * median(kept.publish_s[-COMPARED:])
    show(
        f"{MANY:,} retained generations in a folder store, medians",
        columns("ms", "below", "what"),
        [
            [f"{1_000 * list_s:.0f}", f"{1_000 * MAX_LIST_S:.0f}", "`genctl generations`, whole"],
            [f"{1_000 * plan_s:.0f}", f"{1_000 * MAX_PLAN_S:.0f}", "`genctl gc --dry-run`, whole"],
            [f"{refreshed_ms:.1f}", f"{MAX_REFRESH_MS[MANY]:.0f}", "refresh, nothing new"],
            [f"{followed_ms:.1f}", f"{MAX_BOOTSTRAP_MS:.0f}", "bootstrap, nothing new"],
            [f"{opened_ms:.1f}", f"{MAX_OPEN_MS:.0f}", "a query of the oldest, opened anew"],
            [f"{first_opened_ms:.1f}", "", "the same, the first query of a process"],
            [f"{first_ms:.0f}", "", f"publishing one of the first {COMPARED}"],
            [f"{last_ms:.0f}", "", f"publishing one of the last {COMPARED}"],
        ],
        [
            f"made in {whole_s:.0f} s; commands run {COMMANDS} times, the query {OPENINGS} times",
            f"the node has {HELD} of them; files are in the page cache",
            "a query reads the signed record, verifies and opens the files; the first of a process",
            "also checks signatures and loads libraries, which those after it do not",
        ],
    )
    figures = {
        "generations": MANY,
        "list_s": round(list_s, 3),
        "plan_s": round(plan_s, 3),
        "refresh_ms": round(refreshed_ms, 1),
        "held": held,
        "bootstrap_ms": round(followed_ms, 1),
        "open_oldest_ms": round(opened_ms, 1),
        "open_oldest_first_ms": round(first_opened_ms, 1),
        "publish_first_ms": round(first_ms, 1),
        "publish_last_ms": round(last_ms, 1),
    }
    holds = (
        list_s < MAX_LIST_S
        and plan_s < MAX_PLAN_S
        and refreshed_ms <= MAX_REFRESH_MS[MANY]
        and followed_ms <= MAX_BOOTSTRAP_MS
        and opened_ms <= MAX_OPEN_MS
    )
    return Outcome("retained", figures, holds)
