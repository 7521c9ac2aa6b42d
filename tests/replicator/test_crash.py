"""Rows 37 and 38: a node killed before a change it makes to the disk.

Here it is the steps around the swap and a sample of the rest; ``tests/system`` kills every command.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from controller.node import NodeHome
from query.request import Request
from tests.support.corpus import delete, upserts
from tests.support.crashes import count_steps, killed_at
from tests.support.homes import add, flip, make_node, make_writer, new_node


def steps_of(original: NodeHome, copy: Path) -> int:
    """How many changes a catch-up makes in the node's home; its lease comes and goes beside."""
    shutil.copytree(original.home, copy)
    return count_steps(lambda: NodeHome(copy).bootstrap(), copy)


def test_row_37_row_38_a_catch_up_killed_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path,
) -> None:
    writer = make_writer(tmp_path)
    old = add(writer, upserts(range(3)))
    original = make_node(writer, "original")
    new = add(writer, [delete(1), *upserts([3])])
    answers = {old.generation_id: ["d1"], new.generation_id: []}
    swapped = []
    total = steps_of(original, tmp_path / "counted")
    assert total > 60
    for step in (*range(0, total - 6, 7), *range(total - 6, total + 1)):
        home = tmp_path / "node"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(original.home, home)
        killed = killed_at(step, lambda: NodeHome(home).bootstrap(), home)  # noqa: B023
        node = NodeHome(home)
        answer = node.query(node.reader(), Request(text="unique1", mode="lexical"))
        assert [hit.id for hit in answer.hits] == answers[answer.generation_id]
        swapped.append(answer.generation_id == new.generation_id)
        node.bootstrap()
        assert node.pointer().active == new
        assert node.pointer().previous == old
        assert list(home.glob(".tmp-*")) == []
        assert killed == (step < total)
    assert swapped == sorted(swapped)
    assert swapped.count(True) == 2, "before the folder's fsync, and not killed at all"


def test_row_37_partial_files_are_never_trusted(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(3)))
    node = new_node(writer)
    node.residence.prepare()
    manifest = writer.built()[0]
    for number, artifact in enumerate(manifest.artifacts):
        whole = writer.residence.artifact_path(artifact.blake3).read_bytes()
        partial = whole[: len(whole) * number // len(manifest.artifacts)]
        node.residence.artifact_path(artifact.blake3).write_bytes(partial)
    kept = manifest.artifacts[0]
    path = node.residence.artifact_path(kept.blake3)
    path.write_bytes(writer.residence.artifact_path(kept.blake3).read_bytes())
    report = node.bootstrap()
    assert [artifact.name for artifact in report.brought.plan.reuse] == [kept.name]
    assert len(report.brought.plan.fetch) == len(manifest.artifacts) - 1
    flip(path)
    assert [each.name for each in node.bootstrap().brought.plan.fetch] == [kept.name]
