"""What is known of a source's health, and when it may be asked again (pure).

A circuit breaker after Nygard ("Release It!", 2007), as a table:

=========  =====================  =========================================================
state      event                  next state
=========  =====================  =========================================================
closed     success                closed, failures forgotten
closed     failure                closed; open for ``REST_S`` at the third in a row
any        lie                    open for ``SHUNNED_S``
open       success                open: of a read that had begun before
open       its time has passed    half-open: asked again
half-open  success                closed
half-open  failure                open for ``REST_S``
=========  =====================  =========================================================
"""

from __future__ import annotations

from typing import Literal

STORE_FAILURES_IN_A_ROW = 3
STORE_REST_S = 30.0
PEER_FAILURES_IN_A_ROW = 1
PEER_REST_S = 120.0
SHUNNED_S = 600.0
"""How long a source that sent wrong bytes is not asked."""

State = Literal["closed", "open", "half-open"]


class Health:
    """One source's breaker. ``now_s`` is of any clock that never goes back."""

    def __init__(
        self, failures_in_a_row: int = STORE_FAILURES_IN_A_ROW, rest_s: float = STORE_REST_S
    ) -> None:
        self._failures_in_a_row = failures_in_a_row
        self._rest_s = rest_s
        self._failures = 0
        self._opens_again_s: float | None = None

    def state(self, now_s: float) -> State:
        """Where the breaker stands."""
        if self._opens_again_s is None:
            return "closed"
        return "open" if now_s < self._opens_again_s else "half-open"

    def may_ask(self, now_s: float) -> bool:
        """Whether the source is worth asking."""
        return self.state(now_s) != "open"

    def succeeded(self, now_s: float) -> None:
        """It gave what it was asked for."""
        if self.may_ask(now_s):
            self._failures, self._opens_again_s = 0, None

    def failed(self, now_s: float) -> None:
        """It did not answer, or too slowly, or with something else."""
        self._failures += 1
        if self._failures >= self._failures_in_a_row:
            self._opens_again_s = max(self._opens_again_s or 0.0, now_s + self._rest_s)

    def lied(self, now_s: float) -> None:
        """It sent bytes that are not what it said they are."""
        self._failures = self._failures_in_a_row
        self._opens_again_s = now_s + SHUNNED_S
