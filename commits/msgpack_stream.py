"""Cut a stream of msgpack objects into objects, without holding more than one of them.

The decoder that reads an object wants exactly its bytes, so something has to find where it ends:
this walks the heads of the format (https://github.com/msgpack/msgpack/blob/master/spec.md) and
decodes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from manifests.errors import BadDocument

_CHUNK_BYTES = 64 * 1024
# Total size by first byte: nil, booleans, numbers and extensions of fixed size.
_FIXED = {0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9} | {
    0xD0 + kind: size for kind, size in enumerate((2, 3, 5, 9, 3, 4, 6, 10, 18))
}
# Width of the length that follows the first byte, and bytes beside the payload: bin, ext, str.
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)} | {
    0xD9 + kind: (width, 0) for kind, width in enumerate((1, 2, 4))
}
# Width of the count that follows the first byte, and objects per entry: arrays and maps.
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
_FLOATS = {0xCA: 5, 0xCB: 9}


def objects(
    stream: BinaryIO, limit_bytes: int, refusal: Callable[[int, str], BadDocument]
) -> Iterator[tuple[int, bytes]]:
    """Yield ``(number, bytes)`` of each object, numbered from 1.

    At most ``limit_bytes`` + 1 bytes of the stream are held at a time.

    Raises:
        BadDocument: made by ``refusal(number, what)``: an object that is longer than the limit,
            cut off, or not msgpack.
    """
    held, number = bytearray(), 1
    while True:
        size_bytes = _object_size(held)
        if size_bytes == 0:
            raise refusal(number, "is not msgpack: it starts with the byte 0xc1")
        if size_bytes is not None and size_bytes <= limit_bytes:
            yield number, bytes(held[:size_bytes])
            del held[:size_bytes]
            number += 1
            continue
        if len(held) > limit_bytes or size_bytes is not None:
            raise refusal(number, f"is longer than {limit_bytes} bytes")
        chunk = stream.read(min(max(_CHUNK_BYTES, len(held)), limit_bytes + 1 - len(held)))
        if not chunk:
            if held:
                raise refusal(number, "is cut off by the end of the file")
            return
        held += chunk


def _object_size(data: bytearray) -> int | None:
    """Size of the first object in bytes; 0: not msgpack; ``None``: more is needed to tell."""
    position, waiting = 0, 1
    while waiting:
        if position >= len(data):
            return None
        step = _step(data, position)
        if step is None:
            return None
        size_bytes, children = step
        if size_bytes == 0:
            return 0
        position += size_bytes
        waiting += children - 1
        stride = _FLOATS.get(data[position]) if children > 1 and position < len(data) else None
        if stride is not None:
            # A vector: all of its numbers at once, if they are of one kind and all here.
            end = position + stride * children
            if end <= len(data) and data[position:end:stride].count(data[position]) == children:
                position, waiting = end, waiting - children
    return position if position <= len(data) else None


def _step(data: bytearray, position: int) -> tuple[int, int] | None:
    """``(bytes to go on, objects that follow as parts)`` at the head of an object."""
    first = data[position]
    if first < 0x80 or first >= 0xE0:
        return 1, 0
    if first < 0xA0:
        return 1, (first & 0x0F) * (2 if first < 0x90 else 1)
    if first < 0xC0:
        return 1 + (first & 0x1F), 0
    if first in _FIXED:
        return _FIXED[first], 0
    width, factor = _SIZED.get(first) or _CONTAINERS.get(first) or (0, 0)
    if width == 0:
        return 0, 0
    if position + 1 + width > len(data):
        return None
    count = int.from_bytes(data[position + 1 : position + 1 + width], "big")
    if first in _SIZED:
        return 1 + width + factor + count, 0
    return 1 + width, count * factor
