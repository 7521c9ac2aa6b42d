"""Vectors as text: base64 of little-endian float32, the form they have in signed documents."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence

from manifests.errors import ManifestMalformed

FLOAT32_SIZE_BYTES = 4


def vector_to_text(vector: Sequence[float]) -> str:
    """Encode ``vector`` (length D) as base64 of D little-endian float32."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def vector_from_text(text: str) -> tuple[float, ...]:
    """Decode what :func:`vector_to_text` made.

    Raises:
        ManifestMalformed: not base64 of whole float32 values.
    """
    try:
        data = base64.b64decode(text, validate=True)
        return struct.unpack(f"<{len(data) // FLOAT32_SIZE_BYTES}f", data)
    except (binascii.Error, struct.error, ValueError) as error:
        raise ManifestMalformed(f"not a base64 float32 vector: {error}") from error
