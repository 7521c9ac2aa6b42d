from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import pytest

from manifests.errors import (
    ArtifactHashMismatch,
    GenctlError,
    ManifestMalformed,
    StoreUnavailable,
    Unrepairable,
)
from manifests.identifiers import content_id
from manifests.names import symbol_key
from replicator.tally import FetchTally
from store.memory import MemoryStore
from store.port import Store
from tests.replicator.encoded import EncodedArtifact, encoded_artifact, fetch_from
from tests.support.faulty_store import FaultyStore

ERROR_PAGE = b"<html><body>503 but the status said 200</body></html>"
LOST = "lost"
FLIPPED = "flipped"
TRUNCATED = "truncated"
EMPTY = "empty"
PAGE = "error page"
DAMAGES = [LOST, FLIPPED, TRUNCATED, EMPTY, PAGE]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    """Any 2 of 12; three columns, the last of them narrow, the last source symbol short."""
    return encoded_artifact(tmp_path_factory.mktemp("large"), 100_003, 10, 12)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    return encoded_artifact(tmp_path_factory.mktemp("small"), 5_000, 1, 2)


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    return encoded_artifact(tmp_path_factory.mktemp("medium"), 70_000, 5, 6)


def damaged(encoded: EncodedArtifact, number: int, damage: str) -> bytes | None:
    whole = encoded.objects[number]
    return {
        LOST: None,
        FLIPPED: encoded.flipped(number),
        TRUNCATED: whole[: len(whole) // 3],
        EMPTY: b"",
        PAGE: ERROR_PAGE,
    }[damage]


def fetch(encoded: EncodedArtifact, store: Store, folder: Path) -> FetchTally:
    """Fetch into ``folder``; check that the artifact is there, whole, or that nothing is."""
    target = folder / encoded.artifact.blake3
    for path in (target, folder / "tables" / target.name, folder / "incoming" / target.name):
        path.unlink(missing_ok=True)
    written: list[int] = []
    try:
        tally = fetch_from(encoded.artifact, folder, [store], progress=written.append)
    except GenctlError:
        assert not target.exists()
        raise
    assert list((folder / "incoming").iterdir()) == []
    assert target.read_bytes() == encoded.data
    assert sum(written) == len(encoded.data)
    return tally


def test_a_healthy_fetch_reads_the_source_symbols_and_one_table(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    tally = fetch(large, large.store(), tmp_path)
    moved_bytes = len(large.data) + large.geometry.table_size_bytes
    assert tally == FetchTally(sources={"memory:store": moved_bytes}, store_bytes=moved_bytes)
    only_sources = large.store({10: None, 11: None})
    assert fetch(large, only_sources, tmp_path) == tally


@pytest.mark.parametrize("damage", DAMAGES)
def test_row_29_any_two_of_twelve_symbols_may_be_damaged(
    large: EncodedArtifact, tmp_path: Path, damage: str
) -> None:
    for pair in combinations(range(12), 2):
        tally = fetch(large, large.store({n: damaged(large, n, damage) for n in pair}), tmp_path)
        sources = [number for number in pair if number < 10]
        assert tally.repaired_artifacts == bool(sources)
        assert tally.repaired_chunks == sum(large.geometry.chunk_count(n) for n in sources)
        assert tally.repaired_bytes == sum(large.geometry.data_size_bytes(n) for n in sources)
        assert tally.damaged_symbols in range(len(sources), len(pair) + 1)


@pytest.mark.parametrize("damage", DAMAGES)
def test_row_29_any_one_symbol_of_a_smaller_artifact_may_be_damaged(
    small: EncodedArtifact, medium: EncodedArtifact, tmp_path: Path, damage: str
) -> None:
    for encoded in (small, medium):
        for number in range(encoded.geometry.m):
            store = encoded.store({number: damaged(encoded, number, damage)})
            tally = fetch(encoded, store, tmp_path)
            assert tally.repaired_artifacts == (number < encoded.geometry.k)


def test_row_29_every_column_may_lose_two_others(large: EncodedArtifact, tmp_path: Path) -> None:
    seed = 29
    print("seed", seed)  # noqa: T201
    chance = random.Random(seed)
    for _ in range(40):
        losses: dict[int, list[int]] = {}
        for column in range(large.geometry.column_count):
            for number in chance.sample(large.geometry.symbols_with_chunk(column), 2):
                losses.setdefault(number, []).append(column)
        changes = {number: large.flipped(number, *chunks) for number, chunks in losses.items()}
        fetch(large, large.store(changes), tmp_path)


def test_row_30_any_three_of_twelve_lost_symbols_are_unrepairable(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    for triple in combinations(range(12), 3):
        with pytest.raises(Unrepairable) as caught:
            fetch(large, large.store(dict.fromkeys(triple)), tmp_path)
        assert caught.value.facts["artifact"] == large.artifact.name
        assert caught.value.facts["damaged_symbols"] == list(triple)
        assert large.artifact.name in caught.value.message
        assert "`genctl scrub HOME` at the writer" in caught.value.message


@pytest.mark.parametrize("damage", DAMAGES)
def test_row_30_one_more_than_it_survives_is_unrepairable(
    large: EncodedArtifact,
    medium: EncodedArtifact,
    small: EncodedArtifact,
    tmp_path: Path,
    damage: str,
) -> None:
    for encoded, count in ((large, 3), (medium, 2), (small, 2)):
        numbers = random.Random(30).sample(range(encoded.geometry.m), count)
        changes = {number: damaged(encoded, number, damage) for number in numbers}
        with pytest.raises(Unrepairable):
            fetch(encoded, encoded.store(changes), tmp_path)


def test_row_30_nothing_but_error_pages_is_unrepairable(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    for page in (ERROR_PAGE, b"", b"\0" * 20_000):
        with pytest.raises(Unrepairable) as caught:
            fetch(large, large.store(dict.fromkeys(range(12), page)), tmp_path)
        assert caught.value.facts["damaged_symbols"] == list(range(12))
    with pytest.raises(Unrepairable) as caught:
        fetch(large, MemoryStore(), tmp_path)
    assert caught.value.facts["damaged_symbols"] == list(range(12))
    assert "`genctl scrub HOME` at the writer" in caught.value.message


def test_one_intact_table_is_enough(large: EncodedArtifact, tmp_path: Path) -> None:
    for intact in range(12):
        changes = {n: large.without_table(n) for n in range(12) if n != intact}
        tally = fetch(large, large.store(changes), tmp_path)
        assert (tally.damaged_symbols, tally.repaired_chunks) == (intact, 0)


def test_row_30_without_any_intact_table_it_is_unrepairable(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    changes: Mapping[int, bytes] = {n: large.without_table(n) for n in range(12)}
    with pytest.raises(Unrepairable):
        fetch(large, large.store(changes), tmp_path)


def test_row_31_symbols_in_each_others_place_count_as_damaged(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    for first, second in combinations(range(12), 2):
        swapped = {first: large.objects[second], second: large.objects[first]}
        fetch(large, large.store(swapped), tmp_path)
    rotated = {n: large.objects[(n + 1) % 12] for n in range(12)}
    with pytest.raises(Unrepairable):
        fetch(large, large.store(rotated), tmp_path)


def test_row_31_a_symbol_twice_does_not_stand_in_for_another(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    fetch(large, large.store({0: large.objects[10], 1: large.objects[10]}), tmp_path)
    repeated = dict.fromkeys((0, 1, 2), large.objects[10])
    with pytest.raises(Unrepairable):
        fetch(large, large.store(repeated), tmp_path)


def test_row_31_symbols_of_another_artifact_of_the_same_cut_count_as_damaged(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    other = encoded_artifact(tmp_path, len(large.data), 10, 12, seed=2)
    for pair in combinations(range(12), 2):
        fetch(large, large.store({n: other.objects[n] for n in pair}), tmp_path)
    with pytest.raises(Unrepairable):
        fetch(large, large.store(dict(enumerate(other.objects))), tmp_path)


def test_bytes_after_an_objects_end_do_no_harm(large: EncodedArtifact, tmp_path: Path) -> None:
    longer = {n: body + b"trailing" for n, body in enumerate(large.objects)}
    assert fetch(large, large.store(longer), tmp_path).damaged_symbols == 0


def test_row_32_good_symbols_of_another_content_than_signed_are_a_hash_mismatch(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    lie = large.artifact.model_copy(update={"blake3": content_id(b"what was signed")})
    store = MemoryStore()
    for number, body in enumerate(large.objects):
        store.put_if_absent(symbol_key(lie.blake3, number), [body])
    lying = EncodedArtifact(lie, large.geometry, large.data, large.objects)
    with pytest.raises(ArtifactHashMismatch):
        fetch(lying, store, tmp_path)
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_size_bytes": 4095},
        {"chunk_size_bytes": 1 << 30},
        {"symbol_size_bytes": 1},
        {"overhead_percent": 19},
        {"k": 9},
    ],
)
def test_row_26_impossible_symbols_are_refused_before_any_fetch(
    large: EncodedArtifact, tmp_path: Path, change: dict[str, int]
) -> None:
    symbols = large.artifact.symbols.model_copy(update=change)
    artifact = large.artifact.model_copy(update={"symbols": symbols})
    wrong = EncodedArtifact(artifact, large.geometry, large.data, large.objects)
    with pytest.raises(ManifestMalformed):
        fetch(wrong, MemoryStore(), tmp_path)


def test_row_50_a_store_that_does_not_answer_is_not_damage(
    large: EncodedArtifact, tmp_path: Path
) -> None:
    store = FaultyStore(large.store())
    store.fail_at = 0
    with pytest.raises(StoreUnavailable):
        store.delete("any")
    with pytest.raises(StoreUnavailable):
        fetch(large, store, tmp_path)
