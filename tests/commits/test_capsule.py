from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commits.capsule import CAPSULE_PREFIX, NO_COMMIT_ID, Capsule, decode, encode
from commits.documents import Delete, Upsert
from manifests.errors import SchemaTooNew
from tests.commits.samples import operations

CAPSULE = Capsule(
    version=1,
    shard="main",
    commit_seq=1,
    predecessor=NO_COMMIT_ID,
    message_id="m",
    source="s",
    ts_ms=5,
    meta={"b": "1", "a": "2"},
    operations=tuple(operations(1)),
)

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
fields = st.dictionaries(st.text(), scalars | st.text() | st.lists(scalars), max_size=4)
upserts = st.builds(
    Upsert,
    id=st.text(min_size=1),
    title=st.text(),
    text=st.text(),
    vector=st.none() | st.binary(),
    fields=fields,
)
capsules = st.builds(
    Capsule,
    version=st.just(1),
    shard=st.text(),
    commit_seq=st.integers(1, 2**63 - 1),
    predecessor=st.binary(min_size=32, max_size=32).map(bytes.hex),
    message_id=st.text(),
    source=st.text(),
    ts_ms=st.integers(0, 2**62),
    meta=st.dictionaries(st.text(), st.text(), max_size=4),
    operations=st.lists(upserts | st.builds(Delete, id=st.text()), max_size=4).map(tuple),
)


@settings(print_blob=True, deadline=None)
@given(capsules)
def test_a_capsule_reads_back_as_it_was(capsule: Capsule) -> None:
    data = encode(capsule)
    assert decode(data) == capsule
    assert encode(decode(data)) == data
    assert data.startswith(CAPSULE_PREFIX)


def test_the_same_values_are_the_same_bytes_in_whatever_order_they_came() -> None:
    assert encode(CAPSULE) == encode(msgspec.structs.replace(CAPSULE, meta={"a": "2", "b": "1"}))


def test_the_bytes_of_a_capsule_never_change() -> None:
    assert encode(CAPSULE).hex() == (
        "89a776657273696f6e01a57368617264a46d61696eaa636f6d6d69745f73657101ab7072656465636573736f72"
        "d940"
        + "30"
        * 64
        + "aa6d6573736167655f6964a16da6736f75726365a173a574735f6d7305a46d65746182"
        "a161a132a162a131aa6f7065726174696f6e739285a26f70a6757073657274a26964a5646f632d31a57469746c"
        "65a77469746c652031a474657874a474657874a66669656c647381a16e0182a26f70a664656c657465a26964a6"
        "676f6e652d31"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": "1"},
        {"commit_seq": 0},
        {"predecessor": "0" * 63},
        {"predecessor": "A" * 64},
        {"predecessor": "0" * 64 + "\n"},
        {"operations": [{"op": "upsert"}]},
        {"operations": [{"op": "merge", "id": "a"}]},
        {"operations": [{"op": "delete", "id": "a", "text": "t"}]},
        {"more": 1},
        {"ts_ms": 1.5},
    ],
)
def test_a_capsule_of_another_form_is_refused(change: dict[str, Any]) -> None:
    document = msgspec.msgpack.decode(encode(CAPSULE)) | change
    with pytest.raises(ValueError, match=r"\S"):
        decode(msgspec.msgpack.encode(document))


def test_a_newer_capsule_names_both_versions() -> None:
    document = msgspec.msgpack.decode(encode(CAPSULE)) | {"version": 2, "more": 1}
    with pytest.raises(SchemaTooNew) as refused:
        decode(msgspec.msgpack.encode(document))
    assert refused.value.facts == {"found_version": 2, "known_version": 1}
