"""Several stores as one: the contract, the rule of the spread, and stores that fail or are lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, strategies

from manifests.errors import (
    DiskError,
    HomeOccupied,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    TransferDeadline,
)
from manifests.identifiers import content_id
from manifests.names import symbol_key
from store.locate import open_store
from store.memory import MemoryStore
from store.port import UNWATCHED, Store, Transfer, VersionedBytes
from store.spread import RECORD_KEY, ROOT_KEY, SpreadStore, symbol_store
from symbols.geometry import Geometry, choose
from tests.store.contract import Holding, Watch, WritingContract, versioned
from tests.support.faulty_store import FaultyStore

ARTIFACT = content_id(b"an artifact")
MIB = 1 << 20


def folders(parent: Path, count: int) -> SpreadStore:
    """Stores in so many folders ``s0``, ``s1`` …, as one."""
    return SpreadStore(
        [open_store(str(parent / f"s{number}"), create=True) for number in range(count)]
    )


@pytest.fixture(
    params=[(kind, count) for kind in ("memory", "folder") for count in (1, 3)],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    kind, count = request.param
    if kind == "memory":
        return SpreadStore([MemoryStore(f"s{number}") for number in range(count)])
    return folders(tmp_path, count)


@pytest.fixture
def holding(store: Store) -> Holding:
    def fill(objects: Mapping[str, bytes]) -> Store:
        for key, data in objects.items():
            assert store.put_if_absent(key, [data])
        return store

    return fill


class TestContract(WritingContract):
    pass


class World:
    """Three stores in memory that can be made to fail, and what they are as one."""

    def __init__(self) -> None:
        self.memories = [MemoryStore(f"s{number}") for number in range(3)]
        self.faulty = [FaultyStore(memory) for memory in self.memories]
        self.spread = SpreadStore(self.faulty)

    def fail(self, number: int) -> None:
        """Have a store not answer any more."""
        self.faulty[number].fail_at = self.faulty[number].mutations
        with pytest.raises(StoreUnavailable):
            self.faulty[number].delete("anything")

    def holders(self, key: str) -> list[int]:
        """Which stores have an object."""
        return [number for number in range(3) if self.memories[number].stat(key) is not None]

    def held(self, key: str) -> list[bytes | None]:
        """What each store has under a key."""
        found = [memory.get_versioned(key, limit_bytes=MIB) for memory in self.memories]
        return [None if each is None else each.data for each in found]


@pytest.fixture
def world() -> World:
    return World()


def swap(world: World, data: bytes) -> bool:
    found = world.spread.get_versioned(RECORD_KEY, limit_bytes=MIB)
    return world.spread.compare_and_swap(RECORD_KEY, data, None if found is None else found.version)


def read(store: Store, key: str, transfer: Transfer = UNWATCHED) -> bytes:
    buffer = bytearray(100)
    return bytes(
        buffer[: store.read_into(key, offset=0, buffer=memoryview(buffer), transfer=transfer)]
    )


# --- the rule -------------------------------------------------------------------------------------


def test_the_rule_has_not_changed() -> None:
    """Golden values: other versions must look in the same places."""
    artifact_id = "0000000a" + "f" * 56
    assert [symbol_store(artifact_id, number, 3) for number in range(5)] == [1, 2, 0, 1, 2]
    assert [symbol_store(artifact_id, number, 4) for number in range(5)] == [2, 3, 0, 1, 2]
    assert symbol_store("ffffffff" + "0" * 56, 1, 7) == (0xFFFFFFFF + 1) % 7


def test_a_symbol_is_kept_where_the_rule_says_and_nowhere_else(world: World) -> None:
    for number in range(12):
        key = symbol_key(ARTIFACT, number)
        assert world.spread.put_if_absent(key, [b"%d" % number])
        assert world.holders(key) == [symbol_store(ARTIFACT, number, 3)]
        assert world.spread.get(key, length=9) == read(world.spread, key) == b"%d" % number


def test_everything_else_is_in_every_store(world: World) -> None:
    keys = [RECORD_KEY, ROOT_KEY, "targets/manifests/x.json", "symbols/aa/short/00"]
    for key in keys:
        assert world.spread.put_if_absent(key, [b"one", b"two"])
        assert world.held(key) == [b"onetwo"] * 3


def test_small_artifacts_start_at_every_store_about_equally_often() -> None:
    ids = [content_id(b"%d" % number) for number in range(3000)]
    starts = Counter(symbol_store(artifact_id, 0, 3) for artifact_id in ids)
    assert sorted(starts) == [0, 1, 2]
    assert max(starts.values()) < 1.1 * min(starts.values())


def test_a_symbol_is_read_where_it_belongs_before_anywhere_else(world: World) -> None:
    for number in range(3):
        key = symbol_key(ARTIFACT, number)
        belongs = symbol_store(ARTIFACT, number, 3)
        for place, memory in enumerate(world.memories):
            assert memory.put_if_absent(key, [b"right" if place == belongs else b"another"])
        assert world.spread.get(key, length=9) == read(world.spread, key) == b"right"


@given(
    k=strategies.integers(1, 12),
    spare=strategies.integers(1, 12),
    store_count=strategies.integers(1, 9),
    start=strategies.integers(0, 2**32 - 1),
)
def test_what_is_survived_is_what_losing_every_set_of_stores_shows(
    k: int, spare: int, store_count: int, start: int
) -> None:
    artifact_id = f"{start:08x}" + "0" * 56
    geometry = Geometry(1000 * k, k, k + spare, 1 << 20)
    places = [symbol_store(artifact_id, number, store_count) for number in range(geometry.m)]

    def survives(lost: int) -> bool:
        return all(
            sum(place not in stores for place in places) >= k
            for stores in combinations(range(store_count), lost)
        )

    survived = geometry.stores_survived(store_count)
    assert survives(survived)
    assert not survives(survived + 1)


@pytest.mark.parametrize("size_bytes", [1, 64 << 10, MIB, MIB + 1, 1 << 30])
@pytest.mark.parametrize("store_count", range(2, 14))
def test_any_one_store_may_be_lost_and_no_symbol_is_spent_in_vain(
    size_bytes: int, store_count: int
) -> None:
    alone, cut = choose(size_bytes), choose(size_bytes, store_count)
    assert cut.stores_survived(store_count) >= 1
    assert cut.k == alone.k
    if cut.m > alone.m:
        fewer = Geometry(size_bytes, cut.k, cut.m - 1, cut.chunk_size_bytes)
        assert fewer.stores_survived(store_count) == 0


# --- reading when stores fail, or have changed ----------------------------------------------------


@pytest.mark.parametrize("down", [0, 1, 2])
def test_row_54_what_is_mirrored_is_read_while_any_store_answers(world: World, down: int) -> None:
    assert world.spread.put_if_absent(ROOT_KEY, [b"root"])
    for number in {0, 1, 2} - {down}:
        world.fail(number)
    assert world.spread.get(ROOT_KEY, length=9) == read(world.spread, ROOT_KEY) == b"root"
    found = world.spread.stat(ROOT_KEY)
    assert found is not None
    assert found.size_bytes == 4
    world.fail(down)
    acts: list[Callable[[], object]] = [
        lambda: world.spread.get(ROOT_KEY, length=9),
        lambda: read(world.spread, ROOT_KEY),
        lambda: world.spread.stat(ROOT_KEY),
    ]
    for ask in acts:
        with pytest.raises(StoreUnavailable, match="s0"):
            ask()


def test_what_may_be_in_a_store_that_does_not_answer_is_not_called_missing(world: World) -> None:
    world.fail(1)
    acts: list[Callable[[], object]] = [
        lambda: world.spread.get("absent", length=9),
        lambda: read(world.spread, "absent"),
    ]
    for ask in acts:
        with pytest.raises(StoreUnavailable, match="s1"):
            ask()
    assert world.spread.stat("metadata/2.root.json") is None, "or no node could refresh its record"


def test_row_52_a_reader_finds_what_the_first_store_has_lost(world: World) -> None:
    assert world.spread.put_if_absent(RECORD_KEY, [b"record"])
    world.memories[0].delete(RECORD_KEY)
    assert world.spread.get(RECORD_KEY, length=9) == read(world.spread, RECORD_KEY) == b"record"
    assert world.spread.stat(RECORD_KEY) is not None


def test_a_symbol_is_found_where_other_stores_were_the_rule(world: World) -> None:
    key = symbol_key(ARTIFACT, 4)
    assert SpreadStore(world.memories[:2]).put_if_absent(key, [b"symbol"])
    turned = SpreadStore([*world.memories[2:], *world.memories[:2]])
    for spread in (world.spread, turned):
        assert spread.get(key, length=9) == read(spread, key) == b"symbol"


def test_a_symbol_that_is_elsewhere_is_put_where_it_belongs(world: World) -> None:
    """Else what `show` says of lost stores would not hold after a store was added."""
    number = next(n for n in range(9) if symbol_store(ARTIFACT, n, 3) == 2)
    key = symbol_key(ARTIFACT, number)
    assert world.memories[0].put_if_absent(key, [b"symbol"])
    assert world.spread.stat(key) is None
    assert world.spread.put_if_absent(key, [b"symbol"])
    assert world.spread.stat(key) is not None
    assert world.holders(key) == [0, 2]
    assert [info.key for info in world.spread.list("")] == [key]
    world.spread.delete(key)
    assert world.holders(key) == []


class Interrupted(MemoryStore):
    """A store whose bulk reads end after so many bytes."""

    def __init__(self, name: str, after_bytes: int) -> None:
        super().__init__(name)
        self._after_bytes = after_bytes

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        if self._after_bytes:
            super().read_into(
                key, offset=offset, buffer=buffer[: self._after_bytes], transfer=transfer
            )
        raise TransferDeadline(f"{self.url} is slow")


@pytest.mark.parametrize("after_bytes", [0, 3])
def test_no_byte_is_told_of_twice_when_a_store_fails_amid_a_read(after_bytes: int) -> None:
    stores = [Interrupted("s0", after_bytes), MemoryStore("s1")]
    for each in stores:
        assert each.put_if_absent("object", [b"0123456789"])
    told: list[int] = []
    if after_bytes == 0:
        assert read(SpreadStore(stores), "object", Watch(told.append)) == b"0123456789"
        assert told == [10]
        return
    with pytest.raises(TransferDeadline):
        read(SpreadStore(stores), "object", Watch(told.append))
    assert told == [3]


class Waiting(MemoryStore):
    """A store that hands out how to stop it, and is stopped before a byte arrives."""

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        stopped: list[bool] = []
        transfer.stop_by(lambda: stopped.append(True))
        assert stopped
        raise TransferDeadline(f"{self.url} was stopped")


def test_a_read_that_was_stopped_is_not_begun_again_at_another_store() -> None:
    class Stopper(Watch):
        def stop_by(self, stop: Callable[[], None]) -> None:
            stop()

    other = MemoryStore("s1")
    assert other.put_if_absent("object", [b"0123456789"])
    told: list[int] = []
    with pytest.raises(TransferDeadline, match="stopped"):
        read(SpreadStore([Waiting("s0"), other]), "object", Stopper(told.append))
    assert told == []


def test_a_bad_sector_in_one_store_is_read_from_another(tmp_path: Path) -> None:
    spread = folders(tmp_path, 2)
    assert spread.put_if_absent("object", [b"bytes"])
    (tmp_path / "s0" / "object").unlink()
    (tmp_path / "s0" / "object").symlink_to(tmp_path)  # which the folder refuses as it does EIO
    assert spread.get("object", length=9) == b"bytes"
    key = symbol_key(ARTIFACT, 0)
    assert spread.put_if_absent(key, [b"bytes"])
    (path,) = tmp_path.glob(f"*/{key}")
    path.unlink()
    path.symlink_to(tmp_path)
    with pytest.raises(DiskError):
        spread.get(key, length=9)


# --- writing: what the first store says holds, and the copies follow ------------------------------


@pytest.mark.parametrize("down", [0, 1, 2])
def test_a_writer_needs_every_store_and_moves_nothing_without(world: World, down: int) -> None:
    assert swap(world, b"one")
    world.fail(down)
    with pytest.raises(StoreUnavailable, match=f"s{down}"):
        world.spread.put_if_absent("metadata/2.snapshot.json", [b"snapshot"])
    with pytest.raises(StoreUnavailable, match=f"s{down}"):
        world.spread.compare_and_swap(
            RECORD_KEY, b"two", versioned(world.memories[0], RECORD_KEY).version
        )
    with pytest.raises(StoreUnavailable, match=f"s{down}"):
        list(world.spread.list(""))
    assert world.held(RECORD_KEY) == [b"one"] * 3
    number = next(n for n in range(3) if symbol_store(ARTIFACT, n, 3) == down)
    with pytest.raises(StoreUnavailable, match=f"s{down}"):
        world.spread.put_if_absent(symbol_key(ARTIFACT, number), [b"symbol"])


@pytest.mark.parametrize("down", [0, 2])
def test_a_writer_is_told_what_to_do_if_one_of_its_stores_is_lost_for_good(
    world: World, down: int
) -> None:
    assert swap(world, b"one")
    version = versioned(world.memories[0], RECORD_KEY).version
    world.fail(down)
    acts: list[Callable[[], object]] = [
        lambda: world.spread.get_versioned("absent", limit_bytes=MIB),
        lambda: world.spread.put_if_absent("key", [b"x"]),
        lambda: world.spread.compare_and_swap(RECORD_KEY, b"two", version),
        lambda: list(world.spread.list("")),
        lambda: world.spread.delete("key"),
        lambda: world.spread.mend(""),
    ]
    for act in acts:
        with pytest.raises(StoreUnavailable, match=f"s{down}") as caught:
            act()
        assert caught.value.runbook == "store-lost"
        assert caught.value.message.count("lost for good") == 1
        assert "runbooks/" not in caught.value.message
    with pytest.raises(StoreUnavailable) as read_only:
        SpreadStore([world.faulty[down]] * 2).get(RECORD_KEY, length=9)
    with pytest.raises(StoreUnavailable) as single:
        SpreadStore([world.faulty[down]]).get_versioned(RECORD_KEY, limit_bytes=MIB)
    assert (read_only.value.runbook, single.value.runbook) == (None, None)


def test_a_store_that_refuses_is_not_called_lost() -> None:
    class Refusing(MemoryStore):
        def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
            raise StoreRefused(f"no credentials for {self.url}", store=self.url)

    with pytest.raises(StoreRefused, match=r"memory:s0$") as caught:
        SpreadStore([Refusing("s0"), MemoryStore("s1")]).get_versioned("key", limit_bytes=MIB)
    assert caught.value.runbook is None


def test_row_45_a_copy_that_fails_after_the_commit_point_does_not_hide_it(world: World) -> None:
    assert world.spread.put_if_absent(ROOT_KEY, [b"root"])
    assert swap(world, b"one")
    world.faulty[2].fail_at = world.faulty[2].mutations
    with pytest.raises(StoreUnavailable, match="was replaced in memory:s0"):
        swap(world, b"two")
    assert versioned(world.spread, RECORD_KEY).data == b"two", "the caller reads that it happened"
    assert world.held(RECORD_KEY) == [b"two", b"two", b"one"]
    world.faulty[2].revive()
    assert swap(world, b"three"), "the next swap finds the truth, whatever the copies are"
    assert world.held(RECORD_KEY) == [b"three"] * 3


@pytest.mark.parametrize("left", [b"older", b"newer, of an attempt that never was", None])
def test_row_36_a_copy_in_any_state_is_brought_to_the_record(
    world: World, left: bytes | None
) -> None:
    assert world.spread.put_if_absent(ROOT_KEY, [b"root"])
    assert swap(world, b"one")
    world.memories[1].delete(RECORD_KEY)
    if left is not None:
        assert world.memories[1].put_if_absent(RECORD_KEY, [left])
    world.spread.mend(RECORD_KEY)
    assert world.held(RECORD_KEY) == [b"one"] * 3


def test_row_44_who_loses_the_race_changes_no_copy(world: World) -> None:
    assert swap(world, b"one")
    version = versioned(world.spread, RECORD_KEY).version
    assert swap(world, b"two")
    assert not world.spread.compare_and_swap(RECORD_KEY, b"other", version)
    assert world.held(RECORD_KEY) == [b"two"] * 3


def test_a_copy_made_between_two_swaps_ends_as_the_second(world: World) -> None:
    """The slower of two writers finds that the record moved on while it copied."""
    assert swap(world, b"one")
    version = versioned(world.memories[0], RECORD_KEY).version

    def second() -> None:
        other = SpreadStore(world.memories)
        assert other.compare_and_swap(RECORD_KEY, b"three", versioned(other, RECORD_KEY).version)

    world.faulty[1].before_swap = second
    assert world.spread.compare_and_swap(RECORD_KEY, b"two", version)
    assert world.held(RECORD_KEY) == [b"three"] * 3


def test_row_35_what_an_aborted_attempt_left_in_a_copy_gives_way(world: World) -> None:
    assert world.memories[1].put_if_absent("metadata/5.targets.json", [b"aborted"])
    assert world.spread.put_if_absent("metadata/5.targets.json", [b"five"])
    assert world.held("metadata/5.targets.json") == [b"five"] * 3


def test_row_35_an_object_that_only_the_first_store_got_is_copied_when_put_again(
    world: World,
) -> None:
    world.faulty[1].fail_at = 0
    with pytest.raises(StoreUnavailable):
        world.spread.put_if_absent("targets/a", [b"a"])
    assert world.holders("targets/a") == [0]
    world.faulty[1].revive()
    assert not world.spread.put_if_absent("targets/a", [b"a"])
    assert world.held("targets/a") == [b"a"] * 3


def test_what_the_first_store_lost_is_not_absent_for_a_writer(world: World) -> None:
    assert world.spread.put_if_absent(ROOT_KEY, [b"root"])
    assert swap(world, b"one")
    world.memories[0].delete(RECORD_KEY)
    acts: list[Callable[[], object]] = [
        lambda: world.spread.get_versioned(RECORD_KEY, limit_bytes=MIB),
        lambda: world.spread.mend(RECORD_KEY),
    ]
    for act in acts:
        with pytest.raises(ObjectMissing, match="memory:s0") as caught:
            act()
        assert caught.value.runbook == "store-lost"
        assert "runbooks/" not in caught.value.message, "or it is named twice"
    assert world.held(RECORD_KEY) == [None, b"one", b"one"]


def test_whether_the_record_is_absent_is_not_said_while_a_store_does_not_answer(
    world: World,
) -> None:
    world.fail(2)
    with pytest.raises(StoreUnavailable, match="s2"):
        world.spread.get_versioned(RECORD_KEY, limit_bytes=MIB)


def test_another_writers_store_is_not_overwritten(world: World) -> None:
    assert world.memories[0].put_if_absent(ROOT_KEY, [b"mine"])
    for key in (ROOT_KEY, RECORD_KEY, "metadata/1.targets.json"):
        assert world.memories[2].put_if_absent(key, [b"theirs"])
    acts: list[Callable[[], object]] = [
        lambda: world.spread.put_if_absent(ROOT_KEY, [b"mine"]),
        lambda: world.spread.put_if_absent("metadata/1.targets.json", [b"mine"]),
        lambda: world.spread.compare_and_swap(RECORD_KEY, b"mine", None),
        lambda: world.spread.mend("metadata/"),
    ]
    for act in acts:
        with pytest.raises(HomeOccupied, match="memory:s2"):
            act()
    assert [info.key for info in world.memories[0].list("")] == [ROOT_KEY]
    assert {world.held(info.key)[2] for info in world.memories[2].list("")} == {b"theirs"}


def test_a_new_root_does_not_replace_another_writers(world: World) -> None:
    assert world.memories[1].put_if_absent(ROOT_KEY, [b"theirs"])
    with pytest.raises(HomeOccupied, match="memory:s1"):
        world.spread.put_if_absent(ROOT_KEY, [b"mine"])
    assert world.held(ROOT_KEY)[1] == b"theirs"


def test_what_could_not_be_deleted_everywhere_is_still_in_the_first_store(world: World) -> None:
    """Else it would be a copy without an original, which a writer takes for a loss."""
    assert world.spread.put_if_absent("targets/a", [b"a"])
    world.faulty[1].fail_at = world.faulty[1].mutations
    with pytest.raises(StoreUnavailable):
        world.spread.delete("targets/a")
    assert world.holders("targets/a") == [0, 1]
    world.faulty[1].revive()
    world.spread.delete("targets/a")
    assert world.holders("targets/a") == []


def test_mending_gives_every_store_what_any_has_and_leaves_symbols_alone(world: World) -> None:
    objects = {
        ROOT_KEY: b"root",
        RECORD_KEY: b"record",
        "metadata/1.targets.json": b"targets",
        "targets/manifests/m.json": b"manifest",
    }
    for key, data in objects.items():
        assert world.spread.put_if_absent(key, [data])
    symbol = symbol_key(ARTIFACT, 0)
    assert world.spread.put_if_absent(symbol, [b"symbol"])
    world.memories[0].delete("targets/manifests/m.json")
    world.memories[1].delete("metadata/1.targets.json")
    world.memories[1].delete("targets/manifests/m.json")
    world.memories[2].delete("metadata/1.targets.json")
    assert world.memories[2].put_if_absent("metadata/1.targets.json", [b"tarGets"])
    world.spread.mend("")
    for key, data in objects.items():
        assert world.held(key) == [data] * 3
    assert len(world.holders(symbol)) == 1


def test_of_copies_that_differ_in_the_list_the_first_stores_is_shown(world: World) -> None:
    for number, memory in enumerate(world.memories):
        assert memory.put_if_absent("key", [b"x" * (number + 1)])
    assert [(info.key, info.size_bytes) for info in world.spread.list("")] == [("key", 1)]


def test_people_are_told_all_stores_in_their_order(world: World) -> None:
    assert world.spread.url == "memory:s0, memory:s1, memory:s2"
    assert [store.url for store in world.spread.stores] == ["memory:s0", "memory:s1", "memory:s2"]
