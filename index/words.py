"""Plain text into words, as the built-in embedder and the golden queries see it."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The runs of letters and digits in ``text``, in order, in lower case."""
    return _WORD.findall(text.lower())
