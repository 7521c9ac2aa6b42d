"""Putting the store's record back from what the home signed last."""

from __future__ import annotations

import contextlib

from tuf.api.metadata import Root

from builder.published_roots import newer_roots
from controller.signed_last import signed_timestamp
from controller.writer import WriterHome
from durable import files
from manifests.errors import HomeMissing, TrustError, WriterFenced
from store.signed import trusted_root
from store.spread import MAX_MIRRORED_SIZE_BYTES, RECORD_KEY

REPLACED_FILE = "replaced_timestamp.json"
"""Under this name a home keeps the timestamp that its own was put in the place of."""


def put_back(writer: WriterHome, *, even_newer: bool = False) -> bool:
    """Put the record that this home signed last in the place of the store's; the lock is held.

    That is done where the first store's record is older, damaged or lost, and no store has one
    that is newer. What was there is kept in ``HOME/replaced_timestamp.json``. Its snapshot and
    targets are put back as well, also where the record itself is there.

    Args:
        writer: the home.
        even_newer: whatever the stores have is replaced; for what was signed with stolen keys.

    Returns whether the record was put back. One of keys that count no more is damage.

    Raises:
        HomeMissing: it is asked for, and the home does not know what it signed last.
        WriterFenced: another writer moved the record meanwhile.
        SignedLastCorrupt: the home does not know what it signed last.
        StoreUnavailable, DiskFull, DiskError: run it again.
    """
    known = writer.signed_last.read()
    if known is None:
        if even_newer:
            raise HomeMissing(
                f"{writer.home} does not know what it signed last: {writer.signed_last.path} is "
                "missing. Put a copy of it back, or sign anew with new keys"
            )
        return False
    roots, versions = _counting_roots(writer), []
    first, *others = writer.store().stores
    with writer.store().needing_all():
        found = first.get_versioned(RECORD_KEY, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
        copies = [
            store.get_versioned(RECORD_KEY, limit_bytes=MAX_MIRRORED_SIZE_BYTES) for store in others
        ]
    for each in (found, *copies):
        timestamp = None if each is None else signed_timestamp(each.data, roots)
        versions.append(0 if timestamp is None else timestamp.version)
    is_there = found is not None and found.data == known.timestamp
    is_kept = versions[0] == known.version or max(versions) > known.version
    if not is_there and is_kept and not even_newer:
        return False
    for key, data in known.objects.items():
        held = first.get_versioned(key, limit_bytes=MAX_MIRRORED_SIZE_BYTES)
        if held is None or held.data != data:
            first.compare_and_swap(key, data, None if held is None else held.version)
    if is_there:
        return False
    if found is not None:
        files.replace_file(writer.home / REPLACED_FILE, [found.data])
    if not first.compare_and_swap(
        RECORD_KEY, known.timestamp, None if found is None else found.version
    ):
        raise WriterFenced(
            "another writer moved the record meanwhile; nothing was put back. Run the command again"
        )
    return True


def _counting_roots(writer: WriterHome) -> list[Root]:
    """Those whose keys can have signed a record that counts: what others signed is as damage."""
    repository = writer.repository()
    found = [trusted_root(writer.root_bytes())]
    if repository.root_before is not None:
        found.append(repository.root_before)
    with contextlib.suppress(TrustError):  # what is no root, nobody follows
        found += map(trusted_root, newer_roots(writer.store(), writer.root_bytes()))
    return found
