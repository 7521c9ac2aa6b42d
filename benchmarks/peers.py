"""Fetching from peers: how fast from one, and how much a fleet spares its store.

First, one artifact of 1 GiB from one peer (``genctl node serve`` in a process of its own): every
chunk and the whole checked, written and fsynced, against ``curl`` into a file from nginx on the
same file, which checks and syncs nothing. Then ten nodes bootstrap one after another, and nine of
them know the first as a peer.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import Disagreement, Outcome, Pairs, run_pairs, seconds, show
from benchmarks.large import MIB, make_large_home
from benchmarks.served import columns, program
from controller.new_node import open_node
from controller.node import BootstrapReport
from controller.settings import NodeLimits
from controller.terminal import say
from controller.writer import WriterHome
from index.residence import Residence
from index.verification import ReadFiles, file_id
from manifests.generation import ArtifactFile
from replicator.bring import transfer
from replicator.sources import Supply
from store.memory import MemoryStore
from store.peer import PeerStore
from symbols.encode import encode
from symbols.geometry import choose, describe
from tests.support.s3_server import answers, free_ports, process, until

ARTIFACT_BYTES = 1024 * MIB
GENERATION_BYTES = 256 * MIB
SEED = 20_248
PAIRS = 7
NODES = 10
MIN_RATIO = 0.6
MAX_EGRESS = 1.3


class _Wire:
    """One artifact at a peer, and the same file behind nginx."""

    def __init__(self, folder: Path, peer_home: Path) -> None:
        self._folder = folder
        source = folder / "web" / "artifact"
        source.parent.mkdir()
        random = np.random.default_rng(SEED)
        with source.open("wb") as file:
            for _ in range(ARTIFACT_BYTES // MIB):
                file.write(random.bytes(MIB))
        artifact_id = file_id(source)
        geometry = choose(ARTIFACT_BYTES)
        (folder / "repair").mkdir()
        encoded = encode(source, geometry, folder / "repair")
        self._artifact = ArtifactFile(
            name="vectors/large.usearch",
            size_bytes=ARTIFACT_BYTES,
            blake3=artifact_id,
            symbols=describe(geometry, encoded.table),
        )
        os.link(source, peer_home / "artifacts" / artifact_id)
        (peer_home / "tables" / artifact_id).write_bytes(encoded.table)

    def from_peer(self, url: str) -> float:
        """Fetch it as a bootstrap does: checked, written and fsynced; the seconds it took."""
        home = self._folder / "fetched"
        shutil.rmtree(home, ignore_errors=True)
        residence = Residence(home)
        residence.prepare()
        (home / "incoming").mkdir()
        target = residence.artifact_path(self._artifact.blake3)
        supply = Supply(
            peers=(PeerStore(url),),
            stores=(MemoryStore(),),
            reads_at_once=NodeLimits().reads_at_once,
            min_bytes_per_s=NodeLimits().min_bytes_per_s,
            now_s=time.monotonic,
        )

        def fetch() -> None:
            with transfer(supply, residence, ARTIFACT_BYTES, ReadFiles()) as (fetcher, _):
                fetcher.fetch(self._artifact, home / "incoming", target, lambda _: None)

        os.sync()
        taken_s = seconds(fetch)
        if target.stat().st_size != ARTIFACT_BYTES:
            raise Disagreement("the peer gave something else")
        return taken_s

    def from_nginx(self, url: str) -> float:
        """Fetch it with curl; the seconds it took."""
        target = self._folder / "curled"
        target.unlink(missing_ok=True)
        command = [str(program("curl")), "--silent", "--fail", "--output", str(target), url]
        os.sync()
        taken_s = seconds(lambda: subprocess.run(command, check=True))
        if target.stat().st_size != ARTIFACT_BYTES:
            raise Disagreement("nginx gave something else")
        return taken_s


@contextlib.contextmanager
def _serving(node: Path) -> Iterator[str]:
    """``genctl node serve`` in a process of its own; its URL."""
    command = [str(program("genctl")), "node", "serve", str(node), "--listen", "127.0.0.1:0"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as peer:
        try:
            yield json.loads(next(iter(peer.stdout or ()), "{}"))["url"]
        finally:
            peer.terminate()


@contextlib.contextmanager
def _nginx(folder: Path) -> Iterator[str]:
    """nginx serving ``folder/web``; the URL of the artifact in it."""
    [port] = free_ports(1)
    places = "".join(
        f"{kind}_temp_path {folder}/nginx-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; user root; worker_processes 2; pid {folder}/nginx.pid;"
        f"error_log {folder}/nginx.log; events {{}}"
        f"http {{ access_log off; sendfile on; {places}"
        f"server {{ listen 127.0.0.1:{port}; root {folder}/web; }} }}"
    )
    command = [str(program("nginx")), "-c", str(configuration), "-e", str(folder / "nginx.log")]
    log = folder / "nginx-output.log"
    # A master that is killed leaves its workers to find out; asked, it takes them along.
    with process(command, log) as master:
        until(lambda: answers(f"http://127.0.0.1:{port}"), master, log)
        try:
            yield f"http://127.0.0.1:{port}/artifact"
        finally:
            master.terminate()
            master.wait(10)


def _fleet(writer: WriterHome, folder: Path, peer_url: str, first: BootstrapReport) -> list[int]:
    """Bootstrap the other nodes; the artifact bytes that each node took from the store."""
    taken_bytes = [first.brought.tally.store_bytes]
    for number in range(1, NODES):
        home = folder / f"node-{number}"
        root = writer.home / "root.json"
        node = open_node(home, writer.settings.stores, root, [peer_url])
        taken_bytes.append(node.bootstrap().brought.tally.store_bytes)
        shutil.rmtree(home)
    return taken_bytes


def run() -> Outcome:
    """Measure pairs of fetches, then let a fleet bootstrap."""
    absent = [name for name in ("nginx", "curl") if program(name) is None]
    if absent:
        say(f"peers: not measured, since {', '.join(absent)} cannot be found here")
        return Outcome("peers", {"missing": absent}, holds=False)
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        writer = make_large_home(folder, GENERATION_BYTES, [str(folder / "store")], SEED)
        newest = writer.built()[-1]
        writer.publish(newest.generation_id)
        writer.activate(newest.generation_id)
        peer_home = folder / "node-0"
        node = open_node(peer_home, writer.settings.stores, writer.home / "root.json")
        first = node.bootstrap()
        wire = _Wire(folder, peer_home)
        with _serving(peer_home) as peer_url, _nginx(folder) as nginx_url:
            sides = (lambda _: wire.from_nginx(nginx_url), lambda _: wire.from_peer(peer_url))
            run_pairs(1, *sides)  # both warm
            pairs = run_pairs(PAIRS, *sides)
            taken_bytes = _fleet(writer, folder, peer_url, first)
    return _outcome(pairs, newest.size_bytes, sum(taken_bytes))


def _outcome(pairs: Pairs, generation_bytes: int, egress_bytes: int) -> Outcome:
    egress = egress_bytes / generation_bytes
    low, high = pairs.quartiles
    rate = ARTIFACT_BYTES / 1e6
    show(
        f"One artifact of {ARTIFACT_BYTES // MIB} MiB over loopback",
        columns("seconds", "MB/s", "what"),
        [
            [f"{taken_s:.2f}", f"{rate / taken_s:.0f}", what]
            for taken_s, what in (
                (pairs.other_median_s, "from a peer: verified, written, fsynced"),
                (pairs.ours_median_s, "curl from nginx: written"),
            )
        ],
        [
            (
                f"{pairs.ratio:.2f} of the throughput of curl, holds when at least {MIN_RATIO} "
                f"({PAIRS} pairs, middle half {low:.2f}–{high:.2f})"
            ),
            (
                f"{NODES} nodes, nine with the first as a peer: the store gave {egress:.3f} "
                f"generations of artifacts and tables, holds when at most {MAX_EGRESS}"
            ),
        ],
    )
    figures = {
        "artifact_bytes": ARTIFACT_BYTES,
        "throughput_ratio": round(pairs.ratio, 3),
        "peer_s": round(pairs.other_median_s, 3),
        "curl_s": round(pairs.ours_median_s, 3),
        "nodes": NODES,
        "store_egress_generations": round(egress, 4),
    }
    return Outcome("peers", figures, pairs.ratio >= MIN_RATIO and egress <= MAX_EGRESS)
