"""The demo command."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Work in DIR and leave everything there to look at.",
)
def demo(keep: Path | None) -> None:
    """Tell the whole story on real text, in under a minute.

    Nothing to configure, nothing left behind.
    """
    from controller.demo import run

    run(keep)
