"""What encoding an artifact costs over zfec itself on the same columns, threads and cores.

Ours is ``symbols.encode.encode``: hash every chunk of every symbol, compute the repair symbols,
write them to files that appear whole, fsync. The bound is on the strictest reading of "zfec
itself": as many threads hand the same 1 MiB columns of the memory-mapped artifact to zfec and drop
what it returns; nothing is hashed or written. Beside it stands the same job without hashes: zfec,
with its repair symbols written to files and fsynced.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from zfec import Encoder

from benchmarks.harness import Disagreement, Outcome, Pairs, run_pairs, seconds, show
from benchmarks.large import MIB
from symbols.encode import encode
from symbols.geometry import Geometry, choose

SIZE_BYTES = 1020 * MIB
"""Whole columns, so that the other side need not pad any."""

SEED = 20_242
PAIRS = 9
MIN_SHARE = 0.85

Keep = Callable[[int, Sequence[bytes]], object]


class Alone:
    """zfec over one file, without anything of ours but the numbers of the cut."""

    def __init__(self, source: Path, geometry: Geometry) -> None:
        self._geometry = geometry
        with source.open("rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

    def drop(self) -> None:
        """Encode and keep nothing."""
        self._encode(lambda _, __: None)

    def write(self, folder: Path) -> None:
        """Encode into files in ``folder``, fsynced."""
        geometry = self._geometry
        numbers = range(geometry.k, geometry.m)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        outputs = [os.open(folder / f"{number:02d}", flags) for number in numbers]

        def keep(column: int, repairs: Sequence[bytes]) -> None:
            for output, repair in zip(outputs, repairs, strict=True):
                os.pwrite(output, repair, column * geometry.chunk_size_bytes)

        self._encode(keep)
        for output in outputs:
            os.fsync(output)
            os.close(output)

    def _encode(self, keep: Keep) -> None:
        threads = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(self._columns, keep, i, threads) for i in range(threads)]:
                done.result()

    def _columns(self, keep: Keep, first: int, step: int) -> None:
        geometry = self._geometry
        encoder = Encoder(geometry.k, geometry.m)
        repairs = tuple(range(geometry.k, geometry.m))
        for column in range(first, geometry.column_count, step):
            ranges = [geometry.chunk_source_range(number, column) for number in range(geometry.k)]
            blocks = tuple(self._bytes[offset : offset + length] for offset, length in ranges)
            keep(column, encoder.encode(blocks, repairs))


def measure(
    folder: Path, source: Path, geometry: Geometry, other: Callable[[Path], object]
) -> Pairs:
    """Pairs of our encode and ``other``, each given a fresh folder for what it writes."""

    def timed(name: str, action: Callable[[Path], object]) -> float:
        target = folder / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        os.sync()  # neither side waits for what was written before it
        return seconds(lambda: action(target))

    return run_pairs(
        PAIRS,
        lambda _: timed("ours", lambda target: encode(source, geometry, target)),
        lambda _: timed("zfec", other),
    )


def check_same_symbols(folder: Path, geometry: Geometry) -> None:
    """Both sides must have written the same repair symbols.

    Raises:
        Disagreement: they have not.
    """
    for number in range(geometry.k, geometry.m):
        ours, zfec = (folder / side / f"{number:02d}" for side in ("ours", "zfec"))
        if ours.read_bytes() != zfec.read_bytes():
            raise Disagreement(f"repair symbol {number} differs from what zfec itself makes of it")


def run() -> Outcome:
    """Measure against zfec alone, and against zfec that writes what it makes."""
    with tempfile.TemporaryDirectory(prefix="genctl-bench-") as name:
        folder = Path(name)
        source = folder / "artifact"
        random = np.random.default_rng(SEED)
        with source.open("wb") as file:
            for _ in range(SIZE_BYTES // MIB):
                file.write(random.bytes(MIB))
        geometry = choose(SIZE_BYTES)
        alone = Alone(source, geometry)
        writing = measure(folder, source, geometry, alone.write)
        check_same_symbols(folder, geometry)
        dropping = measure(folder, source, geometry, lambda _: alone.drop())

    shares = {
        "zfec, result dropped": 1 / dropping.ratio,
        "zfec, files written": 1 / writing.ratio,
    }
    figures = {
        "size_bytes": SIZE_BYTES,
        "share_of_zfec": round(1 / dropping.ratio, 3),
        "share_of_zfec_writing": round(1 / writing.ratio, 3),
        "encode_s": round(dropping.ours_median_s, 3),
        "zfec_s": round(dropping.other_median_s, 3),
        "zfec_writing_s": round(writing.other_median_s, 3),
    }
    show(
        f"Encoding {SIZE_BYTES // MIB} MiB, k={geometry.k}, m={geometry.m}",
        [("against", "left"), ("genctl s", "right"), ("zfec s", "right"), ("share", "right")],
        [
            [
                against,
                f"{pairs.ours_median_s:.3f}",
                f"{pairs.other_median_s:.3f}",
                f"{shares[against]:.3f}",
            ]
            for against, pairs in zip(shares, (dropping, writing), strict=True)
        ],
        [
            (
                f"share of zfec's throughput; the first holds when at least {MIN_SHARE} "
                f"({PAIRS} pairs each, medians)"
            ),
            "genctl hashes all symbols, writes the repair symbols and fsyncs them in both rows",
        ],
    )
    return Outcome("encode", figures, 1 / dropping.ratio >= MIN_SHARE)
