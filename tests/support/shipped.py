"""Generations that are signed and whole, and are not what their commit log comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

from builder import changes
from builder.changes import BuildPlan
from commits.documents import Upsert
from commits.local_log import Commit

Alter = Callable[[tuple[Upsert, ...]], Iterable[Upsert]]


@contextmanager
def building_otherwise(alter: Alter) -> Iterator[None]:
    """Within the block, writers build ``alter`` of the documents that their log comes to."""

    def plan_otherwise(
        commits: Iterable[Commit], low_seq: int, predecessor: str | None
    ) -> BuildPlan:
        plan = changes.plan_build(commits, low_seq, predecessor)
        return replace(plan, upserts=tuple(alter(plan.upserts)))

    with mock.patch("controller.building.plan_build", plan_otherwise):
        yield
