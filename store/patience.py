"""How long a read over a network may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a read may take.

    ``silence_s`` bounds each wait for bytes. The whole of a read of n bytes ends after ``grace_s``
    + n / ``min_bytes_per_s`` seconds, connecting included.
    """

    connect_s: float = 5
    silence_s: float = 20
    grace_s: float = 30
    min_bytes_per_s: int = 64 << 10


DEFAULT_PATIENCE = Patience()

PEER_PATIENCE = Patience(connect_s=2, silence_s=5, grace_s=10)
"""Peers are near, and there are stores to go to when one is silent."""
