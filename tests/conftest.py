from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.ceph import PACKAGES, missing_programs, s3_server
from tests.support.s3_server import S3Server

_buckets = count()


def pytest_report_header() -> str:
    if missing_programs():
        return f"S3 tests use moto's server, since Ceph is not installed (apt-get: {PACKAGES})"
    return "S3 tests use Ceph RGW"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server, started for the first test that asks."""
    with tempfile.TemporaryDirectory(prefix="genctl-s3-") as folder, s3_server(Path(folder)) as it:
        yield it


@pytest.fixture
def s3_credentials(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process's environment lets it in to the S3 server, and nothing else counts."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_url(s3: S3Server, s3_credentials: None) -> str:
    """The URL of a store in a new bucket of the S3 server; processes need ``s3.environment``."""
    return s3.bucket(f"bucket-{next(_buckets)}")
