"""The contract every store backend passes.

A test class inherits from one of the two classes and provides a fixture: ``holding`` for any
backend (it returns a store with the given objects in it), ``store`` as well for one that writes.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from controller import clock
from manifests.errors import BadSetting, LengthExceeded, ObjectMissing
from store.port import ObjectInfo, Store, VersionedBytes

Holding = Callable[[Mapping[str, bytes]], Store]

BAD_KEYS = [
    "",
    "/",
    "/absolute",
    "folder/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/./b",
    ".hidden",
    "a/.tmp-1",
    "-option",
    "a b",
    "a\\b",
    "a\0b",
    "a\n",
    "é",
    "a:b",
    "a%2fb",
    "s" * 201,
    "/".join(["s" * 100] * 7),
]


class Watch:
    """A :class:`store.port.Transfer` made of one function."""

    def __init__(self, arrived: Callable[[int], None]) -> None:
        self.arrived = arrived

    def stop_by(self, stop: Callable[[], None]) -> None:
        pass


def versioned(store: Store, key: str) -> VersionedBytes:
    found = store.get_versioned(key, limit_bytes=1 << 30)
    assert found is not None
    return found


def together(count: int, act: Callable[[int], bool]) -> list[bool]:
    """The results of ``act(0) … act(count - 1)``, started at one moment in threads."""
    barrier = threading.Barrier(count)

    def start(number: int) -> bool:
        barrier.wait(timeout=30)
        return act(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(start, range(count)))


class ReadingContract:
    """What holds of every backend, a read-only one included."""

    def test_the_url_names_the_store(self, holding: Holding) -> None:
        assert holding({}).url

    @pytest.mark.parametrize(
        ("offset", "length", "expected"),
        [
            (0, 10, b"0123456789"),
            (0, 3, b"012"),
            (3, 4, b"3456"),
            (8, 2, b"89"),
            (8, 100, b"89"),
            (10, 1, b""),
            (11, 5, b""),
            (1 << 40, 5, b""),
            (0, 0, b""),
            (5, 0, b""),
            (0, 1 << 40, b"0123456789"),
        ],
    )
    def test_a_range_is_short_only_at_the_end(
        self, holding: Holding, offset: int, length: int, expected: bytes
    ) -> None:
        store = holding({"data/ten": b"0123456789"})
        assert store.get("data/ten", offset=offset, length=length) == expected

    @pytest.mark.parametrize(("offset", "length"), [(0, 10), (3, 4), (8, 5), (10, 3), (0, 0)])
    def test_a_bulk_read_fills_the_buffer_and_tells_of_every_byte(
        self, holding: Holding, offset: int, length: int
    ) -> None:
        store = holding({"data/ten": b"0123456789"})
        buffer = memoryview(bytearray(b"#" * length))
        told: list[int] = []
        expected = b"0123456789"[offset : offset + length]
        watch = Watch(told.append)
        assert store.read_into("data/ten", offset=offset, buffer=buffer, transfer=watch) == len(
            expected
        )
        assert bytes(buffer) == expected + b"#" * (length - len(expected))
        assert sum(told) == len(expected)

    def test_a_bulk_read_of_many_pieces_is_in_order(self, holding: Holding) -> None:
        data = b"".join(number.to_bytes(4, "big") for number in range(1_200_000))
        store = holding({"large": data})
        buffer = memoryview(bytearray(len(data) - 77))
        done = 0

        def arrived(size_bytes: int) -> None:
            nonlocal done
            assert size_bytes > 0
            assert buffer[done : done + size_bytes] == data[33 + done : 33 + done + size_bytes]
            done += size_bytes

        assert store.read_into("large", offset=33, buffer=buffer, transfer=Watch(arrived)) == len(
            buffer
        )
        assert done == len(buffer)

    def test_a_bulk_read_ends_with_what_its_watcher_raises(self, holding: Holding) -> None:
        store = holding({"large": b"x" * 3_000_000})

        def arrived(size_bytes: int) -> None:
            raise InterruptedError(size_bytes)

        with pytest.raises(InterruptedError):
            store.read_into(
                "large", offset=0, buffer=memoryview(bytearray(3_000_000)), transfer=Watch(arrived)
            )
        assert store.get("large", length=2) == b"xx"

    def test_a_bulk_read_of_an_absent_object_is_missing(self, holding: Holding) -> None:
        store = holding({"data/ten": b"0123456789"})
        with pytest.raises(ObjectMissing):
            store.read_into("data/absent", offset=0, buffer=memoryview(bytearray(1)))

    def test_an_empty_object_is_there(self, holding: Holding) -> None:
        store = holding({"empty": b""})
        assert store.get("empty", length=5) == b""
        assert store.stat("empty") == ObjectInfo("empty", 0)
        assert versioned(store, "empty").data == b""

    @pytest.mark.parametrize("key", ["absent", "data/absent", "data", "data/ten/below"])
    def test_an_absent_object_is_missing(self, holding: Holding, key: str) -> None:
        store = holding({"data/ten": b"0123456789"})
        with pytest.raises(ObjectMissing):
            store.get(key, length=1)
        with pytest.raises(ObjectMissing):
            store.get(key, length=0)
        assert store.get_versioned(key, limit_bytes=10) is None
        assert store.stat(key) is None

    @pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, -1)])
    def test_a_negative_range_is_refused(self, holding: Holding, offset: int, length: int) -> None:
        store = holding({"ten": b"0123456789"})
        with pytest.raises(BadSetting):
            store.get("ten", offset=offset, length=length)

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_a_bad_key_is_refused_for_reading(self, holding: Holding, key: str) -> None:
        store = holding({})
        with pytest.raises(BadSetting):
            store.get(key, length=1)
        with pytest.raises(BadSetting):
            store.get_versioned(key, limit_bytes=1)
        with pytest.raises(BadSetting):
            store.stat(key)

    def test_an_object_up_to_the_limit_is_read_whole(self, holding: Holding) -> None:
        store = holding({"ten": b"0123456789"})
        found = store.get_versioned("ten", limit_bytes=10)
        assert found is not None
        assert found.data == b"0123456789"
        with pytest.raises(LengthExceeded):
            store.get_versioned("ten", limit_bytes=9)

    def test_the_version_follows_the_content(self, holding: Holding) -> None:
        store = holding({"a": b"one", "b": b"other"})
        assert versioned(store, "a") == versioned(store, "a")
        assert versioned(store, "a").version != versioned(store, "b").version

    def test_the_list_is_in_key_order_under_the_prefix(self, holding: Holding) -> None:
        objects = {
            key: b"x" * size_bytes
            for size_bytes, key in enumerate(
                ["a-b", "a.b", "a/b", "a/b-c/d", "a/b.c", "a/b/c", "a0", "aB", "a_b", "ab/c", "b"]
            )
            # A folder cannot hold both an object and objects below it.
            if key != "a/b"
        }
        store = holding(objects)
        for prefix in ("", "a", "a/", "a/b", "a/b.", "a/b/", "a/b/c", "ab", "b", "c", "a/b/c/d"):
            expected = [
                ObjectInfo(key, len(objects[key]))
                for key in sorted(objects)
                if key.startswith(prefix)
            ]
            assert list(store.list(prefix)) == expected, prefix

    def test_a_listing_tells_when_an_object_was_written_or_nothing(self, holding: Holding) -> None:
        store = holding({"a": b"one"})
        (found,) = store.list("")
        if found.modified_at is not None:
            assert abs(clock.now() - found.modified_at) < timedelta(hours=1)

    @pytest.mark.parametrize("prefix", ["/", "..", "../", "a/../", ".hidden", "a//", "a b", "a\0"])
    def test_a_bad_prefix_is_refused(self, holding: Holding, prefix: str) -> None:
        store = holding({})
        with pytest.raises(BadSetting):
            list(store.list(prefix))


class WritingContract(ReadingContract):
    """What holds besides of every backend that writes."""

    def test_an_object_is_its_parts_joined(self, store: Store) -> None:
        assert store.put_if_absent("parts", [b"one", memoryview(b"-two-")[1:4], b"", b"three"])
        assert store.get("parts", length=100) == b"onetwothree"
        assert store.put_if_absent("nothing", [])
        assert store.stat("nothing") == ObjectInfo("nothing", 0)

    def test_large_parts_may_be_views_of_mapped_files(self, store: Store, tmp_path: Path) -> None:
        size_bytes = 20 << 20
        block = bytes(range(256)) * 4096
        source = tmp_path / "source"
        source.write_bytes(block * (size_bytes // len(block)))
        with source.open("rb") as stream:
            mapped = memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))
        assert store.put_if_absent("large", [mapped[5:], mapped[:5], memoryview(b"table")])
        assert store.stat("large") == ObjectInfo("large", size_bytes + 5)
        assert (
            store.get("large", offset=size_bytes - 7, length=100)
            == block[-2:] + block[:5] + b"table"
        )
        assert store.get("large", length=size_bytes - 5) == mapped[5:]

    def test_a_taken_key_is_left_alone(self, store: Store) -> None:
        assert store.put_if_absent("key", [b"first"])
        assert not store.put_if_absent("key", [b"second"])
        assert not store.put_if_absent("key", [b"first"])
        assert store.get("key", length=100) == b"first"

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_a_bad_key_is_refused_for_writing(self, store: Store, key: str) -> None:
        with pytest.raises(BadSetting):
            store.put_if_absent(key, [b"x"])
        with pytest.raises(BadSetting):
            store.compare_and_swap(key, b"x", None)
        with pytest.raises(BadSetting):
            store.delete(key)
        assert list(store.list("")) == []

    def test_of_racing_creators_one_wins_with_all_its_bytes(self, store: Store) -> None:
        for attempt in range(5):
            key = f"races/{attempt}"
            bodies = [bytes([number]) * (300_000 + number) for number in range(8)]
            parts: list[Sequence[bytes]] = [[body[:1000], body[1000:]] for body in bodies]
            won = together(8, lambda number: store.put_if_absent(key, parts[number]))  # noqa: B023
            assert won.count(True) == 1
            assert store.get(key, length=1 << 20) == bodies[won.index(True)]

    def test_a_swap_needs_the_current_version(self, store: Store) -> None:
        assert not store.compare_and_swap("pointer", b"x", "0" * 64)
        assert store.stat("pointer") is None
        assert store.compare_and_swap("pointer", b"one", None)
        assert not store.compare_and_swap("pointer", b"x", None)
        first = versioned(store, "pointer")
        assert first.data == b"one"
        assert store.compare_and_swap("pointer", b"two, longer", first.version)
        assert not store.compare_and_swap("pointer", b"x", first.version)
        second = versioned(store, "pointer")
        assert second.data == b"two, longer"
        assert store.compare_and_swap("pointer", b"3", second.version)
        assert versioned(store, "pointer").data == b"3"

    def test_a_created_object_can_be_swapped_and_a_deleted_one_not(self, store: Store) -> None:
        assert store.put_if_absent("pointer", [b"one"])
        version = versioned(store, "pointer").version
        assert store.compare_and_swap("pointer", b"two", version)
        version = versioned(store, "pointer").version
        store.delete("pointer")
        assert not store.compare_and_swap("pointer", b"three", version)
        assert store.compare_and_swap("pointer", b"three", None)

    def test_no_update_of_racing_writers_is_lost(self, store: Store) -> None:
        def increment(_: int) -> bool:
            for _ in range(15):
                while True:
                    found = store.get_versioned("counter", limit_bytes=100)
                    number = 0 if found is None else int(found.data)
                    version = None if found is None else found.version
                    if store.compare_and_swap("counter", b"%d" % (number + 1), version):
                        break
            return True

        assert together(4, increment) == [True] * 4
        assert versioned(store, "counter").data == b"60"

    def test_a_reader_sees_the_old_bytes_or_the_new(self, store: Store) -> None:
        bodies = [bytes([number]) * (200_000 * (1 + number % 3)) for number in range(20)]
        assert store.put_if_absent("pointer", [bodies[0]])
        done = threading.Event()

        def write(_: int) -> bool:
            try:
                for body in bodies[1:]:
                    assert store.compare_and_swap(
                        "pointer", body, versioned(store, "pointer").version
                    )
            finally:
                done.set()
            return True

        def read(_: int) -> bool:
            seen = []
            while not done.is_set():
                seen.append(versioned(store, "pointer").data)
            return all(data in bodies for data in seen)

        assert together(2, lambda number: (write, read)[number](number)) == [True, True]

    def test_deleting_is_idempotent(self, store: Store) -> None:
        assert store.put_if_absent("folder/a", [b"1"])
        assert store.put_if_absent("folder/b", [b"2"])
        store.delete("folder/a")
        store.delete("folder/a")
        store.delete("never/there")
        store.delete("folder")
        assert list(store.list("")) == [ObjectInfo("folder/b", 1)]
        assert store.put_if_absent("folder/a", [b"3"])
        assert store.get("folder/a", length=9) == b"3"
