"""What release, diff and replay say of generations that were revoked or collected: rows 58, 59."""

from __future__ import annotations

import json

import pytest

from tests.support.process import Genctl
from tests.system.world import bootstrap, document, ingest, release, writer_home


@pytest.fixture
def made(genctl: Genctl) -> list[str]:
    """Generations of commits 1 to 3 in ``w``, the last of them active."""
    writer_home(genctl)
    generations = []
    for number in range(1, 4):
        ingest(genctl, [document(number)], 1)
        generations.append(release(genctl))
    return generations


def test_row_59_a_release_with_nothing_new_leaves_what_was_revoked(
    genctl: Genctl, made: list[str]
) -> None:
    _, second, third = made
    genctl("revoke", "w", third, "--reason", "it leaks").ok()
    answer = genctl("release", "w", "--json").ok().json
    assert (answer["generation_id"], answer["activated"]) == (third, False)
    assert (answer["revoked"], answer["rolled_back"]) == (True, False)
    text = genctl("release", "w").ok().out
    assert f"{third} stays revoked" in text
    assert f"{second} is active" in text
    ingest(genctl, [{"id": "d3", "op": "delete"}], 1)
    answer = genctl("release", "w", "--json").ok().json
    assert (answer["activated"], answer["revoked"]) == (True, False)


def test_row_58_a_diff_or_replay_of_what_was_collected_names_the_range(
    genctl: Genctl, made: list[str]
) -> None:
    first, second, third = made
    bootstrap(genctl)
    path = genctl.folder / "w/settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"retention": {"keep_last": 1}}))
    genctl("gc", "w").ok()
    genctl("diff", "w", first, third).refused(3, "GenerationCollected", "as of 2 to 3")
    genctl("diff", "w", second, third).ok()
    genctl("replay", "w", "--verify", first).refused(3, "GenerationCollected", "as of 2 to 3")
    genctl("diff", "n", first, third).refused(3, "GenerationUnknown")  # as far as it knows
    bootstrap(genctl)
    genctl("diff", "n", first, third).refused(3, "GenerationCollected", "as of 2 to 3")
    genctl("diff", "w", "nonsense", third).refused(3, "GenerationUnknown")


def test_row_59_what_was_revoked_is_not_compared_and_fetched_nowhere(
    genctl: Genctl, made: list[str]
) -> None:
    _, second, third = made
    genctl("revoke", "w", third, "--reason", "it leaks").ok()
    genctl("diff", "w", second, third).refused(3, "GenerationRevoked", second)
    genctl("replay", "w", "--verify", third).refused(3, "GenerationRevoked", second)
    copied = genctl.folder / "copy"
    copied.mkdir()
    for name in ("settings.json", "root.json"):
        (copied / name).write_bytes((genctl.folder / "w" / name).read_bytes())
    command = ["replay", "copy", "--verify", third, "--log", "w/log"]
    genctl(*command).refused(3, "GenerationRevoked", second)
