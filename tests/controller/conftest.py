"""A peer's home that a test may change, and the URL at which it is served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import Home, serving


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def url(home: Home) -> Iterator[str]:
    with serving(home.application()) as url:
        yield url
