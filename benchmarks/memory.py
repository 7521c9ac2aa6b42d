"""The most memory that a bootstrap takes: of sizes far apart, and with symbols lost."""

from __future__ import annotations

from benchmarks.harness import Outcome, show
from benchmarks.large import MIB
from benchmarks.repair import copy_damaged
from benchmarks.served import Ran, columns, missing, served
from controller.terminal import say

SIZES_BYTES = (256 * MIB, 1024 * MIB, 4096 * MIB)
LOSSY_SIZE_BYTES = 1024 * MIB
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
    peaks: list[int] = []
    lossy = Ran(0, 0, "{}")
    for size_bytes in SIZES_BYTES:
        with served(size_bytes, size_bytes * 3 + 512 * MIB, SEED) as ours:
            ran = ours.bootstrap(ours.folder / "node")
            peaks.append(ran.peak_bytes)
            rows.append(_row(ran, "healthy"))
            if size_bytes == LOSSY_SIZE_BYTES:
                lossy = ours.bootstrap(ours.folder / "node", url=copy_damaged(ours))
                rows.append(_row(lossy, "2 of 12 symbols gone"))
    growth = peaks[-1] / peaks[0]
    show(
        "Peak resident memory of `genctl node bootstrap`",
        columns("peak MiB", "fetched MiB", "took s", "store"),
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
        "lossy_size_bytes": LOSSY_SIZE_BYTES,
        "lossy_peak_bytes": lossy.peak_bytes,
        "growth": round(growth, 3),
    }
    most = max(*peaks, lossy.peak_bytes)
    return Outcome("memory", figures, most <= MAX_PEAK_BYTES and growth <= MAX_GROWTH)


def _row(ran: Ran, store: str) -> list[str]:
    fetched = ran.json["fetched_bytes"] / MIB
    return [f"{ran.peak_bytes / MIB:.0f}", f"{fetched:,.0f}", f"{ran.took_s:.1f}", store]
