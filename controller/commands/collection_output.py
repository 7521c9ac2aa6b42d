"""How a home's objects, files and leases are printed, for people and as JSON: gc and fsck.

Both call what is there by the same words: *needed*; *garbage*, which a collection deletes; *young*,
which nothing needs and a collection leaves for a time of grace; *unknown*, which is not genctl's.
Garbage and young together are orphans, and so is what writes that were cut off left in a folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from controller.terminal import plural, printable, say, size, table

if TYPE_CHECKING:
    from builder.garbage import StoreTally, Total
    from controller.file_accounts import FileAccounts
    from controller.home_garbage import HomeGarbage
    from store.leases import FoundLeases

SHOWN = 20
"""So many unknown keys, or leases, are printed for people; programs get more."""

Row = tuple[str, str, int, int, str]


def described_store(tally: StoreTally) -> dict[str, Any]:
    """What a store holds under the names that commands print as JSON."""
    return {
        "url": tally.url,
        "needed": _total(tally.kept),
        "garbage": {kind: _total(total) for kind, total in sorted(tally.garbage.items())},
        "garbage_bytes": tally.garbage_bytes,
        "young": _total(tally.young),
        "cut_off": _total(tally.cut_off),
        "unknown": _total(tally.unknown_objects) | {"keys": tally.unknown},
    }


def _total(total: Total) -> dict[str, Any]:
    return {"objects": total.objects, "bytes": total.size_bytes}


def described_home(home: HomeGarbage) -> dict[str, Any]:
    """The garbage in a home, likewise."""
    return {
        "generations": list(home.generations),
        "artifacts": len(home.artifacts),
        "shelved": len(home.shelved),
        "bytes": home.size_bytes,
    }


def described_files(found: FileAccounts) -> dict[str, Any]:
    """What else is in a home that is no use there, likewise."""
    return {
        "orphans": [
            {"path": each.path, "bytes": each.size_bytes, "reason": each.reason}
            for each in found.orphans
        ],
        "orphan_count": found.orphan_count,
        "orphan_bytes": found.orphan_bytes,
        "unknown": list(found.unknown),
        "unknown_count": found.unknown_count,
    }


def described_leases(leases: FoundLeases) -> dict[str, Any]:
    """The leases there are, likewise."""
    return {
        "leases": [lease.model_dump(mode="json") for lease in leases.leases],
        "unreadable": [
            {"store": each.store, "key": each.key, "reason": each.reason}
            for each in leases.unreadable
        ],
        "unreadable_count": leases.unreadable_count,
    }


def tell_totals(stores: Sequence[StoreTally], home: HomeGarbage, gone: str, left: str) -> None:
    """Print what stores and a home hold.

    Args:
        stores: what each store holds.
        home: the garbage in the home.
        gone: what becomes of garbage.
        left: what becomes of old metadata and records where there is no other garbage; a few of
            them are there after every change.
    """
    rows: list[Row] = []
    verdict = gone if any(tally.is_due for tally in stores) else left
    for number, tally in enumerate(stores, 1):
        say(f"store {number}  {tally.url}")
        rows += _rows(f"store {number}", tally, verdict)
        if tally.cut_off.objects:
            total = tally.cut_off
            rows.append(
                (f"store {number}", "cut-off writes", total.objects, total.size_bytes, gone)
            )
    if home.parts:
        rows.append(("home", "garbage: files", home.parts, home.size_bytes, gone))
    table(
        [("where", "left"), ("what", "left"), ("number", "right"), ("size", "right"), ("", "left")],
        [(where, what, f"{count:,}", size(held), told) for where, what, count, held, told in rows],
    )
    for tally in stores:
        for key in tally.unknown[:SHOWN]:
            say(f"  unknown in {tally.url}: {printable(key)}")
        tell_more(tally.unknown_objects.objects)


def _rows(where: str, tally: StoreTally, garbage: str) -> Iterator[Row]:
    for what, total, verdict in (
        ("needed", tally.kept, "kept"),
        *((f"garbage: {kind}", total, garbage) for kind, total in sorted(tally.garbage.items())),
        ("young", tally.young, "left until it is old enough"),
        ("unknown", tally.unknown_objects, "left, not genctl's"),
    ):
        if total.objects:
            yield where, what, total.objects, total.size_bytes, verdict


def tell_more(count: int) -> None:
    """Say how many there are besides the :data:`SHOWN` that were printed."""
    if count > SHOWN:
        say(f"  and {plural(count - SHOWN, 'other')}")
