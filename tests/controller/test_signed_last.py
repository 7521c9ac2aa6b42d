"""A writer knows what it signed last: an old record in the store is not signed upon."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from controller import clock, settings
from controller.commands import audit as audit_command
from controller.new_home import init_home
from controller.settings import WriterSettings
from controller.signed_last import SIGNED_LAST_FILE
from controller.writer import WriterHome
from controller.writer_keys import NewKey, rotate
from controller.writer_receipts import record_id
from controller.writer_scrub import scrub
from manifests.audit_trail import verify
from manifests.errors import (
    ForeignRecord,
    ObjectMissing,
    RecordPutBack,
    SignedLastCorrupt,
    UnsignedRecord,
)
from tests.support.corpus import DIMENSIONS, upserts
from tests.support.crashes import count_steps, killed_at
from tests.support.homes import (
    TestableWriter,
    add,
    built,
    copy_of,
    copy_with_store,
    make_node,
    make_writer,
)


def timestamp(writer: WriterHome, store: int = 0) -> Path:
    return Path(writer.settings.stores[store]) / "metadata" / "timestamp.json"


def version(path: Path) -> int:
    found: int = json.loads(path.read_bytes())["signed"]["version"]
    return found


def mend(writer: WriterHome, *, even_newer: bool = False) -> bool:
    return scrub(writer, lambda _: lambda _: None, even_newer=even_newer).put_back


def writer_of(folder: Path, urls: tuple[str, ...]) -> TestableWriter:
    wanted = WriterSettings(
        shard="main",
        stores=urls,
        embedder="hashing",
        dimensions=DIMENSIONS,
        quantization="f32",
    )
    init_home(folder / "writer", wanted)
    return TestableWriter(folder / "writer")


def twice_released(folder: Path) -> TestableWriter:
    writer = make_writer(folder)
    add(writer, upserts(range(3)))
    add(writer, upserts([5]))
    return writer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TestableWriter:
    """Two releases and a rollback; the timestamp before that beside the home."""
    writer = twice_released(tmp_path_factory.mktemp("made"))
    (writer.home.parent / "old").write_bytes(timestamp(writer).read_bytes())
    writer.rollback(None, "it is harmful")
    return writer


@pytest.fixture
def writer(made: TestableWriter, tmp_path: Path) -> TestableWriter:
    """The same, and the record from before the rollback stands in the store again."""
    copied = copy_with_store(made, tmp_path)
    settings.save(copied.home / settings.WRITER_FILE, copied.settings)
    timestamp(copied).write_bytes((made.home.parent / "old").read_bytes())
    return copied


SIGNING: dict[str, Callable[[WriterHome], object]] = {
    "refresh": lambda writer: writer.refresh(),
    "publish": lambda writer: writer.publish(None),
    "activate": lambda writer: writer.activate(writer.built()[0].generation_id),
    "rollback": lambda writer: writer.rollback(None, "again"),
    "override": lambda writer: writer.override_embedder(writer.built()[1].generation_id, "new"),
    "rotate": lambda writer: rotate(writer, "online", NewKey()),
}


@pytest.mark.parametrize("act", SIGNING.values(), ids=SIGNING)
def test_nothing_is_signed_upon_a_record_that_was_put_back(
    act: Callable[[WriterHome], object], writer: TestableWriter
) -> None:
    built(writer, upserts([9]))
    old, receipts = timestamp(writer).read_bytes(), writer.audit.read()
    with pytest.raises(RecordPutBack, match=r"version 5, .* version 6.*genctl scrub") as caught:
        act(writer)
    assert caught.value.facts == {"offered_version": 5, "known_version": 6}
    assert (timestamp(writer).read_bytes(), writer.audit.read()) == (old, receipts)
    assert not (writer.home / "root_draft.json").exists()


def test_a_scrub_puts_back_what_was_signed_last(writer: TestableWriter) -> None:
    assert str(writer.status()["record_state"]).startswith("RecordPutBack")
    assert mend(writer)
    assert writer.status()["record_state"] == "ok"
    assert writer.current().signed.record.kind == "rollback"
    writer.refresh()
    assert version(timestamp(writer)) == 7
    assert make_node(writer).pointer().active.high_seq == 1
    assert not mend(writer)


def test_an_audit_says_that_the_store_went_back(writer: TestableWriter) -> None:
    opened, receipts = audit_command._at_rest(writer.home)
    trail = verify(receipts, opened.present)
    assert trail.disagreements == ()
    assert [line.took_place for line in trail.lines][-1] is True
    assert isinstance(opened.refusal, RecordPutBack)


@pytest.mark.parametrize("state", ["damaged", "lost"])
def test_a_record_that_the_only_store_lost_is_put_back(writer: TestableWriter, state: str) -> None:
    if state == "lost":
        shutil.rmtree(timestamp(writer).parent)
    else:
        timestamp(writer).write_bytes(b"{}")
    assert mend(writer)
    writer.refresh()
    assert version(timestamp(writer)) == 7
    assert make_node(writer).pointer().active.high_seq == 1


def test_a_newer_record_is_replaced_only_when_asked(made: TestableWriter, tmp_path: Path) -> None:
    writer = copy_with_store(made, tmp_path)
    twin = copy_of(writer, "twin")
    twin.settings = writer.settings
    add(twin, upserts([7]))
    newer = timestamp(writer).read_bytes()
    assert not mend(twin)
    with pytest.raises(ForeignRecord):
        writer.refresh()
    assert timestamp(writer).read_bytes() == newer
    assert mend(writer, even_newer=True)
    assert (writer.home / "replaced_timestamp.json").read_bytes() == newer
    assert record_id(writer.refresh().signed.record) == record_id(made.current().signed.record)


def test_another_record_of_the_same_version_is_not_signed_upon(
    made: TestableWriter, tmp_path: Path
) -> None:
    writer = copy_with_store(made, tmp_path)
    before = timestamp(writer).read_bytes()
    twin = copy_of(writer, "twin")
    twin.settings = writer.settings
    writer.refresh()
    timestamp(writer).write_bytes(before)
    twin.activate(writer.built()[1].generation_id)
    assert version(timestamp(writer)) == 7
    with pytest.raises(ForeignRecord, match="another record of version 7"):
        writer.publish(None)


def test_a_record_that_was_the_last_receipts_before_is_not_taken_for_the_last(
    made: TestableWriter, tmp_path: Path
) -> None:
    writer = copy_with_store(made, tmp_path)
    thief = copy_of(writer, "thief")
    thief.settings = writer.settings
    # What the last receipt starts from, validly signed anew under a higher version.
    repository, current = thief.repository(), thief.current()
    add_back = current.signed.record.model_copy(
        update={"kind": "activate", "reason": None, "active": thief.built()[1].generation_id}
    )
    repository.commit(current, add_back, clock.now())
    with pytest.raises(ForeignRecord):
        writer.refresh()


def test_a_kill_loses_only_the_mark_of_what_was_not_acknowledged(tmp_path: Path) -> None:
    template = twice_released(tmp_path / "template")
    folders = itertools.count()
    acts: list[Callable[[WriterHome], object]] = [
        lambda each: each.refresh(),
        lambda each: each.rollback(None, "why"),
    ]
    for act in acts:

        def fresh() -> TestableWriter:
            return copy_with_store(template, tmp_path / f"{next(folders)}")

        counted = fresh()
        steps = count_steps(lambda act=act, each=counted: act(each))  # type: ignore[misc]
        were_ahead = set()
        for step in range(steps):
            writer = fresh()
            before = timestamp(writer).read_bytes()
            assert killed_at(step, lambda act=act, each=writer: act(each))  # type: ignore[misc]
            known = writer.signed_last.read()
            assert known is not None
            ahead = version(timestamp(writer)) - known.version
            assert ahead in {0, 1}, step
            were_ahead.add((ahead, version(timestamp(writer))))
            act(writer)
            known = writer.signed_last.read()
            assert known is not None
            assert known.timestamp == timestamp(writer).read_bytes()
            timestamp(writer).write_bytes(before)
            with pytest.raises(RecordPutBack):
                writer.refresh()
        assert were_ahead == {(0, 5), (1, 6), (0, 6)}


def test_two_commands_that_were_killed_after_their_swaps_are_known(
    made: TestableWriter, tmp_path: Path
) -> None:
    writer = copy_with_store(made, tmp_path)
    mark = writer.home / SIGNED_LAST_FILE
    before = mark.read_bytes()
    writer.activate(writer.built()[1].generation_id)
    mark.write_bytes(before)
    writer.rollback(None, "once more")
    mark.write_bytes(before)
    writer.refresh()
    assert writer.status()["record_state"] == "ok"


def test_a_home_without_the_mark_goes_on_and_has_it_again(
    made: TestableWriter, tmp_path: Path
) -> None:
    writer = copy_with_store(made, tmp_path)
    (writer.home / SIGNED_LAST_FILE).unlink()
    assert not mend(writer)
    writer.refresh()
    known = writer.signed_last.read()
    assert known is not None
    assert known.version == 7


def test_a_damaged_mark_is_named(made: TestableWriter, tmp_path: Path) -> None:
    writer = copy_with_store(made, tmp_path)
    path = writer.home / SIGNED_LAST_FILE
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SignedLastCorrupt, match=SIGNED_LAST_FILE):
            writer.signed_last.read()
    with pytest.raises(SignedLastCorrupt):
        writer.refresh()


def test_a_record_put_back_in_the_first_store_is_not_copied_over_newer_ones(
    tmp_path: Path,
) -> None:
    urls = tuple(str(tmp_path / name) for name in ("a", "b", "c"))
    writer = writer_of(tmp_path, urls)
    old = timestamp(writer).read_bytes()
    add(writer, upserts(range(3)))
    newer = timestamp(writer).read_bytes()
    timestamp(writer).write_bytes(old)
    for act in (SIGNING["refresh"], SIGNING["publish"]):
        with pytest.raises(RecordPutBack):
            act(writer)
        assert [timestamp(writer, store).read_bytes() for store in (0, 1, 2)] == [old, newer, newer]
    assert mend(writer)
    assert [timestamp(writer, store).read_bytes() for store in (0, 1, 2)] == [newer] * 3


def test_an_old_record_of_revoked_keys_is_not_copied_over_newer_ones(tmp_path: Path) -> None:
    urls = tuple(str(tmp_path / name) for name in ("a", "b"))
    writer = writer_of(tmp_path, urls)
    old = timestamp(writer).read_bytes()
    rotate(writer, "online", NewKey())
    newer = timestamp(writer).read_bytes()
    timestamp(writer).write_bytes(old)
    with pytest.raises(RecordPutBack):
        writer.refresh()
    assert timestamp(writer, 1).read_bytes() == newer
    assert mend(writer)
    writer.refresh()


def test_a_first_store_that_came_back_empty_is_given_the_record_again(tmp_path: Path) -> None:
    writer = writer_of(tmp_path, tuple(str(tmp_path / name) for name in ("a", "b", "c")))
    add(writer, upserts(range(3)))
    newer = timestamp(writer).read_bytes()
    shutil.rmtree(timestamp(writer).parent)
    assert mend(writer)
    assert [timestamp(writer, store).read_bytes() for store in (0, 1, 2)] == [newer] * 3
    assert not mend(writer)
    make_node(writer)


def test_a_damaged_first_record_does_not_win_over_a_newer_copy(tmp_path: Path) -> None:
    """A kill came before the mark: the copy is newer than what the home knows."""
    writer = writer_of(tmp_path, tuple(str(tmp_path / name) for name in ("a", "b")))
    mark = (writer.home / SIGNED_LAST_FILE).read_bytes()
    add(writer, upserts(range(3)))
    (writer.home / SIGNED_LAST_FILE).write_bytes(mark)
    newer = timestamp(writer, 1).read_bytes()
    timestamp(writer).write_bytes(b"{}")
    with pytest.raises(UnsignedRecord):
        mend(writer)
    assert timestamp(writer, 1).read_bytes() == newer


def test_lost_and_damaged_metadata_of_the_only_store_is_put_back(
    made: TestableWriter, tmp_path: Path
) -> None:
    writer = copy_with_store(made, tmp_path)
    folder = timestamp(writer).parent
    (folder / "6.snapshot.json").unlink()
    (folder / "6.targets.json").write_bytes(b"{}")
    with pytest.raises(ObjectMissing):
        writer.current()
    assert not mend(writer)
    writer.refresh()
    assert make_node(writer).pointer().active.high_seq == 1


@pytest.mark.parametrize("name", ["publish", "activate", "rollback", "override"])
def test_a_command_that_was_done_before_a_kill_is_acknowledged_only_once_it_is_noted(
    made: TestableWriter, tmp_path: Path, name: str
) -> None:
    writer = copy_with_store(made, tmp_path)
    built(writer, upserts([9]))
    before = timestamp(writer).read_bytes()
    mark = (writer.home / SIGNED_LAST_FILE).read_bytes()
    first, second, *_ = (each.generation_id for each in writer.built())
    acts: dict[str, Callable[[], object]] = {
        "publish": lambda: writer.publish(None),
        "activate": lambda: writer.activate(second),
        "rollback": lambda: (
            writer.rollback(first, "it is harmful") and writer.rollback(None, "it is harmful")
        ),
        "override": lambda: writer.override_embedder(second, "new"),
    }
    act = acts[name]
    if name == "rollback":
        writer.activate(second)
        mark, before = (writer.home / SIGNED_LAST_FILE).read_bytes(), timestamp(writer).read_bytes()
    act()
    (writer.home / SIGNED_LAST_FILE).write_bytes(mark)
    act()
    timestamp(writer).write_bytes(before)
    with pytest.raises(RecordPutBack):
        writer.refresh()


def test_a_home_from_a_backup_goes_on_where_nothing_but_signatures_came_after(
    made: TestableWriter, tmp_path: Path
) -> None:
    writer = copy_with_store(made, tmp_path)
    backup = copy_of(writer, "backup")
    backup.settings = writer.settings
    for _ in range(3):
        writer.refresh()
    backup.refresh()
    assert version(timestamp(writer)) == 10
