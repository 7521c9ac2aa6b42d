"""The contract, against every backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from store.locate import open_store
from store.memory import MemoryStore
from store.port import Store
from tests.store.contract import Holding, WritingContract


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def holding(store: Store) -> Holding:
    def fill(objects: Mapping[str, bytes]) -> Store:
        for key, data in objects.items():
            assert store.put_if_absent(key, [data])
        return store

    return fill


class TestContract(WritingContract):
    pass
