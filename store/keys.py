"""Which keys and ranges a store accepts; every backend asks here before it acts.

Keys can come from manifests, so one is never a way out of the store or to its own bookkeeping: no
segment starts with a dot, and none has a character that a file system or a URL gives a meaning.
"""

from __future__ import annotations

import re

from manifests.errors import BadSetting

MAX_KEY_LENGTH = 600
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


def is_segment(text: str) -> bool:
    """Whether ``text`` can stand between two slashes of a key."""
    return _SEGMENT.fullmatch(text) is not None


def check_key(key: str) -> None:
    """Refuse a key that is not segments of letters, digits, ``_``, ``.``, ``-`` between slashes.

    Raises:
        BadSetting: naming the key.
    """
    if len(key) > MAX_KEY_LENGTH or not all(map(is_segment, key.split("/"))):
        raise BadSetting(f"{key[:80]!r} cannot be the key of an object in a store", key=key)


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that no key can have; the empty one, which all have, is accepted.

    Raises:
        BadSetting: naming the prefix.
    """
    *whole, last = prefix.split("/")
    if (
        len(prefix) > MAX_KEY_LENGTH
        or not all(map(is_segment, whole))
        or not (last == "" or is_segment(last))
    ):
        raise BadSetting(f"no object in a store has a key under {prefix[:80]!r}", prefix=prefix)


def check_range(offset: int, length: int) -> None:
    """Refuse a negative offset or length.

    Raises:
        BadSetting: naming the range.
    """
    if offset < 0 or length < 0:
        raise BadSetting(f"there are no {length} bytes at offset {offset}")
