"""Artifacts for the symbol tests, and what their symbols must be, computed another way."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3
from zfec import Encoder

from symbols.encode import Encoded, encode, object_parts
from symbols.geometry import Geometry


def pattern(size_bytes: int) -> bytes:
    """Bytes without repetition, the same everywhere: BLAKE3 as a stream."""
    return blake3(b"genctl symbol tests").digest(length=size_bytes)


def encoded_artifact(folder: Path, geometry: Geometry) -> Encoded:
    """The encoded :func:`pattern` of the geometry's size, in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "artifact"
    source.write_bytes(pattern(geometry.size_bytes))
    return encode(source, geometry, folder)


def symbol_data(encoded: Encoded, number: int) -> bytes:
    """The data of one stored symbol, without its table."""
    return bytes(object_parts(encoded, number)[0])


def chunks_of(encoded: Encoded, chunk: int) -> dict[int, bytes]:
    """Chunk ``chunk`` of every symbol that has one."""
    geometry = encoded.geometry
    column = {}
    for number in geometry.symbols_with_chunk(chunk):
        offset, length = geometry.chunk_range(number, chunk)
        column[number] = symbol_data(encoded, number)[offset : offset + length]
    return column


def reference_symbols(data: bytes, geometry: Geometry) -> list[bytes]:
    """All symbols, by giving zfec the whole padded artifact at once."""
    size_bytes = geometry.symbol_size_bytes
    padded = data.ljust(size_bytes * geometry.k, b"\0")
    sources = [padded[i * size_bytes : (i + 1) * size_bytes] for i in range(geometry.k)]
    symbols: list[bytes] = Encoder(geometry.k, geometry.m).encode(sources)
    symbols[geometry.k - 1] = data[(geometry.k - 1) * size_bytes :]
    return symbols


def reference_table(symbols: list[bytes], chunk_size_bytes: int) -> bytes:
    """The hashes of all chunks, symbol after symbol."""
    return b"".join(
        blake3(symbol[offset : offset + chunk_size_bytes]).digest()
        for symbol in symbols
        for offset in range(0, len(symbol), chunk_size_bytes)
    )
