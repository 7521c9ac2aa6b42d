"""The client that the public TUF conformance suite drives: the node's own trust code, over HTTP.

    client.py --metadata-dir DIR init TRUSTED_ROOT
    client.py --metadata-dir DIR --metadata-url URL refresh
    client.py --metadata-dir DIR --metadata-url URL --target-name PATH
              --target-base-url URL --target-dir DIR download

The interface is that of CLIENT-CLI.md of https://github.com/theupdateframework/tuf-conformance.
The suite's repositories carry no control record, so what is driven is ``MetadataClient`` with the
fetcher, the rules and the marks that a node uses, and not what judges the record. The trust state
is in ``DIR/state``; ``DIR`` itself has the copies that the suite looks at.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import urllib3
from tuf.api.exceptions import DownloadError, RepositoryError
from urllib3.exceptions import HTTPError

from controller import clock
from manifests.errors import ForkDetected, GenctlError, ObjectMissing, StoreUnavailable
from replicator.high_water import HIGH_WATER_FILE, ROOT_HISTORY
from replicator.metadata_client import MetadataClient
from replicator.metadata_fetcher import GRACE_S, MetadataFetcher, RefreshDeadline
from store.patience import DEFAULT_PATIENCE
from store.port import UNWATCHED, ObjectInfo, Transfer

PIECE_BYTES = 64 * 1024


class HttpRepository:
    """As much of the store port as a refresh uses, over a server that knows no ranges."""

    def __init__(self, metadata_url: str, targets_url: str | None) -> None:
        self._bases = {"metadata": metadata_url, "targets": targets_url or metadata_url}
        self._pool = urllib3.PoolManager()
        self.url = metadata_url

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """See :meth:`store.port.Store.read_into`; reads and drops what is before ``offset``."""
        kind, _, name = key.partition("/")
        try:
            answer = self._pool.request(
                "GET", _joined(self._bases[kind], name), preload_content=False, retries=False
            )
            if answer.status != 200:
                raise ObjectMissing(f"{answer.status} for {key}", key=key)
            self._read(answer, offset)
            count = 0
            while count < len(buffer):
                piece = self._read(answer, min(PIECE_BYTES, len(buffer) - count))
                if not piece:
                    break
                buffer[count : count + len(piece)] = piece
                count += len(piece)
                transfer.arrived(len(piece))
            answer.close()
        except HTTPError as error:
            raise StoreUnavailable(f"{key}: {error}") from error
        return count

    def stat(self, key: str) -> ObjectInfo | None:
        """Nothing is known of an object whose read has failed."""
        raise StoreUnavailable(f"{key} could not be read")

    def _read(self, answer: urllib3.BaseHTTPResponse, size_bytes: int) -> bytes:
        return bytes(answer.read(size_bytes)) if size_bytes else b""


def _joined(base: str, name: str) -> str:
    scheme, host, path, query, _ = urlsplit(base)
    return urlunsplit((scheme, host, f"{path.rstrip('/')}/{name}", query, ""))


def init(metadata: Path, trusted_root: Path) -> None:
    """Keep the root of trust; it is checked by each refresh."""
    (metadata / "state").mkdir()
    shutil.copyfile(trusted_root, metadata / "state" / "anchor")
    shutil.copyfile(trusted_root, metadata / "root.json")


def client_of(arguments: argparse.Namespace) -> MetadataClient:
    """A node's client over this repository, with the present time."""
    store: Any = HttpRepository(arguments.metadata_url, arguments.target_base_url)
    deadline = RefreshDeadline(time.monotonic, GRACE_S, DEFAULT_PATIENCE.min_bytes_per_s)
    state = arguments.metadata_dir / "state"
    return MetadataClient(
        state,
        (state / "anchor").read_bytes(),
        MetadataFetcher(store, deadline),
        clock.now(),
        target_folder=arguments.target_dir,
    )


def refresh(client: MetadataClient) -> None:
    """Follow the repository.

    The specification (5.4.3.1) has a client keep the timestamp it has when offered another of the
    same version, and say nothing. So does this one; a node besides raises what is dropped here.
    """
    try:
        client.refresh()
    except ForkDetected as error:
        if error.facts["role"] != "timestamp":
            raise
        sys.stderr.write(f"kept what was accepted: {error}\n")


def download(client: MetadataClient, targets: Sequence[str]) -> None:
    """Bring these targets, unless they are here."""
    client.refresh()
    for path in targets:
        target = client.get_targetinfo(path)
        if target is None:
            raise ObjectMissing(f"{path} is not a target")
        if client.find_cached_target(target) is None:
            client.download_target(target)


def show(metadata: Path) -> None:
    """Put copies of what is trusted where the suite looks."""
    state = metadata / "state"
    for path in state.glob("*.json"):
        if path.name != HIGH_WATER_FILE:
            shutil.copyfile(path, metadata / path.name)
    roots = sorted(
        (state / ROOT_HISTORY).glob("*.root.json"), key=lambda p: int(p.name.split(".")[0])
    )
    if roots:
        shutil.copyfile(roots[-1], metadata / "root.json")


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line of CLIENT-CLI.md."""
    parser = argparse.ArgumentParser(description="genctl's trust code for the conformance suite")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run one command: 0 when all of it succeeded, else 1."""
    given = parsed(arguments)
    if given.command == "init":
        init(given.metadata_dir, given.trusted_root)
        return 0
    try:
        client = client_of(given)
        if given.command == "refresh":
            refresh(client)
        else:
            download(client, given.target_name)
    except (GenctlError, RepositoryError, DownloadError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    finally:
        show(given.metadata_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
