"""The executors that a build can run on, by a writer's setting; the only place that starts them.

``threads`` of this process; ``processes`` on this machine, one a core; ``dask:tcp://host:port`` the
workers of a Dask scheduler, on any machines (ADR 0021).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from typing import TYPE_CHECKING, Any

from builder.scale_out import THREADS, Workforce
from manifests.errors import BadSetting, BuildWorkersLost

if TYPE_CHECKING:
    from controller.settings import WriterSettings

DASK = "dask:"
DASK_CONNECT_DEADLINE_S = 10
TASKS_A_WORKER = 2
"""One that it works on, and one that is ready when that is done."""


@contextlib.contextmanager
def workforce(settings: WriterSettings) -> Iterator[Workforce]:
    """What ``settings.build_executor`` names, for as long as the block lasts.

    Raises:
        BadSetting: it is Dask, which is not installed.
        BuildWorkersLost: the scheduler does not answer, or has no workers.
    """
    name, deadline_s = settings.build_executor, settings.build_task_deadline_s
    if name == "threads":
        with ThreadPoolExecutor(THREADS) as threads:
            yield Workforce(threads, in_flight=THREADS, task_deadline_s=deadline_s)
    elif name == "processes":
        with _processes(os.cpu_count() or 1) as (pool, count):
            yield Workforce(
                pool,
                in_flight=TASKS_A_WORKER * count,
                task_deadline_s=deadline_s,
                reach="machine",
                name=name,
            )
    else:
        with _dask(name.removeprefix(DASK)) as (executor, count, lost):
            yield Workforce(
                executor,
                in_flight=TASKS_A_WORKER * count,
                task_deadline_s=deadline_s,
                reach="network",
                lost=lost,
                name=name,
            )


@contextlib.contextmanager
def _processes(count: int) -> Iterator[tuple[ProcessPoolExecutor, int]]:
    # Spawned, because a fork of a process with threads may inherit a lock that nobody releases.
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool, count
    except BaseException:
        # What hangs is not waited for.
        for worker in set(multiprocessing.active_children()) - before:
            worker.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[tuple[Any, int, tuple[type[Exception], ...]]]:
    try:
        import dask
        import distributed
        from distributed.utils import silence_logging_cmgr
    except ImportError as error:
        raise BadSetting(
            f"build_executor is {DASK}{address}, but Dask is not installed here; install "
            "genctl[dask], or build on processes",
            field="build_executor",
        ) from error
    lost = (
        *(BrokenExecutor, CancelledError, distributed.scheduler.KilledWorker),
        # The connection, and what a worker without this genctl answers.
        *(OSError, ImportError, AttributeError),
    )
    with (
        # A shard's vectors are large, and there is no other way to them for a worker.
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}),
        # What goes wrong is raised and named; its log is tracebacks.
        silence_logging_cmgr(logging.CRITICAL),
    ):
        try:
            asyncio.run(asyncio.wait_for(_greet(address), DASK_CONNECT_DEADLINE_S))
            client: Any = distributed.Client(  # type: ignore[no-untyped-call]
                address, timeout=DASK_CONNECT_DEADLINE_S, set_as_default=False
            )
        except (OSError, ValueError) as error:
            raise BuildWorkersLost(
                f"no Dask scheduler answers at {address} within {DASK_CONNECT_DEADLINE_S} s; start "
                "one, or correct build_executor in the home's settings.json",
                executor=f"{DASK}{address}",
            ) from error
        try:
            count = sum(client.nthreads().values())
            if not count:
                raise BuildWorkersLost(
                    f"the Dask scheduler at {address} has no workers; start some with `dask worker "
                    f"{address}` where this genctl is installed",
                    executor=f"{DASK}{address}",
                )
            yield client.get_executor(pure=False), count, lost
        finally:
            client.close(timeout=DASK_CONNECT_DEADLINE_S)


async def _greet(address: str) -> None:
    """Connect as a client does, and no more: distributed has no deadline for being greeted back."""
    from distributed import Security
    from distributed.comm.core import connect

    security: Any = Security()  # type: ignore[no-untyped-call]
    comm: Any = await connect(  # type: ignore[no-untyped-call]
        address, timeout=DASK_CONNECT_DEADLINE_S, **security.get_connection_args("client")
    )
    await comm.close()
