"""Whether an object that every store has is what its name says: damage told from the truth (pure).

A target has its SHA-256 in its name, a root is signed by its own keys and by those of the one
before it if that is known, other metadata by keys that a root names. This says that bytes are
whole, not that they count: which root is to be trusted, and which record is the newest, is not
asked here.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Sequence

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from manifests.errors import GenctlError
from store.signed import signed_by, trusted_root

_METADATA = re.compile(r"metadata/(?:(\d{1,18})\.)?(root|targets|snapshot|timestamp)\.json")
_TARGET = re.compile(r"targets/(?:[^/]+/)*([0-9a-f]{64})\.[^/]+")
_SIGNATURE = re.compile(rb'"sig":"([0-9a-f]{64,})"')
_SIGNED_PART = b'"signed":{'


def sound_roots(objects: Iterable[tuple[str, bytes]]) -> list[Root]:
    """The roots among objects, given by key, that are signed by their own keys."""
    return [trusted_root(data) for key, data in objects if is_root(key) and is_sound(key, data, ())]


def is_root(key: str) -> bool:
    """Whether this is the key of a version of the root metadata."""
    found = _METADATA.fullmatch(key)
    return found is not None and found[2] == "root"


def is_sound(key: str, data: bytes, roots: Sequence[Root]) -> bool | None:
    """Whether ``data`` is an object that ``key`` is the name of; ``None`` if nothing can be said.

    Args:
        key: the key of a mirrored object.
        data: what a store has under it.
        roots: those whose keys may have signed it; without any, no signature can be judged.
    """
    target = _TARGET.fullmatch(key)
    if target is not None:
        return hashlib.sha256(data).hexdigest() == target[1]
    metadata = _METADATA.fullmatch(key)
    if metadata is None:
        return None
    version = None if metadata[1] is None else int(metadata[1])
    if metadata[2] == "root":
        with contextlib.suppress(GenctlError):
            if trusted_root(data).version == version:
                before = [root for root in roots if root.version + 1 == version]
                return not before or any(_is_signed_by(root, data) for root in before)
        return False
    if not roots:
        return None
    for root in roots:
        with contextlib.suppress(GenctlError):
            return version in {None, _signed_version(root, data, metadata[2])}
    return False


def _is_signed_by(root: Root, data: bytes) -> bool:
    with contextlib.suppress(GenctlError):
        signed_by(root, data, Root)
        return True
    return False


def _signed_version(root: Root, data: bytes, role: str) -> int:
    if role == Targets.type:
        return signed_by(root, data, Targets).version
    if role == Snapshot.type:
        return signed_by(root, data, Snapshot).version
    return signed_by(root, data, Timestamp).version


def is_same_document(damaged: bytes, whole: bytes) -> bool:
    """Whether one of two files of signed metadata is the other, damaged.

    It is if a signature of the whole one, or all that is signed in it, is in the other: a file with
    other content, of whatever version, has neither.
    """
    _, mark, signed_part = whole.partition(_SIGNED_PART)
    return (bool(mark) and signed_part in damaged) or any(
        signature in damaged for signature in _SIGNATURE.findall(whole)
    )
