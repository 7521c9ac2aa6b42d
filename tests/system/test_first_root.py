"""The first root is what its holders signed, whatever somebody puts into the store meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from builder.root_draft import parse_draft
from builder.root_metadata import with_key, with_threshold, without_key
from tests.support.process import Console, Genctl, environment
from tests.system.world import copy, documents, ingest, release

HOLDERS = ("ann", "bob", "cyd")


def ceremony(genctl: Genctl) -> Path:
    """A home whose first root waits for two of three holders; the draft they carry about."""
    for name in HOLDERS:
        genctl("keys", "init", f"{name}.key").ok()
    holders = [word for name in HOLDERS for word in ("--root-key", f"{name}.key.pub")]
    genctl("init", "w", "--store", "s", *holders, "--root-threshold", 2).ok()
    draft = genctl.folder / "draft.json"
    draft.write_bytes((genctl.folder / "w/root_draft.json").read_bytes())
    return draft


def usurped(draft: Path) -> bytes:
    """A root with the home's own targets and online keys, and another root key alone."""
    theirs = CryptoSigner.generate_ed25519()
    root: Root = parse_draft(draft.read_bytes(), "draft").root
    first, *others = root.roles[Root.type].keyids
    root = with_key(with_threshold(root, "root", 1), "root", theirs.public_key, first)
    for keyid in others:
        root = without_key(root, keyid)
    metadata = Metadata(root)
    metadata.sign(theirs)
    return metadata.to_bytes()


def test_a_root_that_somebody_puts_into_the_store_does_not_become_the_first(genctl: Genctl) -> None:
    draft = ceremony(genctl)
    first = genctl.folder / "s/metadata/1.root.json"
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_bytes(usurped(draft))
    for name in HOLDERS[:2]:
        genctl("keys", "sign", draft, "--key", f"{name}.key", "--yes").ok()
    genctl("keys", "publish", "w", draft).refused(3, "HomeOccupied", "somebody else wrote it")
    assert not (genctl.folder / "w/root.json").exists()
    first.unlink()
    genctl("keys", "publish", "w", draft).ok()
    trusted = Metadata[Root].from_bytes((genctl.folder / "w/root.json").read_bytes()).signed
    assert len(trusted.roles[Root.type].keyids) == 3
    assert trusted.roles[Root.type].threshold == 2


def signed(genctl: Genctl, draft: Path) -> None:
    for name in HOLDERS[:2]:
        genctl("keys", "sign", draft, "--key", f"{name}.key", "--yes").ok()


def test_a_home_builds_while_the_holders_sign(genctl: Genctl) -> None:
    draft = ceremony(genctl)
    ingest(genctl, documents(1, 3), 5)
    genctl("build", "w").ok()
    signed(genctl, draft)
    assert "Published root version 1" in genctl("keys", "publish", "w", draft).ok().out
    assert not (genctl.folder / "w/root_draft.json").exists()
    assert release(genctl)
    assert genctl("status", "w", "--json").ok().json["active"] is not None


@pytest.mark.parametrize("is_built", [False, True])
def test_keys_that_stay_locked_when_the_first_root_is_published_cost_nothing(
    genctl: Genctl, mark: str, is_built: bool
) -> None:
    for name in HOLDERS:
        genctl("keys", "init", f"{name}.key").ok()
    holders = [word for name in HOLDERS for word in ("--root-key", f"{name}.key.pub")]
    unlocked = Console(
        genctl.folder, environment(mark) | {"GENCTL_KEY_PASSPHRASE": "nobody guesses it"}
    )
    made = ("init", "w", "--store", "s", *holders)
    unlocked(*made).ok()
    draft = genctl.folder / "draft.json"
    draft.write_bytes((genctl.folder / "w/root_draft.json").read_bytes())
    if is_built:
        ingest(genctl, documents(1, 3), 5)
        genctl("build", "w").ok()
    signed(genctl, draft)
    for _ in range(2):
        genctl("keys", "publish", "w", draft).refused(3, "BadSetting", "is encrypted")
    genctl("keys", "rotate", "w", "online").refused(3, "keys publish")
    receipts = genctl.folder / "w/audit.jsonl"
    assert not receipts.exists() or not receipts.read_text()
    unlocked("keys", "publish", "w", draft).ok()
    assert unlocked("status", "w", "--json").ok().json["record_version"] == 1
    assert unlocked(*made, "--json").ok().json["made"] is False


def test_a_store_that_lost_its_record_after_the_first_root_is_not_given_an_empty_one(
    genctl: Genctl,
) -> None:
    draft = ceremony(genctl)
    signed(genctl, draft)
    waiting = (genctl.folder / "w/root_draft.json").read_bytes()
    genctl("keys", "publish", "w", draft).ok()
    ingest(genctl, documents(1, 3), 5)
    release(genctl)
    (genctl.folder / "s/metadata/timestamp.json").unlink()
    (genctl.folder / "w/root_draft.json").write_bytes(waiting)
    holders = [word for name in HOLDERS for word in ("--root-key", f"{name}.key.pub")]
    again = genctl("init", "w", "--store", "s", *holders, "--root-threshold", 2)
    again.refused(again.code, "ObjectMissing")
    assert not (genctl.folder / "s/metadata/timestamp.json").exists()


def test_a_root_key_that_is_not_there_leaves_no_home(genctl: Genctl) -> None:
    made = genctl("init", "w", "--store", "s", "--root-key", "missing.pub")
    made.refused(3, "BadSetting", "missing.pub is not there")
    assert not (genctl.folder / "w").exists()


def test_who_signs_first_is_told_where_the_draft_goes_next(genctl: Genctl) -> None:
    draft = ceremony(genctl)
    told = genctl("keys", "sign", draft, "--key", "ann.key", "--yes").ok().out
    assert "Carry it to who holds one of these keys" in told
    assert "keys publish" in " ".join(genctl("init", "--help").ok().out.split())


def test_row_43_publishing_a_first_root_killed_anywhere_is_finished_by_the_same_command(
    genctl: Genctl,
) -> None:
    draft = ceremony(genctl)
    ingest(genctl, documents(1, 3), 5)
    genctl("build", "w").ok()
    signed(genctl, draft)
    kept = genctl.folder / "kept"
    kept.mkdir()
    for name in ("w", "s"):
        copy(genctl.folder / name, kept / name)
    step = 0
    while genctl.killed_at(step, "keys", "publish", "w", draft).killed:
        genctl("keys", "publish", "w", draft).ok()
        assert genctl("status", "w", "--json").ok().json["record_version"] == 1
        if step % 5 == 0:
            assert release(genctl)
        for name in ("w", "s"):
            shutil.rmtree(genctl.folder / name)
            copy(kept / name, genctl.folder / name)
        step += 1
    assert step > 10
