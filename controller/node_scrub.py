"""Scrubbing a node: what it holds is read and checked, and rot is mended or not served.

A pass goes through the artifacts of all resident generations in the order of their ids.
``NODE/scrub/progress.json`` says how far it has come, so that one that was stopped or killed goes
on there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from controller.node import NodeHome
from controller.scrub_pass import ScrubPass, ScrubReport, Stopped
from controller.scrub_progress import FOLDER, Findings, last_progress
from durable import files
from manifests.errors import GenctlError
from store.rate_limit import RateLimit

PAUSE_S = 60.0
"""How long a background scrub rests between two passes."""

_log = logging.getLogger("genctl.scrub")


def scrub(
    node: NodeHome, *, ending: threading.Event, from_start: bool = False, patient: bool = False
) -> ScrubReport:
    """Finish the pass under way, or make a new one, within ``limits.scrub_bytes_per_s``.

    Damage that cannot be mended is reported, and degrades the node (:mod:`controller.degraded`).

    Args:
        node: the node.
        ending: set by somebody else, ends the pass; the next one goes on from there.
        from_start: begin a new pass.
        patient: wait for a command at work in the node as long as it takes.

    Raises:
        Stopped: ``ending`` was set.
        HomeLocked: another scrub is at work; or, unless ``patient``, another command for too long.
        TrustStateCorrupt: what the node believes is damaged: bootstrap it.
        DiskFull, DiskError: the disk refuses.
    """
    with files.locked(node.home / "scrub.lock", "scrub"):

        def pause(seconds: float) -> None:
            ending.wait(seconds)

        limit = RateLimit(node.settings.limits.scrub_bytes_per_s, time.monotonic, pause)
        files.remove_temporaries(node.home / FOLDER)
        before = last_progress(node.home)
        if from_start:
            before = before.model_copy(update={"position": None})
        if before.position is None:
            before = before.model_copy(update={"found": Findings()})
        scrubbing = ScrubPass(node, ending, limit.take, patient=patient)
        scrubbing.resume(before)
        scrubbing.check_all(node.residence.resident_ids())
        scrubbing.finish()
        return scrubbing.report(resumed=before.position is not None)


def repair(node: NodeHome, *, ending: threading.Event) -> ScrubReport:
    """Check the generation that the node should serve at full speed, from its start, and mend it.

    Raises:
        Stopped, HomeLocked, TrustStateCorrupt, DiskFull, DiskError: as :func:`scrub`.
        NothingPublished, PointerCorrupt: see :meth:`NodeHome.pointer`.
    """
    chosen = {node.pointer().active.generation_id, node.state().demoted_from}
    scrubbing = ScrubPass(node, ending, lambda _: None, patient=False)
    scrubbing.check_all(sorted(each for each in chosen if each is not None))
    scrubbing.settle()
    return scrubbing.report(resumed=False)


def background(node: NodeHome) -> Callable[[threading.Event], None]:
    """Pass after pass, until the event is set, beside whatever else the process does.

    Each pass reads the node's settings anew: a first bootstrap, which binds the node to its
    embedder, may come after this process began. What ends a pass early is logged, and the next
    one goes on from there.
    """

    def run(ending: threading.Event) -> None:
        while not ending.is_set():
            try:
                for failure in scrub(NodeHome(node.home), ending=ending, patient=True).failures:
                    _log.warning("the scrub met %s: %s", failure.name, failure.message)
            except Stopped:
                return
            except GenctlError as error:
                _log.warning("the scrub was ended by %s: %s", error.name, error.message)
            ending.wait(PAUSE_S)

    return run
