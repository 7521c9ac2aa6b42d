"""Options and arguments that several commands share, and the home they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from controller.writer import WriterHome

home_argument = click.argument("home", type=click.Path(path_type=Path), metavar="HOME")
node_argument = click.argument("home", type=click.Path(path_type=Path), metavar="NODE")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs instead of text."
)


def open_writer(home: Path) -> WriterHome:
    """The writer's home in this folder."""
    from controller.writer import WriterHome

    return WriterHome(home)
