"""Re-signing on a schedule, in the foreground, until the process is told to end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator

from controller.terminal import report_error
from manifests.errors import BadSetting, RetryError, WaitError

LONGEST_RETRY_S = 60
"""After a failure it is tried again this soon, or sooner where the schedule is closer."""


def check_interval(every_s: int, lifetime_hours: int) -> None:
    """Refuse a schedule on which the timestamp would expire where one signature comes late.

    Raises:
        BadSetting: it is longer than half of the timestamp's life.
    """
    if every_s * 2 > lifetime_hours * 3600:
        raise BadSetting(
            f"a timestamp lives {lifetime_hours} h (timestamp_lifetime_hours): sign it every "
            f"{lifetime_hours * 1800} s or more often"
        )


def keep(sign_again: Callable[[], None], every_s: int, *, as_json: bool) -> None:
    """Call ``sign_again`` now and every ``every_s`` seconds, until SIGTERM or SIGINT.

    A store that does not answer, a home that is at work, a key service that is away: each is
    reported, and tried again.

    Raises:
        GenctlError: what trying again would not mend.
    """
    with _told_to_end() as is_over:
        delay_s = 0
        while not is_over(delay_s):
            try:
                sign_again()
                delay_s = every_s
            except (RetryError, WaitError) as error:
                if error.exit_code not in {RetryError.exit_code, WaitError.exit_code}:
                    raise
                report_error(error, as_json=as_json)
                delay_s = min(every_s, LONGEST_RETRY_S)


@contextlib.contextmanager
def _told_to_end() -> Iterator[Callable[[float], bool]]:
    """Yields a function that waits so many seconds, and says early if the process is to end."""
    # No threading.Event: a signal that comes while wait() holds its lock would wait for it forever.
    ended, end = os.pipe()
    os.set_blocking(end, False)
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: _write_byte(end)) for number in signals}
    try:
        yield lambda seconds: bool(select.select([ended], [], [], seconds)[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(ended)
        os.close(end)


def _write_byte(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):  # it is full, which says it as well
        os.write(pipe, b"!")
