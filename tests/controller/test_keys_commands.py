"""What an operator does with keys, on a home in this process: rotations, drafts, kills between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets, Timestamp

from builder.keys import RoleName, create_key, no_passphrase, public_path
from builder.repository import MAX_UNTOLD_SIGNINGS, TARGETS_LIFETIME
from builder.signers import KeyRing, SignerReference
from controller import clock, root_drafts
from controller.new_home import RootHolders, init_home, publish_draft, waiting
from controller.node import NodeHome
from controller.resigning import check_interval, keep
from controller.shown_keys import show
from controller.writer import WriterHome
from controller.writer_keys import (
    NewKey,
    forget_retired,
    make_key,
    revoke,
    root_expires_soon,
    rotate,
    threshold,
)
from manifests.errors import (
    BadSetting,
    ForeignRecord,
    GenctlError,
    HomeOccupied,
    MixAndMatch,
    SignaturesMissing,
    StoreUnavailable,
    UnsignedRecord,
)
from manifests.names import metadata_key
from store.signed import trusted_root
from tests.support.corpus import upserts
from tests.support.crashes import count_steps, killed_at
from tests.support.homes import TestableWriter, add, commit, make_node, make_writer, store_of

ROLES: list[RoleName] = ["root", "targets", "online"]


@pytest.fixture
def writer(tmp_path: Path) -> TestableWriter:
    home = make_writer(tmp_path)
    add(home, upserts(range(3)))
    return home


@pytest.fixture
def node(writer: TestableWriter) -> NodeHome:
    return make_node(writer)


def keyids(writer: WriterHome, role: str) -> list[str]:
    return [key["keyid"] for key in show(writer)["roles"][role]["keys"]]


def holders(folder: Path, *names: str) -> list[Path]:
    """Keys that people hold on machines of their own: the public parts."""
    for name in names:
        create_key(folder / name, lambda: None, no_passphrase)
    return [public_path(folder / name) for name in names]


def sign(folder: Path, name: str, draft: Path) -> None:
    reference = SignerReference(uri=f"file:{folder / name}")
    root_drafts.sign_file(draft, root_drafts.read(draft), reference, ring(folder))


def ring(folder: Path) -> KeyRing:
    return KeyRing(folder, {}, no_passphrase)


def reopened(writer: TestableWriter) -> TestableWriter:
    return TestableWriter(writer.home)


@pytest.mark.parametrize("role", ROLES)
def test_a_rotated_key_signs_from_then_on_and_nodes_follow(
    writer: TestableWriter, node: NodeHome, role: RoleName
) -> None:
    (before,) = keyids(writer, role)
    report = rotate(writer, role, NewKey())
    assert (report.version, report.published) == (2, True)
    (after,) = keyids(writer, role)
    assert after != before
    assert forget_retired(writer) == [f"file:keys/{role}.pem"]
    (writer.home / "keys" / f"{role}.pem").unlink()
    entry = add(reopened(writer), upserts(range(3, 5)))
    assert node.bootstrap().activated
    assert node.pointer().active == entry
    fresh = make_node(writer, "fresh")
    assert fresh.pointer().active == entry
    assert fresh.root_bytes() == (writer.home / "root.json").read_bytes()
    assert trusted_root(fresh.root_bytes()).version == 2


def test_every_key_can_be_rotated_again_and_again(writer: TestableWriter, node: NodeHome) -> None:
    for _ in range(2):
        for role in ROLES:
            assert rotate(reopened(writer), role, NewKey()).published
    assert show(writer)["root_version"] == 7
    assert not init_home(writer.home, writer.settings)
    assert node.bootstrap().activated is False
    assert node.record().active == node.pointer().active.generation_id


@pytest.mark.parametrize("role", ["root", "online"])
def test_row_43_a_rotation_killed_anywhere_is_finished_by_whatever_signs_next(
    tmp_path: Path, role: RoleName
) -> None:
    (tmp_path / "world").mkdir()
    original = make_writer(tmp_path / "world")
    add(original, upserts(range(2)))
    add(original, upserts(range(2, 3)))
    node = make_node(original)
    shutil.copytree(tmp_path / "world", tmp_path / "kept")

    def restore() -> TestableWriter:
        shutil.rmtree(tmp_path / "world")
        shutil.copytree(tmp_path / "kept", tmp_path / "world")
        return TestableWriter(original.home)

    def again(writer: TestableWriter) -> object:
        return rotate(writer, role, NewKey())

    others: list[Callable[[TestableWriter], object]] = [
        lambda writer: writer.refresh(),
        lambda writer: publish_draft(writer, []),
        lambda writer: writer.rollback(None, "as good a change as any"),
    ]
    steps = count_steps(lambda: rotate(restore(), role, NewKey()))
    assert steps > 10
    unfinished = set()
    for step in range(steps):
        finish = again if step % 2 else others[step // 2 % 3]
        writer = restore()
        assert killed_at(step, lambda w=writer: rotate(w, role, NewKey()))  # type: ignore[misc]
        unfinished.add(show(reopened(writer))["unfinished"])
        finish(reopened(writer))
        writer = reopened(writer)
        assert not (writer.home / "root_before.json").exists()
        assert not writer.current().is_superseded
        version = trusted_root(writer.root_bytes()).version
        assert version == 2 or (version == 1 and finish is not again)
        if step % 4 == 0:
            node.bootstrap()
    assert unfinished == ({False} if role == "root" else {False, True})


def test_a_second_rotation_of_a_role_waits_in_the_same_draft(
    writer: TestableWriter, tmp_path: Path
) -> None:
    shutil.move(writer.home / "keys/root.pem", tmp_path / "root.pem")
    first = rotate(writer, "targets", NewKey())
    again = rotate(reopened(writer), "targets", NewKey())
    assert not first.published
    assert (again.version, again.lacking) == (first.version, first.lacking)
    assert (first.changed, again.changed) == (True, False)
    rotate(reopened(writer), "online", NewKey())
    draft = show(reopened(writer))["draft"]
    assert draft is not None
    assert len(draft["changes"]) == 4
    commit(writer, upserts(range(3, 5)))
    add(writer, upserts(range(5, 6)))  # the old keys count until the root is published
    sign(tmp_path, "root.pem", first.draft)
    assert publish_draft(reopened(writer), []).published
    add(reopened(writer), upserts(range(6, 7)))
    assert make_node(writer).record().published[-1].high_seq == 4


def test_a_root_of_several_holders_takes_enough_of_them(tmp_path: Path) -> None:
    publics = holders(tmp_path, "a", "b", "c")
    plain = make_writer(tmp_path, name="plain")
    settings = plain.settings.model_copy(update={"stores": (str(tmp_path / "other"),)})
    home = tmp_path / "careful"
    assert not init_home(home, settings, RootHolders(publics, 2))
    writer = TestableWriter(home)
    report = waiting(writer)
    assert report is not None
    assert not (tmp_path / "other" / "metadata").exists()
    copies = [tmp_path / "for-a.json", tmp_path / "for-c.json"]
    for name, copy in zip("ac", copies, strict=True):
        shutil.copy(report.draft, copy)
        sign(tmp_path, name, copy)
    with pytest.raises(SignaturesMissing, match="1 more"):
        publish_draft(writer, copies[:1])
    assert publish_draft(writer, copies).published
    assert waiting(writer) is None
    entry = add(TestableWriter(home), upserts(range(3)))
    assert make_node(writer).pointer().active == entry

    # Later, the same people replace one of them, and ask for all three.
    (new,) = holders(tmp_path, "d")
    changed = rotate(writer, "root", NewKey(public=new), instead_of=keyids(writer, "root")[1][:8])
    assert not changed.published
    report2 = threshold(writer, "root", 3)
    assert {each.root_version: each.needed for each in report2.lacking} == {1: 2, 2: 3}
    for name in "ac":
        sign(tmp_path, name, report2.draft)
    with pytest.raises(SignaturesMissing) as caught:
        publish_draft(writer, [])
    assert caught.value.exit_code == 4
    sign(tmp_path, "d", report2.draft)
    assert publish_draft(writer, []).published
    assert show(writer)["roles"]["root"]["threshold"] == 3
    assert not publish_draft(writer, []).changed


def test_signatures_of_an_older_draft_are_not_taken_for_the_new_one(
    writer: TestableWriter, tmp_path: Path
) -> None:
    shutil.move(writer.home / "keys/root.pem", tmp_path / "root.pem")
    draft = rotate(writer, "targets", NewKey()).draft
    shutil.copy(draft, tmp_path / "old.json")
    rotate(writer, "online", NewKey())
    sign(tmp_path, "root.pem", tmp_path / "old.json")
    with pytest.raises(BadSetting, match="another root than"):
        publish_draft(writer, [tmp_path / "old.json"])
    assert show(writer)["root_version"] == 1


def test_a_key_whose_signature_would_not_count_does_not_sign(
    writer: TestableWriter, tmp_path: Path
) -> None:
    shutil.move(writer.home / "keys/root.pem", tmp_path / "root.pem")
    draft = rotate(writer, "targets", NewKey()).draft
    holders(tmp_path, "stranger")
    before = draft.read_bytes()
    for name in ("stranger", str(writer.home / "keys/targets.pem")):
        with pytest.raises(BadSetting, match="signatures count"):
            sign(tmp_path, name, draft)
    assert draft.read_bytes() == before


def test_revoking_takes_enough_other_keys(writer: TestableWriter, tmp_path: Path) -> None:
    (only,) = keyids(writer, "root")
    with pytest.raises(BadSetting, match="keys rotate HOME root"):
        revoke(writer, only[:12])
    (spare,) = holders(tmp_path, "spare")
    rotate(writer, "root", NewKey(public=spare), add=True)
    with pytest.raises(BadSetting, match="--replace"):
        rotate(writer, "root", NewKey())
    first, second = keyids(writer, "root")
    assert revoke(writer, second[:12]).published
    assert keyids(writer, "root") == [first]
    with pytest.raises(BadSetting, match="eight digits"):
        revoke(writer, second)
    with pytest.raises(BadSetting, match="2 root keys"):
        threshold(writer, "root", 2)
    assert not threshold(writer, "root", 1).changed


def test_two_online_keys_must_both_sign_when_the_root_says_so(
    writer: TestableWriter, node: NodeHome
) -> None:
    rotate(writer, "online", NewKey(), add=True)
    assert threshold(writer, "online", 2).published
    entry = add(reopened(writer), upserts(range(3, 5)))
    node.bootstrap()
    assert node.pointer().active == entry
    timestamp = Metadata[Timestamp].from_bytes(
        store_of(writer).get(metadata_key("timestamp.json"), length=1 << 20)
    )
    assert len(timestamp.signatures) == 2
    (writer.home / "keys/online-2.pem").unlink()
    with pytest.raises(BadSetting, match=r"online-2\.pem is not there"):
        reopened(writer).refresh()


def test_a_daily_key_that_this_home_cannot_use_is_refused(
    writer: TestableWriter, tmp_path: Path
) -> None:
    (public,) = holders(tmp_path, "elsewhere")
    root = writer.root_bytes()
    with pytest.raises(BadSetting, match="--signer"):
        rotate(writer, "targets", NewKey(public=public))
    with pytest.raises(BadSetting, match="--public"):
        rotate(writer, "targets", NewKey(signer="awskms:alias/x"))
    with pytest.raises(BadSetting, match="uri"):
        rotate(writer, "targets", NewKey(signer="no-scheme"))
    with pytest.raises(BadSetting, match="not set"):
        rotate(writer, "targets", NewKey(signer="env:GENCTL_ABSENT_KEY"))
    rotate(writer, "targets", NewKey(), add=True)
    (writer.home / "keys/targets-2.pem").unlink()
    with pytest.raises(BadSetting, match="is not there"):
        threshold(reopened(writer), "targets", 2)
    assert reopened(writer).root_bytes() != root


def test_a_key_from_the_environment_signs(
    writer: TestableWriter, node: NodeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(tmp_path / "a", must_encrypt=False)
    monkeypatch.setenv("ONLINE_KEY", (tmp_path / "a").read_text())
    rotate(writer, "online", NewKey(signer="env:ONLINE_KEY"))
    shown = show(writer)["roles"]["online"]["keys"]
    assert [key["where"] for key in shown] == ["env:ONLINE_KEY"]
    reopened(writer).refresh()
    node.bootstrap()
    monkeypatch.delenv("ONLINE_KEY")
    with pytest.raises(BadSetting, match="ONLINE_KEY is not set"):
        reopened(writer).refresh()


def test_a_copy_of_the_home_that_missed_a_rotation_takes_it_up(
    writer: TestableWriter, tmp_path: Path
) -> None:
    shutil.copytree(writer.home, tmp_path / "copy")
    rotate(writer, "root", NewKey())
    TestableWriter(tmp_path / "copy").refresh()
    assert (tmp_path / "copy/root.json").read_bytes() == writer.root_bytes()


def test_every_store_gets_a_new_root_and_a_copy_that_was_left_out_is_made_good(
    tmp_path: Path,
) -> None:
    stores = tuple(str(tmp_path / name) for name in ("first", "second"))
    settings = make_writer(tmp_path, name="plain").settings.model_copy(update={"stores": stores})
    assert init_home(tmp_path / "writer", settings)
    writer = TestableWriter(tmp_path / "writer")
    shutil.copytree(writer.home, tmp_path / "before")
    rotate(writer, "online", NewKey())
    first, second = (Path(store) / "metadata/2.root.json" for store in stores)
    root = first.read_bytes()
    assert second.read_bytes() == root == writer.root_bytes()
    # What a kill between the two stores leaves, but for the signatures that follow.
    second.unlink()
    (writer.home / "root.json").write_bytes((tmp_path / "before/root.json").read_bytes())
    reopened(writer).refresh()
    assert second.read_bytes() == root == writer.root_bytes()


def test_a_root_in_the_store_that_the_old_keys_did_not_sign_is_not_taken_up(
    writer: TestableWriter,
) -> None:
    root = trusted_root(writer.root_bytes())
    thief = CryptoSigner.generate_ed25519()
    root.version = 2
    root.revoke_key(root.roles["root"].keyids[0], "root")
    root.add_key(thief.public_key, "root")
    forged = Metadata(root)
    forged.sign(thief)
    store_of(writer).put_if_absent(metadata_key("2.root.json"), [forged.to_bytes()])
    before = writer.root_bytes()
    with pytest.raises(UnsignedRecord):
        writer.refresh()
    with pytest.raises(UnsignedRecord):
        rotate(writer, "targets", NewKey())
    assert writer.root_bytes() == before


def test_a_new_root_that_another_home_published_first_fences_this_one(
    writer: TestableWriter, tmp_path: Path
) -> None:
    shutil.copytree(writer.home, tmp_path / "copy")
    shutil.copy(writer.home / "keys/root.pem", tmp_path / "root.pem")
    (writer.home / "keys/root.pem").unlink()
    draft = rotate(writer, "targets", NewKey()).draft
    rotate(TestableWriter(tmp_path / "copy"), "root", NewKey())
    sign(tmp_path, "root.pem", draft)
    brought = tmp_path / "draft.json"
    shutil.copy(draft, brought)
    with pytest.raises(BadSetting, match="waits in"):
        publish_draft(reopened(writer), [brought])
    assert show(reopened(writer))["draft"] is None


def test_what_a_thief_signed_with_old_keys_is_not_signed_with_new_ones(
    writer: TestableWriter, tmp_path: Path
) -> None:
    shutil.copytree(writer.home, tmp_path / "thief")
    thief = TestableWriter(tmp_path / "thief")
    node = make_node(writer)
    add(thief, upserts(range(90, 95)))
    with pytest.raises(ForeignRecord):
        rotate(writer, "online", NewKey())
    with pytest.raises(ForeignRecord):
        reopened(writer).refresh()
    # runbooks/key-theft.md: what a node accepted last is put back, then the same command again.
    shutil.copy(node.home / "trust/timestamp.json", Path(writer.settings.stores[0]) / "metadata")
    assert publish_draft(reopened(writer), []).version == 2
    add(reopened(writer), upserts(range(3, 5)))
    assert node.bootstrap().activated


def test_row_21_versions_start_anew_with_new_keys_after_somebody_jumped(
    writer: TestableWriter,
) -> None:
    store = store_of(writer)
    key = metadata_key("timestamp.json")
    found = store.get_versioned(key, limit_bytes=1 << 20)
    assert found is not None
    jumped = Metadata[Timestamp].from_bytes(found.data)
    jumped.signed.version = 2**53 - 2
    jumped.sign(writer.keys("online")[0])
    assert store.compare_and_swap(key, jumped.to_bytes(), found.version)
    rotate(writer, "online", NewKey())
    assert writer.current().signed.timestamp.version < 2 * MAX_UNTOLD_SIGNINGS
    add(reopened(writer), upserts(range(3, 5)))
    make_node(writer)


def test_a_refresh_signs_targets_and_snapshot_only_when_half_their_life_is_over(
    writer: TestableWriter,
) -> None:
    repository = writer.repository()
    before = repository.current().signed

    def versions() -> tuple[int, int, int]:
        signed = writer.current().signed
        return signed.targets.version, signed.snapshot.version, signed.timestamp.version

    targets, snapshot, timestamp = versions()
    now = clock.now()
    repository.refresh(repository.current(), now + TARGETS_LIFETIME / 3)
    assert versions() == (targets, snapshot, timestamp + 1)
    late = now + TARGETS_LIFETIME / 2 + timedelta(hours=1)
    repository.refresh(repository.current(), late)
    assert versions() == (targets + 1, snapshot + 1, timestamp + 2)
    after = writer.current().signed
    assert after.record == before.record
    assert after.targets.expires == late + TARGETS_LIFETIME
    assert after.timestamp.unrecognized_fields["signed_at"] == late.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_root_that_expires_soon_is_told_of(writer: TestableWriter) -> None:
    now = clock.now()
    assert root_expires_soon(writer, now) is None
    assert root_expires_soon(writer, now + timedelta(days=9.8 * 365)) is not None


def test_re_signing_goes_on_when_the_store_does_not_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcomes: list[GenctlError | None] = [
        None,
        StoreUnavailable("the store is away"),
        None,
        HomeOccupied("this will not mend itself"),
    ]
    calls = 0

    def once() -> None:
        nonlocal calls
        calls += 1
        outcome = outcomes[calls - 1]
        if outcome is not None:
            raise outcome

    with pytest.raises(HomeOccupied):
        keep(once, 0, as_json=True)
    assert calls == 4
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [each["error"] for each in told] == ["StoreUnavailable"]


def test_a_schedule_that_lets_signatures_expire_is_refused() -> None:
    check_interval(1800, 1)
    with pytest.raises(BadSetting, match="1800 s or more often"):
        check_interval(1801, 1)


def test_metadata_of_other_keys_is_not_taken_for_this_homes(writer: TestableWriter) -> None:
    store = store_of(writer)
    signed = writer.current().signed
    key = metadata_key(f"{signed.targets.version}.targets.json")
    metadata = Metadata[Targets].from_bytes(store.get(key, length=1 << 20))
    metadata.sign(CryptoSigner.generate_ed25519())
    store.delete(key)
    store.put_if_absent(key, [metadata.to_bytes()])
    with pytest.raises(MixAndMatch):
        writer.current()
