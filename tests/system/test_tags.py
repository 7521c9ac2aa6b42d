"""Tags, pins, revocations and what was collected, as commands: rows 58 and 59 from end to end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.process import Genctl
from tests.system.world import ask, bootstrap, document, ids, ingest, release, writer_home

UNKNOWN = "g000000000099-0123456789ab"


@pytest.fixture
def made(genctl: Genctl) -> list[str]:
    """Generations of commits 1 to 4 in ``w``, the last of them active; a node ``n`` serves it."""
    writer_home(genctl)
    generations = []
    for number in range(1, 5):
        ingest(genctl, [document(number)], 1)
        generations.append(release(genctl))
    bootstrap(genctl)
    return generations


WORDS = ("--mode", "lexical")


def listed(genctl: Genctl) -> dict[str, dict[str, Any]]:
    return {each["generation_id"]: each for each in genctl("generations", "w", "--json").ok().json}


def test_tags_and_pins_are_given_listed_shown_and_taken_away(
    genctl: Genctl, made: list[str]
) -> None:
    first, second, *_ = made
    tagged = {"generation_id": first, "tag": "v1.0", "tagged": True}
    assert genctl("tag", "w", first, "v1.0", "--json").ok().json == tagged
    assert genctl("tag", "w", first, "v1.0", "--json").ok().json == tagged | {"tagged": False}
    genctl("tag", "w", second, "v1.0").refused(3, "BadSetting", first, "genctl untag")
    assert genctl("pin", "w", second, "--reason", "a draft", "--json").ok().json["pinned"]
    assert "the place of: a draft" in genctl("pin", "w", second, "--reason", "a book").ok().out
    again = genctl("pin", "w", second, "--reason", "a paper", "--json").ok().json
    assert (again["pinned"], again["reason_before"]) == (True, "a book")

    found = listed(genctl)
    assert list(found) == made
    assert (found[first]["tags"], found[second]["pin"]) == (["v1.0"], "a paper")
    text = genctl("generations", "w").ok().out
    assert "published; tagged v1.0" in text
    assert "published; pinned: a paper" in text
    assert "Collected" not in text
    shown = genctl("show", "w", first, "--json").ok().json
    assert (shown["tags"], shown["pin"]) == (["v1.0"], None)
    assert shown["published_at"] == found[first]["published_at"]
    assert "v1.0" in genctl("show", "w", first).ok().out
    assert "a paper" in genctl("show", "w", second).ok().out

    assert genctl("untag", "w", "v1.0", "--json").ok().json == {
        "generation_id": first,
        "tag": "v1.0",
        "untagged": True,
    }
    assert "tags: there are none" in genctl("untag", "w", "v1.0").ok().out
    assert genctl("unpin", "w", second, "--json").ok().json["unpinned"]
    assert "is not pinned" in genctl("unpin", "w", second).ok().out
    assert not any(each["tags"] or each["pin"] for each in listed(genctl).values())
    kinds = [each["kind"] for each in genctl("audit", "w", "--json").ok().json["receipts"]]
    assert kinds[-6:] == ["tag", "pin", "pin", "pin", "untag", "unpin"]


REFUSED = [
    (["tag", "w", "GEN", "Blue"], "BadSetting"),
    (["tag", "w", "GEN", "../x"], "BadSetting"),
    (["tag", "w", "GEN", ""], "BadSetting"),
    (["tag", "w", "GEN", UNKNOWN], "BadSetting"),
    (["tag", "w", UNKNOWN, "blue"], "GenerationNotPublished"),
    (["tag", "w", "", "blue"], "GenerationNotPublished"),
    (["tag", "n", "GEN", "blue"], "HomeMissing"),
    (["untag", "nowhere", "blue"], "HomeMissing"),
    (["pin", "w", "GEN", "--reason", " "], "BadSetting"),
    (["pin", "w", "GEN", "--reason", "x" * 2000], "BadSetting"),
    (["pin", "w", "nonsense", "--reason", "why"], "GenerationNotPublished"),
    (["unpin", "w", UNKNOWN], "GenerationNotPublished"),
    (["revoke", "w", "GEN", "--reason", ""], "BadSetting"),
    (["revoke", "w", UNKNOWN, "--reason", "why"], "GenerationNotPublished"),
]


def test_what_makes_no_sense_is_refused_by_name_and_leaves_no_receipt(
    genctl: Genctl, made: list[str]
) -> None:
    before = genctl("audit", "w", "--json").ok().json["head"]
    for command, name in REFUSED:
        filled = [made[0] if word == "GEN" else word for word in command]
        genctl(*filled).refused(3, name)
        assert genctl(*filled, "--json").refused(3).error["error"] == name
    assert genctl("audit", "w", "--json").ok().json["head"] == before


def test_row_59_a_revoked_generation_is_read_and_activated_nowhere(
    genctl: Genctl, made: list[str]
) -> None:
    first, _, third, fourth = made
    answer = genctl("revoke", "w", fourth, "--reason", "it leaks", "--json").ok().json
    assert answer == {
        "generation_id": fourth,
        "reason": "it leaks",
        "revoked": True,
        "active": third,
        "kept_until_newer": True,
    }
    assert "until something newer is active" in " ".join(
        genctl("revoke", "w", fourth, "--reason", "it leaks").ok().out.split()
    )
    assert "revoked: goes once something newer is active" in genctl("gc", "w", "--dry-run").ok().out
    again = genctl("revoke", "w", fourth, "--reason", "it leaks", "--json").ok().json
    assert again == answer | {"revoked": False}
    assert ids(ask(genctl, "n", "own4", *WORDS)) == ["d4"]  # it does not know yet
    genctl("show", "w", fourth).refused(3, "GenerationRevoked", third)
    genctl("activate", "w", fourth).refused(3, "GenerationRevoked")
    genctl("tag", "w", fourth, "blue").refused(3, "GenerationRevoked")

    report = bootstrap(genctl)
    assert (report["generation_id"], report["activated"]) == (third, True)
    assert ids(ask(genctl, "n", "own4", *WORDS)) == []
    refusal = genctl("query", "n", "own4", "--as-of-commit-seq", 4, "--json").refused(3).error
    assert refusal["error"] == "GenerationRevoked"
    assert refusal["facts"] == {"generation_id": fourth, "readable_before": third}
    assert ids(ask(genctl, "n", "own3", *WORDS, "--as-of-commit-seq", 3)) == ["d3"]
    rolled = genctl("node", "rollback", "n", "--json").ok().json
    assert rolled["generation_id"] not in {third, fourth}

    found = listed(genctl)
    assert [found[each]["revoked"] for each in made] == [False, False, False, True]
    assert found[third]["active"]
    assert "revoked" in genctl("generations", "w").ok().out
    ingest(genctl, [document(5)], 1)
    fifth = release(genctl)
    assert bootstrap(genctl)["generation_id"] == fifth
    genctl("rollback", "w", "--to", fourth, "--reason", "why").refused(3, "GenerationRevoked")
    back = genctl("rollback", "w", "--reason", "why", "--json").ok().json
    assert back["generation_id"] == third
    assert first in found


def test_row_58_a_collected_generation_is_named_so_and_the_range_is_given(
    genctl: Genctl, made: list[str]
) -> None:
    first, second, third, fourth = made
    path = genctl.folder / "w/settings.json"
    settings = json.loads(path.read_text())
    assert settings["retention"] == {
        "keep_last": None,
        "keep_within_hours": None,
        "keep_every": [],
    }
    settings["retention"]["keep_last"] = 1
    path.write_text(json.dumps(settings))
    genctl("tag", "w", first, "baseline").ok()
    genctl("gc", "w").ok()

    assert list(listed(genctl)) == [first, third, fourth]
    text = genctl("generations", "w").ok().out
    assert "Collected, and retained no more: commits 2." in text
    for command in (
        ["show", "w", second],
        ["activate", "w", second],
        ["rollback", "w", "--to", second, "--reason", "why"],
        ["tag", "w", second, "blue"],
        ["pin", "w", second, "--reason", "why"],
        ["revoke", "w", second, "--reason", "why"],
        ["replay", "w", "--verify", second],
    ):
        genctl(*command).refused(3, "GenerationCollected", "as of 1 to 4")
    bootstrap(genctl)
    assert ids(ask(genctl, "n", "own1", *WORDS, "--as-of-commit-seq", 2)) == ["d1"]
    assert ids(ask(genctl, "n", "own2", *WORDS, "--as-of-commit-seq", 2)) == []

    genctl("untag", "w", "baseline").ok()
    genctl("gc", "w").ok()
    assert list(listed(genctl)) == [third, fourth]
    bootstrap(genctl)
    refusal = genctl("query", "n", "own1", "--as-of-commit-seq", 2, "--json").refused(3).error
    assert refusal["error"] == "GenerationCollected"
    assert refusal["facts"]["retained_low_seq"] == 3
    assert refusal["facts"]["retained_high_seq"] == 4


def test_a_policy_that_makes_no_sense_is_a_bad_setting(genctl: Genctl) -> None:
    writer_home(genctl)
    path = genctl.folder / "w/settings.json"
    settings = json.loads(path.read_text())
    policies: list[object] = [
        {"keep_last": 0},
        {"keep_last": "5"},
        {"keep_every": [{"every_hours": 24, "for_hours": 1}]},
        {"keep_daily": 7},
        7,
    ]
    for retention in policies:
        path.write_text(json.dumps(settings | {"retention": retention}))
        genctl("generations", "w").refused(3, "BadSetting", "settings.json", "retention")
