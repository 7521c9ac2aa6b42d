"""A large generation published to a Ceph gateway of the benchmark's own, and commands run on it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.harness import Disagreement
from benchmarks.large import make_large_home
from controller.writer import WriterHome
from tests.support.ceph import missing_programs, running_ceph
from tests.support.s3_server import S3Server

BUCKET = "generations"
WATCH_INTERVAL_S = 0.02
PLAIN = "plain"


def program(name: str) -> str | None:
    """Where a console script is: in this environment, or on the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def missing(*names: str) -> list[str]:
    """Which programs, Ceph's and these, cannot be found here."""
    return [*missing_programs(), *(name for name in names if program(name) is None)]


@dataclass(frozen=True)
class Ran:
    """A command that ended well: how long it took, the most memory it had, what it printed."""

    took_s: float
    peak_bytes: int
    out: str

    @property
    def json(self) -> Any:
        """The one JSON document it printed."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Served:
    """A writer whose newest generation is active in ``url``, on ``server``."""

    folder: Path
    writer: WriterHome
    server: S3Server
    url: str

    def run(self, name: str, *arguments: object) -> Ran:
        """Run a console script to its end, after the disk has come to rest.

        Raises:
            Disagreement: it failed.
        """
        os.sync()
        command = [str(program(name)), *map(str, arguments)]
        environment = {**os.environ, **self.server.environment, "AWS_DEFAULT_REGION": "us-east-1"}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            peak_bytes = _watched(process)
            took_s = time.perf_counter() - started
            printed, complaint = (_all_of(file) for file in (out, err))
        if process.returncode:
            raise Disagreement(f"{command}: {complaint[-500:]}")
        return Ran(took_s, peak_bytes, printed)

    def bootstrap(self, node: Path, *options: object, url: str = "") -> Ran:
        """Bootstrap a fresh node in ``node`` with ``genctl node bootstrap --json``."""
        shutil.rmtree(node, ignore_errors=True)
        root = self.writer.home / "root.json"
        stores = ("--store", url or self.url, "--root", root)
        return self.run("genctl", "node", "bootstrap", node, *stores, *options, "--json")


@contextlib.contextmanager
def served(size_bytes: int, server_bytes: int, seed: int) -> Iterator[Served]:
    """A generation of about ``size_bytes``, published and active, for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as name:
        folder = Path(name)
        with running_ceph(folder / "ceph", server_bytes) as server:
            os.environ.update(server.environment)
            url = server.bucket(BUCKET)
            writer = make_large_home(folder, size_bytes, [url], seed)
            newest = writer.built()[-1].generation_id
            writer.publish(newest)
            writer.activate(newest)
            yield Served(folder, writer, server, url)


def copy_plain(ours: Served) -> str:
    """Put the generation's files into a bucket as they are; where other tools find them."""
    ours.server.client.create_bucket(Bucket=PLAIN)
    newest = ours.writer.built()[-1].generation_id
    files = ours.writer.residence.folder(newest)
    at = ["--endpoint-url", ours.server.endpoint, "--log", "error"]
    ours.run("s5cmd", *at, "cp", f"{files}/", f"s3://{PLAIN}/files/")
    return f"s3://{PLAIN}/files/"


def check_files(ours: Served, copied: Path, node: Path) -> None:
    """Both sides must have brought the same bytes.

    Raises:
        Disagreement: they have not.
    """
    newest = ours.writer.built()[-1]
    served_files = node / "generations" / newest.generation_id / "files"
    for artifact in newest.artifacts:
        sizes = [(folder / artifact.name).stat().st_size for folder in (copied, served_files)]
        if sizes != [artifact.size_bytes] * 2:
            raise Disagreement(f"{artifact.name} has {sizes} bytes, not {artifact.size_bytes}")


def columns(*names: str) -> Sequence[tuple[str, str]]:
    """Columns of figures, and a last one of words."""
    return [*((name, "right") for name in names[:-1]), (names[-1], "left")]


def _watched(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a process; the most memory it had in RAM, as seen a moment before.

    The kernel's own figure for an ended process counts what its parent had when it was started.
    """
    peak_bytes = 0
    while True:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/status").read_text("ascii").splitlines():
                if line.startswith("VmHWM:"):
                    peak_bytes = int(line.split()[1]) << 10
        try:
            process.wait(WATCH_INTERVAL_S)
        except subprocess.TimeoutExpired:
            continue
        return peak_bytes


def _all_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()
