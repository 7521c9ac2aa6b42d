"""A scrub that is overtaken by a removal brings back nothing that made room."""

from __future__ import annotations

import threading
from pathlib import Path

from controller import node_fsck, node_space, settings
from controller.node import NodeHome
from controller.scrub_pass import ScrubPass
from tests.support.corpus import upserts
from tests.support.homes import add, make_node, make_writer


def test_row_57_a_scrub_fetches_nothing_again_that_made_room_while_it_read(tmp_path: Path) -> None:
    writer = make_writer(tmp_path)
    add(writer, upserts(range(3)))
    node = make_node(writer)
    for number in range(3, 6):
        add(writer, upserts([number]))
        node.bootstrap()
    path = node.home / settings.NODE_FILE
    settings.save(path, node.settings.model_copy(update={"old_generations_max_bytes": 0}))
    node = NodeHome(node.home)
    before = node.residence.resident_ids()
    gone: list[str] = []

    def take(_: int) -> None:
        if not gone:
            gone.extend(each.generation_id for each in node_space.gc(node).evicted)

    scrubbing = ScrubPass(node, threading.Event(), take, patient=False)
    scrubbing.check_all([*before])
    scrubbing.finish()
    assert gone == before[:2]
    assert scrubbing.report(resumed=False).found.damaged_artifacts == 0
    assert scrubbing.report(resumed=False).failures == ()
    assert node.residence.resident_ids() == before[2:]
    assert node_fsck.check(node).orphans == []
