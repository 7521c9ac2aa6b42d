"""What publishing to S3 costs over ``s5cmd cp`` of the same bytes to the same server.

Ours is the command ``genctl publish`` in a process of its own: check every byte against the
manifest, send every symbol with a conditional PUT, sign, and move the record. The other side is
``s5cmd cp`` of a folder that holds exactly those symbols, with s5cmd's own settings; it checks and
signs nothing. Each pair has a fresh Ceph gateway that keeps its objects in memory, so that no run
pays for the garbage of another.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Disagreement, Outcome, Pairs, seconds, show
from benchmarks.large import MIB, make_large_home
from benchmarks.served import program
from builder.shelf import Shelf
from controller import settings
from controller.settings import WriterSettings
from controller.terminal import say
from controller.writer import WriterHome
from manifests.names import symbol_key
from store.folder import FolderStore
from store.locate import open_store
from tests.support.ceph import missing_programs, running_ceph
from tests.support.s3_server import S3Server

SIZE_BYTES = 1024 * MIB
SERVER_BYTES = 4096 * MIB
SEED = 20_243
PAIRS = 5
MAX_RATIO = 1.6
OURS, THEIRS = "ours", "theirs"


class Bench:
    """A built generation in ``folder``, and its symbols as plain files for the other side."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        writer = make_large_home(folder, SIZE_BYTES, [str(folder / "store")], SEED)
        self.manifest = writer.built()[-1]
        self._home = writer.home
        self._settings: WriterSettings = writer.settings
        self._symbols = folder / "symbols"
        shelf = Shelf(writer.home / "symbols", writer.residence, len(writer.settings.stores))
        for manifest in writer.built():
            for artifact in manifest.artifacts:
                encoded = shelf.take(artifact)
                for number in range(encoded.geometry.m):
                    path = self._symbols / symbol_key(artifact.blake3, number)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("wb") as file:
                        file.writelines(shelf.object_parts(artifact, encoded, number))
        sizes = [path.stat().st_size for path in self._symbols.rglob("*") if path.is_file()]
        self.objects, self.size_bytes = len(sizes), sum(sizes)
        self._unpublished = folder / "unpublished"
        _copy(self._home, self._unpublished)

    def pair(self, number: int, pairs: Pairs) -> None:
        """Time both sides on a server of their own; who goes first alternates with ``number``."""
        home = self._folder / f"server-{number}"
        with running_ceph(home, SERVER_BYTES) as server:
            url = self._prepare(server)
            environment = {**os.environ, **server.environment}

            def ours(_: int) -> float:
                return self._timed(["genctl", "publish", str(self._home)], environment)

            def theirs(_: int) -> float:
                source, target = f"{self._symbols}/", f"s3://{THEIRS}/"
                at = ["--endpoint-url", server.endpoint, "--log", "error"]
                return self._timed(["s5cmd", *at, "cp", source, target], environment)

            sides: tuple[Callable[[int], float], ...] = (ours, theirs)
            first, second = sides if number % 2 else sides[::-1]
            timed = {first: first(number)}
            timed[second] = second(number)
            pairs.ours_s.append(timed[ours])
            pairs.other_s.append(timed[theirs])
            self._check(server, url)
        shutil.rmtree(home)

    def _prepare(self, server: S3Server) -> str:
        """A home as if ``genctl init`` had been given the server, and nothing was sent yet."""
        server.client.create_bucket(Bucket=THEIRS)
        url = server.bucket(OURS)
        initial = FolderStore(self._folder / "store")
        os.environ.update(server.environment)
        store = open_store(url)
        for info in initial.list(""):
            store.put_if_absent(info.key, [initial.get(info.key, length=info.size_bytes)])
        shutil.rmtree(self._home)
        _copy(self._unpublished, self._home)
        changed = self._settings.model_copy(update={"stores": (url,)})
        settings.save(self._home / settings.WRITER_FILE, changed)
        return url

    def _timed(self, command: list[str], environment: dict[str, str]) -> float:
        os.sync()
        line = [str(program(command[0])), *command[1:]]
        return seconds(
            lambda: subprocess.run(line, env=environment, check=True, stdout=subprocess.DEVNULL)
        )

    def _check(self, server: S3Server, url: str) -> None:
        pages = server.client.get_paginator("list_objects_v2")
        theirs = {
            found["Key"]: found["Size"]
            for page in pages.paginate(Bucket=THEIRS)
            for found in page.get("Contents", ())
        }
        ours = {info.key: info.size_bytes for info in open_store(url).list("symbols/")}
        if ours != theirs or len(ours) != self.objects:
            raise Disagreement(
                f"{len(ours)} symbols were published, {len(theirs)} copied, {self.objects} expected"
            )
        active = WriterHome(self._home).current().signed.record.published[-1].generation_id
        if active != self.manifest.generation_id:
            raise Disagreement(f"{active} is the newest published, not what was built")


def _copy(home: Path, target: Path) -> None:
    """Copy a home; what is large in it never changes, and gets a second name."""

    def copy(source: str, into: str) -> None:
        (os.link if Path(source).stat().st_size >= MIB else shutil.copy2)(source, into)

    shutil.copytree(home, target, copy_function=copy)


def run() -> Outcome:
    """Measure pairs, each on a fresh server."""
    missing = [*missing_programs(), *(["s5cmd"] if program("s5cmd") is None else [])]
    if missing:
        say(f"publish: not measured, since {', '.join(missing)} cannot be found here")
        return Outcome("publish", {"missing": missing}, holds=False)
    pairs = Pairs()
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as name:
        bench = Bench(Path(name))
        for number in range(PAIRS):
            bench.pair(number, pairs)
    low, high = pairs.quartiles
    rates = [bench.size_bytes / 1e6 / s for s in (pairs.ours_median_s, pairs.other_median_s)]
    figures = {
        "artifact_bytes": bench.manifest.size_bytes,
        "symbol_bytes": bench.size_bytes,
        "symbols": bench.objects,
        "ratio": round(pairs.ratio, 3),
        "publish_s": round(pairs.ours_median_s, 3),
        "s5cmd_s": round(pairs.other_median_s, 3),
    }
    show(
        f"Publishing {bench.size_bytes / MIB:,.0f} MiB of symbols to Ceph RGW",
        [("", "left"), ("s", "right"), ("MB/s", "right")],
        [
            ["genctl publish", f"{pairs.ours_median_s:.2f}", f"{rates[0]:,.0f}"],
            ["s5cmd cp", f"{pairs.other_median_s:.2f}", f"{rates[1]:,.0f}"],
        ],
        [
            (
                f"ratio {pairs.ratio:.3f}, holds when at most {MAX_RATIO} "
                f"({PAIRS} pairs, middle half {low:.3f}–{high:.3f})"
            ),
            "medians of whole commands, from start to exit; s5cmd checks and signs nothing",
        ],
    )
    return Outcome("publish", figures, pairs.ratio <= MAX_RATIO)
