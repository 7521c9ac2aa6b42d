"""An S3 server for tests: what is told of it, and moto's as a real process of its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_DEADLINE_S = 60
STOP_DEADLINE_S = 20

# Unthreaded: with threads its conditional writes are not atomic.
_MOTO = """
import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
application = DomainDispatcherApplication(create_backend_app)
run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=False)
"""


@dataclass(frozen=True)
class S3Server:
    """A server that runs; ``name`` says which, ``endpoint`` is its URL."""

    name: str
    endpoint: str
    access_key: str = "testaccesskey"
    secret_key: str = "testsecretkey"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be let in."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def client(self) -> Any:
        """A plain boto3 client."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def bucket(self, name: str) -> str:
        """The URL of a store in a bucket that is there from now on."""
        self.client.create_bucket(Bucket=name)
        return self.url(name)

    def url(self, bucket: str) -> str:
        """The URL of a store in ``bucket``."""
        return f"s3://{bucket}?endpoint={self.endpoint}&region=us-east-1"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nothing listened on a moment ago."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until ``ready`` says so, as long as the process runs."""
    end = time.monotonic() + START_DEADLINE_S
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"{process.args!r} did not start:\n{log.read_text()[-2000:]}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)


def answers(url: str) -> bool:
    """Whether an HTTP server answers there, whatever it says."""
    try:
        # Opened without the environment's proxies.
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, or with this one if that is killed."""
    with log.open("ab") as output:
        running = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield running
    finally:
        # Asked politely, a store in memory would first write all it has to the disk.
        running.kill()
        running.wait(STOP_DEADLINE_S)


@contextlib.contextmanager
def running_moto(folder: Path) -> Iterator[S3Server]:
    """moto's server with its log in ``folder``."""
    [port] = free_ports(1)
    log = folder / "moto.log"
    with process([sys.executable, "-c", _MOTO, str(port)], log) as moto:
        server = S3Server("moto", f"http://127.0.0.1:{port}")
        until(lambda: answers(server.endpoint), moto, log)
        yield server
