"""``genctl replay`` and ``genctl diff`` as processes: what they print, and their exit codes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from controller.writer import WriterHome
from tests.support.homes import release as release_in_process
from tests.support.process import Genctl
from tests.support.shipped import building_otherwise
from tests.system.world import bootstrap, document, documents, ingest, release, writer_home

DELETED = {"id": "d2", "op": "delete"}


def two_generations(genctl: Genctl) -> tuple[str, str]:
    writer_home(genctl)
    ingest(genctl, documents(1, 20), 10)
    first = release(genctl)
    ingest(genctl, [DELETED, document(3, "second"), document(30)], 10)
    return first, release(genctl)


def test_a_diff_names_documents_bytes_embedder_and_counts(genctl: Genctl) -> None:
    first, second = two_generations(genctl)
    answer = genctl("diff", "w", first, second, "--json").ok().json
    assert answer["documents"] == {"added": 1, "changed": 1, "removed": 1, "same": 18}
    assert answer["ids"] == {"added": [], "changed": {}, "removed": []}
    assert answer["embedder"] == {}
    before, after = answer["before"], answer["after"]
    assert (before["generation_id"], before["low_seq"], before["high_seq"]) == (first, 1, 2)
    assert (after["generation_id"], after["low_seq"], after["high_seq"]) == (second, 3, 3)
    assert (before["documents"], after["documents"], after["tombstones"]) == (20, 20, 2)
    total = answer["bytes"]["all"]
    assert total["shared"] + total["new"] == after["bytes"]
    assert total["shared"] + total["gone"] == before["bytes"]
    assert sum(each["bytes"] for each in answer["artifacts"]["new"]) == total["new"]

    named = genctl("diff", "w", first, second, "--json", "--ids").ok().json["ids"]
    assert named == {
        "added": ["d30"],
        "changed": {"d3": ["title", "text", "vector"]},
        "removed": ["d2"],
    }
    text = genctl("diff", "w", first, second, "--ids", 5).ok().out
    assert "1 document added, 1 changed, 1 removed, 18 the same" in text
    for line in ("  + d30", "  ~ d3 (title, text, vector)", "  - d2"):
        assert line in text.splitlines()


def test_a_diff_names_no_more_documents_than_asked(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 3), 10)
    first = release(genctl)
    ingest(genctl, documents(4, 9), 10)
    second = release(genctl)
    answer = genctl("diff", "w", first, second, "--json", "--ids", 2).ok().json
    assert (answer["documents"]["added"], answer["ids"]["added"]) == (6, ["d4", "d5"])


def test_row_59_a_diff_with_a_revoked_generation_is_refused_though_it_is_here(
    genctl: Genctl,
) -> None:
    first, second = two_generations(genctl)
    bootstrap(genctl)
    genctl("revoke", "w", second, "--reason", "it leaks").ok()
    genctl("diff", "w", first, second).refused(3, "GenerationRevoked", first)
    genctl("diff", "n", second, second).ok()  # the node does not know yet
    bootstrap(genctl)
    genctl("diff", "n", second, second).refused(3, "GenerationRevoked")


def test_a_node_compares_what_is_resident_and_knows_what_is_not(genctl: Genctl) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 9), 10)
    first = release(genctl)
    ingest(genctl, [DELETED], 10)
    second = release(genctl)
    bootstrap(genctl)
    genctl("diff", "n", first, second).refused(3, "GenerationUnknown", first)
    assert genctl("diff", "n", second, second, "--json").ok().json["documents"]["same"] == 8
    genctl("query", "n", "own2", "--as-of-commit-seq", 1).ok()
    assert genctl("diff", "n", first, second, "--json").ok().json["documents"]["removed"] == 1


@pytest.mark.parametrize("generation", ["g000000000009-0123456789ab", "../../etc", ""])
def test_an_unknown_generation_is_named(genctl: Genctl, generation: str) -> None:
    first, _ = two_generations(genctl)
    genctl("diff", "w", first, generation).refused(3, "GenerationUnknown")
    genctl("replay", "w", "--verify", generation).refused(3, "GenerationNotPublished")


def test_a_folder_that_is_no_home_is_refused(genctl: Genctl) -> None:
    genctl("diff", "nowhere", "a", "b").refused(3, "HomeMissing")
    genctl("replay", "nowhere", "--verify", "a").refused(3, "HomeMissing")


def test_a_replay_that_agrees_ends_with_0_and_leaves_nothing(
    genctl: Genctl, tmp_path: Path
) -> None:
    first, second = two_generations(genctl)
    before = everything(tmp_path)
    for generation, rebuilt in ((first, 20), (second, 20)):
        answer = genctl("replay", "w", "--verify", generation, "--json").ok().json
        assert (answer["agrees"], answer["generation_id"]) == (True, generation)
        assert answer["documents"]["same"] == answer["documents"]["rebuilt"] == rebuilt
        assert answer["sample"] == {"documents": 200, "seed": 0}
        assert answer["terms"] == {"differ": 0, "examples": []}
        for hits in ("lexical", "exact_vectors"):
            assert answer["hits"][hits]["percent"] == 100
            assert answer["hits"][hits]["queries"] > 20
        assert {"lexical_as_served", "approximate_vectors"} < set(answer["hits"])
    assert everything(tmp_path) == before
    text = genctl("replay", "w", "--verify", second, "--sample", 5, "--seed", 9).ok().out
    assert "seed 9" in text
    assert f"{second} is what the log comes to." in text


def everything(folder: Path) -> list[Path]:
    """All that is in a folder, but the empty files that tantivy leaves where it opens an index."""
    return sorted(path for path in folder.rglob("*") if not path.name.endswith(".lock"))


def test_a_replay_that_differs_ends_with_6_and_names_what_does(
    genctl: Genctl, tmp_path: Path
) -> None:
    writer_home(genctl)
    ingest(genctl, documents(1, 20), 10)
    with building_otherwise(
        lambda upserts: (
            *(msgspec.structs.replace(each, text="wrong") for each in upserts[:1]),
            *upserts[2:],
        )
    ):
        generation = release_in_process(WriterHome(tmp_path / "w")).generation_id
    finished = genctl("replay", "w", "--verify", generation, "--json", "--keep", "kept")
    finished.refused(6, "ReplayDiffers")
    report = finished.json
    assert report["agrees"] is False
    assert report["documents"]["missing"] == report["documents"]["changed"] == 1
    assert report["ids"]["missing"] == ["d2"]
    assert {"own2", "wrong"} < set(report["terms"]["examples"])
    assert report["ids"]["changed"] == {"d1": ["text", "vector"]}
    error = finished.error
    assert error["runbook"] == "runbooks/replay-differs.md"
    assert (error["facts"]["missing"], error["facts"]["too_many"]) == (1, 0)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"rebuilt", "shipped"}
    text = genctl("replay", "w", "--verify", generation, "--ids", 1).refused(6, "replay-differs")
    assert "missing: d2" in text.out
    genctl("replay", "w", "--verify", generation, "--keep", "kept").refused(3, "--keep")
