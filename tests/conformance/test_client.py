"""The client that the conformance suite drives, against a repository made with python-tuf."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from controller import clock
from tests.support.http_faults import FaultyServer, holding

CLIENT = Path(__file__).with_name("client.py")
ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60
CONTENT = b"what is downloaded"
TARGET = "folder/file.txt"


class Repository:
    """Files by path, as a server gives them; one key signs everything."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.key = CryptoSigner.generate_ed25519()
        self.expires = clock.now() + timedelta(days=1)
        root = Root(version=1, expires=self.expires, consistent_snapshot=True)
        for role in (Root.type, Timestamp.type, Snapshot.type, Targets.type):
            root.roles[role] = Role([], 1)
            root.add_key(self.key.public_key, role)
        self.root = self.signed(root)
        self.files["/metadata/1.root.json"] = self.root
        self.publish(1)

    def signed(self, document: Any) -> bytes:
        metadata = Metadata(document)
        metadata.sign(self.key)
        return metadata.to_bytes(JSONSerializer())

    def publish(self, version: int, content: bytes = CONTENT) -> None:
        target = TargetFile.from_data(TARGET, content, ["sha256"])
        targets = self.signed(Targets(version, expires=self.expires, targets={TARGET: target}))
        meta = {"targets.json": MetaFile(version)}
        snapshot = self.signed(Snapshot(version, expires=self.expires, meta=meta))
        named = MetaFile.from_data(version, snapshot, ["sha256"])
        timestamp = self.signed(Timestamp(version, expires=self.expires, snapshot_meta=named))
        self.files |= {
            f"/metadata/{version}.targets.json": targets,
            f"/metadata/{version}.snapshot.json": snapshot,
            "/metadata/timestamp.json": timestamp,
            f"/targets/folder/{sha256(content).hexdigest()}.file.txt": content,
        }


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def server(repository: Repository) -> Iterator[FaultyServer]:
    with FaultyServer(holding(repository.files)) as running:
        yield running


class Client:
    """The program, as the suite starts it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self.metadata.mkdir()
        self.targets.mkdir()
        self._url = url

    def run(self, *arguments: object) -> int:
        command = [sys.executable, str(CLIENT), "--metadata-dir", str(self.metadata)]
        finished = subprocess.run(
            [*command, *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert "Traceback" not in finished.stderr
        return finished.returncode

    def refresh(self) -> int:
        return self.run("--metadata-url", f"{self._url}/metadata/", "refresh")

    def download(self, target: str) -> int:
        more = ("--target-base-url", f"{self._url}/targets/", "--target-dir", self.targets)
        url = ("--metadata-url", f"{self._url}/metadata/")
        return self.run(*url, "--target-name", target, *more, "download")

    def version(self, role: str) -> int:
        held: Metadata[Any] = Metadata.from_bytes((self.metadata / f"{role}.json").read_bytes())
        return int(held.signed.version)


@pytest.fixture
def client(repository: Repository, server: FaultyServer, tmp_path: Path) -> Client:
    made = Client(tmp_path, server.url)
    (tmp_path / "trusted.json").write_bytes(repository.root)
    assert made.run("init", tmp_path / "trusted.json") == 0
    return made


def test_it_follows_a_repository_and_shows_what_it_trusts(
    client: Client, repository: Repository
) -> None:
    assert client.refresh() == 0
    shown = {path.name for path in client.metadata.glob("*.json")}
    assert shown == {"root.json", "timestamp.json", "snapshot.json", "targets.json"}
    repository.publish(2)
    assert client.refresh() == 0
    assert client.version("timestamp") == client.version("targets") == 2
    repository.publish(1)
    assert client.refresh() == 1
    assert client.version("timestamp") == 2


def test_it_downloads_a_target_once_and_none_that_is_not_the_signed_one(
    client: Client, repository: Repository, server: FaultyServer
) -> None:
    assert client.download(TARGET) == 0
    assert client.download(TARGET) == 0
    (path,) = client.targets.iterdir()
    assert path.read_bytes() == CONTENT
    assert sum("/targets/" in asked.path for asked in server.seen) == 1
    assert client.download("no such target") == 1
    repository.publish(2, b"other")
    (forged,) = [name for name in repository.files if name.endswith(".file.txt")][1:]
    repository.files[forged] = b"forge"
    assert client.download(TARGET) == 1
    assert path.read_bytes() == CONTENT


def test_another_timestamp_of_a_version_is_dropped_as_the_specification_says(
    client: Client, repository: Repository
) -> None:
    assert client.refresh() == 0
    held = (client.metadata / "timestamp.json").read_bytes()
    repository.expires += timedelta(hours=1)
    repository.publish(1)
    assert client.refresh() == 0
    assert (client.metadata / "timestamp.json").read_bytes() == held
