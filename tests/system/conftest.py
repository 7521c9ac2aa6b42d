from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.process import Console, Genctl, Warm, environment, left_running


@pytest.fixture(scope="session")
def mark() -> Iterator[str]:
    """What every process of this run carries; when all is over, none may be left."""
    name = str(os.getpid())
    yield name
    assert left_running(name) == []


@pytest.fixture(scope="session")
def warm(mark: str) -> Iterator[Warm]:
    with Warm(environment(mark)) as process:
        yield process


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose fsync costs nothing: SIGKILL takes nothing from the kernel's memory anyway."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="genctl-", dir=memory))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def in_folder(warm: Warm) -> Callable[[Path], Genctl]:
    return lambda folder: Genctl(warm, folder)


@pytest.fixture
def genctl(warm: Warm, tmp_path: Path) -> Genctl:
    """Runs each command in its own process, in the test's folder."""
    return Genctl(warm, tmp_path)


@pytest.fixture
def console(mark: str, tmp_path: Path) -> Console:
    """Runs the installed console script in the test's folder."""
    return Console(tmp_path, environment(mark))
