"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

home_argument = click.argument("home", type=click.Path(path_type=Path), metavar="HOME")
node_argument = click.argument("home", type=click.Path(path_type=Path), metavar="NODE")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs instead of text."
)
