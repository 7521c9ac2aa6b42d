"""The only place that asks what time it is, sleeps or draws lots; the rest is handed the answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from manifests.errors import SourceBusy
from store.retrying import Backoff

POLL_INTERVAL_MS = 20

sleep = time.sleep
BACKOFF = Backoff(sleep=sleep, jitter=random.random)
"""How a store that does not answer is asked again."""

BUSY_BACKOFF = Backoff(
    sleep, random.random, errors=(SourceBusy,), attempts=12, first_s=0.05, longest_s=1
)
"""How a peer is asked again that has its hands full: for some seconds, then the stores serve."""


def now() -> datetime:
    """The current time in UTC, to the second, as signed metadata wants it."""
    return datetime.now(UTC).replace(microsecond=0)


def now_ms() -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def poller(deadline_ms: int) -> Callable[[], bool]:
    """A function that pauses and returns ``True`` until ``deadline_ms`` from now have passed."""
    end = time.monotonic() + deadline_ms / 1000

    def keep_waiting() -> bool:
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(POLL_INTERVAL_MS / 1000, left))
        return True

    return keep_waiting
