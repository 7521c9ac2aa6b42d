"""Keys that are stolen or lost: what is signed with the new ones, and how a home goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Timestamp

from builder.keys import create_key, is_encrypted, load_key_file, no_passphrase, public_path
from builder.repository import CurrentState
from controller import passphrases
from controller.new_home import init_home, publish_draft
from controller.node import NodeHome
from controller.resigning import keep
from controller.shown_keys import show
from controller.writer import WriterHome
from controller.writer_keys import NewKey, forget_retired, renew, rotate
from manifests.errors import (
    BadSetting,
    ForeignRecord,
    ManifestHashMismatch,
    UnsignedRecord,
)
from manifests.names import CONTROL_TARGET, manifest_target, metadata_key
from store.signed import trusted_root
from tests.support.corpus import upserts
from tests.support.crashes import count_steps, killed_at
from tests.support.homes import TestableWriter, add, make_node, make_writer, store_of

TIMESTAMP = metadata_key("timestamp.json")


@pytest.fixture
def writer(tmp_path: Path) -> TestableWriter:
    home = make_writer(tmp_path)
    add(home, upserts(range(3)))
    return home


@pytest.fixture
def node(writer: TestableWriter) -> NodeHome:
    return make_node(writer)


def reopened(writer: WriterHome) -> TestableWriter:
    return TestableWriter(writer.home)


def keyids(writer: WriterHome, role: str) -> list[str]:
    return [key["keyid"] for key in show(writer)["roles"][role]["keys"]]


def jump(writer: WriterHome, version: int, signer: CryptoSigner) -> None:
    """Somebody who has this key signs a timestamp of a version that no writer reaches."""
    store = store_of(writer)
    found = store.get_versioned(TIMESTAMP, limit_bytes=1 << 20)
    assert found is not None
    jumped = Metadata[Timestamp].from_bytes(found.data)
    jumped.signed.version = version
    jumped.sign(signer)
    assert store.compare_and_swap(TIMESTAMP, jumped.to_bytes(), found.version)


def test_a_thiefs_targets_are_not_signed_with_the_new_keys(
    writer: TestableWriter, node: NodeHome
) -> None:
    repository = writer.repository()
    current = repository.current()
    record = current.signed.record
    (entry,) = record.published
    name = manifest_target(entry.generation_id)
    evil = [(name, b"evil"), ("thief/library.so", b"payload")]
    repository.commit(current, record, current.signed.timestamp.expires, evil)
    assert writer.current().signed.targets.targets[name].length == 4
    for role in ("targets", "online"):
        assert rotate(reopened(writer), role, NewKey()).published
    signed = writer.current().signed.targets.targets
    assert set(signed) == {CONTROL_TARGET, name}
    assert signed[name].length == entry.manifest_size_bytes
    assert make_node(writer, "fresh").pointer().active == entry


def test_targets_of_no_published_generation_are_not_carried_over(writer: TestableWriter) -> None:
    repository = writer.repository()
    current = repository.current()
    stray = [("thief/library.so", b"payload")]
    repository.commit(current, current.signed.record, current.signed.timestamp.expires, stray)
    add(reopened(writer), upserts(range(3, 5)))
    targets = writer.current().signed.targets.targets
    assert "thief/library.so" not in targets
    assert len(targets) == 3


def test_a_manifest_that_is_damaged_here_is_not_signed_with_new_keys(
    writer: TestableWriter,
) -> None:
    (entry,) = writer.current().signed.record.published
    manifest = writer.home / "generations" / entry.generation_id / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-1] + b" ")
    with pytest.raises(ManifestHashMismatch):
        rotate(writer, "targets", NewKey())
    manifest.write_bytes(whole)
    reopened(writer).refresh()
    assert make_node(writer).pointer().active == entry


@pytest.mark.parametrize("version", [2**53 - 2, 2**28])
def test_row_21_a_node_follows_when_one_of_two_keys_was_stolen_and_a_version_jumped(
    writer: TestableWriter, node: NodeHome, version: int
) -> None:
    rotate(writer, "online", NewKey(), add=True)
    reopened(writer).refresh()
    node.bootstrap()
    stolen = load_key_file(writer.home / "keys/online-2.pem", no_passphrase)
    jump(writer, version, stolen)
    rotate(reopened(writer), "online", NewKey(), instead_of=stolen.public_key.keyid)
    entry = add(reopened(writer), upserts(range(3, 5)))
    assert node.bootstrap().activated
    assert node.pointer().active == entry


def test_a_refresh_does_not_sign_what_another_home_with_the_same_keys_wrote(
    writer: TestableWriter, tmp_path: Path
) -> None:
    shutil.copytree(writer.home, tmp_path / "other")
    generation = writer.current().signed.record.active
    assert generation is not None
    TestableWriter(tmp_path / "other").override_embedder(generation, "as another home wants it")
    before = writer.current().signed.timestamp.version
    signed: list[CurrentState] = []
    with pytest.raises(ForeignRecord) as caught:
        keep(lambda: signed.append(writer.refresh()), 1, as_json=True)
    assert caught.value.exit_code == 6
    assert caught.value.runbook == "key-theft"
    assert writer.current().signed.timestamp.version == before


SIGNALLED = """
import os, signal
from controller.resigning import keep

def end_soon(parent: int, spins: int) -> int:
    child = os.fork()
    if child == 0:
        for _ in range(spins):
            pass
        os.kill(parent, signal.SIGTERM)
        os._exit(0)
    return child

for number in range(300):
    children = []
    def sign() -> None:
        if not children:
            children.append(end_soon(os.getpid(), number * 97 % 20000))
    keep(sign, 0, as_json=True)
    os.waitpid(children[0], 0)
"""


def test_a_signal_at_any_moment_ends_re_signing() -> None:
    subprocess.run([sys.executable, "-c", SIGNALLED], check=True, timeout=60)


def test_re_signing_goes_on_after_another_command_has_rotated_a_key(
    writer: TestableWriter,
) -> None:
    rotate(TestableWriter(writer.home), "online", NewKey())
    forget_retired(TestableWriter(writer.home))
    (writer.home / "keys/online.pem").unlink()
    (writer.home / "keys/online.pem.pub").unlink()
    assert writer.refresh().signed.record.active


def test_two_commands_opened_at_once_lose_no_reference_to_a_signer(
    writer: TestableWriter,
) -> None:
    first, second = reopened(writer), reopened(writer)
    rotate(first, "targets", NewKey())
    rotate(second, "online", NewKey())
    reopened(writer).refresh()
    add(reopened(writer), upserts(range(3, 5)))
    stale = reopened(writer)
    rotate(reopened(writer), "root", NewKey())
    assert forget_retired(stale) == [
        f"file:keys/{role}.pem" for role in ("root", "targets", "online")
    ]
    rotate(reopened(writer), "root", NewKey())


@pytest.mark.parametrize("kept", ["draft", "no draft"])
def test_a_key_lost_between_root_and_signatures_is_replaced(tmp_path: Path, kept: str) -> None:
    (tmp_path / "world").mkdir()
    writer = make_writer(tmp_path / "world")
    add(writer, upserts(range(2)))
    shutil.copytree(tmp_path / "world", tmp_path / "kept")
    steps = count_steps(lambda: rotate(writer, "online", NewKey()))
    tried = 0
    for step in range(steps):
        shutil.rmtree(tmp_path / "world")
        shutil.copytree(tmp_path / "kept", tmp_path / "world")
        assert killed_at(step, lambda: rotate(reopened(writer), "online", NewKey()))
        if not show(reopened(writer))["unfinished"]:
            continue
        tried += 1
        (writer.home / "keys/online-2.pem").unlink()
        if kept == "no draft":
            (writer.home / "root_draft.json").unlink(missing_ok=True)
        with pytest.raises(BadSetting, match=r"online-2\.pem is not there"):
            reopened(writer).refresh()
        assert rotate(reopened(writer), "online", NewKey()).version == 3
        reopened(writer).refresh()
        assert not (writer.home / "root_before.json").exists()
        make_node(writer, f"node-{step}")
    assert tried


def test_a_rotation_after_one_that_was_killed_when_all_was_signed_goes_on(
    writer: TestableWriter,
) -> None:
    first = writer.root_bytes()
    rotate(writer, "online", NewKey())
    (writer.home / "root_before.json").write_bytes(first)
    rotate(reopened(writer), "online", NewKey())
    assert not reopened(writer).current().is_superseded
    assert not (writer.home / "root_before.json").exists()


def test_a_refresh_needs_no_targets_key(writer: TestableWriter, node: NodeHome) -> None:
    (writer.home / "keys/targets.pem").unlink()
    version = writer.current().signed.timestamp.version
    assert reopened(writer).refresh().signed.timestamp.version == version + 1
    node.bootstrap()
    generation = writer.current().signed.record.active
    assert generation is not None
    with pytest.raises(BadSetting, match=r"targets\.pem is not there"):
        reopened(writer).override_embedder(generation, "a change of the record")


def test_a_root_is_renewed_without_a_change_of_keys(writer: TestableWriter, node: NodeHome) -> None:
    before = trusted_root(writer.root_bytes())
    report = renew(writer)
    assert (report.version, report.published) == (2, True)
    after = trusted_root(writer.root_bytes())
    assert (after.keys, after.roles) == (before.keys, before.roles)
    assert after.expires >= before.expires
    assert not reopened(writer).current().is_superseded
    assert renew(reopened(writer)).version == 3
    assert not node.bootstrap().activated
    assert trusted_root(make_node(writer, "fresh").root_bytes()).version == 3


def test_a_renewal_waits_for_the_holders_of_the_root_keys(
    writer: TestableWriter, tmp_path: Path
) -> None:
    shutil.move(writer.home / "keys/root.pem", tmp_path / "root.pem")
    report = renew(writer)
    assert not report.published
    again = renew(reopened(writer))
    assert (again.version, again.changed) == (2, False)
    shutil.move(tmp_path / "root.pem", writer.home / "keys/root.pem")
    assert publish_draft(reopened(writer), []).version == 2


def test_a_second_key_made_here_for_one_draft_is_refused_by_name(
    writer: TestableWriter, tmp_path: Path
) -> None:
    for name in ("b", "c"):
        create_key(tmp_path / name, lambda: None, no_passphrase)
        rotate(reopened(writer), "root", NewKey(public=public_path(tmp_path / name)), add=True)
    shutil.move(writer.home / "keys/root.pem", tmp_path / "root.pem")
    first, second, third = keyids(writer, "root")
    assert not rotate(reopened(writer), "root", NewKey(), instead_of=first).published
    draft = (writer.home / "root_draft.json").read_bytes()
    with pytest.raises(BadSetting, match="keys init FILE"):
        rotate(reopened(writer), "root", NewKey(), instead_of=second[:8].upper())
    again = rotate(reopened(writer), "root", NewKey(), add=True)
    assert (again.published, again.changed) == (False, False)
    new = NewKey(public=public_path(tmp_path / "c"))
    with pytest.raises(BadSetting, match="keys revoke HOME"):
        rotate(reopened(writer), "root", new, instead_of=second)
    assert (writer.home / "root_draft.json").read_bytes() == draft
    assert third in keyids(writer, "root")


def test_a_key_in_the_place_of_an_encrypted_one_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_writer(tmp_path, name="plain")
    settings = plain.settings.model_copy(update={"stores": (str(tmp_path / "other"),)})
    with pytest.raises(BadSetting, match=passphrases.VARIABLE):
        init_home(tmp_path / "careful", settings, encrypt=True)
    monkeypatch.setenv(passphrases.VARIABLE, "five words that nobody guesses")
    init_home(tmp_path / "careful", settings, encrypt=True)
    writer = TestableWriter(tmp_path / "careful")
    assert is_encrypted(writer.home / "keys/online.pem")
    writer.refresh()
    opened = reopened(writer)
    opened.keys("online")
    for reference in opened.settings.signers.root:
        opened.key_ring.open(reference)  # as a terminal would have been asked before
    monkeypatch.delenv(passphrases.VARIABLE)
    with pytest.raises(BadSetting, match="to encrypt the key"):
        rotate(opened, "online", NewKey())
    assert trusted_root(writer.root_bytes()).version == 1
    with pytest.raises(BadSetting, match="to encrypt the key"):
        rotate(plain, "online", NewKey(encrypt=True))
    assert trusted_root(plain.root_bytes()).version == 1


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"{}"])
def test_garbage_in_the_place_of_a_root_is_named_with_its_store(
    writer: TestableWriter, garbage: bytes
) -> None:
    store = store_of(writer)
    store.put_if_absent(metadata_key("2.root.json"), [garbage])
    with pytest.raises(UnsignedRecord, match=r"metadata/2\.root\.json in ") as caught:
        writer.refresh()
    assert caught.value.facts["store"] == store.url
    with pytest.raises(UnsignedRecord, match=r"metadata/2\.root\.json in "):
        rotate(writer, "online", NewKey())


@pytest.mark.parametrize("damage", ["store away", "timestamp damaged"])
def test_keys_are_shown_where_the_store_cannot_be(writer: TestableWriter, damage: str) -> None:
    folder = Path(writer.settings.stores[0])
    whole = show(writer)
    assert whole["problem"] is None
    if damage == "store away":
        folder.rename(folder.with_name("away"))
    else:
        (folder / TIMESTAMP).write_bytes(b"{}")
    shown = show(reopened(writer))
    assert shown["roles"] == whole["roles"]
    assert set(shown["metadata"]) == {"root"}
    problem = shown["problem"]
    assert problem is not None
    assert problem["message"]


def test_a_passphrase_file_that_is_missing_is_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(passphrases.VARIABLE, raising=False)
    monkeypatch.setenv(passphrases.FILE_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(BadSetting) as caught:
        passphrases.given()
    assert str(tmp_path / "gone") in caught.value.message
    assert passphrases.FILE_VARIABLE in caught.value.message
    assert "rotate" not in caught.value.message
