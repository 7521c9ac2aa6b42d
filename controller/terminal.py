"""What a person sees: sentences, tables, progress bars; and what a program sees: JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from manifests.errors import GenctlError

RUNBOOKS = "runbooks"
UNCUT_WIDTH = 500

Start = Callable[[int | None], Callable[[int], None]]
"""Told the total (``None``: unknown), gives the function that is told of each step."""


def say(text: str) -> None:
    """Print a line for people."""
    click.echo(text)


def emit_json(document: Any) -> None:
    """Print one JSON document on one line."""
    click.echo(json.dumps(document, ensure_ascii=False))


def facts(title: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Print a heading and aligned ``name value`` lines."""
    say(title)
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        say(f"  {name:<{width}}  {value}")


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; ``columns`` are ``(heading, "left" or "right")``.

    The last left-aligned column gives way when the terminal is narrow.
    """
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, (heading, justify) in enumerate(columns):
        shown.add_column(
            heading,
            justify="right" if justify == "right" else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if place == len(columns) - 1 and justify == "left" else None,
        )
    for row in rows:
        shown.add_row(*map(_plain, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNCUT_WIDTH  # a pipe has no edge; nothing is cut there
    console.print(shown)


def _plain(cell: str) -> Any:
    from rich.text import Text

    return Text(cell)


def size(size_bytes: int) -> str:
    """A number of bytes as people read it: ``12.5 MiB``."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def plural(number: int, noun: str) -> str:
    """``1 document``, ``5,183 documents``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


@contextlib.contextmanager
def progress(doing: str, *, unit: str = "bytes") -> Iterator[Start]:
    """A progress bar on a terminal, nothing elsewhere.

    Yields a :data:`Start`.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(file=sys.stderr)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True) if unit == "bytes" else MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task(doing, total=None)

        def start(total: int | None) -> Callable[[int], None]:
            bar.update(task, total=total)
            return lambda step: bar.advance(task, step)

        yield start


def report_error(error: GenctlError, *, as_json: bool) -> None:
    """Say what went wrong on stderr: a sentence for people, one JSON object for programs."""
    runbook = f"{RUNBOOKS}/{error.runbook}.md" if error.runbook else None
    if as_json:
        document = {
            "error": error.name,
            "message": error.message,
            "exit_code": error.exit_code,
            "runbook": runbook,
            "facts": error.facts,
        }
        click.echo(json.dumps(document, ensure_ascii=False, default=str), err=True)
        return
    hint = f"\n  see {runbook}" if runbook else ""
    click.echo(f"genctl: {error.name}: {error.message}{hint}", err=True)
