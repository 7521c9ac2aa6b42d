"""Conditional writes to S3: proven before they are relied on, settled when an answer is unclear.

Ceph answers a writer that lost a race now and then with 500 instead of 412, as it does for failures
after which nobody knows what took place. Each write therefore carries a token of its own in the
object's metadata, and an answer 500 is settled by looking whose token is there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable

from manifests.errors import StoreUnavailable, StoreUnsafe
from manifests.identifiers import content_id
from store.s3_address import S3Address
from store.s3_body import PartsBody
from store.s3_refusals import status_and_code, translated
from store.s3_session import S3Session

ATTEMPTS = 5
PROBE_PREFIX = "probe/"
METADATA_NAME = "genctl-write"
_QUOTED, _BARE = '"{}"', "{}"


class ConditionalWrites:
    """Changes to the objects under ``address``; safe among threads and processes.

    Before its first change it proves, on an object under ``probe/``, that the server honours
    conditions. Every method raises ``StoreUnsafe`` if it does not, and ``StoreUnavailable`` when
    the server refuses, fails or does not answer; the change may have taken place then.

    ``pause`` is called before a write is tried again, with the number of failures so far.
    """

    def __init__(
        self,
        address: S3Address,
        session: S3Session,
        pause: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._address = address
        self._pause = pause
        self._session = session
        self._lock = threading.Lock()
        self._tag_form: str | None = None
        self._numbers = itertools.count()

    def put(self, key: str, body: PartsBody, expected: str | None) -> bool:
        """Write the object if its ETag is ``expected`` (``None``: if it is absent).

        Returns ``False``, having changed nothing, if the condition does not hold. A conflict, and
        an answer 500 after which the condition still holds, are tried again a few times.
        """
        return self._put(key, body, expected, self._proven_form()) is not None

    def delete(self, key: str) -> None:
        """Remove the object; an absent one is no error."""
        self._proven_form()
        self._delete(key)

    def _put(self, key: str, body: PartsBody, expected: str | None, form: str) -> str | None:
        """The ETag of the object written, or ``None`` if the condition does not hold."""
        token = self._token()
        is_clear = True
        for failures in range(ATTEMPTS):
            if failures:
                self._pause(failures)
            body.seek(0)
            status, tag = self._put_once(key, body, expected, form, token)
            if status == 200 or (status == 412 and is_clear):
                return tag
            if status in {412, 500}:
                is_clear = False
                present, writer = self._look(key)
                if writer == token:
                    return present
                if status == 412 or present != expected:
                    return None
        raise StoreUnavailable(
            f"{self._address.url} failed to write {key} {ATTEMPTS} times, or others were writing "
            "it; try again in a while",
            store=self._address.url,
            key=key,
        )

    def _put_once(
        self, key: str, body: PartsBody, expected: str | None, form: str, token: str
    ) -> tuple[int, str | None]:
        """Status 200 with an ETag, 412, 409 (a conflict: nothing was written) or 500."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import

        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": form.format(expected)}
        with translated(self._address, "s3:PutObject"):
            try:
                answer = self._session.client.put_object(
                    Bucket=self._address.bucket,
                    Key=self._address.prefix + key,
                    Body=body,
                    Metadata={METADATA_NAME: token},
                    **condition,
                )
            except ClientError as error:
                status, code = status_and_code(error)
                if expected is not None and code == "NoSuchKey":
                    return 412, None
                if status in {409, 412, 500}:
                    return status, None
                raise
        tag = str(answer.get("ETag", "")).strip('"')
        if not tag:
            raise StoreUnavailable(
                f"{self._address.url} took {key} without giving its ETag; see what answers at its "
                "endpoint, then try again",
                store=self._address.url,
                key=key,
            )
        return 200, tag

    def _look(self, key: str) -> tuple[str | None, str | None]:
        """The object's ETag and its writer's token, or nothing twice."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import

        with translated(self._address, "s3:GetObject"):
            try:
                answer = self._session.client.head_object(
                    Bucket=self._address.bucket, Key=self._address.prefix + key
                )
            except ClientError as error:
                if status_and_code(error)[0] == 404:
                    return None, None
                raise
        return str(answer.get("ETag", "")).strip('"'), answer["Metadata"].get(METADATA_NAME)

    def _delete(self, key: str) -> None:
        with translated(self._address, "s3:DeleteObject"):
            self._session.client.delete_object(
                Bucket=self._address.bucket, Key=self._address.prefix + key
            )

    def _token(self) -> str:
        """What no other write has, here or elsewhere."""
        where = f"{socket.gethostname()} {os.getpid()} {id(self)} {time.monotonic_ns()}"
        return content_id(f"{where} {next(self._numbers)}".encode())[:32]

    def _proven_form(self) -> str:
        """How this server wants a tag written in ``If-Match``; proves conditions the first time."""
        with self._lock:
            if self._tag_form is None:
                key = PROBE_PREFIX + self._token()
                try:
                    self._tag_form = self._prove(key)
                except StoreUnavailable as error:
                    if error.facts.get("status") in {400, 501}:
                        raise self._unsafe("does not know conditional writes") from error
                    raise
                finally:
                    # The first failure is the one to tell of; a probe that stays harms nobody.
                    with contextlib.suppress(StoreUnavailable):
                        self._delete(key)
            return self._tag_form

    def _prove(self, key: str) -> str:
        def put(data: bytes, expected: str | None, form: str) -> str | None:
            return self._put(key, PartsBody([data]), expected, form)

        tag = put(b"first", None, _BARE)
        if tag is None:
            raise self._unsafe("refuses to create an object that is not there")
        if put(b"second", None, _BARE) is not None:
            raise self._unsafe("replaces an object under If-None-Match: *")
        # The standard quotes a tag; Ceph takes the quotes for a part of it.
        for form in (_QUOTED, _BARE):
            if put(b"third", "0" * 32, form) is not None:
                raise self._unsafe("replaces an object under an If-Match that does not hold")
            if put(b"third", tag, form) is not None:
                return form
        raise self._unsafe("never lets an If-Match hold")

    def _unsafe(self, what: str) -> StoreUnsafe:
        url = self._address.url
        return StoreUnsafe(
            f"the server of {url} {what}, so two writers could overwrite each other; nothing else "
            "was written; use a server that honours conditional writes, or a folder store",
            store=url,
        )
