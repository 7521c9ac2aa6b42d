"""What the command group makes of what a command ends in."""

from __future__ import annotations

import click
import pytest

from controller.cli import Root


def run(error: BaseException) -> None:
    def fail() -> None:
        raise error

    Root(commands=[click.Command("fail", callback=fail)]).main(["fail"], prog_name="genctl")


def test_the_end_of_a_file_is_no_interrupt() -> None:
    with pytest.raises(EOFError):
        run(EOFError())


@pytest.mark.parametrize(
    ("error", "code"),
    [(click.exceptions.Exit(7), 7), (click.UsageError("x"), 2), (click.Abort(), 130)],
)
def test_what_click_raises_keeps_its_exit_code(error: BaseException, code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        run(error)
    assert ended.value.code == code
