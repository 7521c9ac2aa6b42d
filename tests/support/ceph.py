"""One node of Ceph with its S3 gateway, as real processes on loopback, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.s3_server import S3Server, answers, free_ports, process, running_moto, until

PROGRAMS = [
    "ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin"
]  # fmt: skip
COMMAND_DEADLINE_S = 60
CLUSTER_ID = "6e0a3c52-7f0e-4c8b-9a53-0c1f5d0e7a11"
OSD_ID = "b3b7f0de-1c55-4a0c-8f0a-2f6d8c9e4b22"
PACKAGES = "ceph-mon ceph-osd ceph-mgr radosgw"

_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = {monitor}
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
public addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
auth allow insecure global id reclaim = false
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
mon warn on pool no redundancy = false
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = {size_bytes}
osd numa auto affinity = false
run dir = {folder}
admin socket = {folder}/$cluster-$name.asok
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
mon data = {folder}/mon
osd data = {folder}/osd
mon data avail crit = 1
mon data avail warn = 1
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw data = {folder}/rgw
rgw thread pool size = 32
rgw dns name = 127.0.0.1
"""
_KEYS = {
    "mon.": ["mon", "allow *"],
    "client.admin": ["mon", "allow *", "osd", "allow *", "mgr", "allow *"],
    "osd.0": ["mon", "allow profile osd", "osd", "allow *"],
    "client.rgw.a": ["mon", "allow rwx", "osd", "allow rwx"],
}


def missing_programs() -> list[str]:
    """Which programs of Ceph are not installed here."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Ceph; where it is not installed, moto's server, but in CI an error."""
    missing = missing_programs()
    if not missing:
        with running_ceph(folder) as server:
            yield server
    elif "CI" in os.environ:
        raise AssertionError(f"{', '.join(missing)} not found; apt-get install {PACKAGES}")
    else:
        with running_moto(folder) as server:
            yield server


@contextlib.contextmanager
def running_ceph(folder: Path, size_bytes: int = 2 << 30) -> Iterator[S3Server]:
    """A cluster that keeps up to ``size_bytes`` in memory and its bookkeeping in ``folder``."""
    ports = free_ports(3)
    configuration = folder / "ceph.conf"
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    monitor = f"[v2:127.0.0.1:{ports[0]},v1:127.0.0.1:{ports[1]}]"
    configuration.write_text(
        _CONFIGURATION.format(
            fsid=CLUSTER_ID, monitor=monitor, folder=folder, size_bytes=size_bytes, port=ports[2]
        )
    )
    with contextlib.ExitStack() as stack:

        def run(program: str, *arguments: object, reads_configuration: bool = True) -> None:
            read = ["-c", configuration] if reads_configuration else []
            done = subprocess.run(
                [program, *map(str, [*read, *arguments])],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_DEADLINE_S,
                check=False,
                cwd=folder,
            )
            assert done.returncode == 0, (done.args, done.stdout, done.stderr)

        def start(*command: object) -> subprocess.Popen[bytes]:
            line = [*map(str, command), "-c", str(configuration), "-f"]
            return stack.enter_context(process(line, folder / "output.log"))

        keyring = folder / "keyring"
        keyring.touch()
        for name, capabilities in _KEYS.items():
            pairs = zip(capabilities[::2], capabilities[1::2], strict=True)
            given = [word for pair in pairs for word in ("--cap", *pair)]
            run(
                "ceph-authtool", keyring, "--gen-key", "-n", name, *given, reads_configuration=False
            )
        new_map = ["--create", "--fsid", CLUSTER_ID, "--addv", "a", monitor, folder / "monmap"]
        run("monmaptool", *new_map, reads_configuration=False)
        run("ceph-mon", "-i", "a", "--mkfs", "--monmap", folder / "monmap", "--keyring", keyring)
        start("ceph-mon", "-i", "a")
        run("ceph", "osd", "new", OSD_ID)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", OSD_ID)
        start("ceph-osd", "-i", "0")
        gateway = start("radosgw", "-n", "client.rgw.a")
        server = S3Server("Ceph RGW", f"http://127.0.0.1:{ports[2]}")
        until(lambda: answers(server.endpoint), gateway, folder / "output.log")
        run(
            "radosgw-admin", "user", "create", "--uid=test", "--display-name=test",
            f"--access-key={server.access_key}", f"--secret={server.secret_key}",
        )  # fmt: skip
        yield server
