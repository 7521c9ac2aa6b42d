"""A build is the same on whatever executor it runs, and says what is wrong when that one fails."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder import scale_out
from builder.draft import ONE_SHARD_VECTORS
from controller import clock
from controller.executors import workforce
from controller.settings import WriterSettings, load, made, save
from controller.writer import WriterHome
from index.contents import Contents
from index.verification import verify_generation
from manifests.errors import BadSetting, BuildWorkersLost, DiskError
from manifests.generation import GenerationManifest, HeadsArtifact, VectorArtifact
from tests.support.corpus import upserts
from tests.support.homes import commit, make_writer

DOCUMENTS = ONE_SHARD_VECTORS + 100
"""Two shards."""

DEADLINE_S = 60
ROOT = Path(__file__).resolve().parents[2]
"""From where the workers import what they run."""


@contextlib.contextmanager
def dask_cluster(workers: int) -> Iterator[str]:
    """The address of a real Dask scheduler with worker processes on the loopback interface."""
    from distributed import LocalCluster

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with dask_cluster(2) as address:
        yield address


def on(writer: WriterHome, executor: str, deadline_s: int = DEADLINE_S) -> WriterHome:
    """The writer's home with another executor in its settings."""
    path = writer.home / "settings.json"
    settings = writer.settings.model_copy(
        update={"build_executor": executor, "build_task_deadline_s": deadline_s}
    )
    save(path, settings)
    assert load(path, WriterSettings, "a home") == settings
    return WriterHome(writer.home)


def built_on(folder: Path, executor: str, embedder: str) -> tuple[WriterHome, GenerationManifest]:
    folder.mkdir()
    dimensions = 16 if embedder == "precomputed" else None
    writer = make_writer(folder, embedder=embedder, quantization="bf16")
    commit(writer, upserts(range(DOCUMENTS), dimensions=dimensions))
    home = on(writer, executor)
    return home, home.build().manifest


@pytest.mark.parametrize("embedder", ["hashing", "precomputed"])
def test_the_same_documents_and_bytes_come_of_every_executor(
    tmp_path: Path, scheduler: str, embedder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale_out, "BATCH_TEXTS", 600)
    before = children()
    executors = ["threads", "processes", f"dask:{scheduler}"]
    built = [
        built_on(tmp_path / str(number), executor, embedder)
        for number, executor in enumerate(executors)
    ]
    assert children() <= before
    for kind in (VectorArtifact, HeadsArtifact):
        ids = [[each.blake3 for each in manifest.of_kind(kind)] for _, manifest in built]
        assert ids[0] == ids[1] == ids[2]
        assert ids[0]
    assert len(built[0][1].of_kind(VectorArtifact)) == 2
    one, two, three = (
        Contents(
            verify_generation(manifest, home.residence.folder(manifest.generation_id))
        ).fingerprints()
        for home, manifest in built
    )
    assert len(one) == DOCUMENTS
    assert one == two == three


def children() -> set[int | None]:
    """The processes that were started here and are not Dask's, which come back when they die."""
    return {each.pid for each in multiprocessing.active_children() if "Dask" not in each.name}


def settings_on(executor: str, deadline_s: int = DEADLINE_S) -> WriterSettings:
    return made(
        WriterSettings,
        shard="main",
        stores=("/nowhere",),
        embedder="hashing",
        dimensions=16,
        build_executor=executor,
        build_task_deadline_s=deadline_s,
    )


def worker_pid(_: int) -> int:
    return os.getpid()


def die(_: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def hang(_: int) -> int:
    signal.pause()
    return 0


def fail(_: int) -> int:
    raise DiskError("the worker's disk", path="/there")


def defect(_: int) -> int:
    raise ZeroDivisionError


def test_a_worker_process_that_dies_is_named_and_nothing_of_the_build_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make_writer(tmp_path)
    commit(writer, upserts(range(10)))
    home = on(writer, "processes")
    with monkeypatch.context() as patch:
        patch.setattr(scale_out, "embed", die)
        with pytest.raises(BuildWorkersLost, match="processes"):
            home.build()
    assert home.residence.resident_ids() == []
    assert home.build().manifest.counts.documents == 10


def test_a_worker_process_that_hangs_is_given_up_and_ended() -> None:
    before = children()
    with (
        pytest.raises(BuildWorkersLost, match="did not finish a task in 3 s") as refused,
        workforce(settings_on("processes", 3)) as workers,
    ):
        list(workers.run(hang, [1]))
    assert refused.value.facts["task_deadline_s"] == 3
    assert children() <= before


def test_an_error_of_a_task_comes_through_with_its_facts(scheduler: str) -> None:
    for executor in ("processes", f"dask:{scheduler}"):
        with workforce(settings_on(executor)) as workers:
            with pytest.raises(DiskError) as refused:
                list(workers.run(fail, [1]))
            assert refused.value.facts == {"path": "/there"}
            with pytest.raises(ZeroDivisionError):
                list(workers.run(defect, [1]))


def test_dask_workers_do_the_work(scheduler: str) -> None:
    with workforce(settings_on(f"dask:{scheduler}")) as workers:
        pids = set(workers.run(worker_pid, range(40)))
    assert os.getpid() not in pids
    assert pids


def test_a_dask_worker_that_dies_again_and_again_is_named() -> None:
    import dask
    import distributed  # noqa: F401 - its settings have to be there before one is changed

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        dask_cluster(1) as address,
        workforce(settings_on(f"dask:{address}")) as workers,
        pytest.raises(BuildWorkersLost, match="KilledWorker"),
    ):
        list(workers.run(die, [1]))


def test_a_dask_worker_that_hangs_is_given_up(scheduler: str) -> None:
    with (
        workforce(settings_on(f"dask:{scheduler}", 2)) as workers,
        pytest.raises(BuildWorkersLost, match="did not finish"),
    ):
        list(workers.run(nap, [1]))


def nap(_: int) -> int:
    time.sleep(4)  # noqa: TID251 - a task that takes longer than it may
    return 0


@contextlib.contextmanager
def process(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            yield running
        finally:
            running.terminate()
            running.wait(DEADLINE_S)


def test_a_scheduler_that_dies_in_the_middle_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scheduler.json"
    local = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    started = tmp_path / "started"
    with (
        process(
            "distributed.cli.dask_scheduler", *local, "--port", 0, "--scheduler-file", file
        ) as scheduler,
        process("distributed.cli.dask_worker", *local, "--nthreads", 1, "--scheduler-file", file),
    ):
        wait_for(lambda: file.exists() and file.read_text().rstrip().endswith("}"))
        settings = settings_on(f"dask:{json.loads(file.read_text())['address']}")
        wait_for(lambda: has_workers(settings))
        with workforce(settings) as workers, ThreadPoolExecutor(1) as pool:
            found = pool.submit(lambda: list(workers.run(begin, [started])))
            wait_for(started.exists)
            scheduler.kill()
            with pytest.raises(BuildWorkersLost, match="are lost"):
                found.result(DEADLINE_S)
    assert "Traceback" not in capfd.readouterr().err


def begin(started: Path) -> None:
    started.touch()
    nap(0)


def has_workers(settings: WriterSettings) -> bool:
    try:
        with workforce(settings):
            return True
    except BuildWorkersLost:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    keep_waiting = clock.poller(DEADLINE_S * 1000)
    while not condition():
        assert keep_waiting(), "the deadline has passed"


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.executors.DASK_CONNECT_DEADLINE_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(BuildWorkersLost, match="no Dask scheduler answers"),
            workforce(settings_on(f"dask:{address}")),
        ):
            pass


def test_a_scheduler_without_workers_is_named() -> None:
    with (
        dask_cluster(0) as address,
        pytest.raises(BuildWorkersLost, match="has no workers"),
        workforce(settings_on(f"dask:{address}")),
    ):
        pass


def test_dask_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(BadSetting, match=r"genctl\[dask\]"),
        workforce(settings_on("dask:tcp://127.0.0.1:8786")),
    ):
        pass


@pytest.mark.parametrize(
    "executor",
    [
        "",
        "fibres",
        "dask",
        "dask:",
        "dask:localhost:8786",
        "dask:http://localhost:8786",
        "dask:tcp://localhost",
        "dask:tcp://user@host:1",
        "dask:tcp://host:8786/path",
        "dask:tcp://host:8786\n",
        "tcp://host:8786",
    ],
)
def test_a_setting_that_names_no_executor_is_refused(executor: str) -> None:
    with pytest.raises(BadSetting, match="build_executor"):
        settings_on(executor)


@pytest.mark.parametrize("deadline_s", [0, -1, 7 * 24 * 3600 + 1])
def test_a_deadline_out_of_bounds_is_refused(deadline_s: int) -> None:
    with pytest.raises(BadSetting, match="build_task_deadline_s"):
        settings_on("threads", deadline_s)


@pytest.mark.parametrize("executor", ["dask:tcp://10.0.0.7:8786", "dask:tls://[::1]:8786"])
def test_addresses_of_schedulers_are_taken(executor: str) -> None:
    assert settings_on(executor).build_executor == executor
