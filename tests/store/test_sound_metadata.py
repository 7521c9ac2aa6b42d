"""What the bytes of a mirrored object say of themselves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, T, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from manifests.errors import HomeOccupied, UnsignedRecord
from manifests.names import metadata_key
from store.memory import MemoryStore
from store.signed import trusted_root
from store.sound_metadata import is_same_document, is_sound, sound_roots
from store.spread import RECORD_KEY, ROOT_KEY, SpreadStore

EXPIRES = datetime(2099, 1, 1, tzinfo=UTC)
ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
MANIFEST = b"a manifest"
MANIFEST_KEY = f"targets/manifests/{hashlib.sha256(MANIFEST).hexdigest()}.g1.json"


def signed(what: T, signer: CryptoSigner) -> bytes:
    metadata = Metadata(what)
    metadata.sign(signer)
    return metadata.to_bytes(JSONSerializer(compact=True))


@dataclass(frozen=True)
class Shard:
    """A writer's key, and the objects of a record of version 7 by their keys."""

    signer: CryptoSigner
    objects: dict[str, bytes]

    @property
    def roots(self) -> list[Root]:
        return [trusted_root(self.objects[ROOT_KEY])]

    def timestamp(self, version: int) -> bytes:
        named = MetaFile(version)
        return signed(Timestamp(version=version, expires=EXPIRES, snapshot_meta=named), self.signer)

    def stores(self, count: int = 3) -> list[MemoryStore]:
        """Stores that have all of it."""
        stores = [MemoryStore(f"s{number}") for number in range(count)]
        for store in stores:
            for key, data in self.objects.items():
                store.put_if_absent(key, [data])
        return stores


def make_shard() -> Shard:
    signer = CryptoSigner.generate_ed25519()
    root = Root(version=1, expires=EXPIRES, consistent_snapshot=True)
    for role in ROLES:
        root.roles[role] = Role([], 1)
        root.add_key(signer.public_key, role)
    empty = Shard(signer, {})
    return Shard(
        signer,
        {
            ROOT_KEY: signed(root, signer),
            metadata_key("7.targets.json"): signed(Targets(version=7, expires=EXPIRES), signer),
            metadata_key("7.snapshot.json"): signed(Snapshot(version=7, expires=EXPIRES), signer),
            RECORD_KEY: empty.timestamp(7),
            MANIFEST_KEY: MANIFEST,
        },
    )


@pytest.fixture(scope="module")
def shard() -> Shard:
    return make_shard()


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def put(store: MemoryStore, key: str, data: bytes | None) -> None:
    store.delete(key)
    if data is not None:
        assert store.put_if_absent(key, [data])


def held(stores: list[MemoryStore], key: str) -> list[bytes]:
    return [store.get(key, length=1 << 20) for store in stores]


def test_every_object_that_was_signed_or_hashed_is_sound(shard: Shard) -> None:
    for key, data in shard.objects.items():
        assert is_sound(key, data, shard.roots) is True, key


def test_no_flipped_bit_goes_unseen(shard: Shard) -> None:
    for key, data in shard.objects.items():
        for place in range(len(data)):
            assert is_sound(key, flipped(data, place), shard.roots) is False, (key, place)


def test_an_object_under_another_ones_name_is_not_sound(shard: Shard) -> None:
    for key in shard.objects:
        for other, data in shard.objects.items():
            assert is_sound(key, data, shard.roots) is (key == other), (key, other)
    for name in ("8.targets.json", "8.snapshot.json", "2.root.json"):
        data = shard.objects[metadata_key(name.replace("8", "7").replace("2", "1"))]
        assert is_sound(metadata_key(name), data, shard.roots) is False


def test_of_what_has_no_signature_or_no_known_root_nothing_is_said(shard: Shard) -> None:
    assert is_sound("targets/manifests/by-hand.json", b"x", shard.roots) is None
    assert is_sound(RECORD_KEY, b"x", []) is None
    assert sound_roots([(ROOT_KEY, b"x"), (RECORD_KEY, shard.objects[ROOT_KEY])]) == []


def test_damage_is_told_from_another_version(shard: Shard) -> None:
    whole, next_one = shard.timestamp(7), shard.timestamp(8)
    assert is_same_document(whole, whole)
    for place in range(len(whole)):
        assert is_same_document(flipped(whole, place), whole), "one of the two parts is left"
    assert is_same_document(whole[: whole.index(b'"signed"')], whole)
    for other in (next_one, flipped(next_one, 5), b"", bytes(len(whole))):
        assert not is_same_document(other, whole)
    assert not is_same_document(make_shard().objects[ROOT_KEY], shard.objects[ROOT_KEY])


@pytest.mark.parametrize("place", [0, 40, -40])
def test_the_first_store_gets_back_what_it_has_damaged(shard: Shard, place: int) -> None:
    for key, data in shard.objects.items():
        stores = shard.stores()
        put(stores[0], key, flipped(data, place % len(data)))
        SpreadStore(stores).mend("")
        assert held(stores, key) == [data] * 3, key


def test_a_copy_that_is_damaged_too_is_not_what_the_first_store_gets(shard: Shard) -> None:
    for key, data in shard.objects.items():
        stores = shard.stores()
        put(stores[0], key, flipped(data, 3))
        put(stores[1], key, flipped(data, 5))
        SpreadStore(stores).mend("")
        assert held(stores, key) == [data] * 3, key


def test_a_damaged_copy_does_not_replace_what_the_first_store_has_lost(shard: Shard) -> None:
    for key in (metadata_key("7.targets.json"), MANIFEST_KEY):
        data = shard.objects[key]
        stores = shard.stores()
        put(stores[0], key, None)
        put(stores[1], key, flipped(data, 9))
        SpreadStore(stores).mend("")
        assert held(stores, key) == [data] * 3, key


@pytest.mark.parametrize("prefix", ["", RECORD_KEY])
@pytest.mark.parametrize("rest", [b"", bytes(400), b"a page of something else"])
def test_a_record_of_which_nothing_is_left_is_not_replaced_by_a_copy_that_may_be_older(
    shard: Shard, prefix: str, rest: bytes
) -> None:
    stores = shard.stores()
    put(stores[0], RECORD_KEY, rest)
    with pytest.raises(UnsignedRecord, match="memory:s0") as caught:
        SpreadStore(stores).mend(prefix)
    assert caught.value.runbook == "store-lost"
    assert "runbooks/" not in caught.value.message, "or it is named twice"
    assert held(stores, RECORD_KEY) == [rest, *[shard.objects[RECORD_KEY]] * 2]


def test_a_newer_record_that_was_damaged_is_not_undone_by_older_copies(shard: Shard) -> None:
    stores = shard.stores()
    newer = flipped(shard.timestamp(8), 100)
    put(stores[0], RECORD_KEY, newer)
    with pytest.raises(UnsignedRecord):
        SpreadStore(stores).mend(RECORD_KEY)
    put(stores[2], RECORD_KEY, shard.timestamp(8))
    SpreadStore(stores).mend(RECORD_KEY)
    assert held(stores, RECORD_KEY) == [shard.timestamp(8)] * 3


def test_a_newer_record_in_the_first_store_is_copied_as_before(shard: Shard) -> None:
    stores = shard.stores()
    put(stores[0], RECORD_KEY, shard.timestamp(8))
    SpreadStore(stores).mend(RECORD_KEY)
    assert held(stores, RECORD_KEY) == [shard.timestamp(8)] * 3


def test_a_damaged_root_is_told_from_another_writers(shard: Shard) -> None:
    stores = shard.stores()
    theirs = make_shard().objects[ROOT_KEY]
    put(stores[1], ROOT_KEY, theirs)
    with pytest.raises(HomeOccupied):
        SpreadStore(stores).mend("")
    assert held(stores, ROOT_KEY)[1] == theirs
    put(stores[1], ROOT_KEY, flipped(shard.objects[ROOT_KEY], 50))
    SpreadStore(stores).mend("")
    assert held(stores, ROOT_KEY) == [shard.objects[ROOT_KEY]] * 3
