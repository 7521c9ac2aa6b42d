"""The contract, against every backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import pytest

from store.locate import open_store
from store.memory import MemoryStore
from store.port import Store
from store.retrying import Backoff, RetryingStore
from tests.store.contract import Holding, WritingContract
from tests.support.s3_server import S3Server

_prefixes = count()


@pytest.fixture(scope="session")
def s3_bucket(s3: S3Server) -> str:
    return s3.bucket("contract")


@pytest.fixture
def in_s3(request: pytest.FixtureRequest) -> Callable[[], Store]:
    def make() -> Store:
        request.getfixturevalue("s3_credentials")
        bucket, query = request.getfixturevalue("s3_bucket").split("?")
        return open_store(f"{bucket}/stores/{next(_prefixes)}?{query}")

    return make


def never(_: float) -> None:
    raise AssertionError("nothing is to be retried")


@pytest.fixture(params=["memory", "folder", "s3", "retrying"])
def store(request: pytest.FixtureRequest, tmp_path: Path, in_s3: Callable[[], Store]) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "retrying":
        return RetryingStore(MemoryStore(), Backoff(never, lambda: 0))
    if request.param == "s3":
        return in_s3()
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
