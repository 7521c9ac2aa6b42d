"""``genctl audit``: the trail as people and programs see it, damaged, torn and after a kill."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durable.audit_log import AUDIT_FILE
from manifests.identifiers import content_id
from tests.support.homes import flip
from tests.support.process import CONSOLE_SCRIPT, Genctl, environment
from tests.system.world import bootstrap, copy, documents, ingest, release, writer_home

STRIDE = 9
BESIDE = 3
"""So many steps before and after each one that touches the trail are killed at."""

REASON = "wrong answers\x1b[31m " + "and a long story about them " * 8


@pytest.fixture(scope="module")
def template(in_folder: Callable[[Path], Genctl], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generations released, followed, rolled back, and gone forward to again."""
    genctl = in_folder(tmp_path_factory.mktemp("audit"))
    writer_home(genctl)
    ingest(genctl, documents(1, 1), 10)
    release(genctl)
    bootstrap(genctl, "n")
    ingest(genctl, documents(2, 2), 10)
    second = release(genctl)
    bootstrap(genctl, "n")
    genctl("rollback", "w", "--reason", REASON).ok()
    bootstrap(genctl, "n")
    genctl("activate", "w", second).ok()
    bootstrap(genctl, "n")
    genctl("node", "rollback", "n").ok()
    return genctl.folder


@pytest.fixture
def audited(template: Path, genctl: Genctl) -> Genctl:
    for name in ("w", "n", "s"):
        copy(template / name, genctl.folder / name)
    for path in (genctl.folder / "w/settings.json", genctl.folder / "n/node.json"):
        changed = {"stores": [str(genctl.folder / "s")]}
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return genctl


def trail(genctl: Genctl, home: str) -> dict[str, Any]:
    found: dict[str, Any] = genctl("audit", home, "--json").ok().json
    return found


def kinds(found: dict[str, Any]) -> list[str]:
    return [each["kind"] for each in found["receipts"]]


def damage(genctl: Genctl, home: str, line: int) -> Path:
    """Change one byte in the middle of a line."""
    path = genctl.folder / home / AUDIT_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines[line - 1]) // 2
    lines[line - 1] = lines[line - 1][:middle] + b"\x00" + lines[line - 1][middle + 1 :]
    path.write_bytes(b"".join(lines))
    return path


def test_a_writers_and_a_nodes_trail_are_whole(audited: Genctl) -> None:
    written = trail(audited, "w")
    assert (written["home"], written["disagreements"]) == ("writer", [])
    story = ["publish", "activate"]
    assert kinds(written) == ["init", *story, *story, "rollback", "activate"]
    served = trail(audited, "n")
    assert kinds(served) == ["activate", "activate", "rollback", "activate", "hold_back"]
    for found in (written, served):
        assert found["torn_bytes"] == 0
        assert found["not_compared"] is None
        assert all(each["fault"] is None and each["took_place"] for each in found["receipts"])
        previous = [each["previous"] for each in found["receipts"]]
        assert previous[0] is None
    for home, found in (("w", written), ("n", served)):
        lines = (audited.folder / home / AUDIT_FILE).read_bytes().splitlines()
        hashes = [content_id(line) for line in lines]
        assert [each["previous"] for each in found["receipts"]] == [None, *hashes[:-1]]
        assert found["head"] == hashes[-1]
    rollback = served["receipts"][2]
    assert rollback["reason"] == REASON
    assert rollback["record_version"] == 6
    assert rollback["generation_id"] == served["receipts"][0]["generation_id"]


def test_the_table_fits_a_terminal_of_80_columns(audited: Genctl, mark: str) -> None:
    for home in ("w", "n"):
        control, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        environ = {k: v for k, v in environment(mark).items() if k != "COLUMNS"}
        process = subprocess.Popen(
            [str(CONSOLE_SCRIPT), "audit", home],
            cwd=audited.folder,
            env=environ | {"TERM": "dumb"},
            stdin=subprocess.DEVNULL,
            stdout=terminal,
        )
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(control, 65536):
                shown += piece
        except OSError:
            pass  # the other end is closed: all was read
        os.close(control)
        assert process.wait(60) == 0
        plain = re.sub(r"\x1b\[[01;2]*m", "", shown.decode())
        table = [line for line in plain.splitlines() if "20" in line[:20] or "line" in line]
        assert len(table) >= 6
        assert all(len(line) <= 80 for line in table), table
        assert " ".join(plain.split()).count("story") == 8, "the long reason is wrapped"
        assert "\x1b[31m" not in shown.decode()


def test_into_a_pipe_the_reasons_are_whole(audited: Genctl) -> None:
    assert "and a long story about them " * 7 in audited("audit", "n").ok().out


@pytest.mark.parametrize("home", ["w", "n"])
def test_the_first_bad_line_is_named_and_the_rest_is_shown(audited: Genctl, home: str) -> None:
    count = len(trail(audited, home)["receipts"])
    damage(audited, home, 4)
    damage(audited, home, 2)
    found = audited("audit", home, "--json")
    assert (found.code, found.error["error"]) == (6, "AuditCorrupt")
    assert found.error["facts"]["line"] == 2
    assert found.error["runbook"] == "runbooks/audit.md"
    shown = json.loads(found.out)["receipts"]
    assert [each["line"] for each in shown if each["fault"] is not None] == [2, 4]
    assert len(shown) == count
    told = audited("audit", home)
    told.refused(6, "AuditCorrupt", "line 2", "Line 2:", "Line 4:", "damaged")
    assert told.out.count("20") >= count - 2


def test_the_last_receipt_is_not_said_to_be_vouched_for(audited: Genctl) -> None:
    """Its reason can be altered without a trace but its hash, which is shown."""
    path = audited.folder / "n" / AUDIT_FILE
    noted = audited("audit", "n", "--json").ok().json["head"]
    shown = audited("audit", "n").ok().out
    assert "up to the last receipt" in shown
    assert "nothing vouches for yet" in shown
    assert noted in shown
    *before, last = path.read_bytes().splitlines(keepends=True)
    assert b'"time":"2' in last
    path.write_bytes(b"".join(before) + last.replace(b'"time":"2', b'"time":"3'))
    altered = audited("audit", "n").ok().out
    assert "nothing vouches for yet" in altered
    assert noted not in altered


def test_after_damage_serving_signing_and_activation_go_on(audited: Genctl) -> None:
    for home in ("w", "n"):
        damage(audited, home, 5 if home == "n" else 7)
    ingest(audited, documents(3, 3), 10)
    third = release(audited)
    assert bootstrap(audited, "n")["generation_id"] == third
    for home, bad in (("w", 7), ("n", 5)):
        found = audited("audit", home, "--json")
        assert found.code == 6
        shown = json.loads(found.out)["receipts"]
        assert [each["line"] for each in shown if each["fault"] is not None] == [bad]
        assert shown[bad]["broken"]["line"] == bad
        assert shown[bad]["previous"] is None
        assert shown[-1]["generation_id"] == third
        assert f"after damage in line {bad}" in audited("audit", home).out


def test_a_torn_last_line_is_said_and_cut_by_the_next_receipt(audited: Genctl) -> None:
    path = audited.folder / "n" / AUDIT_FILE
    with path.open("ab") as file:
        file.write(b'{"after":"12')
    assert trail(audited, "n")["torn_bytes"] == 12
    assert "torn (12 bytes)" in audited("audit", "n").ok().out
    ingest(audited, documents(3, 3), 10)
    release(audited)
    bootstrap(audited, "n")
    assert trail(audited, "n")["receipts"][-1]["cut_bytes"] == 12
    assert "cut 12 bytes of a torn line" in audited("audit", "n").ok().out


def test_a_pointer_that_no_receipt_accounts_for_is_found(audited: Genctl) -> None:
    path = audited.folder / "n" / AUDIT_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    found = audited("audit", "n", "--json")
    assert (found.code, found.error["error"]) == (6, "AuditCorrupt")
    assert "pointer" in found.error["message"]
    assert len(json.loads(found.out)["receipts"]) == 2


def test_a_record_that_was_signed_elsewhere_is_found(audited: Genctl) -> None:
    copy(audited.folder / "w", audited.folder / "twin")
    audited("rollback", "twin", "--reason", "by a copy of the keys").ok()
    audited("audit", "w").refused(6, "AuditCorrupt", "record")
    audited("audit", "twin").ok()


def test_a_store_that_cannot_be_asked_is_said(audited: Genctl) -> None:
    (audited.folder / "s").rename(audited.folder / "away")
    found = trail(audited, "w")
    assert "store" in found["not_compared"]
    assert [each["took_place"] for each in found["receipts"]][-2:] == [True, None]


def test_a_record_that_nobody_signed_is_refused_after_the_receipts_are_shown(
    audited: Genctl,
) -> None:
    flip(audited.folder / "s/metadata/timestamp.json", 20)
    found = audited("audit", "w", "--json")
    assert (found.code, found.error["error"]) == (6, "UnsignedRecord")
    told = json.loads(found.out)
    assert "store" in told["not_compared"]
    assert told["receipts"][-1]["fault"] is None
    assert told["record_in_store"] == found.error["message"]


def test_a_folder_that_is_no_home_is_refused(genctl: Genctl) -> None:
    (genctl.folder / "x").mkdir()
    for name in ("x", "absent"):
        genctl("audit", name).refused(3, "HomeMissing")


def test_a_new_home_has_a_trail_and_a_new_node_none(genctl: Genctl) -> None:
    writer_home(genctl)
    assert kinds(trail(genctl, "w")) == ["init"]
    genctl("node", "bootstrap", "n", "--store", "s", "--root", "w/root.json").refused(
        4, "NothingPublished"
    )
    assert trail(genctl, "n")["receipts"] == []
    assert "No receipt" in genctl("audit", "n").ok().out


COMMANDS = {
    "init": ("init", "w", "--store", "s", "--dimensions", "256", "--json"),
    "publish": ("publish", "w", "--json"),
    "activate": ("activate", "w", "THIRD", "--json"),
    "rollback": ("rollback", "w", "--reason", "x", "--json"),
    "override": ("override-embedder", "w", "THIRD", "--reason", "x", "--json"),
    "bootstrap": ("node", "bootstrap", "n", "--json"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_row_43_a_command_killed_at_any_step_leaves_chains_that_verify(
    genctl: Genctl, memory_folder: Path, name: str
) -> None:
    """Afterwards, and once the command was run again."""
    live, kept = memory_folder / "live", memory_folder / "kept"
    live.mkdir()
    place = Genctl(genctl.warm, live)
    third = prepared(place, name)
    home = "n" if name == "bootstrap" else "w"
    copy(live, kept)
    command = [third if word == "THIRD" else word for word in COMMANDS[name]]
    undisturbed = place.killed_at(-1, *command)
    undisturbed.finished[0].ok()
    wanted = [kind for kind, took_place in outcomes(trail(place, home)) if took_place]
    for step in chosen(undisturbed.steps):
        shutil.rmtree(live)
        copy(kept, live)
        where = f"killed at {step}: {[*undisturbed.steps, None][step]}"
        place.killed_at(step, *command)
        if (live / home).exists() and name != "init":
            assert audit_after(place, home)[: len(wanted) - 1] == wanted[:-1], where
        place(*command).ok()
        assert audit_after(place, home) == wanted, where


def prepared(place: Genctl, name: str) -> str:
    """What the command starts from: two generations, the third built or further."""
    if name == "init":
        return ""
    writer_home(place)
    ingest(place, documents(1, 2), 10)
    release(place)
    if name == "bootstrap":
        bootstrap(place, "n")
    ingest(place, documents(3, 3), 10)
    third: str = place("build", "w", "--json").ok().json["generation_id"]
    if name in {"activate", "override"}:
        place("publish", "w").ok()
    if name in {"rollback", "bootstrap"}:
        release(place)
    return third


def chosen(steps: list[tuple[str, str]]) -> list[int]:
    """The steps beside those that touch the trail, the last ones, and a stride through the rest."""
    trail_steps = [n for n, (_, path) in enumerate(steps) if Path(path).name == "audit.jsonl"]
    assert trail_steps
    beside = {n + by for n in trail_steps for by in range(-BESIDE, BESIDE + 1)}
    some = set(range(0, len(steps), STRIDE)) | set(range(len(steps) - BESIDE, len(steps) + 1))
    return sorted(n for n in beside | some if 0 <= n <= len(steps))


def outcomes(found: dict[str, Any]) -> list[tuple[str, bool | None]]:
    return [(each["kind"], each["took_place"]) for each in found["receipts"]]


def audit_after(place: Genctl, home: str) -> list[str]:
    """What took place, by a trail that verifies."""
    found = trail(place, home)
    assert all(each["fault"] is None for each in found["receipts"])
    assert found["disagreements"] == []
    assert all(took_place is not None for _, took_place in outcomes(found))
    return [kind for kind, took_place in outcomes(found) if took_place]
