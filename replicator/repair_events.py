"""What the world is told of repairs: events by name, and two metrics."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from manifests.generation import ArtifactFile
from replicator.tally import FetchTally

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

EVENTS = logging.getLogger("genctl.events")
"""Structured events: the message is the event's name, ``record.facts`` what is known of it."""

# Without any handler, logging would print critical events on stderr, where a command that ends by
# itself has its one error.
EVENTS.addHandler(logging.NullHandler())

_UNDER_WAY: ContextVar[frozenset[str]] = ContextVar("_UNDER_WAY", default=frozenset())


def emit(event: str, **facts: object) -> None:
    """Report an event by its name; runbooks/README.md lists them."""
    EVENTS.info(event, extra={"facts": facts})


def emit_critical(event: str, /, **facts: object) -> None:
    """Report an event that a person must hear of, whatever else the node goes on doing."""
    EVENTS.critical(event, extra={"facts": {"severity": "critical", **facts}})


def record_ratio(tally: FetchTally) -> None:
    """Record which part of the bytes that a transfer put in place had to be rebuilt."""
    in_place = tally.fetched_bytes + tally.resumed_bytes
    if in_place:
        _meter().create_histogram("distributed.artifact.repair_ratio").record(
            tally.repaired_bytes / in_place
        )


def _meter() -> Meter:
    from opentelemetry.metrics import get_meter  # noqa: PLC0415 - a healthy fetch reports nothing

    return get_meter("genctl")


@contextlib.contextmanager
def told(artifact: ArtifactFile, **known: object) -> Iterator[None]:
    """Report that a repair starts, and how it ends; within another of the artifact, say nothing."""
    under_way = _UNDER_WAY.get()
    if artifact.blake3 in under_way:
        yield
        return
    facts = {"artifact": artifact.name, "artifact_id": artifact.blake3, **known}
    emit("artifact_repair_started", **facts)
    token = _UNDER_WAY.set(under_way | {artifact.blake3})
    try:
        yield
    except BaseException as error:  # Ctrl-C too: whoever heard of the start hears of the end
        _meter().create_counter("distributed.repair.failures_total").add(1)
        emit("artifact_repair_failed", **facts, error=type(error).__name__, message=str(error))
        raise
    finally:
        _UNDER_WAY.reset(token)
    emit("artifact_repair_completed", **facts)
