"""Whether the stores hold all that they should: each symbol where it belongs, in its full length.

What the objects contain is not looked at; that is a scrub's work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from builder.garbage import MAX_UNKNOWN, Object
from builder.reachable import Reach
from manifests.errors import PartsMissing
from manifests.names import symbol_key, symbol_of
from store.port import Store
from store.spread import symbol_store

NOT_THERE = "it is not there"


class Missing(NamedTuple):
    """Something that should be there; ``what`` says how it is not."""

    where: str
    key: str
    what: str


def refuse_missing(
    missing: Sequence[Missing],
    count: int | None = None,
    advice: str = "`genctl scrub HOME` takes it back from what the home or another store still has",
) -> None:
    """Refuse to go on where something is missing.

    Args:
        missing: the first of them.
        count: how many there are; ``None`` for those that are given.
        advice: what to do next.

    Raises:
        PartsMissing: something is.
    """
    if not missing:
        return
    first, more = missing[0], (len(missing) if count is None else count) - 1
    others = f" (and {more:,} more)" if more else ""
    raise PartsMissing(
        f"{first.key} in {first.where}: {first.what}{others}. {advice}",
        key=first.key,
        where=first.where,
        missing=more + 1,
    )


class Presence:
    """Told of every object there is, it says which are missing.

    Args:
        reach: what is reachable.
        stores: each by itself, in their order.
        mirrored: the keys of what must be in every store, besides the manifests.
    """

    def __init__(self, reach: Reach, stores: Sequence[Store], mirrored: Collection[str]) -> None:
        self._reach = reach
        self._stores = tuple(stores)
        self._mirrored = {*mirrored, *reach.stored_manifests()}
        self._symbols: dict[str, int] = {}
        self._wrong: dict[tuple[int, str], str] = {}
        self._copies = [set[str]() for _ in stores]

    def saw(self, found: Object) -> None:
        """Take note of an object."""
        key, size_bytes = found.info.key, found.info.size_bytes
        symbol = symbol_of(key)
        if symbol is None:
            if key in self._mirrored:
                self._copies[found.place].add(key)
            return
        sizes = self._reach.symbol_sizes(*symbol)
        if not sizes:
            return
        belongs = symbol_store(*symbol, len(self._stores))
        if found.place != belongs:
            if (belongs, key) not in self._wrong:
                self._note(belongs, key, f"it is in {self._stores[found.place].url} instead")
        elif size_bytes in sizes:
            self._symbols[symbol[0]] = self._symbols.get(symbol[0], 0) | 1 << symbol[1]
        else:
            wanted = " or ".join(str(each) for each in sorted(sizes))
            self._note(belongs, key, f"it has {size_bytes} bytes, and should have {wanted}")

    def _note(self, place: int, key: str, what: str) -> None:
        if len(self._wrong) < MAX_UNKNOWN or (place, key) in self._wrong:
            self._wrong[place, key] = what

    def missing(self) -> Iterator[Missing]:
        """What was not seen, once all has been shown.

        Of :data:`MAX_UNKNOWN` that are there and not as they should be it says how they are.
        """
        is_all = len(self._wrong) < MAX_UNKNOWN
        usual = NOT_THERE if is_all else "it is not there, or not in its place and full length"
        for artifact_id, count in self._reach.stored_symbols():
            seen = self._symbols.get(artifact_id, 0)
            for number in range(count):
                if not seen >> number & 1:
                    key = symbol_key(artifact_id, number)
                    place = symbol_store(artifact_id, number, len(self._stores))
                    what = self._wrong.get((place, key), usual)
                    yield Missing(self._stores[place].url, key, what)
        for store, seen_keys in zip(self._stores, self._copies, strict=True):
            for key in sorted(self._mirrored - seen_keys):
                yield Missing(store.url, key, NOT_THERE)
