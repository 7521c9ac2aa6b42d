"""A store in an S3 bucket, on AWS or any compatible server that honours conditional writes.

Reads are signed requests through :class:`store.http_reads.HttpReader`, straight into the caller's
memory; everything else goes through boto3 (docs/adr/0012).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from manifests.errors import BadSetting, BodyMismatch, GenctlError, SizeRefused, StoreRefused
from store.http_answers import Refusal, Request
from store.http_pool import open_pool
from store.http_reads import HttpReader
from store.keys import MAX_KEY_LENGTH, check_key, check_prefix, check_range, is_segment
from store.patience import DEFAULT_PATIENCE, Patience
from store.port import UNWATCHED, ObjectInfo, Transfer, VersionedBytes
from store.s3_address import S3Address
from store.s3_body import PartsBody
from store.s3_refusals import code_in, refusal_error, translated
from store.s3_session import S3Session
from store.s3_writes import ConditionalWrites

MAX_PUT_SIZE_BYTES = 5 << 30
"""What one PutObject takes; an upload in parts would be no conditional write on every server."""


class S3Store:
    """A :class:`store.port.Store` under ``address``; safe among threads and processes.

    Making the object touches nothing. Before its first change it proves, on an object under
    ``probe/``, that the server honours conditions; every method that writes raises ``StoreUnsafe``
    if it does not. An answer that never came leaves the outcome of a write unknown: that, too, is
    ``StoreUnavailable``.

    The version token is an object's ETag without its quotes.
    """

    def __init__(
        self,
        address: S3Address,
        *,
        patience: Patience = DEFAULT_PATIENCE,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._address = address
        self._patience = patience
        self._monotonic = monotonic
        self._session = S3Session(address)
        self._reader_lock = threading.Lock()
        self._opened_reader: HttpReader | None = None
        self._writes = ConditionalWrites(address, self._session, pause)

    @property
    def url(self) -> str:
        """The address as :func:`store.locate.open_store` takes it."""
        return self._address.url

    def check_bucket(self) -> None:
        """Ask for the bucket, with the credentials there are.

        Raises:
            BadSetting: there is no such bucket, or it is refused to these credentials.
            StoreUnavailable: the server does not answer.
        """
        try:
            with translated(self._address, "s3:ListBucket"):
                self._session.client.list_objects_v2(
                    Bucket=self._address.bucket, Prefix=self._address.prefix, MaxKeys=1
                )
        except StoreRefused as error:
            raise BadSetting(error.message, **error.facts) from error

    def get(self, key: str, *, offset: int = 0, length: int) -> bytes:
        """See :meth:`store.port.Store.get`."""
        check_key(key)
        check_range(offset, length)
        return self._reader().get(self._request(key), offset, length)

    def read_into(
        self, key: str, *, offset: int, buffer: memoryview, transfer: Transfer = UNWATCHED
    ) -> int:
        """See :meth:`store.port.Store.read_into`."""
        check_key(key)
        check_range(offset, len(buffer))
        return self._reader().read_into(self._request(key), offset, buffer, transfer)

    def get_versioned(self, key: str, *, limit_bytes: int) -> VersionedBytes | None:
        """See :meth:`store.port.Store.get_versioned`; bytes and token are of one answer."""
        check_key(key)
        return self._reader().get_whole(self._request(key), limit_bytes)

    def put_if_absent(self, key: str, parts: Sequence[bytes | memoryview]) -> bool:
        """See :meth:`store.port.Store.put_if_absent`.

        Raises:
            SizeRefused: the object would be longer than 5 GiB.
        """
        check_key(key)
        body = PartsBody(parts)
        if body.size_bytes > MAX_PUT_SIZE_BYTES:
            raise SizeRefused(
                f"{key} has {body.size_bytes} bytes and S3 takes {MAX_PUT_SIZE_BYTES} in one piece;"
                " build smaller artifacts, or keep them in a folder store",
                key=key,
                size_bytes=body.size_bytes,
                limit_bytes=MAX_PUT_SIZE_BYTES,
            )
        return self._writes.put(key, body, None)

    def compare_and_swap(self, key: str, data: bytes, expected: str | None) -> bool:
        """See :meth:`store.port.Store.compare_and_swap`."""
        check_key(key)
        return self._writes.put(key, PartsBody([data]), expected)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See :meth:`store.port.Store.list`; objects whose names are no keys are not shown."""
        check_prefix(prefix)
        return self._list(prefix)

    def stat(self, key: str) -> ObjectInfo | None:
        """See :meth:`store.port.Store.stat`."""
        check_key(key)
        size_bytes = self._reader().size_bytes(self._request(key))
        return None if size_bytes is None else ObjectInfo(key, size_bytes)

    def delete(self, key: str) -> None:
        """See :meth:`store.port.Store.delete`."""
        check_key(key)
        self._writes.delete(key)

    def _reader(self) -> HttpReader:
        with self._reader_lock:
            if self._opened_reader is None:
                endpoint = self._address.endpoint_in(self._session.region)
                self._opened_reader = HttpReader(
                    self.url,
                    open_pool(endpoint, ca_bundle=self._session.ca_bundle),
                    explain=self._explain,
                    patience=self._patience,
                    monotonic=self._monotonic,
                )
            return self._opened_reader

    def _request(self, key: str) -> Request:
        url = self._address.object_url(key, self._session.region)
        return Request(key, url, self._session.signed_headers(url))

    def _explain(self, refusal: Refusal) -> GenctlError:
        code = code_in(refusal.body)
        return refusal_error(self._address, refusal.status, code, "s3:GetObject", refusal.key)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        base = self._address.prefix
        last = ""
        with translated(self._address, "s3:ListBucket"):
            pages = self._session.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._address.bucket, Prefix=base + prefix
            )
            for found in (entry for page in pages for entry in self._entries(page)):
                key = found["Key"].removeprefix(base)
                if key <= last and last:
                    raise BodyMismatch(
                        f"{self.url} lists {key!r} after {last!r}; genctl needs a bucket that is "
                        "listed in the order of its keys (no directory bucket)",
                        store=self.url,
                    )
                last = key
                if len(key) <= MAX_KEY_LENGTH and all(map(is_segment, key.split("/"))):
                    yield ObjectInfo(key, found["Size"], found.get("LastModified"))

    def _entries(self, page: Any) -> Any:
        if "IsTruncated" not in page:
            # A page of something else, in which botocore finds no objects and no error.
            raise BodyMismatch(
                f"{self.url} answers a listing with something else; see what answers at its "
                "endpoint, then try again",
                store=self.url,
            )
        return page.get("Contents", ())
