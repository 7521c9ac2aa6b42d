"""Every single-byte flip of some bytes."""

from __future__ import annotations

from collections.abc import Iterator

MASKS = (0x01, 0x80)


def flips(whole: bytes) -> Iterator[bytes]:
    """The bytes with each byte changed in turn, in each of two bits."""
    for mask in MASKS:
        damaged = bytearray(whole)
        for offset in range(len(whole)):
            damaged[offset] ^= mask
            yield bytes(damaged)
            damaged[offset] ^= mask
