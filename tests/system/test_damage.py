"""Loss and damage in the store, against generations with large and small artifacts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import Genctl
from tests.system.world import ask, bootstrap, files_of, ids, ingest, release, seeded

DOCUMENTS = 6_000
DIMENSIONS = 256
WORDS = [a + b + c for a, b, c in itertools.product("bdfgklmnprst", "aeiou", "bdfglmnprst")]
COUNTERS = {
    "sources",
    "store_bytes",
    "fetched_bytes",
    "damaged_symbols",
    "repaired_artifacts",
    "repaired_chunks",
    "repaired_bytes",
    "lease",
}
SEEDS = range(100, 110)


def random_document(chance: random.Random, number: int, word: str) -> dict[str, Any]:
    text = " ".join(chance.choice(WORDS) for _ in range(60))
    return {
        "id": f"d{number}",
        "title": f"{word} own{number}",
        "text": text,
        "vector": [chance.randrange(-99, 100) for _ in range(DIMENSIONS)],
    }


@dataclass(frozen=True)
class Artifact:
    """What the manifest says of an artifact, and where its symbols are."""

    name: str
    folder: Path
    k: int
    m: int
    symbol_size_bytes: int
    size_bytes: int

    def data_size_bytes(self, number: int) -> int:
        if number == self.k - 1:
            return self.size_bytes - (self.k - 1) * self.symbol_size_bytes
        return self.symbol_size_bytes

    def symbol(self, number: int) -> Path:
        return self.folder / f"{number:02d}"


@dataclass(frozen=True)
class Large:
    """A writer with two generations, the second a 1 % update; the node ``old`` has the first."""

    genctl: Genctl
    generation_ids: tuple[str, str]
    store_before: dict[str, tuple[int, int, int]]
    store_after: dict[str, tuple[int, int, int]]
    first_release: dict[str, Any]
    second_release: dict[str, Any]
    old: list[Any]
    healthy: dict[str, Any]
    answers: list[Any]

    def artifacts(self, place: int) -> list[Artifact]:
        """The artifacts of generation 0 or 1, each content once."""
        shown = self.genctl("show", "w", self.generation_ids[place], "--json").ok().json
        distinct = {each["blake3"]: each for each in shown["artifacts"]}
        symbols = self.genctl.folder / "s" / "symbols"
        return [
            Artifact(
                each["name"],
                symbols / each["blake3"][:2] / each["blake3"],
                each["symbols"]["k"],
                each["symbols"]["m"],
                each["symbols"]["symbol_size_bytes"],
                each["size_bytes"],
            )
            for each in distinct.values()
        ]


def answers_of(genctl: Genctl, node: str) -> list[Any]:
    answers = [
        genctl("query", node, text, "--mode", "lexical", "--json").ok().json
        for text in ("own17", "own5999", "first", "second", " ".join(WORDS[:8]))
    ]
    for answer in answers:
        del answer["took_ms"]
    return answers


@pytest.fixture(scope="module")
def large(in_folder: Callable[[Path], Genctl], tmp_path_factory: pytest.TempPathFactory) -> Large:
    chance = seeded(20241)
    genctl = in_folder(tmp_path_factory.mktemp("large"))
    store = genctl.folder / "s"
    line = ["init", "w", "--store", "s", "--embedder", "precomputed", "--dimensions", DIMENSIONS]
    genctl(*line).ok()
    ingest(genctl, [random_document(chance, n, "first") for n in range(DOCUMENTS)], 1000)
    first = genctl("release", "w", "--json").ok().json
    before = files_of(store)
    bootstrap(genctl, "old")
    changed = chance.sample(range(DOCUMENTS), DOCUMENTS // 100)
    ingest(genctl, [random_document(chance, n, "second") for n in changed], 1000)
    second = genctl("release", "w", "--json").ok().json
    return Large(
        genctl,
        (first["generation_id"], second["generation_id"]),
        before,
        files_of(store),
        first,
        second,
        answers_of(genctl, "old"),
        bootstrap(genctl, "healthy"),
        answers_of(genctl, "healthy"),
    )


def delete(path: Path, artifact: Artifact, number: int, chance: random.Random) -> None:
    path.unlink()


def truncate(path: Path, artifact: Artifact, number: int, chance: random.Random) -> None:
    """Cut it short within its data, so that whoever reads the symbol meets the end."""
    with path.open("r+b") as file:
        file.truncate(chance.randrange(artifact.data_size_bytes(number)))


def flip(path: Path, artifact: Artifact, number: int, chance: random.Random) -> None:
    """Flip bits in one to five bytes of the data, and half of the time in the trailer too."""
    data = bytearray(path.read_bytes())
    end = artifact.data_size_bytes(number)
    places = [chance.randrange(end) for _ in range(chance.randrange(1, 6))]
    if chance.randrange(2):
        places.append(chance.randrange(end, len(data)))
    for place in set(places):
        data[place] ^= chance.randrange(1, 256)
    path.write_bytes(data)


def flip_trailer(path: Path, artifact: Artifact, number: int, chance: random.Random) -> None:
    """Flip a bit of the table behind the data, which only who looks for a table meets."""
    data = bytearray(path.read_bytes())
    data[chance.randrange(artifact.data_size_bytes(number), len(data))] ^= 1
    path.write_bytes(data)


def swap_for_zeros(path: Path, artifact: Artifact, number: int, chance: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def a_folder_instead(path: Path, artifact: Artifact, number: int, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def a_link_instead(path: Path, artifact: Artifact, number: int, chance: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.with_name("elsewhere"))


Harm = Callable[[Path, Artifact, int, random.Random], None]
HARMS: list[Harm] = [
    delete,
    truncate,
    flip,
    flip_trailer,
    swap_for_zeros,
    a_folder_instead,
    a_link_instead,
]


@dataclass(frozen=True)
class Harmed:
    """A symbol that was harmed, and how."""

    artifact: Artifact
    number: int
    harm: Harm

    @property
    def is_surely_met(self) -> bool:
        """Whether every fetch reads what was harmed: the data of all source symbols."""
        return self.number < self.artifact.k and self.harm is not flip_trailer


Chosen = Callable[[Artifact, int], Sequence[int]]
"""Which symbols of an artifact to harm, so many of them."""


def the_first(artifact: Artifact, count: int) -> Sequence[int]:
    """A fetch reads the data of these, and looks for the table in them first."""
    return range(count)


@contextmanager
def harmed(
    chance: random.Random,
    harms: list[Harm],
    artifacts: list[Artifact],
    more: int = 0,
    *,
    chosen: Chosen | None = None,
) -> Iterator[list[Harmed]]:
    """Harm ``m - k + more`` symbols of each artifact, chosen at random; mend them afterwards."""
    chosen = chosen or (lambda artifact, count: chance.sample(range(artifact.m), count))
    saved: dict[Path, bytes] = {}
    done: list[Harmed] = []
    try:
        for artifact in artifacts:
            for number in chosen(artifact, artifact.m - artifact.k + more):
                path = artifact.symbol(number)
                saved[path] = path.read_bytes()
                harm = chance.choice(harms)
                harm(path, artifact, number, chance)
                done.append(Harmed(artifact, number, harm))
        yield done
    finally:
        for path, data in saved.items():
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(data)


def test_the_corpus_has_artifacts_of_every_geometry(large: Large) -> None:
    cuts = {(artifact.k, artifact.m) for artifact in large.artifacts(1)}
    assert cuts == {(1, 2), (5, 6), (10, 12)}
    assert all((a.k == 10) == (a.size_bytes > 1 << 20) for a in large.artifacts(1))
    # One column each: to damage one byte of a symbol's data is to lose all of it.
    assert all(artifact.symbol_size_bytes <= 1 << 20 for artifact in large.artifacts(1))


def test_a_one_percent_update_uploads_nothing_that_the_store_has(large: Large) -> None:
    before, after = large.store_before, large.store_after
    pointer = "metadata/timestamp.json"
    assert before[pointer] != after[pointer]
    for key, found in before.items():
        assert key == pointer or after[key] == found, f"{key} was written again"
    uploaded = {key: found for key, found in after.items() if key not in before}
    symbols = sum(size for key, (_, _, size) in uploaded.items() if key.startswith("symbols/"))
    assert symbols == large.second_release["uploaded_bytes"]
    assert large.second_release["uploaded_bytes"] < large.first_release["uploaded_bytes"] / 20
    assert large.second_release["reused_bytes"] >= large.first_release["bytes"] * 0.9
    assert large.second_release["new_bytes"] < large.first_release["new_bytes"] / 20


def test_catching_up_moves_only_what_changed(large: Large) -> None:
    genctl = large.genctl
    genctl("rollback", "w", "--reason", "to see a node catch up").ok()
    bootstrap(genctl, "late")
    genctl("activate", "w", large.generation_ids[1]).ok()
    before = files_of(genctl.folder / "late" / "artifacts")
    report = bootstrap(genctl, "late")
    assert report["generation_id"] == large.generation_ids[1]
    assert report["fetched_bytes"] < large.first_release["bytes"] / 20
    assert report["new_bytes"] + report["reused_bytes"] == large.second_release["bytes"]
    after = files_of(genctl.folder / "late" / "artifacts")
    assert {name: after[name] for name in before} == before, "what was here is the same file"
    assert answers_of(genctl, "late") == large.answers


def assert_repaired(large: Large, node: str, damaged_symbols: range) -> None:
    """A bootstrap finds so many symbols damaged, and the node is as one that found none."""
    report = bootstrap(large.genctl, node)
    assert report.keys() == large.healthy.keys()
    assert {key: value for key, value in report.items() if key not in COUNTERS} == {
        key: value for key, value in large.healthy.items() if key not in COUNTERS
    }
    assert report["damaged_symbols"] in damaged_symbols
    assert report["fetched_bytes"] <= 2 * large.healthy["fetched_bytes"]
    assert answers_of(large.genctl, node) == large.answers


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_row_29_as_much_of_one_kind_of_damage_as_the_symbols_are_made_for(
    large: Large, harm: Harm
) -> None:
    with harmed(seeded(29), [harm], large.artifacts(1), chosen=the_first) as done:
        if harm is flip_trailer:
            # Nobody needs the table of an artifact that is one chunk: its id is the chunk's hash.
            met = sum(each.artifact.k > 1 for each in done)
        else:
            met = sum(each.is_surely_met for each in done)
            assert met == len(done)
        assert met > 2
        assert_repaired(large, f"node-{harm.__name__}", range(met, met + 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_row_29_any_pattern_of_damage_up_to_the_limit_is_repaired(large: Large, seed: int) -> None:
    with harmed(seeded(seed), HARMS, large.artifacts(1)) as done:
        met = sum(each.is_surely_met for each in done)
        assert met > 0
        assert_repaired(large, f"node-{seed}", range(met, len(done) + 1))


@pytest.mark.parametrize("harm", [delete, flip, truncate], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("cut", [(1, 2), (10, 12)])
def test_row_30_one_more_than_the_limit_is_unrepairable_by_name(
    large: Large, harm: Harm, cut: tuple[int, int]
) -> None:
    genctl = large.genctl
    chance = seeded(30)
    artifact = next(a for a in large.artifacts(1) if (a.k, a.m) == cut)
    node = f"lost-{harm.__name__}-{cut[0]}"
    line = ["node", "bootstrap", node, "--store", "s", "--root", "w/root.json"]
    with harmed(chance, [harm], [artifact], more=1):
        told = genctl(*line).refused(6, "Unrepairable", artifact.name, "runbooks/")
        assert told.out == ""
        facts = genctl(*line, "--json").refused(6).error["facts"]
        assert facts["artifact"] == artifact.name
        genctl("query", node, "own17").refused(4, "NothingPublished")
    assert bootstrap(genctl, node)["generation_id"] == large.generation_ids[1]
    assert answers_of(genctl, node) == large.answers


def test_row_30_a_node_that_cannot_catch_up_goes_on_serving(large: Large) -> None:
    genctl = large.genctl
    known = {artifact.folder for artifact in large.artifacts(0)}
    new = [artifact for artifact in large.artifacts(1) if artifact.folder not in known]
    assert len(new) > 5
    for lost in (new, new[:1]):
        with harmed(seeded(31), [delete, flip], lost, more=1):
            refusal = genctl("node", "bootstrap", "old", "--json").refused(6)
            # The first to be fetched, and so the first to be waited for, is the largest.
            largest = max(lost, key=lambda artifact: artifact.size_bytes)
            assert refusal.error["error"] == "Unrepairable"
            assert refusal.error["facts"]["artifact"] == largest.name
            assert answers_of(genctl, "old") == large.old
            status = genctl("node", "status", "old", "--json").ok().json
            assert status["active"] == large.generation_ids[0]
            assert status["resident"] == [large.generation_ids[0]]
    everything = [artifact for artifact in large.artifacts(0) if artifact.k == 10]
    with harmed(seeded(32), [delete], everything, more=3):
        report = bootstrap(genctl, "old")
    assert report["damaged_symbols"] == 0, "what a node has it does not ask the store for"
    assert answers_of(genctl, "old") == large.answers


def test_damage_in_a_node_is_refused_by_name_and_repaired_by_a_bootstrap(large: Large) -> None:
    genctl, chance = large.genctl, seeded(33)
    bootstrap(genctl, "rotten")
    home = genctl.folder / "rotten"
    for artifact in large.artifacts(1):
        path = home / "artifacts" / artifact.folder.name
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        path.write_bytes(data)
        genctl("query", "rotten", "own17").refused(6, "ArtifactHashMismatch", artifact.name)
        report = bootstrap(genctl, "rotten")
        assert report["new_bytes"] == artifact.size_bytes
        assert report["generation_id"] == large.generation_ids[1]
    assert answers_of(genctl, "rotten") == large.answers
    assert release(genctl) == large.generation_ids[1]
    assert ids(ask(genctl, "rotten", "own17", "--mode", "lexical")) == ["d17"]
