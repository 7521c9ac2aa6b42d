"""How tests of transfers have their reads cut and hedged; a module asks by ``usefixtures``."""

from __future__ import annotations

import pytest

from replicator import download, runs


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many runs in a small artifact."""
    monkeypatch.setattr(runs, "RUN_SIZE_BYTES", 8192)


@pytest.fixture
def unhedged(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hedge, however busy the machine is: for tests that count bytes."""
    monkeypatch.setattr(download, "HEDGE_AFTER_S", 60.0)


@pytest.fixture
def soon_hedged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hedge for reads that stall a moment."""
    monkeypatch.setattr(download, "HEDGE_AFTER_S", 0.02)
    monkeypatch.setattr(download, "DEADLINE_CHECK_S", 0.02)
