"""The table of chunk hashes: what turns a damaged symbol into a located erasure.

A table is trusted only after :func:`check_table` compared it with the manifest; a chunk counts only
after :func:`check_chunk` compared it with the table.
"""

from __future__ import annotations

from blake3 import blake3

from manifests.errors import BadSymbolSet
from manifests.generation import SymbolSet
from manifests.identifiers import HASH_SIZE_BYTES, content_id
from symbols.geometry import Geometry


def check_table(geometry: Geometry, symbols: SymbolSet, table: bytes | memoryview) -> bool:
    """Whether ``table`` is the one that the manifest pins."""
    return len(table) == geometry.table_size_bytes and content_id(table) == symbols.table_blake3


def chunk_digest(geometry: Geometry, table: bytes, number: int, chunk: int) -> bytes:
    """The BLAKE3-256 that the table gives for chunk ``chunk`` of symbol ``number``.

    Raises:
        BadSymbolSet: there is no such chunk, or the table has the wrong size.
    """
    if len(table) != geometry.table_size_bytes:
        raise BadSymbolSet(
            f"the table has {len(table)} bytes instead of {geometry.table_size_bytes}"
        )
    offset = geometry.table_offset(number, chunk)
    return bytes(table[offset : offset + HASH_SIZE_BYTES])


def check_chunk(
    geometry: Geometry, table: bytes, number: int, chunk: int, data: bytes | memoryview
) -> bool:
    """Whether ``data`` is chunk ``chunk`` of symbol ``number``, to the last byte.

    Raises:
        BadSymbolSet: there is no such chunk, or the table has the wrong size.
    """
    if len(data) != geometry.chunk_range(number, chunk).length:
        return False
    return blake3(data).digest() == chunk_digest(geometry, table, number, chunk)
