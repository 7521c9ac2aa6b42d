"""A whole bootstrap from S3 against tools that copy the same bytes and verify nothing.

Ours is the command ``genctl node bootstrap`` in a process of its own: imports, the signed record,
every chunk and every artifact checked, fsynced, both indexes opened, golden queries answered, the
pointer swapped. The other sides are ``s5cmd cp`` with its own settings and ``aws s3 cp
--recursive``, of the same files from the same server into an empty folder. Beside them stands what
a process that runs already takes for the same bootstrap.
"""

from __future__ import annotations

import os
import shutil

from benchmarks.harness import Outcome, run_pairs, seconds, show
from benchmarks.large import MIB
from benchmarks.served import Served, check_files, columns, copy_plain, missing, served
from controller.new_node import open_node
from controller.terminal import say

SIZE_BYTES = 1024 * MIB
SERVER_BYTES = 4096 * MIB
SEED = 20_244
PAIRS = 7
AWS_PAIRS = 3
MAX_RATIO = 1.1
MIN_AWS_RATIO = 3.0


class _Sides:
    def __init__(self, ours: Served) -> None:
        self._ours = ours
        self._files = copy_plain(ours)
        self.node = ours.folder / "node"
        self.copied = ours.folder / "copied"

    def genctl(self, _: int) -> float:
        return self._ours.bootstrap(self.node).took_s

    def running(self, _: int) -> float:
        shutil.rmtree(self.node, ignore_errors=True)
        os.sync()
        writer = self._ours.writer
        return seconds(
            lambda: open_node(self.node, [self._ours.url], writer.home / "root.json").bootstrap()
        )

    def s5cmd(self, _: int) -> float:
        at = ["--endpoint-url", self._ours.server.endpoint, "--log", "error"]
        return self._copy("s5cmd", *at, "cp", f"{self._files}*", f"{self.copied}/")

    def aws(self, _: int) -> float:
        at = ["--endpoint-url", self._ours.server.endpoint]
        return self._copy("aws", *at, "s3", "cp", "--recursive", self._files, self.copied)

    def _copy(self, name: str, *arguments: object) -> float:
        shutil.rmtree(self.copied, ignore_errors=True)
        self.copied.mkdir()
        return self._ours.run(name, *arguments).took_s


def run() -> Outcome:
    """Measure pairs: genctl and s5cmd, then genctl and aws."""
    absent = missing("s5cmd", "aws")
    if absent:
        say(f"wire: not measured, since {', '.join(absent)} cannot be found here")
        return Outcome("wire", {"missing": absent}, holds=False)
    with served(SIZE_BYTES, SERVER_BYTES, SEED) as ours:
        sides = _Sides(ours)
        run_pairs(1, sides.genctl, sides.s5cmd)  # both warm
        check_files(ours, sides.copied, sides.node)
        pairs = run_pairs(PAIRS, sides.genctl, sides.s5cmd)
        running = run_pairs(PAIRS, sides.running, sides.s5cmd)
        against_aws = run_pairs(AWS_PAIRS, sides.genctl, sides.aws)
        check_files(ours, sides.copied, sides.node)
        size_bytes = ours.writer.built()[-1].size_bytes
    low, high = pairs.quartiles
    aws_ratio = 1 / against_aws.ratio
    figures = {
        "size_bytes": size_bytes,
        "ratio_to_s5cmd": round(pairs.ratio, 3),
        "running_ratio_to_s5cmd": round(running.ratio, 3),
        "times_faster_than_aws": round(aws_ratio, 2),
        "genctl_s": round(pairs.ours_median_s, 3),
        "running_s": round(running.ours_median_s, 3),
        "s5cmd_s": round(pairs.other_median_s, 3),
        "aws_s": round(against_aws.other_median_s, 3),
    }
    rows = [
        [f"{taken_s:.2f}", f"{size_bytes / 1e6 / taken_s:.0f}", what]
        for taken_s, what in (
            (pairs.ours_median_s, "genctl node bootstrap: verified, fsynced, serving"),
            (running.ours_median_s, "the same in a process that runs already"),
            (pairs.other_median_s, "s5cmd cp: bytes in files"),
            (against_aws.other_median_s, "aws s3 cp --recursive: bytes in files"),
        )
    ]
    show(
        f"{size_bytes / MIB:,.0f} MiB from a Ceph gateway on this machine",
        columns("seconds", "MB/s", "what"),
        rows,
        [
            (
                f"ratio to s5cmd {pairs.ratio:.3f}, holds when at most {MAX_RATIO} "
                f"({PAIRS} pairs, middle half {low:.3f}–{high:.3f})"
            ),
            f"in a process that runs already {running.ratio:.3f}",
            f"{aws_ratio:.1f} times as fast as aws, holds when at least {MIN_AWS_RATIO}",
        ],
    )
    return Outcome("wire", figures, pairs.ratio <= MAX_RATIO and aws_ratio >= MIN_AWS_RATIO)
