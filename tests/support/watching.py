"""Watching a node from outside while something happens to it: its events, and what it answers."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from controller.node import NodeHome
from query.request import Request
from replicator.repair_events import EVENTS

DEADLINE_S = 60


class Events(logging.Handler):
    """The events that were told, by name, with their facts."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append((record.getMessage(), record.__dict__["facts"]))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    def of(self, name: str) -> list[dict[str, Any]]:
        """The facts of each event of that name."""
        return [facts for told, facts in self.told if told == name]


@contextlib.contextmanager
def hearing() -> Iterator[Events]:
    """The events of the block."""
    handler = Events()
    level = EVENTS.level
    EVENTS.addHandler(handler)
    EVENTS.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        EVENTS.removeHandler(handler)
        EVENTS.setLevel(level)


@contextlib.contextmanager
def asking(node: NodeHome, text: str = "unique7") -> Iterator[list[str]]:
    """Queries one after the other by one reader, as long as the block runs; what they gave.

    That is the id of the best hit, or what an error looks like. One query has ended when the block
    begins.
    """
    answers: list[str] = []
    ending = threading.Event()
    begun = threading.Event()
    reader = node.reader()

    def loop() -> None:
        while not ending.is_set():
            try:
                answer = node.query(reader, Request(text=text, mode="lexical"))
                answers.append(answer.hits[0].id)
            except Exception as error:  # noqa: BLE001 - told to the test
                answers.append(repr(error))
            begun.set()

    thread = threading.Thread(target=loop)
    thread.start()
    assert begun.wait(DEADLINE_S)
    try:
        yield answers
    finally:
        ending.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
