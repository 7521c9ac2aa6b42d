"""A bootstrap from a store that lost what the symbols are there for, against a healthy one.

Of every artifact as many symbols are gone as it survives, source symbols first: two of twelve of
the large ones, so that a fifth of their bytes has to be rebuilt.
"""

from __future__ import annotations

from benchmarks.harness import Disagreement, Outcome, run_pairs, show
from benchmarks.large import MIB
from benchmarks.served import Served, columns, missing, served
from controller.terminal import say
from manifests.names import symbol_key

SIZE_BYTES = 1024 * MIB
SERVER_BYTES = 6144 * MIB
SEED = 20_245
PAIRS = 5
MAX_RATIO = 2.0
DAMAGED = "damaged"


def copy_damaged(ours: Served) -> str:
    """A second bucket with everything but the symbols that may be lost; its store's URL."""
    client = ours.server.client
    url = ours.server.bucket(DAMAGED)
    lost = {
        symbol_key(artifact.blake3, number)
        for manifest in ours.writer.built()
        for artifact in manifest.artifacts
        for number in range(artifact.symbols.m - artifact.symbols.k)
    }
    bucket = ours.url.removeprefix("s3://").partition("?")[0]
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page["Contents"]:
            if found["Key"] not in lost:
                source = {"Bucket": bucket, "Key": found["Key"]}
                client.copy_object(Bucket=DAMAGED, Key=found["Key"], CopySource=source)
    return url


def run() -> Outcome:
    """Measure pairs of bootstraps: from the damaged store, and from the healthy one."""
    absent = missing()
    if absent:
        say(f"repair: not measured, since {', '.join(absent)} cannot be found here")
        return Outcome("repair", {"missing": absent}, holds=False)
    with served(SIZE_BYTES, SERVER_BYTES, SEED) as ours:
        damaged_url = copy_damaged(ours)
        node = ours.folder / "node"
        rebuilt = []

        def damaged(_: int) -> float:
            ran = ours.bootstrap(node, url=damaged_url)
            rebuilt.append(ran.json["repaired_bytes"])
            return ran.took_s

        def healthy(_: int) -> float:
            ran = ours.bootstrap(node)
            if ran.json["repaired_bytes"]:
                raise Disagreement("the healthy store lost something")
            return ran.took_s

        run_pairs(1, damaged, healthy)
        pairs = run_pairs(PAIRS, damaged, healthy)
        size_bytes = ours.writer.built()[-1].size_bytes
    if min(rebuilt) < size_bytes / 6:
        raise Disagreement(f"only {min(rebuilt)} bytes had to be rebuilt")
    low, high = pairs.quartiles
    figures = {
        "size_bytes": size_bytes,
        "rebuilt_bytes": rebuilt[-1],
        "ratio": round(pairs.ratio, 3),
        "damaged_s": round(pairs.ours_median_s, 3),
        "healthy_s": round(pairs.other_median_s, 3),
    }
    show(
        f"{size_bytes / MIB:,.0f} MiB from a Ceph gateway, whole and with lost symbols",
        columns("seconds", "rebuilt MiB", "store"),
        [
            [f"{pairs.other_median_s:.2f}", "0", "healthy"],
            [f"{pairs.ours_median_s:.2f}", f"{rebuilt[-1] / MIB:.0f}", "2 of 12 symbols gone"],
        ],
        [
            (
                f"ratio {pairs.ratio:.3f}, holds when at most {MAX_RATIO} "
                f"({PAIRS} pairs, middle half {low:.3f}–{high:.3f})"
            )
        ],
    )
    return Outcome("repair", figures, pairs.ratio <= MAX_RATIO)
