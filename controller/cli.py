"""The command line. Each command imports what it needs when it runs, so ``--help`` is instant."""

from __future__ import annotations

import atexit
import functools
import gc
import sys
from collections.abc import Callable
from typing import Any

import click

from controller.commands import (
    audit,
    compact,
    demo,
    diff,
    fsck,
    generations,
    keys,
    lease,
    node,
    node_space,
    override,
    quarantine,
    query,
    release,
    replay,
    scrub,
    tags,
    writer,
)
from controller.commands import gc as gc_command
from controller.entry import silence_stderr
from controller.interrupts import INTERRUPTS
from controller.terminal import report_error
from manifests.errors import DiskError, GenctlError, Interrupted

GC_THRESHOLD = 50_000
"""New objects between two collections; Python's own is 700."""


class Root(click.Group):
    """The command group; turns errors into a message and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and never show a traceback for what is not a defect of genctl."""
        # Libraries make some hundred thousand objects while they load and let go of none: looking
        # for cycles among them took a quarter of the processor time of a bootstrap.
        gc.set_threshold(GC_THRESHOLD)
        atexit.register(gc.freeze)
        code = 1
        try:
            code = self._run(args, kwargs | {"standalone_mode": False})
        finally:
            INTERRUPTS.end(code)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; one that is ended from the keyboard is no defect either."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            raise _interrupted() from None

    def _run(self, args: tuple[Any, ...], options: dict[str, Any]) -> int:
        """The exit code of a run; what went wrong has been told."""
        try:
            try:
                INTERRUPTS.run()
                code = super().main(*args, **options)
            finally:
                INTERRUPTS.tell()
        except (KeyboardInterrupt, click.Abort) as error:
            if isinstance(error.__cause__, EOFError):  # click takes it for a Ctrl-D
                raise error.__cause__ from None
            return _exit_code(_interrupted())
        except GenctlError as error:
            return _exit_code(error)
        except click.ClickException as error:
            _tell(error.show)
            return error.exit_code
        except BrokenPipeError:
            sys.stderr.close()  # whoever read the output has left; so does this
            return 141
        except OSError as error:
            where, why = error.filename or "the system", error.strerror or error
            return _exit_code(DiskError(f"{where}: {why}"))
        return code if isinstance(code, int) else 0  # a command returns nothing, an option a code


def _interrupted() -> Interrupted:
    return Interrupted("ended from the keyboard; run the same command again to go on")


def _exit_code(error: GenctlError) -> int:
    """The exit code of what went wrong, which is told."""
    _tell(functools.partial(report_error, error, as_json="--json" in sys.argv))
    return error.exit_code


def _tell(report: Callable[[], None]) -> None:
    """Write to stderr if that can be: whether anyone reads it does not change the exit code."""
    try:
        report()
    except OSError:
        silence_stderr()  # Python would try again at its end, and exit with 120


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="genctl", message="genctl %(version)s")
def main() -> None:
    """Build a search index once, replicate it verified, swap it atomically, go back in a second.

    \b
    writer   init → ingest → release      then rollback, generations, show, status, tag, revoke
    node     node bootstrap → query       run bootstrap again to catch up

    Exit codes: 0 done, 2 wrong usage, 3 mend the input, 4 not there yet, 5 run it again,
    6 a person must look (the error names its runbook), 1 a defect in genctl,
    130 ended from the keyboard.
    """  # noqa: D301 - click wants a real backspace character


for command in (
    *writer.COMMANDS,
    keys.keys,
    *release.COMMANDS,
    *generations.COMMANDS,
    *tags.COMMANDS,
    *override.COMMANDS,
    lease.lease,
    *audit.COMMANDS,
    compact.compact,
    gc_command.gc,
    fsck.fsck,
    diff.diff,
    replay.replay,
    scrub.stores_scrub,
    node.node,
    query.query,
    demo.demo,
):
    main.add_command(command)

for command in (*scrub.NODE_COMMANDS, *node_space.COMMANDS, quarantine.quarantine):
    node.node.add_command(command)
