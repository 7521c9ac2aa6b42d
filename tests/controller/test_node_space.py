"""The space of a node: what goes, in which order, and what never does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from activator.state import Damage, move
from controller import node_fsck, node_space, settings
from controller.node import NodeHome
from durable import files
from index import in_use
from manifests.errors import (
    ArtifactHashMismatch,
    BadSetting,
    HomeLocked,
    NothingPublished,
    PartsMissing,
    StoreUnavailable,
)
from manifests.identifiers import content_id
from manifests.record_changes import with_revoked
from query.request import Request
from tests.support.corpus import upserts
from tests.support.homes import (
    TestableWriter,
    add,
    make_node,
    make_writer,
    new_node,
)
from tests.support.signed_away import sign, sign_away
from tests.system.world import copy_homes, files_of

COUNT = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A writer with generations at the commits 1 to 6, and a node that has all of them."""
    folder = tmp_path_factory.mktemp("space") / "made"
    writer = make_writer(folder)
    add(writer, upserts(range(100, 103)))
    make_node(writer)
    for number in range(1, COUNT):
        add(writer, upserts([number]))
        NodeHome(folder / "node").bootstrap()
    return folder


@pytest.fixture
def both(made: Path, tmp_path: Path) -> tuple[TestableWriter, NodeHome]:
    folder = tmp_path / "copy"
    copy_homes(made, folder)  # hard links and all
    writer, node = TestableWriter(folder / "writer"), NodeHome(folder / "node")
    for seq, generation_id in enumerate(node.residence.resident_ids(), 1):
        opened(node, generation_id, seq)
    return writer, node


@pytest.fixture
def node(both: tuple[TestableWriter, NodeHome]) -> NodeHome:
    return both[1]


@pytest.fixture
def writer(both: tuple[TestableWriter, NodeHome]) -> TestableWriter:
    return both[0]


def opened(node: NodeHome, generation_id: str, at_s: int) -> None:
    folder = node.residence.folder(generation_id).parent
    os.utime(folder, ns=(at_s * 10**9, at_s * 10**9))


def bounded(node: NodeHome, max_bytes: int) -> NodeHome:
    path = node.home / settings.NODE_FILE
    settings.save(path, node.settings.model_copy(update={"old_generations_max_bytes": max_bytes}))
    return NodeHome(node.home)


def seqs(generation_ids: list[str]) -> list[int]:
    return [int(each[1:13]) for each in generation_ids]


def resident(node: NodeHome) -> list[int]:
    return seqs(node.residence.resident_ids())


def evicted(report: node_space.SpaceReport | None) -> list[int]:
    assert report is not None
    return seqs([each.generation_id for each in report.evicted])


def occupied(node: NodeHome) -> int:
    """The bytes of every file of generations and artifacts, each counted once."""
    found = {
        path.stat().st_ino: path.stat().st_size
        for folder in ("artifacts", "generations")
        for path in (node.home / folder).rglob("*")
        if path.is_file() and not path.name.startswith(".tantivy")
    }
    return sum(found.values())


def test_within_the_bound_everything_stays(node: NodeHome) -> None:
    before = files_of(node.home)
    report = node_space.gc(node)
    assert (report.evicted, report.freed_bytes) == ((), 0)
    assert report.old_bytes > 0
    assert report.max_bytes == 4 << 30
    assert files_of(node.home) == before


def test_with_no_room_for_old_ones_the_active_and_the_one_before_it_stay(node: NodeHome) -> None:
    before = occupied(node)
    report = node_space.gc(bounded(node, 0))
    assert evicted(report) == [1, 2, 3, 4]
    assert resident(node) == [5, 6]
    assert (report.old_bytes, report.orphan_bytes) == (0, 0)
    assert before - occupied(node) == report.freed_bytes > 0
    node_fsck.check(node).refuse_missing()
    assert node_fsck.check(node).orphans == []
    for seq in (5, 6):
        answer = node.query(node.reader(), Request(text="unique101"), as_of_commit_seq=seq)
        assert answer.commit_seq == seq


def test_the_least_recently_opened_goes_first_until_the_rest_fits(node: NodeHome) -> None:
    generation_ids = node.residence.resident_ids()
    opened(node, generation_ids[0], 100)
    all_of_them = node_space.gc(bounded(node, 0), dry_run=True)
    assert evicted(all_of_them) == [2, 3, 4, 1]
    one_less = node_space.gc(node, dry_run=True).old_bytes - 1
    report = node_space.gc(bounded(node, one_less))
    assert evicted(report) == [2]
    assert report.old_bytes <= one_less
    assert resident(node) == [1, 3, 4, 5, 6]


def test_a_query_is_a_use(node: NodeHome) -> None:
    node.query(node.reader(), Request(text="unique101"), as_of_commit_seq=1)
    assert evicted(node_space.gc(bounded(node, 0), dry_run=True)) == [2, 3, 4, 1]


def test_a_dry_run_changes_nothing(node: NodeHome) -> None:
    node = bounded(node, 0)
    before = files_of(node.home)
    report = node_space.gc(node, dry_run=True)
    assert evicted(report) == [1, 2, 3, 4]
    assert files_of(node.home) == before
    real = node_space.gc(node)
    assert (real.evicted, real.old_bytes) == (report.evicted, report.old_bytes)


def test_row_57_what_is_open_is_passed_over(node: NodeHome) -> None:
    node = bounded(node, 0)
    request = Request(text="unique101", mode="lexical")
    reader = node.reader()
    before = node.query(reader, request, as_of_commit_seq=2).hits
    report = node_space.gc(node)
    assert evicted(report) == [1, 3, 4]
    assert seqs(list(report.in_use)) == [2]
    assert report.old_bytes > 0
    assert node.query(reader, request, as_of_commit_seq=2).hits == before
    assert evicted(node_space.gc(node, dry_run=True)) == []
    del reader
    assert evicted(node_space.gc(node)) == [2]


def test_row_57_a_reader_holds_the_few_that_it_has_open_and_no_others(node: NodeHome) -> None:
    reader = node.reader()
    request = Request(text="unique101", mode="lexical")
    for seq in range(1, COUNT + 1):
        node.query(reader, request, as_of_commit_seq=seq)
    snapshot = reader.snapshot(node.record().published[2])
    for seq in (1, 2, 4, 5, 6):
        node.query(reader, request, as_of_commit_seq=seq)
    free = []
    for generation_id in node.residence.resident_ids():
        with in_use.unless_held(node.residence.folder(generation_id).parent) as is_free:
            free += [generation_id] if is_free else []
    assert seqs(free) == [1], "the third is in the hands of whoever asked for its snapshot"
    assert snapshot.manifest.commits.high_seq == 3


def test_what_was_collected_or_revoked_goes_first_however_much_room_there_is(
    node: NodeHome, writer: TestableWriter
) -> None:
    generation_ids = node.residence.resident_ids()
    sign_away(writer, generation_ids[3])
    sign(writer, lambda record: with_revoked(record, generation_ids[1], "wrong"))
    node.bootstrap()
    report = node_space.gc(node)
    assert [(each.generation_id, each.reason) for each in report.evicted] == [
        (generation_ids[1], "revoked"),
        (generation_ids[3], "collected"),
    ]
    assert resident(node) == [1, 3, 5, 6]


def test_a_revoked_active_generation_stays_until_another_is_active(
    node: NodeHome, writer: TestableWriter
) -> None:
    active = node.pointer().active.generation_id
    sign(writer, lambda record: with_revoked(record, active, "wrong"))
    with files.locked(node.home / "lock", "refresh"):
        node.trust().refresh(node.stores())
    node_space.gc(bounded(node, 0))
    assert resident(node) == [5, 6]
    report = NodeHome(node.home).bootstrap()
    assert report.pointer.active.high_seq == 5
    assert evicted(report.space) == [6]
    assert resident(node) == [5]


def test_one_that_the_node_was_rolled_back_from_stays(node: NodeHome) -> None:
    node.rollback()
    node_space.gc(bounded(node, 0))
    assert resident(node) == [4, 5, 6], "the active one, the one before it, and the held back"


def test_one_that_the_node_was_demoted_from_stays(node: NodeHome) -> None:
    demoted_from = node.residence.resident_ids()[2]
    with files.locked(node.home / "lock", "demote"):
        move(node.home, (), demoted_from)
    node_space.gc(bounded(node, 0))
    assert resident(node) == [3, 5, 6]


def test_damage_that_went_with_a_generation_is_known_no_more(node: NodeHome) -> None:
    generation_id = node.residence.resident_ids()[0]
    manifest_id = content_id(node.residence.manifest_bytes(generation_id))
    damage = Damage(
        artifact="manifest.json",
        artifact_id=manifest_id,
        generation_ids=(generation_id,),
        error="Unrepairable",
        message="gone",
    )
    with files.locked(node.home / "lock", "demote"):
        move(node.home, (damage,), None)
    node_space.gc(bounded(node, 0))
    assert node.state().state == "healthy"


def test_one_with_a_damaged_manifest_goes_and_what_nobody_names_with_it(node: NodeHome) -> None:
    generation_ids = node.residence.resident_ids()
    (node.residence.generations / generation_ids[1] / "manifest.json").write_bytes(b"{")
    stray = content_id(b"stray")
    node.residence.artifact_path(stray).write_bytes(b"stray")
    (node.home / "tables" / stray).write_bytes(b"table")
    report = node_space.gc(node)
    assert evicted(report) == [2]
    assert report.evicted[0].reason == node_space.DAMAGED
    assert not node.residence.artifact_path(stray).exists()
    assert not (node.home / "tables" / stray).exists()
    assert node_space.gc(node).freed_bytes == 0


def test_with_a_damaged_manifest_that_stays_no_artifact_goes(node: NodeHome) -> None:
    path = node.residence.generations / node.residence.resident_ids()[-1] / "manifest.json"
    path.write_bytes(b"{")
    artifacts = set((node.home / "artifacts").iterdir())
    report = node_space.gc(bounded(node, 0))
    assert evicted(report) == [1, 2, 3, 4]
    assert set((node.home / "artifacts").iterdir()) == artifacts
    assert node.bootstrap().brought.tally.fetched_bytes == 0
    assert node_space.gc(node).freed_bytes > 0


def test_a_node_that_serves_nothing_yet_has_nothing_to_remove(writer: TestableWriter) -> None:
    with pytest.raises(NothingPublished):
        node_space.gc(new_node(writer, "fresh"))


def test_a_command_at_work_is_not_disturbed(node: NodeHome) -> None:
    with files.locked(node.home / "lock", "bootstrap"):
        for act in (node_space.gc, node_fsck.check):
            with pytest.raises(HomeLocked):
                act(node)


def test_a_bootstrap_that_activates_makes_room_and_another_does_not(
    node: NodeHome, writer: TestableWriter
) -> None:
    node = bounded(node, 0)
    assert node.bootstrap().space is None
    assert resident(node) == [1, 2, 3, 4, 5, 6]
    add(writer, upserts([50]))
    assert evicted(node.bootstrap().space) == [1, 2, 3, 4, 5]
    assert resident(node) == [6, 7]
    add(writer, upserts([51]))
    assert evicted(node.bootstrap().space) == [6]


def test_a_bootstrap_within_the_bound_looks_at_no_old_generation(
    node: NodeHome, writer: TestableWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer, upserts([50]))
    monkeypatch.setattr(node_space, "_collect", None)
    assert node.bootstrap().space is None


def test_a_bootstrap_succeeds_though_old_generations_cannot_be_removed(
    node: NodeHome, writer: TestableWriter, caplog: pytest.LogCaptureFixture
) -> None:
    node = bounded(node, 0)
    add(writer, upserts([50]))

    def refuse(step: str, path: Path) -> None:
        if step == "rename" and "forgotten" in path.name:
            raise ArtifactHashMismatch("says the test")

    files.observe(refuse)
    try:
        report = node.bootstrap()
    finally:
        files._observers.remove(refuse)
    assert report.activated
    assert report.space is None
    assert "says the test" in caplog.text
    assert resident(node) == [1, 2, 3, 4, 5, 6, 7]


def test_what_a_killed_bootstrap_brought_stays_for_the_next_one(
    both: tuple[TestableWriter, NodeHome],
) -> None:
    writer, node = both
    node = bounded(node, 0)
    node_space.gc(node)
    add(writer, upserts([7]))
    before = {artifact_id for artifact_id, _ in node.residence.kept_artifacts()}
    brought = {artifact.blake3 for artifact in writer.built()[-1].artifacts} - before
    # What it leaves when it is killed: the record that it believed, and files that are whole.
    node.trust().refresh(node.stores())
    for artifact_id in brought:
        shutil.copy(writer.residence.artifact_path(artifact_id), node.residence.artifacts)
    assert node.query(node.reader(), Request(text="unique101"), as_of_commit_seq=1).commit_seq == 1
    node_space.gc(node)
    assert brought <= {artifact_id for artifact_id, _ in node.residence.kept_artifacts()}
    assert not node.bootstrap().brought.plan.fetch
    assert resident(node) == [6, 7]


def test_what_goes_before_a_new_generation_is_here_frees_what_is_said(
    both: tuple[TestableWriter, NodeHome],
) -> None:
    writer, node = both
    node = bounded(node, 0)
    add(writer, upserts([7]))
    node.trust().refresh(node.stores())
    brought = node.residence.artifacts / content_id(b"by a fetch that was killed")
    brought.write_bytes(b"by a fetch that was killed")
    before = occupied(node)
    report = node_space.gc(node)
    assert evicted(report) == [1, 2, 3, 4]
    assert before - occupied(node) == report.freed_bytes > 0
    (orphan,) = node_fsck.check(node).orphans
    assert (orphan.path, "perhaps a fetch" in orphan.reason) == (f"artifacts/{brought.name}", True)
    assert NodeHome(node.home).bootstrap().activated
    node_space.gc(NodeHome(node.home))
    assert not brought.exists()


def test_nobody_waits_for_the_removal_of_what_was_set_aside(
    node: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []

    def remove_tree(path: Path) -> None:
        if path.is_dir():
            with in_use.unless_held(path) as is_free:
                assert is_free
            removed.append(path.name)
        shutil.rmtree(path, ignore_errors=True)

    monkeypatch.setattr(files, "remove_tree", remove_tree)
    assert evicted(node_space.gc(bounded(node, 0))) == [1, 2, 3, 4]
    assert len(removed) == 4


def test_any_retained_generation_opens_with_a_tiny_cache_and_space_stays_bounded(
    both: tuple[TestableWriter, NodeHome],
) -> None:
    writer, node = both
    small = new_node(writer, "small")
    small.bootstrap()
    small = bounded(small, 1)
    request = Request(text="unique101", mode="lexical")
    for seq in [*range(1, COUNT + 1), *range(COUNT, 0, -1)]:
        # A reader each, as one command after the other has.
        answer = small.query(small.reader(), request, as_of_commit_seq=seq)
        assert (answer.commit_seq, answer.hits) == (
            seq,
            node.query(node.reader(), request, as_of_commit_seq=seq).hits,
        )
        here = resident(small)
        assert COUNT in here, "the active one never goes"
        # Besides: the newest older one that came here, and the one that was just opened.
        assert len(here) <= 3, here
    assert small.pointer().active.high_seq == COUNT
    node_fsck.check(small).refuse_missing()


def test_row_61_a_node_rolls_back_to_a_generation_that_it_must_fetch_first(
    writer: TestableWriter,
) -> None:
    node = new_node(writer, "fresh")
    node.bootstrap()
    assert resident(node) == [6]
    pointer = node.rollback()
    assert (pointer.active.high_seq, pointer.held_back) == (5, pointer.previous.generation_id)  # type: ignore[union-attr]
    assert resident(node) == [5, 6]
    assert node.query(node.reader(), Request(text="unique101")).commit_seq == 5


def test_row_61_a_rollback_without_a_store_to_fetch_from_changes_nothing(
    writer: TestableWriter,
) -> None:
    node = new_node(writer, "fresh")
    node.bootstrap()
    before = node.pointer()
    store = Path(writer.settings.stores[0])
    store.rename(store.with_name("away"))
    with pytest.raises(StoreUnavailable):
        node.rollback()
    assert node.pointer() == before
    assert node.query(node.reader(), Request(text="unique101")).commit_seq == 6


def test_row_61_a_signed_rollback_fetches_and_verifies_its_target_before_the_swap(
    writer: TestableWriter, node: NodeHome
) -> None:
    node_space.gc(bounded(node, 0))
    target = writer.current().signed.record.published[1]
    writer.rollback(target.generation_id, "wrong")
    store = Path(writer.settings.stores[0])
    shutil.copytree(store / "symbols", store / "kept")
    shutil.rmtree(store / "symbols")
    before = node.pointer()
    manifest = writer.manifest(target.generation_id)
    for artifact in manifest.artifacts:
        node.residence.discard(artifact.blake3)
    report: list[object] = []
    with pytest.raises(Exception, match="symbols"):
        report.append(node.bootstrap())
    assert node.pointer() == before
    (store / "kept").rename(store / "symbols")
    assert node.bootstrap().pointer.active == target
    assert node.query(node.reader(), Request(text="unique101")).commit_seq == 2


@pytest.mark.parametrize("value", [-1, "1", 1.5, None, 2**60])
def test_a_bound_that_cannot_be_is_refused(node: NodeHome, value: object) -> None:
    with pytest.raises(BadSetting, match="old_generations_max_bytes"):
        settings.made(settings.NodeSettings, stores=("s",), old_generations_max_bytes=value)


Harm = Callable[[NodeHome], str]


def without_artifact(node: NodeHome) -> str:
    path = next((node.home / "artifacts").iterdir())
    path.unlink()
    return f"artifacts/{path.name}"


def cut_artifact(node: NodeHome) -> str:
    path = max((node.home / "artifacts").iterdir(), key=lambda each: each.stat().st_size)
    os.truncate(path, 1)
    return f"artifacts/{path.name}"


def without_manifest(node: NodeHome) -> str:
    path = node.residence.folder(node.residence.resident_ids()[0]).parent / "manifest.json"
    path.unlink()
    return str(path.relative_to(node.home))


def without_active(node: NodeHome) -> str:
    generation_id = node.pointer().active.generation_id
    files.remove_tree(node.residence.set_aside(generation_id))
    return f"generations/{generation_id}"


def linked_file(node: NodeHome) -> str:
    manifest = node.residence.resident_ids()[0]
    path = next(each for each in node.residence.folder(manifest).rglob("*.heads"))
    path.unlink()
    path.symlink_to("/dev/zero")
    return str(path.relative_to(node.home))


@pytest.mark.parametrize(
    "harm", [without_artifact, cut_artifact, without_manifest, without_active, linked_file]
)
def test_fsck_finds_what_is_missing(node: NodeHome, harm: Harm) -> None:
    assert node_fsck.check(node).missing == []
    path = harm(node)
    report = node_fsck.check(node)
    assert path in [each.key for each in report.missing]
    with pytest.raises(PartsMissing) as caught:
        report.refuse_missing()
    assert (caught.value.exit_code, caught.value.runbook) == (6, "parts-missing")


def test_fsck_accounts_for_every_file(node: NodeHome) -> None:
    nothing = node_fsck.NodeFsck(node.home, generations=node.residence.resident_ids())
    assert node_fsck.check(node) == nothing
    name = content_id(b"something")
    generation = node.residence.resident_ids()[0]
    orphans = [
        f"artifacts/{name}",
        f"tables/{name}",
        f"incoming/{name}",
        ".tmp-torn",
        "generations/.tmp-g/files/x",
        f"artifacts/.tmp-{name}",
    ]
    unknown = [
        "notes.txt",
        "artifacts/README",
        "incoming/x",
        "generations/mine/x",
        f"generations/{generation}/files/lexical/x",
        f"artifacts/folder/{name}",
    ]
    for place, path in enumerate([*orphans, *unknown]):
        (node.home / path).parent.mkdir(parents=True, exist_ok=True)
        (node.home / path).write_bytes(b"x" * (place + 1))
    (node.home / "link").symlink_to("/")
    report = node_fsck.check(node)
    assert report.missing == []
    assert sorted(each.path for each in report.orphans) == sorted(orphans)
    assert sorted(report.unknown) == sorted([*unknown, "link"])
    assert report.orphan_bytes == sum(range(1, len(orphans) + 1))
    node_space.gc(node)
    left = {each.path for each in node_fsck.check(node).orphans}
    assert left == {f"incoming/{name}", ".tmp-torn"}, "the next bootstrap's"


def test_a_generation_held_while_its_manifest_is_read_is_in_use(node: NodeHome) -> None:
    generation_id = node.residence.resident_ids()[0]
    held = in_use.hold(node.residence.folder(generation_id).parent)
    report = node_space.gc(bounded(node, 0))
    assert report.in_use == (generation_id,)
    held.close()
