"""Keys through the command line, to the node that refuses: rows 9 to 12 with keys that it made."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, T, Timestamp

from builder.keys import load_key_file, no_passphrase, public_path, read_public
from builder.root_draft import parse_draft
from tests.support.process import CONSOLE_SCRIPT, Console, Finished, Genctl, environment
from tests.support.serving import eventually
from tests.system.world import ask, bootstrap, documents, ids, ingest, release, writer_home

PASSPHRASE = "a passphrase nobody guesses"


@pytest.fixture
def served(genctl: Genctl) -> str:
    """A node n that serves the first of two releases; the second is in the store."""
    writer_home(genctl)
    ingest(genctl, documents(1, 3), 5)
    first = release(genctl)
    bootstrap(genctl)
    ingest(genctl, documents(4, 5), 5)
    release(genctl)
    return first


def metadata_folder(genctl: Genctl) -> Path:
    return genctl.folder / "s" / "metadata"


def key(genctl: Genctl, name: str) -> CryptoSigner:
    """A key made by ``keys init`` on some machine."""
    made = genctl("keys", "init", name, "--json").ok().json
    signer = load_key_file(genctl.folder / name, no_passphrase)
    assert signer.public_key.keyid == made["keyid"]
    return signer


def homes_key(genctl: Genctl, name: str) -> CryptoSigner:
    return load_key_file(genctl.folder / "w" / "keys" / f"{name}.pem", no_passphrase)


def signed_again(path: Path, kind: type[T], *signers: CryptoSigner) -> None:
    """The file's newer version, signed by these keys and by nobody else."""
    metadata = Metadata[kind].from_bytes(path.read_bytes())  # type: ignore[valid-type]
    metadata.signed.version += 1
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    path.write_bytes(metadata.to_bytes())


def follow(genctl: Genctl) -> Any:
    return genctl("node", "bootstrap", "n", "--json").ok().json


def refused(genctl: Genctl, first: str, error: str) -> None:
    """The node refuses by name, and goes on serving what it had."""
    genctl("node", "bootstrap", "n").refused(6, error, "runbooks/")
    answer = ask(genctl, "n", "common")
    assert answer["generation_id"] == first
    assert sorted(ids(answer)) == ["d1", "d2", "d3"]


def test_row_9_a_node_refuses_what_an_unknown_key_signed(genctl: Genctl, served: str) -> None:
    stranger = key(genctl, "stranger")
    signed_again(metadata_folder(genctl) / "timestamp.json", Timestamp, stranger)
    refused(genctl, served, "UnsignedRecord")


def test_row_10_a_node_refuses_too_few_signatures_and_one_key_counted_twice(
    genctl: Genctl, served: str
) -> None:
    genctl("keys", "rotate", "w", "online", "--add").ok()
    genctl("keys", "threshold", "w", "online", 2).ok()
    timestamp = metadata_folder(genctl) / "timestamp.json"
    whole = timestamp.read_bytes()
    one, other = homes_key(genctl, "online"), homes_key(genctl, "online-2")
    signed_again(timestamp, Timestamp, one)
    refused(genctl, served, "UnsignedRecord")
    document = json.loads(timestamp.read_bytes())
    timestamp.write_text(json.dumps(document | {"signatures": document["signatures"] * 2}))
    refused(genctl, served, "UnsignedRecord")
    disguised = document["signatures"][0] | {"keyid": other.public_key.keyid}
    twice = [*document["signatures"], disguised]
    timestamp.write_text(json.dumps(document | {"signatures": twice}))
    refused(genctl, served, "UnsignedRecord")
    timestamp.write_bytes(whole)
    assert follow(genctl)["activated"]


def test_row_11_a_node_refuses_what_a_revoked_key_signed(genctl: Genctl, served: str) -> None:
    stolen = homes_key(genctl, "online")
    genctl("keys", "rotate", "w", "online").ok()
    timestamp = metadata_folder(genctl) / "timestamp.json"
    whole = timestamp.read_bytes()
    signed_again(timestamp, Timestamp, stolen)
    refused(genctl, served, "UnsignedRecord")
    timestamp.write_bytes(whole)
    assert follow(genctl)["activated"]
    for _ in range(2):
        signed_again(timestamp, Timestamp, stolen)
        genctl("node", "bootstrap", "n").refused(6, "UnsignedRecord")


def test_row_12_a_node_refuses_a_root_that_the_old_root_did_not_sign(
    genctl: Genctl, served: str
) -> None:
    thief = key(genctl, "thief")
    root = Metadata[Root].from_bytes((genctl.folder / "w" / "root.json").read_bytes())
    root.signed.version = 2
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.signed.revoke_key(root.signed.roles[role].keyids[0], role)
        root.signed.add_key(thief.public_key, role)
    root.sign(thief)
    path = metadata_folder(genctl) / "2.root.json"
    path.write_bytes(root.to_bytes())
    refused(genctl, served, "BadRootRotation")
    path.unlink()
    genctl("keys", "rotate", "w", "root").ok()
    assert follow(genctl)["activated"]


def test_root_keys_never_meet_and_the_home_holds_none_of_them(genctl: Genctl) -> None:
    machines = {name: genctl.folder / name for name in ("ann", "bob", "cyd", "home")}
    for folder in machines.values():
        folder.mkdir()

    def at(name: str, *command: object) -> Finished:
        return Genctl(genctl.warm, machines[name])(*command)

    for name in ("ann", "bob", "cyd"):
        at(name, "keys", "init", "key").ok()
        shutil.copy(machines[name] / "key.pub", machines["home"] / f"{name}.pub")
    publics = [f"--root-key={name}.pub" for name in ("ann", "bob", "cyd")]
    made = ["init", "w", "--store", "s", *publics, "--root-threshold", 2, "--dimensions", 256]
    assert at("home", *made, "--json").ok().json["draft"] == "w/root_draft.json"
    at("home", "status", "w").refused(3, "HomeMissing", "keys publish")
    at("home", "keys", "publish", "w").refused(4, "SignaturesMissing", "2 more")
    for name in ("cyd", "ann"):
        shutil.copy(machines["home"] / "w/root_draft.json", machines[name] / "draft")
        shown = at(name, "keys", "sign", "draft", "--key", "key").ok().out
        for public in machines["home"].glob("*.pub"):
            assert read_public(public).keyid in shown
        assert "2 of 3" in shown
        shutil.copy(machines[name] / "draft", machines["home"] / f"from-{name}")
    at("home", "keys", "publish", "w", "from-ann").refused(4, "1 more")
    at("home", *made).ok()
    at("home", "keys", "publish", "w", "from-cyd").ok()
    assert not (machines["home"] / "w/keys/root.pem").exists()
    assert not (machines["home"] / "w/root_draft.json").exists()
    assert at("home", *made, "--json").ok().json["made"] is False

    home = Genctl(genctl.warm, machines["home"])
    ingest(home, documents(1, 3), 5)
    release(home)
    assert bootstrap(home)["activated"]
    shown = home("keys", "show", "w", "--json").ok().json
    assert [entry["where"] for entry in shown["roles"]["root"]["keys"]] == [None] * 3
    assert set(shown["metadata"]) == {"root", "targets", "snapshot", "timestamp"}

    report = home("keys", "rotate", "w", "online", "--json").ok().json
    assert (report["published"], report["root_version"]) == (False, 2)
    shown = home("keys", "show", "w", "--json").ok().json
    assert [each["needed"] for each in shown["draft"]["lacking"]] == [2, 2]
    for name in ("bob", "cyd"):
        shutil.copy(machines["home"] / "w/root_draft.json", machines[name] / "draft")
        told = at(name, "keys", "sign", "draft", "--key", "key").ok().out
        assert "online: key" in told
        shutil.copy(machines[name] / "draft", machines["home"] / f"from-{name}")
    home("keys", "publish", "w", "from-bob", "from-cyd").ok()
    ingest(home, documents(4, 5), 5)
    release(home)
    assert follow(home)["activated"]


def test_keys_show_tells_people_what_programs_are_told(genctl: Genctl, served: str) -> None:
    shown = genctl("keys", "show", "w", "--json").ok().json
    told = genctl("keys", "show", "w").ok().out
    for role in shown["roles"].values():
        for each in role["keys"]:
            assert each["keyid"][:16] in told
            assert each["where"] in told
    for metadata in shown["metadata"].values():
        assert metadata["expires"] in told


def on_terminal(genctl: Genctl, mark: str, meanwhile: Callable[[], object], *command: str) -> Any:
    """Runs a command on a terminal of its own, and says yes to what it asks after ``meanwhile``."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [CONSOLE_SCRIPT, *command],
        cwd=genctl.folder,
        env=environment(mark),
        stdin=there,
        stdout=there,
        stderr=there,
        start_new_session=True,
    )
    os.close(there)
    shown, is_answered = "", False
    try:
        # Reading fails once nobody holds the other end any more.
        with os.fdopen(here, "r+b", buffering=0) as stream, contextlib.suppress(OSError):
            while piece := stream.read(4096):
                shown += piece.decode(errors="replace")
                if not is_answered and "[y/N]" in shown:
                    is_answered = True
                    meanwhile()
                    stream.write(b"y\n")
        return process.wait(30), shown
    finally:
        process.kill()
        process.wait()


def test_what_was_shown_is_signed_though_the_file_is_another_by_then(
    genctl: Genctl, mark: str
) -> None:
    writer_home(genctl)
    shutil.move(genctl.folder / "w/keys/root.pem", genctl.folder / "root.pem")
    draft, kept = genctl.folder / "w/root_draft.json", genctl.folder / "kept.json"
    genctl("keys", "rotate", "w", "online").ok()
    shutil.copy(draft, kept)
    genctl("keys", "rotate", "w", "targets").ok()
    evil = draft.read_bytes()
    sign = ["keys", "sign", "kept.json", "--key", "root.pem"]
    asked = on_terminal(genctl, mark, lambda: kept.write_bytes(evil), *sign)
    assert asked[0] == 0, asked
    assert "targets: key" not in asked[1]
    signed = parse_draft(kept.read_bytes(), "kept")
    assert not signed.lacking()
    assert not signed.is_same_root(parse_draft(evil, "evil"))
    code, shown = on_terminal(genctl, mark, lambda: None, *sign, "--json")
    assert code == 2
    assert "--yes" in shown


def test_a_holders_copy_of_the_last_root_tells_whether_the_changes_are_true(
    genctl: Genctl,
) -> None:
    writer_home(genctl)
    writer_home(genctl, home="other", store="s2")
    shutil.move(genctl.folder / "w/keys/root.pem", genctl.folder / "root.pem")
    genctl("keys", "renew", "w").ok()
    sign = ["keys", "sign", "w/root_draft.json", "--key", "root.pem"]
    before = (genctl.folder / "w/root_draft.json").read_bytes()
    genctl(*sign, "--root", "other/root.json").refused(3, "BadSetting", "do not sign it")
    genctl(*sign, "--root", "root.pem").refused(3, "BadSetting", "no root of trust")
    genctl(*sign, "--root", "absent").refused(3, "BadSetting", "no root absent")
    assert (genctl.folder / "w/root_draft.json").read_bytes() == before
    told = genctl(*sign).ok().out
    assert "NOT CHECKED" in told
    assert "only the time when it expires" in told
    told = genctl(*sign, "--root", "w/root.json").ok().out
    assert "as in your copy" in told
    assert "NOT CHECKED" not in told
    signed = genctl(*sign, "--root", "w/root.json", "--json").ok().json
    assert signed["root_before_checked"]
    genctl("keys", "publish", "w").ok()
    assert genctl("keys", "show", "w", "--json").ok().json["root_version"] == 2


def test_keys_show_tells_what_the_home_knows_where_the_store_is_away(genctl: Genctl) -> None:
    writer_home(genctl)
    (genctl.folder / "s").rename(genctl.folder / "away")
    told = genctl("keys", "show", "w").ok().out
    assert "cannot be shown" in told
    assert "file:keys/online.pem" in told


BAD_USES: list[tuple[list[object], int, list[str]]] = [
    (["show", "absent"], 3, ["HomeMissing"]),
    (["sign", "absent", "--key", "k"], 3, ["BadSetting", "no draft"]),
    (["sign", "w", "--key", "k"], 3, ["BadSetting"]),
    (["sign", "w/root.json", "--key", "k"], 3, ["BadSetting", "not a draft"]),
    (["sign", "w/root.json"], 2, ["--key"]),
    (["publish", "w", "w/root.json"], 3, ["BadSetting", "not a draft"]),
    (["publish", "n"], 3, ["HomeMissing"]),
    (["rotate", "w", "snapshot"], 2, ["online"]),
    (["rotate", "w", "root", "--replace", "0" * 64], 3, ["BadSetting", "keys show"]),
    (["rotate", "w", "root", "--public", "w/root.json"], 3, ["BadSetting", "not a public key"]),
    (["rotate", "w", "root", "--public", "absent"], 3, ["BadSetting"]),
    (["rotate", "w", "root", "--signer", "x y"], 3, ["BadSetting"]),
    (["rotate", "w", "root", "--signer", "file:absent"], 3, ["BadSetting", "not there"]),
    (["rotate", "w", "targets", "--add", "--replace", "00000000"], 2, ["exclude"]),
    (["rotate", "w", "targets", "--encrypt", "--signer", "env:X"], 2, ["made here"]),
    (["rotate", "w", "targets", "--encrypt"], 3, ["BadSetting", "GENCTL_KEY_PASSPHRASE"]),
    (["renew", "absent"], 3, ["HomeMissing"]),
    (["revoke", "w", "xyz"], 3, ["BadSetting", "eight digits"]),
    (["threshold", "w", "root", 2], 3, ["BadSetting", "there would be 1"]),
    (["threshold", "w", "root", 0], 2, []),
    (["refresh", "w", "--every", "soon"], 2, ["20m"]),
    (["refresh", "w", "--every", "30d"], 3, ["BadSetting", "or more often"]),
    (["init", "w"], 3, ["BadSetting", "not a file"]),
    (["init", "w/settings.json"], 3, ["BadSetting"]),
    (["init", "w/root.json/key"], 6, ["DiskError"]),
]


def test_wrong_use_says_what_is_wrong_and_changes_nothing(genctl: Genctl, served: str) -> None:
    key(genctl, "k")
    root = (genctl.folder / "w/root.json").read_bytes()
    for command, code, words in BAD_USES:
        genctl("keys", *command).refused(code, *words)
    genctl("init", "x", "--store", "s9", "--root-threshold", 2).refused(2, "--root-key")
    genctl("init", "x", "--store", "s9", "--root-key", "absent").refused(3, "BadSetting")
    few = ["--root-key", "k.pub", "--root-threshold", 2]
    genctl("init", "x", "--store", "s9", *few).refused(3, "BadSetting", "there would be 1")
    twice = ["--root-key", "k.pub", "--root-key", "k.pub"]
    genctl("init", "x", "--store", "s9", *twice).refused(3, "BadSetting", "already")
    assert not (genctl.folder / "s9/metadata").exists()
    same = ["init", "w", "--store", "s", "--dimensions", 256]
    genctl(*same, "--root-key", "k.pub").refused(3, "BadSetting", "other root keys")
    assert (genctl.folder / "w/root.json").read_bytes() == root
    assert not (genctl.folder / "w/root_draft.json").exists()
    genctl("keys", "refresh", "w").ok()


Run = Callable[..., Finished]


def with_environ(genctl: Genctl, mark: str) -> Run:
    """Runs the console script with more variables in its environment."""

    def run(*command: object, **more: str) -> Finished:
        return Console(genctl.folder, environment(mark) | more)(*command)

    return run


def test_keys_are_encrypted_with_a_passphrase_that_shows_up_nowhere(
    genctl: Genctl, mark: str
) -> None:
    run = with_environ(genctl, mark)
    given = {"GENCTL_KEY_PASSPHRASE": PASSPHRASE}
    run("init", "w", "--store", "s", "--dimensions", "64", **given).ok()
    for pem in (genctl.folder / "w/keys").glob("*.pem"):
        assert b"ENCRYPTED" in pem.read_bytes()
    said = run("keys", "refresh", "w").refused(3, "BadSetting", "GENCTL_KEY_PASSPHRASE")
    wrong = run("keys", "refresh", "w", GENCTL_KEY_PASSPHRASE="something else entirely")
    wrong.refused(3, "BadSetting", "passphrase is not that of")
    assert "something else entirely" not in wrong.err
    file = genctl.folder / "passphrase"
    file.write_text(PASSPHRASE + "\n")
    from_file = {"GENCTL_KEY_PASSPHRASE_FILE": str(file)}
    run("keys", "refresh", "w", **from_file).refused(3, "BadSetting", "chmod 600")
    file.chmod(0o600)
    run("keys", "refresh", "w", **from_file).ok()
    outputs = [said, run("keys", "rotate", "w", "online", **given).ok()]
    outputs += [run("keys", "show", "w").ok(), run("status", "w").ok()]
    for finished in outputs:
        assert PASSPHRASE not in finished.out + finished.err
    file.unlink()
    for path in genctl.folder.rglob("*"):
        if path.is_file():
            assert PASSPHRASE.encode() not in path.read_bytes(), path


def test_a_home_whose_keys_are_in_the_environment_publishes(genctl: Genctl, mark: str) -> None:
    run = with_environ(genctl, mark)
    writer_home(genctl)
    key(genctl, "k")
    variable = {"TARGETS_KEY": (genctl.folder / "k").read_text()}
    run("keys", "rotate", "w", "targets", "--signer", "env:TARGETS_KEY", **variable).ok()
    (genctl.folder / "k").unlink()
    ingest(genctl, documents(1, 3), 5)
    run("release", "w").refused(3, "BadSetting", "TARGETS_KEY is not set")
    finished = run("release", "w", **variable).ok()
    assert "PRIVATE KEY" not in finished.out + finished.err
    bootstrap(genctl)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_schedule_signs_until_it_is_told_to_end_and_survives_a_store_that_is_away(
    genctl: Genctl, mark: str, number: signal.Signals
) -> None:
    writer_home(genctl)
    out, err = genctl.folder / "out", genctl.folder / "err"
    with out.open("wb") as to_out, err.open("wb") as to_err:
        process = subprocess.Popen(
            [CONSOLE_SCRIPT, "keys", "refresh", "w", "--every", "1s", "--json"],
            cwd=genctl.folder,
            env=environment(mark),
            stdin=subprocess.DEVNULL,
            stdout=to_out,
            stderr=to_err,
        )
    try:

        def lines(path: Path) -> list[Any]:
            return [json.loads(line) for line in path.read_text().splitlines()]

        eventually(lambda: len(lines(out)) >= 2)
        (genctl.folder / "s").rename(genctl.folder / "away")
        eventually(lambda: len(lines(err)) > 0)
        (genctl.folder / "away").rename(genctl.folder / "s")
        seen = len(lines(out))
        eventually(lambda: len(lines(out)) > seen)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    versions = [line["record_version"] for line in lines(out)]
    assert versions == sorted(set(versions))
    assert {line["exit_code"] for line in lines(err)} == {5}
    newest = [os.path.basename(path) for path in metadata_folder(genctl).iterdir()]  # noqa: PTH119
    assert sorted(newest) == ["1.root.json", "1.snapshot.json", "1.targets.json", "timestamp.json"]
    assert public_path(genctl.folder / "w/keys/online.pem").exists()


def test_a_bootstrap_with_the_newest_root_or_an_older_one_of_the_same_writer_goes_on(
    genctl: Genctl, served: str
) -> None:
    shutil.copy(genctl.folder / "w/root.json", genctl.folder / "first.json")
    genctl("keys", "rotate", "w", "root").ok()
    assert bootstrap(genctl)["activated"]
    genctl("keys", "rotate", "w", "root").ok()
    same = ["node", "bootstrap", "n", "--store", "s", "--root"]
    for root in ("w/root.json", "first.json"):
        genctl(*same, root).ok()
    genctl("node", "bootstrap", "m", "--store", "s", "--root", "w/root.json").ok()
    genctl("node", "bootstrap", "m", "--store", "s", "--root", "first.json").ok()
    writer_home(genctl, home="other", store="s2")
    genctl(*same, "other/root.json").refused(3, "BadSetting", "trusts another root")
    genctl("keys", "rotate", "other", "root").ok()
    genctl(*same, "other/root.json").refused(3, "BadSetting", "trusts another root")
