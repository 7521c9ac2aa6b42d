"""Documents, homes and comparisons that the system tests share."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.process import Genctl

DIMENSIONS = 256


def seeded(seed: int) -> random.Random:
    """A random generator whose seed stands in the output of a failed test."""
    print("seed", seed)  # noqa: T201
    return random.Random(seed)


def document(number: int, word: str = "first") -> dict[str, Any]:
    """A document found by its own word ``own<number>`` and by what all of its kind share."""
    text = f"{word} own{number} among the common text"
    return {"id": f"d{number}", "title": f"{word} {number}", "text": text}


def documents(low: int, high: int, word: str = "first") -> list[dict[str, Any]]:
    return [document(number, word) for number in range(low, high + 1)]


def write(path: Path, operations: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(operation) + "\n" for operation in operations))
    return path


def writer_home(genctl: Genctl, *, home: str = "w", store: str = "s") -> None:
    genctl("init", home, "--store", store, "--dimensions", DIMENSIONS).ok()


def ingest(genctl: Genctl, operations: list[dict[str, Any]], size: int, home: str = "w") -> int:
    """Ingest in commits of ``size``; the commit_seq that it reached."""
    path = write(genctl.folder / "ingest.jsonl", operations)
    report = genctl("ingest", home, path, "--commit-size", size, "--json").ok().json
    assert report["documents"] == len(operations)
    commit_seq: int = report["commit_seq"]
    return commit_seq


def release(genctl: Genctl, home: str = "w") -> str:
    generation_id: str = genctl("release", home, "--json").ok().json["generation_id"]
    return generation_id


def bootstrap(genctl: Genctl, node: str = "n", *, store: str = "s", home: str = "w") -> Any:
    return (
        genctl("node", "bootstrap", node, "--store", store, "--root", f"{home}/root.json", "--json")
        .ok()
        .json
    )


def ids(answer: Mapping[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def ask(genctl: Genctl, node: str, text: str, *more: object) -> Any:
    return genctl("query", node, text, "-k", 1000, "--json", *more).ok().json


def copy(source: Path, target: Path) -> None:
    """A copy of a folder of homes and stores; hard links within it stay hard links."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def copy_homes(made: Path, folder: Path) -> None:
    """The same, whose settings then name the stores of the copy."""
    copy(made, folder)
    for path in (*folder.glob("*/settings.json"), *folder.glob("*/node.json")):
        path.write_text(path.read_text("utf-8").replace(str(made), str(folder)), "utf-8")


def release_into_two_stores(genctl: Genctl, count: int) -> list[str]:
    """A writer ``w`` that released so many generations, a document each; their ids."""
    genctl("init", "w", "--store", "s", "--store", "t", "--dimensions", 256).ok()
    made = []
    for number in range(1, count + 1):
        ingest(genctl, documents(number, number), 1)
        made.append(release(genctl))
    return made


def files_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, modification time and size of every file under ``folder``, by its relative path."""
    return {
        str(path.relative_to(folder)): (found.st_ino, found.st_mtime_ns, found.st_size)
        for path in folder.rglob("*")
        if path.is_file()
        for found in (path.stat(),)
    }
