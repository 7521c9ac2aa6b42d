"""The identifiers of the system, and the one hash they are made with.

Everything content-addressed is named by BLAKE3-256 (https://github.com/BLAKE3-team/BLAKE3-specs)
in 64 lower-case hexadecimal digits: ``commit_id`` (a capsule's bytes), an artifact's id (its
file's bytes) and ``manifest_id`` (a manifest's exact bytes).
"""

from __future__ import annotations

import re
from typing import Annotated

from blake3 import blake3
from pydantic import StringConstraints

HASH_SIZE_BYTES = 32
_GENERATION_ID = r"g[0-9]{12}-[0-9a-f]{12}"
_SHARD = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"

Blake3Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
GenerationId = Annotated[str, StringConstraints(pattern=f"^{_GENERATION_ID}$")]
ShardName = Annotated[str, StringConstraints(pattern=f"^{_SHARD}$")]


def content_id(data: bytes | memoryview) -> str:
    """The BLAKE3-256 of ``data`` in hexadecimal."""
    return blake3(data).hexdigest()


def generation_id(high_seq: int, body_id: str) -> str:
    """The id of a generation: its ``high_seq`` (so that ids sort) and 48 bits of its content's id.

    ``body_id`` is the :func:`content_id` of the manifest's canonical bytes without its
    ``generation_id``, which makes the id verifiable from the manifest alone.
    """
    return f"g{high_seq:012d}-{body_id[:12]}"


def is_generation_id(text: str) -> bool:
    """Whether ``text`` has the form of a generation id."""
    return re.fullmatch(_GENERATION_ID, text) is not None


def high_seq_of(generation_id: str) -> int:
    """The ``high_seq`` that a generation's id gives; 0 for what is none."""
    return int(generation_id[1:13]) if is_generation_id(generation_id) else 0
