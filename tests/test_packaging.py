"""What the wheel holds: the rooms, each with its marker for types, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "activator",
    "builder",
    "commits",
    "controller",
    "durable",
    "index",
    "manifests",
    "query",
    "replicator",
    "store",
    "symbols",
}
DIST_INFO = "genctl-0.1.0.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel, built offline by the installed backend."""
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.iterdir()
    return zipfile.Path(path)


def test_the_wheel_holds_exactly_the_rooms_and_its_metadata(wheel: zipfile.Path) -> None:
    assert {entry.name for entry in wheel.iterdir()} == ROOMS | {DIST_INFO}


def test_every_room_is_a_package_that_carries_its_types(wheel: zipfile.Path) -> None:
    wanted = [
        room / name for room in map(wheel.joinpath, ROOMS) for name in ("__init__.py", "py.typed")
    ]
    assert [entry.at for entry in wanted if not entry.is_file()] == []


def test_the_console_script_is_the_cli(wheel: zipfile.Path) -> None:
    entry_points = (wheel / DIST_INFO / "entry_points.txt").read_text(encoding="utf-8")
    assert entry_points.split("\n")[:2] == ["[console_scripts]", "genctl = controller.entry:main"]


def test_a_public_index_would_refuse_the_wheel(wheel: zipfile.Path) -> None:
    metadata = (wheel / DIST_INFO / "METADATA").read_text(encoding="utf-8")
    assert "Classifier: Private :: Do Not Upload" in metadata.splitlines()
