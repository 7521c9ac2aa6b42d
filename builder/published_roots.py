"""The roots of trust in a store: followed from one to the next, and added to.

Root N is the object ``metadata/N.root.json``, which never changes. A root vouches for the one after
it and for no other, so they can only be followed upwards, from one that is trusted.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator

from tuf.api.metadata import Root, Targets

from builder.root_draft import parse_root
from manifests.errors import HomeOccupied, TrustError, UnsignedRecord, WriterFenced
from manifests.names import metadata_key
from store.port import Store
from store.signed import LIMITS_BYTES, refuse_other_shard, shard_of, signed_by, trusted_root
from store.spread import copies_of, read_copy

FIRST_KEY = metadata_key("1.root.json")
MAX_ROOTS = 256
"""So many new roots are followed at once; python-tuf's client follows no more."""


def newer_roots(store: Store, trusted: bytes) -> list[bytes]:
    """The roots in ``store`` that follow on ``trusted``, each signed by the one before it.

    Of several stores, one that has it so is enough; and where one has nothing in its place, what
    others have there that is not so does not count.

    Raises:
        TrustError: all stores have something else in its place.
        StoreUnavailable: it is not known whether there is one.
    """
    found: list[bytes] = []
    root = trusted_root(trusted)
    while len(found) < MAX_ROOTS:
        key = metadata_key(f"{root.version + 1}.root.json")
        held = read_copy(
            store,
            functools.partial(_held, key),
            functools.partial(_is_next, root),
            is_absent_if_one_says_so=True,
        )
        if held is None:
            break
        url, data = held
        with _named(key, url):
            root = _next(root, data)
        found.append(data)
    return found


def _held(key: str, store: Store) -> bytes | None:
    held = store.get_versioned(key, limit_bytes=LIMITS_BYTES[Root.type])
    return None if held is None else held.data


def _next(root: Root, data: bytes) -> Root:
    signed_by(root, data, Root)
    following = trusted_root(data)
    if following.version != root.version + 1:
        raise UnsignedRecord(f"it says that it is version {following.version}")
    refuse_other_shard(shard_of(root), following)
    return following


def _is_next(root: Root, data: bytes) -> bool:
    with contextlib.suppress(TrustError):
        _next(root, data)
        return True
    return False


def published_root(store: Store, keyids: Collection[str]) -> bytes | None:
    """The newest root that the owner of these targets keys has put in ``store``, or ``None``.

    Raises:
        HomeOccupied: the store belongs to other keys.
        TrustError: what is in the place of a root is none.
    """
    found = store.get_versioned(FIRST_KEY, limit_bytes=LIMITS_BYTES[Root.type])
    if found is None:
        return None
    with _named(FIRST_KEY, store.url):
        trusted_root(found.data)
    roots = [found.data, *newer_roots(store, found.data)]
    named = {key for root in roots for key in trusted_root(root).roles[Targets.type].keyids}
    if named.isdisjoint(keyids):
        raise occupied(store)
    return roots[-1]


def publish_root(store: Store, root: bytes) -> None:
    """Put a root into the store, in all of them if they are several; repeatable.

    Raises:
        WriterFenced: there is another root of this version.
        TrustError: there is something that is no root.
    """
    key = metadata_key(f"{trusted_root(root).version}.root.json")
    first = copies_of(store)[0]
    in_first = _held(key, first)
    if in_first is not None:
        # Before anything is put: what the first store has would be copied into the others.
        with _named(key, first.url):
            parse_root(in_first)
    if store.put_if_absent(key, [root]):
        return
    held = store.get(key, length=LIMITS_BYTES[Root.type])
    with _named(key, first.url):
        there = parse_root(held)
    # Signatures may differ: one more can have come since this root was put there.
    if there.signed_bytes != parse_root(root).signed_bytes:
        raise WriterFenced(
            f"{store.url} has another {key}: somebody else has made a new root. Remove the draft "
            "in this home, then make the change anew",
            store=store.url,
        )


@contextlib.contextmanager
def _named(key: str, url: str) -> Iterator[None]:
    """Say of what is no root, or not signed as one, where it is."""
    try:
        yield
    except TrustError as error:
        raise type(error)(
            f"{key} in {url}: {error.message}. Keep a copy of it, and put the right root "
            "back: a home and every node have the newest, a node's trust/root_history/ the others",
            key=key,
            store=url,
            **error.facts,
        ) from error


def occupied(store: Store) -> HomeOccupied:
    """The error for a store that another writer's home has."""
    return HomeOccupied(
        f"the store {store.url} already belongs to another writer's home; choose an empty place",
        store=store.url,
    )
