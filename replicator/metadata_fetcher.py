"""python-tuf's network port over a store: bounded in length, bounded in time, strict in form.

What python-tuf calls a URL is ``store:`` and a key here. A length is checked while bytes arrive,
one deadline is over all reads of a refresh together, and nothing is handed on that a JSON parser
elsewhere might read in another way. Of several stores, the first whose copy is sound is believed;
none may use up the time of those after it, and one that did not answer is not asked again.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator

from tuf.api import exceptions
from tuf.api.metadata import Root, Timestamp
from tuf.ngclient import FetcherInterface

from manifests.errors import (
    BadRootRotation,
    LengthExceeded,
    ObjectMissing,
    RetryError,
    TransferDeadline,
    TrustError,
    UnsignedRecord,
)
from store.port import Store
from store.signed import strict_metadata
from store.spread import copies_of, read_copy

METADATA_BASE = "store:metadata/"
TARGETS_BASE = "store:targets/"
GRACE_S = 60.0
"""How long a refresh may take, besides what the signed lengths take at the least rate."""

READ_ATTEMPTS = 3
_READ_BYTES = 1024 * 1024
_ROLE = re.compile(r"(?:\d+\.)?(.+)\.json")


class RefreshDeadline:
    """The end of all reads of one refresh together, as the :class:`store.port.Transfer` of each.

    Args:
        monotonic: seconds on a clock that never goes back.
        grace_s: how long they may take, until :meth:`allow` gives them more.
        min_bytes_per_s: the rate at which a body of a signed length may come.
    """

    def __init__(
        self, monotonic: Callable[[], float], grace_s: float, min_bytes_per_s: int
    ) -> None:
        self._monotonic = monotonic
        self._end_s = self._turn_end_s = monotonic() + grace_s
        self._min_bytes_per_s = min_bytes_per_s
        self._timer: threading.Timer | None = None
        self.arrived_bytes = 0

    def allow(self, size_bytes: int) -> None:
        """Give time for a body whose length somebody has signed."""
        self._end_s += size_bytes / self._min_bytes_per_s

    def begin_turn(self, stores_left: int) -> None:
        """Give the store that is asked now its part of what is left: of so many stores, one's."""
        now_s = self._monotonic()
        self._turn_end_s = now_s + (self._end_s - now_s) / stores_left

    def arrived(self, size_bytes: int) -> None:
        """See :meth:`store.port.Transfer.arrived`."""
        self.arrived_bytes += size_bytes
        if self.has_passed():
            raise TransferDeadline("the metadata takes too long")

    def stop_by(self, stop: Callable[[], None]) -> None:
        """See :meth:`store.port.Transfer.stop_by`."""
        self.read_ended()
        self._timer = threading.Timer(max(0.0, self._turn_end_s - self._monotonic()), stop)
        self._timer.daemon = True
        self._timer.start()

    def read_ended(self) -> None:
        """Let go of the read that was to be stopped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def has_passed(self) -> bool:
        """Whether the store that is asked now has taken too long."""
        return self._monotonic() >= self._turn_end_s


class MetadataFetcher(FetcherInterface):
    """Reads one refresh's metadata, and its targets, from ``store``.

    ``failures`` has, by URL, why a store is not asked any more as long as another is left; it is
    added to.

    Its errors are genctl's, but for the one that tells python-tuf that there is no newer root.
    ``role`` and ``data`` are what was read last, ``source`` is which object of which store it is.
    ``check`` is told a role and bytes that may be its metadata; it raises ``TrustError``, or an
    error of python-tuf, where another store's copy should be tried first.
    """

    def __init__(
        self, store: Store, deadline: RefreshDeadline, failures: dict[str, RetryError] | None = None
    ) -> None:
        self._store = store
        self._deadline = deadline
        self._failures = {} if failures is None else failures
        self.role = ""
        self.data = b""
        self.source = ""
        self.check: Callable[[str, bytes], None] = lambda _, __: None

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The whole of a metadata file.

        Raises:
            DownloadHTTPError: it is a root, and there is none of that version.
            ObjectMissing: it is another file that is not there.
            LengthExceeded: it is longer than ``max_length``; no more than one byte more was read.
            UnsignedRecord: it is no strict JSON; of a root, ``BadRootRotation``.
            TransferDeadline: the refresh as a whole takes too long.
            StoreUnavailable, BodyMismatch: the store does not answer as it should.
        """
        key = _key(url)
        named = _ROLE.fullmatch(key.rpartition("/")[2])
        self.role = named[1] if named else key
        found = read_copy(
            self._store,
            lambda store: self._in_turn(
                store, max_length, lambda: self._whole(store, key, max_length)
            ),
            self._is_sound,
            # A refresh ends its search for roots with one that is not there, and must not need
            # every store for that. A writer puts a new one into all of them.
            is_absent_if_one_says_so=self.role == Root.type,
        )
        if found is None:
            raise self._absent(key)
        url, self.data = found
        self.source = f"{key} in {url}"
        self._check_form(key)
        return self.data

    def target(
        self, key: str, size_bytes: int, is_sound: Callable[[bytes], bool]
    ) -> tuple[str, bytes] | None:
        """The first bytes of a target, as many as there are of so many; see :func:`read_copy`.

        Raises:
            TransferDeadline, StoreUnavailable, BodyMismatch: as :meth:`download_bytes`.
        """
        return read_copy(
            self._store,
            lambda store: self._in_turn(
                store, size_bytes, lambda: self._read(store, key, 0, size_bytes)
            ),
            is_sound,
        )

    def _in_turn(self, store: Store, size_bytes: int, read: Callable[[], bytes]) -> bytes:
        """Read from a store, in its part of the time, unless it failed and another is left."""
        stores_left = len(copies_of(self._store)) - len(self._failures)
        if store.url in self._failures and stores_left:
            raise self._failures[store.url]
        if self.role not in {Root.type, Timestamp.type}:
            self._deadline.allow(size_bytes)
        self._deadline.begin_turn(max(1, stores_left))
        try:
            return read()
        except RetryError as error:
            self._failures[store.url] = error
            raise

    def _whole(self, store: Store, key: str, max_length: int) -> bytes:
        data = bytearray()
        while len(data) <= max_length:
            wanted = min(_READ_BYTES, max_length + 1 - len(data))
            piece = self._read(store, key, len(data), wanted)
            data += piece
            if len(piece) < wanted:
                break
        if len(data) > max_length:
            raise LengthExceeded(
                f"{key} in {store.url} is longer than the {max_length} bytes that it may "
                "have; reading stopped there",
                key=key,
                limit_bytes=max_length,
            )
        return bytes(data)

    def _is_sound(self, data: bytes) -> bool:
        with contextlib.suppress(TrustError, exceptions.RepositoryError):
            strict_metadata(data, self.role)
            self.check(self.role, data)
            return True
        return False

    def _fetch(self, url: str) -> Iterator[bytes]:
        key, offset = _key(url), 0
        while piece := self._read(self._store, key, offset, _READ_BYTES):
            yield piece
            offset += len(piece)
            if len(piece) < _READ_BYTES:
                break

    def _check_form(self, key: str) -> None:
        try:
            strict_metadata(self.data, self.source)
        except UnsignedRecord as error:
            if self.role == Root.type:
                raise BadRootRotation(error.message, key=key) from error
            raise

    def _read(self, store: Store, key: str, offset: int, size_bytes: int) -> bytes:
        """The object from ``offset`` on, asked for again where an answer broke off on its way."""
        buffer = bytearray(size_bytes)
        for attempts_left in reversed(range(READ_ATTEMPTS)):
            arrived_bytes = self._deadline.arrived_bytes
            try:
                count = store.read_into(
                    key, offset=offset, buffer=memoryview(buffer), transfer=self._deadline
                )
                return bytes(buffer[:count])
            except RetryError as error:
                self._give_up_if_late(store, key, error)
                if attempts_left == 0 or self._deadline.arrived_bytes == arrived_bytes:
                    raise
            finally:
                self._deadline.read_ended()
        raise AssertionError("the last attempt returns or raises")

    def _give_up_if_late(self, store: Store, key: str, error: RetryError) -> None:
        if self._deadline.has_passed():
            raise TransferDeadline(
                f"{store.url} takes too long over the signed metadata ({key}); it was "
                "given up, and the node goes on with what it has. Look at the network and the "
                "load of the store, then try again",
                key=key,
            ) from error

    def _absent(self, key: str) -> Exception:
        if self.role == Root.type:
            return exceptions.DownloadHTTPError(f"{key} is not in the store", 404)
        return ObjectMissing(
            f"the signed metadata in {self._store.url} is incomplete: there is no {key}",
            key=key,
            role=self.role,
        )


def _key(url: str) -> str:
    return url.removeprefix("store:")
