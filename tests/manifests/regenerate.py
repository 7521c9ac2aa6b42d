"""Golden bytes: ``python -m tests.manifests.regenerate`` writes them, the tests want no difference.

A difference means that existing manifests and records hash to something else: a new schema version.
"""

from __future__ import annotations

from pathlib import Path

from manifests.canonical import to_canonical
from tests.manifests import samples

FOLDER = Path(__file__).parent / "golden"


def golden_bytes() -> dict[str, bytes]:
    """The content of every golden file, by its name."""
    return {
        "generation_manifest.v1.json": to_canonical(samples.manifest()),
        "control_record.v1.json": to_canonical(samples.record(10, 20, 30, active=20)),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in golden_bytes().items():
        (FOLDER / name).write_bytes(data)
