"""The most memory that a bootstrap takes, for generations of very different sizes."""

from __future__ import annotations

from benchmarks.harness import Outcome, show
from benchmarks.large import MIB
from benchmarks.served import columns, missing, served
from controller.terminal import say

SIZES_BYTES = (256 * MIB, 1024 * MIB, 4096 * MIB)
SEED = 20_246
MAX_PEAK_BYTES = 300 * MIB
MAX_GROWTH = 1.15
"""What the largest may take over the smallest: the noise of an allocator, not the size."""


def run() -> Outcome:
    """Bootstrap one node of each size and ask the kernel for its peak resident set."""
    absent = missing()
    if absent:
        say(f"memory: not measured, since {', '.join(absent)} cannot be found here")
        return Outcome("memory", {"missing": absent}, holds=False)
    rows = []
    peaks = []
    for size_bytes in SIZES_BYTES:
        with served(size_bytes, size_bytes * 2 + 512 * MIB, SEED) as ours:
            ran = ours.bootstrap(ours.folder / "node")
            peaks.append(ran.peak_bytes)
            fetched = ran.json["fetched_bytes"] / MIB
            rows.append([f"{peaks[-1] / MIB:.0f}", f"{fetched:,.0f}", f"{ran.took_s:.1f} s"])
    growth = peaks[-1] / peaks[0]
    show(
        "Peak resident memory of `genctl node bootstrap`",
        columns("peak MiB", "fetched MiB", "took"),
        rows,
        [
            (
                f"holds when at most {MAX_PEAK_BYTES // MIB} MiB and the largest takes at most "
                f"{MAX_GROWTH} of the smallest; it takes {growth:.2f}"
            )
        ],
    )
    figures = {
        "sizes_bytes": list(SIZES_BYTES),
        "peaks_bytes": peaks,
        "growth": round(growth, 3),
    }
    return Outcome("memory", figures, max(peaks) <= MAX_PEAK_BYTES and growth <= MAX_GROWTH)
