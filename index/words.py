"""Plain text into the words a search looks for.

User text is data, never query syntax: it is reduced to lower-case words, so that quotes, colons,
brackets, ``AND`` and ``NOT`` mean nothing but themselves.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The runs of letters and digits in ``text``, in order, in lower case."""
    return _WORD.findall(text.lower())
