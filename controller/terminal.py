"""What a person sees: sentences, tables, progress bars; and what a program sees: JSON."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import click

from manifests.errors import GenctlError

RUNBOOKS = "runbooks"
NARROWEST_LAST_COLUMN = 16
SEPARATION = 2
HANGING_INDENT = 2
_COMMAND = re.compile("`[^`]*`")
_KEPT_SPACE = "\N{NO-BREAK SPACE}"
_SOFT_BREAK = "\v"
"""Where a word may be broken; no line of a text has one."""

Start = Callable[[int | None], Callable[[int], None]]
"""Told the total (``None``: unknown), gives the function that is told of each step."""


def say(text: str) -> None:
    """Print a line or more for people."""
    click.echo(_wrapped(text, sys.stdout))


def emit_json(document: Any) -> None:
    """Print one JSON document on one line."""
    click.echo(json.dumps(document, ensure_ascii=False))


def facts(title: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Print a heading and aligned ``name value`` lines."""
    say(title)
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        for number, line in enumerate(value.splitlines() or [""]):
            shown = _wrapped(line, sys.stdout, used=width + 4)
            for row, part in enumerate(shown.splitlines() or [""]):
                label = name if number == row == 0 else ""
                click.echo(f"  {label:<{width}}  {part}".rstrip())


def table(
    columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[str]],
    *,
    spare: Sequence[str] = (),
    are_names: bool = False,
) -> None:
    """Print a table; ``columns`` are ``(heading, "left" or "right")``.

    On a terminal the last column goes on in further lines where the line would be too long. Where
    that leaves it no room, the columns of the headings in ``spare`` are left out, as many as must
    be, from the first on. If ``are_names``, the last column is there to be copied: it has no room
    unless it is whole, and where that cannot be, its lines are longer than the terminal's. Into a
    pipe everything is printed whole.
    """
    from rich.cells import cell_len

    lines = [[heading for heading, _ in columns], *([printable(c) for c in row] for row in rows)]
    widths = [max(cell_len(line[place]) for line in lines) for place in range(len(columns))]
    shown = [*range(len(columns))]
    before_last = 0
    if sys.stdout.isatty():
        left_out = [place for name in spare for place in shown if columns[place][0] == name]
        least = widths[-1] if are_names else min(widths[-1], NARROWEST_LAST_COLUMN)
        while True:
            before_last = sum(widths[place] + SEPARATION for place in shown[:-1])
            room = shutil.get_terminal_size().columns - before_last
            if room >= least or not left_out:
                break
            shown.remove(left_out.pop(0))
        widths[-1] = min(widths[-1], max(room, least))
    for number, line in enumerate(lines):
        line[-1], *more = _broken(line[-1], widths[-1])
        cells = []
        for place in shown:
            padding = " " * (widths[place] - cell_len(line[place]))
            is_right = columns[place][1] == "right"
            cells.append(padding + line[place] if is_right else line[place] + padding)
        click.secho((" " * SEPARATION).join(cells).rstrip(), bold=number == 0)
        for part in more:
            click.echo(" " * before_last + part)


def _broken(cell: str, width: int) -> list[str]:
    """A cell in as many lines as it needs: broken between words, and words that are too long."""
    from rich.cells import cell_len

    if cell_len(cell) <= width:
        return [cell]
    from rich.console import Console
    from rich.text import Text

    lines = Text(cell).wrap(Console(width=width), width, overflow="fold")
    return [line.plain.rstrip() for line in lines]


def _wrapped(text: str, stream: TextIO, used: int = 0) -> str:
    """``text`` broken between words where a terminal's line ends; unchanged into a pipe.

    Commands in backquotes stay in one piece, to be copied; paths and keys longer than a line are
    broken after slashes. ``used`` columns are taken already.
    """
    if not stream.isatty():
        return text
    width = max(shutil.get_terminal_size().columns - used, 2 * NARROWEST_LAST_COLUMN)
    lines = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        kept = _COMMAND.sub(lambda found: found[0].replace(" ", _KEPT_SPACE), line.strip())
        room = width - len(indent) - HANGING_INDENT
        kept = " ".join(
            word.replace("/", f"/{_SOFT_BREAK}") if len(word) > room and "`" not in word else word
            for word in kept.split(" ")
        )
        wrapped = textwrap.fill(
            kept,
            width,
            initial_indent=indent,
            subsequent_indent=indent + " " * HANGING_INDENT,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        lines.append(wrapped.replace(_KEPT_SPACE, " ").replace(_SOFT_BREAK, ""))
    return "\n".join(lines)


def printable(text: str) -> str:
    """Text from a document as it may be shown: it cannot move the cursor or break the line."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "·" for c in text)


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
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(file=sys.stderr)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True)
        if unit == "bytes"
        else TextColumn("{task.completed:,.0f} " + unit if unit else ""),
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
    text = f"genctl: {error.name}: {error.message}{hint}"
    click.echo(_wrapped(text, sys.stderr), err=True)
