"""Row 8: somebody edits the embedder in a writer's settings; the dimensions are the same.

Nothing is activated by a node that is bound to the former one until an override is signed, queries
go on, and no query is ever embedded with anything but what its generation was.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from index.embedding import HashingEmbedder
from tests.support.process import Genctl
from tests.system.world import (
    DIMENSIONS,
    ask,
    bootstrap,
    copy,
    documents,
    ids,
    ingest,
    release,
    write,
    writer_home,
)

REASON = "vectors come from the new model"


def vector(number: int) -> list[float]:
    """The vector that document ``number`` comes with."""
    chance = random.Random(number)
    return [chance.gauss(0, 1) for _ in range(DIMENSIONS)]


def brought(low: int, high: int) -> list[dict[str, Any]]:
    """Documents that bring their vectors."""
    return [
        each | {"vector": vector(number)}
        for number, each in enumerate(documents(low, high, "second"), low)
    ]


def edit_embedder(genctl: Genctl, name: str) -> None:
    path = genctl.folder / "w" / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"embedder": name}))


@pytest.fixture(scope="module")
def template(
    in_folder: Callable[[Path], Genctl], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The node n serves the first generation; the second, released, has another embedder."""
    genctl = in_folder(tmp_path_factory.mktemp("drift"))
    writer_home(genctl)
    ingest(genctl, documents(1, 4), 10)
    first = release(genctl)
    bootstrap(genctl, "n")
    edit_embedder(genctl, "precomputed")
    ingest(genctl, brought(1, 8), 10)
    return genctl.folder, [first, release(genctl)]


@pytest.fixture
def drifted(template: tuple[Path, list[str]], genctl: Genctl) -> tuple[Genctl, str, str]:
    folder, (first, second) = template
    for name in ("w", "n", "s"):
        copy(folder / name, genctl.folder / name)
    # The copies follow the store of this test alone.
    for path in (genctl.folder / "w/settings.json", genctl.folder / "n/node.json"):
        changed = {"stores": [str(genctl.folder / "s")]}
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return genctl, first, second


def active(genctl: Genctl, node: str = "n") -> str:
    generation_id: str = genctl("node", "status", node, "--json").ok().json["active"]
    return generation_id


def override(genctl: Genctl, generation_id: str) -> Any:
    return genctl("override-embedder", "w", generation_id, "--reason", REASON, "--json").ok().json


def bound(genctl: Genctl, node: str = "n") -> str:
    name: str = json.loads((genctl.folder / node / "node.json").read_text())["embedder"]["name"]
    return name


def ask_by_vector(genctl: Genctl, values: list[float], *more: object, node: str = "n") -> Any:
    path = write(genctl.folder / "q.jsonl", [{"id": "q", "vector": values}])
    command = ("query", node, "--queries", path, "--mode", "vector", "-k", 1, *more)
    return genctl(*command).ok().lines[0]


def audit(genctl: Genctl, home: str) -> list[dict[str, Any]]:
    receipts: list[dict[str, Any]] = genctl("audit", home, "--json").ok().json["receipts"]
    return receipts


def hashed(text: str) -> list[float]:
    values: list[float] = HashingEmbedder(DIMENSIONS).embed([text])[0].tolist()
    return values


def test_row_8_a_generation_of_another_embedder_is_refused_and_queries_go_on(
    drifted: tuple[Genctl, str, str],
) -> None:
    genctl, first, second = drifted
    pointer = (genctl.folder / "n/active.json").read_bytes()
    for _ in range(2):
        refused = genctl("node", "bootstrap", "n", "--json")
        assert refused.error["error"] == "EmbedderMismatch"
        assert refused.error["facts"] == {"generation_id": second, "field": "name"}
        assert refused.error["runbook"] == "runbooks/embedder-mismatch.md"
        assert refused.code == 6
        assert (genctl.folder / "n/active.json").read_bytes() == pointer
        for mode in ("lexical", "vector", "hybrid"):
            answer = ask(genctl, "n", "own3", "--mode", mode)
            assert (answer["generation_id"], ids(answer)[0]) == (first, "d3")
    assert bound(genctl) == "hashing"
    assert [each["kind"] for each in audit(genctl, "n")] == ["activate"]


def test_a_signed_override_binds_the_node_to_the_generations_embedder(
    drifted: tuple[Genctl, str, str],
) -> None:
    genctl, first, second = drifted
    signed = override(genctl, second)
    assert (signed["name"], signed["reason"]) == ("precomputed", REASON)
    assert signed["other_overrides"] == [first], "the way back"
    assert bootstrap(genctl, "n")["activated"]
    assert (active(genctl), bound(genctl)) == (second, "precomputed")
    answer = ask_by_vector(genctl, vector(6))
    assert (answer["generation_id"], answer["hits"][0]["id"]) == (second, "d6")
    assert ids(ask(genctl, "n", "own6", "--mode", "lexical")) == ["d6"]
    # Its vectors came with the documents: no text is embedded with the former embedder.
    genctl("query", "n", "own6", "--mode", "vector").refused(3, "BadQuery", "cannot be embedded")


def test_the_override_is_in_the_audit_trails_of_both(drifted: tuple[Genctl, str, str]) -> None:
    genctl, _, second = drifted
    override(genctl, second)
    override(genctl, second)
    bootstrap(genctl, "n")
    told = audit(genctl, "w")[-1]
    assert (told["kind"], told["generation_id"], told["reason"]) == ("override", second, REASON)
    assert [each["kind"] for each in audit(genctl, "w")].count("override") == 1
    told = genctl("show", "w", second, "--json").ok().json["embedder_override"]
    assert (told["name"], told["reason"]) == ("precomputed", REASON)
    assert REASON in genctl("show", "w", second).ok().out
    told = audit(genctl, "n")[-1]
    assert (told["kind"], told["generation_id"]) == ("activate", second)
    assert told["reason"] == f"embedder override: {REASON}"


def test_reads_of_the_past_are_embedded_as_the_past_was(drifted: tuple[Genctl, str, str]) -> None:
    genctl, first, second = drifted
    override(genctl, second)
    bootstrap(genctl, "n")
    answer = ask(genctl, "n", "own3", "--mode", "vector", "--as-of-commit-seq", 1)
    assert (answer["generation_id"], ids(answer)[0]) == (first, "d3")
    direct = ask_by_vector(genctl, hashed("first 3 first own3 among the common text"))
    assert direct["generation_id"] == second


@pytest.mark.parametrize("local", [False, True])
def test_going_back_to_the_former_embedder_works_by_the_same_rule(
    drifted: tuple[Genctl, str, str], local: bool
) -> None:
    """The override signed one for the generations before it too."""
    genctl, first, second = drifted
    override(genctl, second)
    bootstrap(genctl, "n")
    if local:
        genctl("node", "rollback", "n").ok()
    else:
        genctl("rollback", "w", "--reason", "wrong answers").ok()
        bootstrap(genctl, "n")
    assert (active(genctl), bound(genctl)) == (first, "hashing")
    answer = ask(genctl, "n", "own3", "--mode", "vector")
    assert (answer["generation_id"], ids(answer)[0]) == (first, "d3")
    told = audit(genctl, "n")[-1]
    assert told["kind"] == ("hold_back" if local else "rollback")
    assert f"embedder override: {REASON}" in told["reason"]


def test_without_an_override_there_is_no_going_back_either(
    drifted: tuple[Genctl, str, str],
) -> None:
    """A node that began with the second generation is bound to its embedder."""
    genctl, _, second = drifted
    bootstrap(genctl, "fresh")
    assert (active(genctl, "fresh"), bound(genctl, "fresh")) == (second, "precomputed")
    assert audit(genctl, "fresh")[-1]["reason"] is None
    genctl("rollback", "w", "--reason", "wrong answers").ok()
    genctl("node", "bootstrap", "fresh").refused(6, "EmbedderMismatch")
    assert active(genctl, "fresh") == second
    override(genctl, second)
    bootstrap(genctl, "newer")
    assert audit(genctl, "newer")[-1]["reason"] == "wrong answers", "it needed no override"
    bootstrap(genctl, "fresh")
    assert bound(genctl, "fresh") == "hashing"


def test_an_override_is_for_its_generation_alone(drifted: tuple[Genctl, str, str]) -> None:
    """A node that followed is bound anew and goes on; one that did not is refused the next."""
    genctl, first, second = drifted
    copy(genctl.folder / "n", genctl.folder / "late")
    override(genctl, second)
    bootstrap(genctl, "n")
    ingest(genctl, brought(9, 9), 10)
    third = release(genctl)
    bootstrap(genctl, "n")
    assert active(genctl) == third
    genctl("node", "bootstrap", "late").refused(6, "EmbedderMismatch")
    assert active(genctl, "late") == first
    assert ids(ask(genctl, "late", "own3", "--mode", "vector"))[0] == "d3"
    override(genctl, third)
    bootstrap(genctl, "late")
    assert active(genctl, "late") == third


def test_a_new_embedder_at_the_writer_embeds_every_document_anew(genctl: Genctl) -> None:
    writer_home(genctl)
    edit_embedder(genctl, "precomputed")
    ingest(genctl, brought(1, 8), 3)
    first = release(genctl)
    edit_embedder(genctl, "hashing")
    ingest(genctl, documents(9, 9, "third"), 10)
    second = release(genctl)
    writer_home(genctl, home="alone", store="s2")
    without = [{k: v for k, v in each.items() if k != "vector"} for each in brought(1, 8)]
    ingest(genctl, [*without, *documents(9, 9, "third")], 10, home="alone")
    alone = release(genctl, home="alone")

    def shown(home: str, generation_id: str) -> Any:
        return genctl("show", home, generation_id, "--json").ok().json

    def vectors(home: str, generation_id: str) -> list[str]:
        artifacts = shown(home, generation_id)["artifacts"]
        return [each["blake3"] for each in artifacts if each["name"].startswith("vectors/")]

    assert vectors("w", second) == vectors("alone", alone)
    assert vectors("w", first) != vectors("w", second)
    assert shown("w", second)["counts"]["documents"] == 9
    bootstrap(genctl, "n")
    assert ids(ask(genctl, "n", "own3", "--mode", "vector"))[0] == "d3"


def test_a_new_embedder_that_lacks_a_vector_of_a_document_builds_nothing(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 4), 10)
    first = release(genctl)
    edit_embedder(genctl, "precomputed")
    ingest(genctl, brought(2, 8), 10)
    refused = genctl("release", "w", "--json")
    assert (refused.code, refused.error["error"]) == (6, "EmbedderMismatch")
    assert refused.error["facts"] == {"field": "vector", "id": "d1"}
    edit_embedder(genctl, "hashing")
    bootstrap(genctl, "n")
    assert active(genctl) == first


def test_an_override_is_refused_for_what_is_not_published(
    drifted: tuple[Genctl, str, str],
) -> None:
    genctl, _, second = drifted
    command = ("override-embedder", "w")
    genctl(*command, "g000000000009-0123456789ab", "--reason", "x").refused(3, "GenerationUnknown")
    genctl(*command, second, "--reason", " ").refused(3, "BadSetting", "reason")
    genctl(*command, second).refused(2, "--reason")
    genctl("override-embedder", "n", second, "--reason", "x").refused(3, "HomeMissing")


def test_rows_38_and_43_queries_go_on_wherever_a_node_that_follows_an_override_is_killed(
    drifted: tuple[Genctl, str, str], memory_folder: Path
) -> None:
    genctl, first, second = drifted
    override(genctl, second)
    kept, live = memory_folder / "kept", memory_folder / "live"
    copy(genctl.folder / "n", kept)
    place = Genctl(genctl.warm, memory_folder)

    def restore() -> None:
        shutil.rmtree(live, ignore_errors=True)
        copy(kept, live)

    restore()
    undisturbed = place.killed_at(-1, "node", "bootstrap", "live", "--json")
    undisturbed.finished[0].ok()
    names = [Path(path).name for _, path in undisturbed.steps]
    # From the first receipt of the swap on: what came before only fetched.
    start = names.index("audit.jsonl")
    look = [
        ["query", "live", "common", "--mode", "lexical", "--json"],
        ["audit", "live", "--json"],
        ["node", "bootstrap", "live", "--json"],
        ["query", "live", "common", "--mode", "lexical", "--json"],
        ["audit", "live", "--json"],
    ]
    served = []
    for step in range(start, len(undisturbed.steps) + 1):
        restore()
        place.killed_at(step, "node", "bootstrap", "live", "--json")
        answers = [each.ok().json for each in genctl.warm.fork(memory_folder, look).finished]
        assert len(answers) == len(look), step
        served.append(answers[0]["generation_id"])
        assert answers[3]["generation_id"] == second
        saved = json.loads((live / "node.json").read_text())
        assert saved["embedder"]["name"] == "precomputed", step
    assert served == sorted(served)
    assert (served[0], served[-1]) == (first, second)
