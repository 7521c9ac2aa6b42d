"""Which root follows on which, who must sign it, and what a draft may say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner, Signature
from tuf.api.metadata import Metadata, Root

from builder.root_draft import Draft, parse_draft
from builder.root_metadata import (
    ROOT_LIFETIME,
    changes,
    find_keyid,
    first_root,
    next_root,
    with_key,
    with_threshold,
    without_key,
)
from manifests.canonical import canonical_bytes
from manifests.errors import BadSetting, UnsignedRecord
from store.signed import signed_by, trusted_root

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
A, B, C, TARGETS, ONLINE, NEW = (CryptoSigner.generate_ed25519() for _ in range(6))


def two_of_three() -> Root:
    keys = [each.public_key for each in (A, B, C)]
    return first_root(
        {"root": keys, "targets": [TARGETS.public_key], "online": [ONLINE.public_key]}, 2, NOW
    )


def drafted(root: Root, *signers: CryptoSigner, before: bytes | None = None) -> Draft:
    draft = Draft("main", before, Metadata(root))
    for signer in signers:
        draft.metadata.sign(signer, append=True)
    return draft


def published() -> bytes:
    return drafted(two_of_three(), A, B).root_bytes()


def test_a_first_root_counts_with_as_many_signatures_as_it_asks_for() -> None:
    (lacking,) = drafted(two_of_three()).lacking()
    assert (lacking.root_version, lacking.needed, len(lacking.keyids)) == (1, 2, 3)
    (lacking,) = drafted(two_of_three(), B).lacking()
    assert lacking.needed == 1
    assert set(lacking.keyids) == {A.public_key.keyid, C.public_key.keyid}
    assert not drafted(two_of_three(), B, C).lacking()
    assert trusted_root(drafted(two_of_three(), B, C).root_bytes()).version == 1


def test_row_10_one_key_that_signs_twice_counts_once() -> None:
    (lacking,) = drafted(two_of_three(), A, A).lacking()
    assert lacking.needed == 1


def test_row_10_one_key_given_twice_is_refused() -> None:
    with pytest.raises(BadSetting, match="already"):
        first_root({"root": [A.public_key, A.public_key]}, 2, NOW)


def test_row_12_a_next_root_needs_the_old_keys_and_its_own() -> None:
    before = published()
    following = with_key(
        next_root(trusted_root(before), NOW), "root", NEW.public_key, A.public_key.keyid
    )
    following = with_threshold(following, "root", 3)
    cases: list[tuple[tuple[CryptoSigner, ...], dict[int, int]]] = [
        ((), {1: 2, 2: 3}),
        ((NEW,), {1: 2, 2: 2}),
        ((A, B), {2: 2}),
        ((B, C, NEW), {}),
        ((A, NEW, B), {2: 1}),
    ]
    for signers, lacks in cases:
        draft = drafted(following, *signers, before=before)
        assert {each.root_version: each.needed for each in draft.lacking()} == lacks
    signed = drafted(following, B, C, NEW, before=before).root_bytes()
    assert signed_by(trusted_root(before), signed, Root) == trusted_root(signed)


def test_the_next_root_expires_later_and_changes_nothing_else() -> None:
    root = two_of_three()
    following = next_root(root, NOW + timedelta(days=9))
    assert following.version == 2
    assert following.expires == NOW + timedelta(days=9) + ROOT_LIFETIME
    assert (following.keys, following.roles) == (root.keys, root.roles)
    assert root.version == 1


def test_a_replaced_key_is_forgotten_and_keeps_its_place() -> None:
    root = with_key(two_of_three(), "root", NEW.public_key, B.public_key.keyid)
    assert root.roles["root"].keyids == [each.public_key.keyid for each in (A, NEW, C)]
    assert B.public_key.keyid not in root.keys
    online = with_key(root, "online", NEW.public_key, ONLINE.public_key.keyid)
    assert online.roles["snapshot"] == online.roles["timestamp"]
    assert online.roles["timestamp"].keyids == [NEW.public_key.keyid]


def test_a_key_is_revoked_where_enough_others_are_left() -> None:
    root = without_key(two_of_three(), C.public_key.keyid)
    assert root.roles["root"].keyids == [A.public_key.keyid, B.public_key.keyid]
    with pytest.raises(BadSetting, match="keys rotate HOME root"):
        without_key(root, A.public_key.keyid)
    with pytest.raises(BadSetting, match="keys rotate HOME targets"):
        without_key(root, TARGETS.public_key.keyid)
    with pytest.raises(BadSetting, match="no role has"):
        without_key(root, C.public_key.keyid)


def test_a_key_that_two_roles_have_is_revoked_in_both_or_in_none() -> None:
    root = with_key(two_of_three(), "targets", C.public_key)
    root = without_key(root, C.public_key.keyid)
    assert C.public_key.keyid not in root.keys
    both = with_key(two_of_three(), "targets", C.public_key, TARGETS.public_key.keyid)
    with pytest.raises(BadSetting, match="targets would have 0 keys"):
        without_key(both, C.public_key.keyid)


@pytest.mark.parametrize("number", [0, 4, -1])
def test_a_threshold_that_the_keys_cannot_meet_is_refused(number: int) -> None:
    with pytest.raises((BadSetting, ValueError)):
        with_threshold(two_of_three(), "root", number)


def test_the_start_of_a_key_id_names_it() -> None:
    keyid = A.public_key.keyid
    assert find_keyid(keyid[:8].upper(), [keyid, B.public_key.keyid]) == keyid
    for text in (keyid[:7], "", "0" * 64, "zzzzzzzz"):
        with pytest.raises(BadSetting, match="eight digits"):
            find_keyid(text, [keyid])
    with pytest.raises(BadSetting, match="2 key ids"):
        find_keyid("a" * 8, ["a" * 64, "a" * 63 + "b"])


def test_changes_are_told_key_by_key() -> None:
    before = two_of_three()
    after = with_threshold(with_key(before, "root", NEW.public_key, A.public_key.keyid), "root", 3)
    assert changes(before, after) == [
        f"root: key {NEW.public_key.keyid} comes",
        f"root: key {A.public_key.keyid} goes",
        "root: 3 must sign, 2 did before",
    ]
    assert len(changes(None, before)) == 5


def test_a_draft_comes_back_from_its_file_as_it_was() -> None:
    before = published()
    draft = drafted(next_root(trusted_root(before), NOW), A, before=before)
    again = parse_draft(draft.to_bytes(), "draft")
    assert again.is_same_root(draft)
    assert again.lacking() == draft.lacking()
    assert again.to_bytes() == draft.to_bytes()


def test_signatures_of_two_holders_are_gathered_and_bad_ones_dropped() -> None:
    one, other = drafted(two_of_three(), A), drafted(two_of_three(), C)
    bent = drafted(two_of_three(), B)
    bad = NEW.sign(bent.metadata.signed_bytes).signature
    bent.metadata.signatures[B.public_key.keyid] = Signature(B.public_key.keyid, bad)
    bent.metadata.signatures[NEW.public_key.keyid] = NEW.sign(bent.metadata.signed_bytes)
    gathered = one.with_signatures_of(bent).with_signatures_of(other)
    assert set(gathered.metadata.signatures) == {A.public_key.keyid, C.public_key.keyid}
    assert parse_draft(bent.to_bytes(), "draft").metadata.signatures == {}


def document_of(draft: Draft) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(draft.to_bytes())
    return document


def test_what_could_mislead_a_signer_is_no_draft() -> None:
    before = published()
    good = document_of(drafted(next_root(trusted_root(before), NOW), before=before))

    def refused(change: dict[str, Any], **signed: Any) -> None:
        document = json.loads(json.dumps(good | change))
        if signed:
            document["root"]["signed"] |= signed
        with pytest.raises(BadSetting, match="draft"):
            parse_draft(canonical_bytes(document), "the draft")

    assert parse_draft(canonical_bytes(good), "the draft").root.version == 2
    described = dict(good["root"]["signed"]["keys"])
    a, new = A.public_key.keyid, NEW.public_key.to_dict()
    roles = good["root"]["signed"]["roles"]
    refused({}, keys=described | {a: new})
    refused({}, keys={k: v for k, v in described.items() if k != a})
    refused({}, roles=roles | {"root": {"keyids": [a], "threshold": 2}})
    refused({}, roles=roles | {"timestamp": {"keyids": [a], "threshold": 1}})
    refused({}, roles=roles | {"root": roles["root"] | {"note": "x"}})
    refused({}, roles={"root": roles["root"]})
    refused({}, version=3)
    refused({}, version=1)
    refused({}, consistent_snapshot=False)
    refused({}, note="signed under another name")
    refused({}, _type="timestamp")
    refused({"schema_version": 2})
    refused({"shard": "../x"})
    refused({"extra": 1})
    refused({"before": None})
    refused({"before": good["root"]})
    refused({"root": {}})
    for junk in (b"", b"{}", b"[]", b"\xff", canonical_bytes(good)[:-1], b" " * 100):
        with pytest.raises(BadSetting, match="the draft"):
            parse_draft(junk, "the draft")


def test_a_draft_is_checked_against_its_holders_own_copy_of_the_root_before() -> None:
    before = published()
    following = next_root(trusted_root(before), NOW)
    draft = drafted(following, before=before)
    draft.check_before(before)
    draft.check_before(drafted(two_of_three(), A, B, C).root_bytes())
    # As in a draft of a writer's home that somebody took over: NEW was there all along.
    root = with_key(two_of_three(), "targets", NEW.public_key, TARGETS.public_key.keyid)
    forged = drafted(root, A, B).root_bytes()
    hidden = drafted(next_root(root, NOW), before=forged)
    assert changes(hidden.root_before, hidden.root) == []
    with pytest.raises(BadSetting, match="do not sign it"):
        hidden.check_before(before)
    newer = drafted(following, A, B, before=before).root_bytes()
    with pytest.raises(BadSetting, match="version 1, and this copy is version 2"):
        draft.check_before(newer)
    with pytest.raises(BadSetting, match="first root"):
        drafted(two_of_three()).check_before(before)
    with pytest.raises(UnsignedRecord):
        draft.check_before(b"{}")
