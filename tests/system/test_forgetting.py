"""Row 59: what the runbook of revocations says to do leaves nothing of the deleted text behind."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.support.process import Genctl
from tests.system.world import bootstrap, documents, ingest, release, write, writer_home

RUNBOOK = Path(__file__).parents[2] / "runbooks/collected.md"
SECRETS = ("secrettitle", "xkcdpassword9")
LEAK = {"id": "leak", "title": SECRETS[0], "text": f"{SECRETS[1]} among the common text"}


def steps() -> list[list[str]]:
    """The commands of the step that deletes documents for good, word by word."""
    text = RUNBOOK.read_text()
    step = text[text.index("\n6. ") : text.index("\n7. ")]
    return [shlex.split(line, comments=True) for line in re.findall(r"(?m)^ +genctl (.*)$", step)]


def holding(folder: Path) -> list[str]:
    """The files under a folder, but for commit logs, that have one of the secrets in them."""
    return [
        str(path.relative_to(folder.parent))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and "log" not in path.relative_to(folder).parts
        and any(secret.encode() in path.read_bytes().lower() for secret in SECRETS)
    ]


def test_row_59_the_steps_of_the_runbook_leave_no_byte_of_a_deleted_document(
    genctl: Genctl,
) -> None:
    writer_home(genctl)
    ingest(genctl, documents(0, 39), 100)
    before = release(genctl)
    bootstrap(genctl)
    ingest(genctl, [LEAK, *documents(40, 59)], 100)
    having = [release(genctl)]
    bootstrap(genctl)
    places = [genctl.folder / name for name in ("s", "w", "n")]
    assert all(map(holding, places))
    write(genctl.folder / "deletes.jsonl", [{"id": "leak", "op": "delete"}])
    write(genctl.folder / "next.jsonl", documents(60, 60))
    released: list[str] = []
    for step in steps():
        named = [{"HOME": "w", "NODE": "n", "TEXT": "it leaks"}.get(word, word) for word in step]
        if step[0] == "revoke":
            for generation_id in (*having, *released[:-1]):
                genctl(*[generation_id if word == "GEN" else word for word in named]).ok()
            continue
        report = genctl(*named, "--json").ok().json
        if step[0] == "release":
            released.append(report["generation_id"])
            bootstrap(genctl)  # nodes follow meanwhile
    listed = [each["generation_id"] for each in genctl("generations", "w", "--json").ok().json]
    assert listed == [before, released[-1]]
    assert {place.name: holding(place) for place in places} == {"s": [], "w": [], "n": []}
    found = genctl("query", "n", "common", "--mode", "lexical", "-k", "100", "--json").ok().json
    assert {hit["id"] for hit in found["hits"]} == {f"d{number}" for number in range(61)}
