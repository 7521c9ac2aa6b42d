"""The story through the command line, as people and programs drive it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import Console, Genctl
from tests.system.world import (
    DIMENSIONS,
    ask,
    bootstrap,
    documents,
    ids,
    ingest,
    release,
    write,
    writer_home,
)

GENERATION_KEYS = {"generation_id", "low_seq", "high_seq", "documents", "bytes"}
ANSWER_KEYS = {"generation_id", "commit_seq", "mode", "took_ms", "hits"}


def test_the_console_script_tells_the_story_to_a_person(console: Console, tmp_path: Path) -> None:
    write(tmp_path / "d.jsonl", documents(1, 20))
    assert "w/root.json" in console("init", "w", "--store", "s").ok().out
    assert "commit_seq 1" in console("ingest", "w", "d.jsonl").ok().out
    assert "is now the active generation" in console("release", "w").ok().out
    told = console("node", "bootstrap", "n", "--store", "s", "--root", "w/root.json").ok()
    assert "Now serving g000000000001-" in told.out
    found = console("query", "n", "own7", "-k", 3).ok()
    assert "d7" in found.out
    assert "first 7" in found.out
    for finished in (told, found):
        assert finished.err == ""
        assert "\x1b" not in finished.out, "no colours and no progress bars in a pipe"
    missing = console("query", "nowhere", "own7").refused(3, "HomeMissing", "nowhere")
    assert missing.out == ""
    assert missing.err.count("\n") == 1
    assert console("query", "n").code == 2, "wrong usage"


def test_every_generation_answers_with_its_documents(genctl: Genctl) -> None:
    writer_home(genctl)
    assert ingest(genctl, documents(1, 30), 10) == 3
    first = release(genctl)
    assert bootstrap(genctl)["generation_id"] == first
    before = ask(genctl, "n", "common", "--mode", "lexical")
    assert sorted(ids(before)) == sorted(d["id"] for d in documents(1, 30))
    assert (before["generation_id"], before["commit_seq"]) == (first, 3)

    gone = [{"id": f"d{number}", "op": "delete"} for number in (1, 2)]
    changed = documents(3, 4, "second")
    assert ingest(genctl, [*gone, *changed, *documents(31, 32, "second")], 100) == 4
    assert ask(genctl, "n", "common", "--mode", "lexical")["hits"] == before["hits"]
    second = release(genctl)
    assert ask(genctl, "n", "common", "--mode", "lexical")["hits"] == before["hits"]
    report = bootstrap(genctl)
    assert report["activated"]
    assert report["reused_bytes"] > 0

    after = ask(genctl, "n", "common", "--mode", "lexical")
    assert (after["generation_id"], after["commit_seq"]) == (second, 4)
    assert sorted(ids(after)) == sorted(d["id"] for d in documents(3, 32))
    assert sorted(ids(ask(genctl, "n", "second", "--mode", "lexical"))) == [
        "d3",
        "d31",
        "d32",
        "d4",
    ]
    assert ids(ask(genctl, "n", "own1", "--mode", "lexical")) == []
    for mode in ("hybrid", "vector"):
        found = ask(genctl, "n", "second own31 among the common text", "--mode", mode)
        assert found["mode"] == mode
        assert ids(found)[0] == "d31"
        assert not {"d1", "d2"} & set(ids(found))
        assert len(set(ids(found))) == 30, "a changed document is found once"


def test_writer_rollback_and_node_rollback(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 5), 5)
    first = release(genctl)
    bootstrap(genctl)
    genctl("rollback", "w", "--reason", "none before").refused(4, "NothingPublished")
    genctl("node", "rollback", "n").refused(4, "NothingPublished")
    ingest(genctl, documents(6, 9), 5)
    second = release(genctl)
    bootstrap(genctl)
    assert ask(genctl, "n", "common")["generation_id"] == second

    back = genctl("rollback", "w", "--reason", "a bad index", "--json").ok().json
    assert back == {"generation_id": first, "reason": "a bad index"}
    assert ask(genctl, "n", "common")["generation_id"] == second, "the node has not followed yet"
    assert bootstrap(genctl)["generation_id"] == first
    assert ask(genctl, "n", "common")["generation_id"] == first
    assert bootstrap(genctl, "fresh")["generation_id"] == first
    status = genctl("status", "w", "--json").ok().json
    assert (status["active"], status["record_kind"]) == (first, "rollback")
    genctl("activate", "w", second, "--json").ok()
    assert bootstrap(genctl)["generation_id"] == second

    held = genctl("node", "rollback", "n", "--json").ok().json
    assert held == {"generation_id": first, "held_back": second, "moved": True}
    assert ask(genctl, "n", "common")["generation_id"] == first
    again = bootstrap(genctl)
    assert again["held_back"]
    assert not again["activated"]
    assert ask(genctl, "n", "common")["generation_id"] == first
    told = genctl("node", "bootstrap", "n").ok().out
    assert "rolled back from" in told
    ingest(genctl, documents(10, 11), 5)
    third = release(genctl)
    assert bootstrap(genctl)["generation_id"] == third
    status = genctl("node", "status", "n", "--json").ok().json
    assert status["active"] == third
    assert status["held_back"] is None


def test_a_generation_is_held_back_until_the_record_names_another(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 5), 5)
    first = release(genctl)
    bootstrap(genctl)
    ingest(genctl, documents(6, 9), 5)
    second = release(genctl)
    bootstrap(genctl)
    genctl("node", "rollback", "n").ok()
    genctl("rollback", "w", "--reason", "a bad index").ok()
    assert bootstrap(genctl)["generation_id"] == first, "the record names another"
    genctl("activate", "w", second).ok()
    assert not bootstrap(genctl)["held_back"]
    assert ask(genctl, "n", "common")["generation_id"] == second


def test_an_older_generation_is_activated_by_a_rollback_only(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 2), 5)
    first = release(genctl)
    ingest(genctl, documents(3, 4), 5)
    second = release(genctl)
    genctl("activate", "w", first).refused(6, "UnsignedRollback")
    assert genctl("status", "w", "--json").ok().json["active"] == second
    genctl("rollback", "w", "--to", first, "--reason", "x").ok()
    assert genctl("status", "w", "--json").ok().json["active"] == first
    genctl("rollback", "w", "--to", "g000000000009-000000000000", "--reason", "x").refused(
        3, "g000000000009-000000000000"
    )


def test_min_commit_seq_waits_for_activation_and_says_when_it_gives_up(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 5), 5)
    release(genctl)
    bootstrap(genctl)
    assert ask(genctl, "n", "common", "--min-commit-seq", 1)["commit_seq"] == 1
    genctl("query", "n", "common", "--min-commit-seq", 2, "--deadline-ms", 0).refused(
        4, "NotYetActivated", "2"
    )
    ingest(genctl, documents(6, 7), 5)
    release(genctl)
    bootstrap(genctl)
    assert ask(genctl, "n", "common", "--min-commit-seq", 2)["commit_seq"] == 2


def test_min_commit_seq_is_answered_by_a_bootstrap_while_it_waits(
    genctl: Genctl, console: Console
) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 5), 5)
    release(genctl)
    bootstrap(genctl)
    ingest(genctl, documents(6, 7), 5)
    release(genctl)
    line = ["query", "n", "own7", "--min-commit-seq", 2, "--deadline-ms", 60_000, "--json"]
    with console.start(*line) as waiting:
        bootstrap(genctl)
        out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert json.loads(out)["commit_seq"] == 2


@pytest.fixture(scope="module")
def released(
    in_folder: Callable[[Path], Genctl], tmp_path_factory: pytest.TempPathFactory
) -> Genctl:
    genctl = in_folder(tmp_path_factory.mktemp("released"))
    writer_home(genctl)
    ingest(genctl, documents(1, 12), 4)
    release(genctl)
    bootstrap(genctl)
    return genctl


def test_numbered_queries_get_numbered_answers(released: Genctl) -> None:
    vector = [1.0] + [0.0] * (DIMENSIONS - 1)
    lines: list[dict[str, Any]] = [
        {"id": "q1", "text": "own3"},
        {"id": "q2", "vector": vector},
        {"id": "q3", "text": "own4", "vector": vector},
        {"id": "q1", "text": "own3"},
    ]
    path = write(released.folder / "q.jsonl", lines)
    path.write_text(path.read_text() + "\n")
    for extra in ([], ["--json"]):
        answers = released("query", "n", "--queries", path, "-k", 2, *extra).ok().lines
        assert [answer["query_id"] for answer in answers] == ["q1", "q2", "q3", "q1"]
        assert [answer["mode"] for answer in answers] == ["hybrid", "vector", "hybrid", "hybrid"]
        for answer in answers:
            assert answer.keys() == ANSWER_KEYS | {"query_id"}
            assert len(answer["hits"]) == 2
            assert all(hit.keys() == {"id", "score", "title"} for hit in answer["hits"])
        assert ids(answers[0])[0] == "d3"
    empty = write(released.folder / "none.jsonl", [])
    assert released("query", "n", "--queries", empty).ok().out == ""


def test_what_programs_read_has_the_promised_keys(released: Genctl) -> None:
    build = released("build", "w", "--json").ok().json
    assert build.keys() >= GENERATION_KEYS
    assert (build["low_seq"], build["high_seq"], build["documents"]) == (1, 3, 12)
    again = released("release", "w", "--json").ok().json
    assert again.keys() >= GENERATION_KEYS
    assert again["uploaded_bytes"] == 0
    assert not again["activated"]
    listed = released("generations", "w", "--json").ok().json
    assert [each["generation_id"] for each in listed] == [build["generation_id"]]
    assert all(each.keys() >= GENERATION_KEYS for each in listed)
    for each in (build, again):
        assert {key: each[key] for key in GENERATION_KEYS} == {
            key: listed[0][key] for key in GENERATION_KEYS
        }
    shown = released("show", "w", build["generation_id"], "--json").ok().json
    assert shown["generation_id"] == build["generation_id"]
    assert sum(artifact["size_bytes"] for artifact in shown["artifacts"]) == build["bytes"]
    assert released("query", "n", "own1", "--json").ok().json.keys() == ANSWER_KEYS
    assert released("publish", "w", "--json").ok().json["already_published"]
    assert not released("activate", "w", build["generation_id"], "--json").ok().json["activated"]
    status = released("status", "w", "--json").ok().json
    assert status["active"] == status["built"] == status["published"] == build["generation_id"]
    node = released("node", "status", "n", "--json").ok().json
    assert (node["active"], node["commit_seq"]) == (build["generation_id"], 3)
    again = released("init", "w", "--store", "s", "--dimensions", DIMENSIONS, "--json").ok().json
    assert not again["made"]


def test_errors_are_json_for_programs(released: Genctl) -> None:
    refused = released("query", "n", "own1", "-k", 0, "--json").refused(3)
    assert refused.out == ""
    assert refused.error["error"] == "BadQuery"
    assert refused.error["exit_code"] == 3
    assert refused.error["facts"] == {"field": "k"}


def test_what_people_read_names_every_generation_and_artifact(released: Genctl) -> None:
    generation_id = released("build", "w", "--json").ok().json["generation_id"]
    assert generation_id in released("generations", "w").ok().out
    shown = released("show", "w", generation_id).ok().out
    assert "lexical/meta.json" in shown
    assert " 1 of 2  100 %" in shown
    assert generation_id in released("status", "w").ok().out
    assert generation_id in released("node", "status", "n").ok().out


def test_row_65_an_ingestion_sent_twice_is_accepted_once(genctl: Genctl) -> None:
    writer_home(genctl)
    path = write(genctl.folder / "d.jsonl", documents(1, 9))
    line = ["ingest", "w", path, "--commit-size", 2, "--json"]
    first = genctl(*line).ok().json
    again = genctl(*line).ok().json
    assert first["commit_seq"] == again["commit_seq"] == 5
    assert (again["commits"], again["skipped_commits"]) == (0, 5)
    assert genctl("status", "w", "--json").ok().json["log_commit_seq"] == 5


def test_precomputed_vectors_are_found_by_vector_and_text(genctl: Genctl) -> None:
    genctl("init", "w", "--store", "s", "--embedder", "precomputed", "--dimensions", 3).ok()
    axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    ingest(
        genctl,
        [{"id": f"d{n}", "text": f"own{n} text", "vector": axis} for n, axis in enumerate(axes)],
        10,
    )
    release(genctl)
    bootstrap(genctl)
    assert ids(ask(genctl, "n", "own1", "--mode", "lexical")) == ["d1"]
    path = write(genctl.folder / "q.jsonl", [{"id": "q", "vector": [0.1, 0.2, 0.9]}])
    answer = genctl("query", "n", "--queries", path, "-k", 1).ok().lines[0]
    assert ids(answer) == ["d2"]
    assert answer["hits"][0]["title"] == ""
    genctl("query", "n", "own1", "--mode", "vector").refused(3, "BadQuery", "vector")


def test_a_document_is_found_by_its_id_as_it_was(genctl: Genctl) -> None:
    writer_home(genctl)
    for text in ("first", "second"):
        ingest(genctl, [{"id": "it", "title": "It", "text": text, "fields": {"n": 1}}], 1)
        release(genctl)
    bootstrap(genctl)
    now = genctl("query", "n", "--id", "it").ok().json
    assert now == {"id": "it", "title": "It", "text": "second", "fields": {"n": 1}}
    then = genctl("query", "n", "--id", "it", "--as-of-commit-seq", 1).ok().json
    assert then["text"] == "first"
    genctl("query", "n", "--id", "other").refused(3, "BadQuery", "'other'")
    genctl("query", "n", "x", "--id", "it").refused(2)
