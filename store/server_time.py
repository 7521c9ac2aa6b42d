"""The time by a store's own clock, for those that tell it: every HTTP answer carries a date.

It is asked for without credentials, before anything that is signed: a server refuses a signature
made by a clock that is far off, and what it says then is not about the clock alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from manifests.errors import StoreRefused, TransferDeadline
from store.s3_address import parse_address, region_or_default
from store.s3_session import S3Session

ANSWER_WITHIN_S = 3.0


def server_time(store_urls: Iterable[str]) -> datetime | None:
    """The time in UTC by the first of these stores that tells it; ``None`` if none does.

    Folders have no clock of their own. A server that does not answer is left to the read that
    follows. Certificates are verified as those of the reads are.
    """
    for url in store_urls:
        if url.startswith("s3://"):
            address = parse_address(url)
            endpoint = address.endpoint_in(region_or_default(address.region))
            told = _date_of(endpoint, S3Session(address))
            if told is not None:
                return told
    return None


def _date_of(endpoint: str, session: S3Session) -> datetime | None:
    import urllib3  # noqa: PLC0415 - slow to import, and a folder needs none of it
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - as above

    from store.http_pool import Attempt, open_pool  # noqa: PLC0415 - as above

    try:
        bundle = session.ca_bundle if endpoint.startswith("https:") else None
    except StoreRefused:
        return None
    attempt = Attempt(time.monotonic() + ANSWER_WITHIN_S, time.monotonic, endpoint)
    pool = open_pool(endpoint, ca_bundle=bundle)
    try:
        with attempt.running():
            answer = pool.request(
                "HEAD",
                f"{endpoint}/",
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=ANSWER_WITHIN_S, read=ANSWER_WITHIN_S),
            )
        return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
    except (HTTPError, TransferDeadline, OSError, KeyError, ValueError):
        return None
    finally:
        pool.clear()
