"""A replay agrees with every sound generation, and no difference escapes it."""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest

from builder.agreement import Agreement
from builder.compare import DocumentChanges
from builder.replay import ReplayReport, Sampling
from commits.documents import Upsert
from controller import clock
from controller.compaction import compact
from controller.replay import replay, scratch_folder
from controller.settings import MergeSettings
from controller.writer import WriterHome
from index.embedding import HashingEmbedder
from index.lexical import StoredDocument
from manifests.errors import (
    ArtifactHashMismatch,
    BadSetting,
    CommitRangeGap,
    EmbedderMismatch,
    GenerationNotPublished,
    LogCorrupt,
)
from manifests.generation import Quantization
from manifests.names import symbol_of
from store.folder import FolderStore
from store.leases import Lease, leases_in
from tests.support.corpus import DIMENSIONS, delete, upserts
from tests.support.homes import TestableWriter, add, commit, flip, make_writer, release
from tests.support.shipped import Alter, building_otherwise

SAMPLING = Sampling(documents=40, seed=11)


def replayed(
    writer: WriterHome, generation_id: str, scratch: Path, log: Path | None = None
) -> ReplayReport:
    """The report; seed and sample are those of ``SAMPLING``."""
    scratch.mkdir(exist_ok=True)
    return replay(writer.home, generation_id, scratch, SAMPLING, log)


def grown(folder: Path, quantization: Quantization, embedder: str = "hashing") -> TestableWriter:
    """A writer after many small releases with updates, deletes and merges."""
    dimensions = DIMENSIONS if embedder == "precomputed" else None
    writer = make_writer(folder, quantization=quantization, embedder=embedder)
    merges = MergeSettings(shards=4, dead_documents_percent=10)
    writer.settings = writer.settings.model_copy(update={"merges": merges})
    add(writer, upserts(range(200), dimensions=dimensions), commits=2)
    for version in range(1, 7):
        low = 20 * version
        add(
            writer,
            [
                *upserts(range(low, low + 10), version, dimensions=dimensions),
                *upserts(range(200 + low, 210 + low), dimensions=dimensions),
                delete(low + 15),
            ],
        )
        if version == 5:
            compact(writer, None, send=False, on_start=lambda _: lambda _: None)
    return writer


@pytest.mark.parametrize(
    ("quantization", "embedder"),
    [("bf16", "hashing"), ("f16", "precomputed"), ("i8", "precomputed")],
)
def test_a_generation_of_updates_deletes_and_merges_is_what_the_log_comes_to(
    tmp_path: Path, quantization: Quantization, embedder: str
) -> None:
    writer = grown(tmp_path, quantization, embedder)
    record = writer.current().signed.record
    newest = record.published[-1].generation_id
    counts = writer.manifest(newest).counts
    assert counts.tombstones
    assert counts.dropped, "merges have rewritten shards and segments"
    report = replayed(writer, newest, tmp_path / "scratch")
    assert report.agrees, report
    assert report.terms == ()
    assert report.changes.unchanged == report.rebuilt_documents == 200 + 6 * (10 - 1)
    assert report.lexical.percent == report.exact_vectors.percent == 100
    assert report.lexical.queries > SAMPLING.documents
    assert report.exact_vectors.queries > SAMPLING.documents
    assert report.lexical.hits > 10 * SAMPLING.documents


def test_an_older_generation_is_compared_with_its_own_commits(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    older = add(writer, upserts(range(30)))
    add(writer, [*upserts(range(10), 1), *(delete(number) for number in range(20, 30))])
    report = replayed(writer, older.generation_id, tmp_path / "scratch")
    assert (report.agrees, report.rebuilt_documents) == (True, 30)


def test_a_generation_without_documents_is_replayed(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(3)))
    empty = add(writer, [delete(number) for number in range(3)])
    report = replayed(writer, empty.generation_id, tmp_path / "scratch")
    assert (report.agrees, report.rebuilt_documents) == (True, 0)


def altered(identity: str, **fields: object) -> Alter:
    def alter(upserts: tuple[Upsert, ...]) -> Iterable[Upsert]:
        return (
            msgspec.structs.replace(each, **fields) if each.id == identity else each
            for each in upserts
        )

    return alter


def with_component(identity: str, change: Callable[[float], float]) -> Alter:
    def alter(upserts: tuple[Upsert, ...]) -> Iterable[Upsert]:
        for each in upserts:
            if each.id == identity:
                assert each.vector is not None
                first, *rest = struct.unpack(f"<{DIMENSIONS}f", each.vector)
                packed = struct.pack(f"<{DIMENSIONS}f", change(first), *rest)
                yield msgspec.structs.replace(each, vector=packed)
            else:
                yield each

    return alter


@pytest.mark.parametrize(
    ("alter", "missing", "too_many", "changed"),
    [
        (altered("d7", text="quite another text"), (), (), {"d7": ("text",)}),
        (altered("d7", title="Another title"), (), (), {"d7": ("title",)}),
        (altered("d7", fields={"number": 7.0}), (), (), {"d7": ("fields",)}),
        (with_component("d7", lambda first: first + 0.05), (), (), {"d7": ("vector",)}),
        (lambda all_of_them: all_of_them[:-1], ("d59",), (), {}),
        (lambda all_of_them: all_of_them[1:], ("d0",), (), {}),
        (
            lambda all_of_them: (*all_of_them, msgspec.structs.replace(all_of_them[0], id="new")),
            (),
            ("new",),
            {},
        ),
        (altered("d7", id="D7"), ("d7",), ("D7",), {}),
    ],
)
def test_one_difference_among_all_documents_is_found_and_named(
    tmp_path: Path,
    alter: Alter,
    missing: tuple[str, ...],
    too_many: tuple[str, ...],
    changed: dict[str, tuple[str, ...]],
) -> None:
    writer = make_writer(tmp_path, embedder="precomputed", quantization="bf16")
    commit(writer, upserts(range(60), dimensions=DIMENSIONS), commits=3)
    with building_otherwise(alter):
        shipped = release(writer)
    report = replayed(writer, shipped.generation_id, tmp_path / "scratch")
    assert not report.agrees
    assert report.changes.removed == missing
    assert report.changes.added == too_many
    assert report.changes.changed == changed


def test_the_last_bit_of_one_component_is_a_difference(tmp_path: Path) -> None:
    # A power of two in each component: scaling to unit length is exact and keeps the last bit.
    vector = [1.0, 1.0, 1.0, 1.0] + [0.0] * (DIMENSIONS - 4)
    document = {"id": "a", "text": "one", "vector": vector}
    writer = make_writer(tmp_path, embedder="precomputed", quantization="f32")
    commit(writer, [document, *upserts(range(5), dimensions=DIMENSIONS)])
    with building_otherwise(with_component("a", lambda first: math.nextafter(first, 2) + 2**-22)):
        shipped = release(writer)
    report = replayed(writer, shipped.generation_id, tmp_path / "scratch")
    assert report.changes.changed == {"a": ("vector",)}


def test_a_wrong_update_and_a_lost_delete_are_found_in_a_later_generation(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(30)))
    commit(writer, [delete(3), *upserts([4], 1)])
    wrong = altered("d4", text="another update")
    with building_otherwise(lambda documents: (*wrong(documents), Upsert("d3", text="alive"))):
        shipped = release(writer)
    report = replayed(writer, shipped.generation_id, tmp_path / "scratch")
    assert report.changes.changed == {"d4": ("text", "vector")}
    assert report.changes.added == ("d3",)


def test_hits_disagree_where_many_documents_differ(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    commit(writer, upserts(range(200)))
    with building_otherwise(
        lambda documents: (
            msgspec.structs.replace(each, text=each.text.replace("a", "o")) for each in documents
        )
    ):
        shipped = release(writer)
    report = replayed(writer, shipped.generation_id, tmp_path / "scratch")
    assert report.lexical.percent < 99.95
    assert report.exact_vectors.percent < 99.95


def test_a_text_index_that_does_not_hold_its_documents_words_is_found(tmp_path: Path) -> None:
    """The stored text and the vector are right, and one word was indexed as another."""
    writer = make_writer(tmp_path, embedder="precomputed")
    operations = upserts(range(60), dimensions=DIMENSIONS)
    right = operations[7]["text"]
    commit(writer, operations)

    class Restoring:
        def encode(self, document: object) -> bytes:
            if isinstance(document, StoredDocument) and document.id == "d7":
                document = msgspec.structs.replace(document, text=right)
            return msgspec.msgpack.encode(document)

    wrong = altered("d7", text=right.replace("unique7 ", "mistaken "))
    with mock.patch("msgspec.msgpack.Encoder", Restoring), building_otherwise(wrong):
        shipped = release(writer)
    report = replayed(writer, shipped.generation_id, tmp_path / "scratch")
    assert not report.changes
    assert set(report.terms) == {"unique7", "mistaken"}
    assert not report.agrees


NO_CHANGES = DocumentChanges((), {}, (), 10)


@pytest.mark.parametrize(
    ("agreed", "agrees"), [(10_000, True), (9_995, True), (9_994, False), (0, False)]
)
def test_hits_may_disagree_by_a_twentieth_of_a_percent_and_no_more(
    tmp_path: Path, agreed: int, agrees: bool
) -> None:
    writer = make_writer(tmp_path)
    manifest = writer.manifest(add(writer, upserts(range(3))).generation_id)
    whole, part = Agreement(500, 10_000, 10_000), Agreement(500, 10_000, agreed)
    for lexical, exact in ((whole, part), (part, whole)):
        report = ReplayReport(manifest, 10, NO_CHANGES, (), lexical, part, exact, part)
        assert report.agrees == agrees


def test_a_generation_that_is_fetched_for_a_replay_is_leased_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    writer = make_writer(tmp_path / "made")
    entry = add(writer, upserts(range(20)))
    shutil.rmtree(writer.residence.generations / entry.generation_id)
    seen: list[Lease] = []
    read_into = FolderStore.read_into

    def seeing(store: FolderStore, key: str, **options: Any) -> int:
        # The lease is written by a thread of its own, which the fetch does not wait for at first.
        keep_waiting = clock.poller(10_000)
        while symbol_of(key) is not None and not seen and keep_waiting():
            seen.extend(leases_in(writer.store()).leases)
        return read_into(store, key, **options)

    monkeypatch.setattr(FolderStore, "read_into", seeing)
    report = replayed(writer, entry.generation_id, tmp_path / "scratch")
    assert report.agrees
    assert {(each.generation_id, each.purpose) for each in seen} == {
        (entry.generation_id, "replay")
    }
    assert leases_in(writer.store()).leases == ()


def test_a_copy_of_settings_root_and_log_is_enough(tmp_path: Path) -> None:
    writer = grown(tmp_path, "bf16")
    newest = writer.current().signed.record.published[-1].generation_id
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in ("settings.json", "root.json"):
        shutil.copy(writer.home / name, copy / name)
    shutil.copytree(writer.home / "log", copy / "log")
    before = sorted(path for path in copy.rglob("*"))
    report = replayed(WriterHome(copy), newest, tmp_path / "scratch")
    assert report.agrees
    assert sorted(path for path in copy.rglob("*")) == before


def test_the_log_can_be_another_folder(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    shipped = add(writer, upserts(range(20)), commits=4)
    (writer.home / "log").rename(tmp_path / "backup")
    with pytest.raises(BadSetting, match="--log"):
        replayed(writer, shipped.generation_id, tmp_path / "1")
    assert replayed(writer, shipped.generation_id, tmp_path / "2", tmp_path / "backup").agrees


def test_another_log_and_a_shorter_one_are_named(tmp_path: Path) -> None:
    writer = make_writer(tmp_path / "1")
    commit(writer, upserts(range(20)), commits=2)
    shipped = release(writer)
    other = make_writer(tmp_path / "2")
    commit(other, upserts(range(21)))
    with pytest.raises(CommitRangeGap, match="the log ends at commit 1"):
        replayed(writer, shipped.generation_id, tmp_path / "short", other.home / "log")
    commit(other, upserts(range(30, 40)))
    with pytest.raises(CommitRangeGap, match="another log"):
        replayed(writer, shipped.generation_id, tmp_path / "other", other.home / "log")


def test_row_64_a_damaged_log_is_named(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    shipped = add(writer, upserts(range(40)), commits=4)
    (segment,) = (path for path in (writer.home / "log").iterdir() if path.stat().st_size > 2000)
    flip(segment, segment.stat().st_size // 3)
    with pytest.raises(LogCorrupt):
        replayed(writer, shipped.generation_id, tmp_path / "scratch")


def test_row_62_a_damaged_artifact_of_the_home_is_named_before_it_is_opened(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path)
    shipped = add(writer, upserts(range(40)))
    name = writer.manifest(shipped.generation_id).artifacts[0].name
    flip(writer.residence.folder(shipped.generation_id) / name, 20)
    with pytest.raises(ArtifactHashMismatch):
        replayed(writer, shipped.generation_id, tmp_path / "scratch")


def test_what_was_never_published_cannot_be_verified(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(4)))
    commit(writer, upserts([9]))
    built = writer.build().manifest.generation_id
    with pytest.raises(GenerationNotPublished):
        replayed(writer, built, tmp_path / "scratch")


def test_row_8_another_revision_of_the_embedder_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make_writer(tmp_path)
    shipped = add(writer, upserts(range(4)))
    made = HashingEmbedder.__init__

    def otherwise(self: HashingEmbedder, dimensions: int) -> None:
        made(self, dimensions)
        self.revision = "0" * 64

    monkeypatch.setattr(HashingEmbedder, "__init__", otherwise)
    with pytest.raises(EmbedderMismatch):
        replayed(writer, shipped.generation_id, tmp_path / "scratch")


def test_the_same_seed_asks_the_same_and_another_seed_asks_something_else(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    shipped = add(writer, upserts(range(100)))
    reports = []
    for number, seed in enumerate((1, 1, 2)):
        scratch = tmp_path / f"scratch{number}"
        scratch.mkdir()
        sampling = Sampling(documents=5, seed=seed)
        reports.append(replay(writer.home, shipped.generation_id, scratch, sampling))
    assert reports[0] == reports[1]
    assert all(report.agrees for report in reports)


def test_the_scratch_folder_goes_unless_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scratch_folder(None) as folder:
        (folder / "file").write_text("x")
    assert not folder.exists()
    with scratch_folder(tmp_path / "kept") as folder:
        (folder / "file").write_text("x")
    assert (tmp_path / "kept/file").exists()
    with pytest.raises(BadSetting, match="--keep"), scratch_folder(tmp_path / "kept"):
        pass
    file = tmp_path / "file"
    file.write_text(json.dumps({}))
    with pytest.raises(BadSetting, match="--keep"), scratch_folder(file):
        pass
