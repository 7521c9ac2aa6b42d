"""What a node refused, remembered by the hash of its content across restarts and kills.

``NODE/quarantine.json`` is a memory, not the check: content that is not in it is verified like any
other. It serves two ends. Bytes that were signed and contradict themselves or the record are not
fetched a second time, for the writer alone can mend that; and bytes that were not even signed are
told of once, however often a store offers them, and never keep the right ones out.

Whoever can write to a store can make new wrong bytes without end. So the number of entries is
bounded, and those of unsigned bytes make room before any other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from durable import files
from manifests.canonical import Frozen, parse_document, to_canonical
from manifests.errors import (
    ArtifactHashMismatch,
    BadSymbolSet,
    CommitRangeGap,
    DiskError,
    DiskFull,
    GenctlError,
    ManifestError,
    ManifestHashMismatch,
    ManifestIdentityMismatch,
    ManifestIncomplete,
    ManifestLengthMismatch,
    ManifestMalformed,
    OperatorError,
    QuarantineCorrupt,
    UnsafeArtifactName,
)
from manifests.identifiers import Blake3Hex, content_id
from replicator.repair_events import emit_critical

QUARANTINE_FILE = "quarantine.json"
MAX_ENTRIES = 256
MAX_MESSAGE_CHARACTERS = 500
MAX_FACTS = 16
MAX_FACT_CHARACTERS = 200

REFUSED: dict[str, type[OperatorError]] = {
    error.__name__: error
    for error in (
        ArtifactHashMismatch,
        BadSymbolSet,
        CommitRangeGap,
        ManifestIdentityMismatch,
        ManifestIncomplete,
        ManifestMalformed,
        UnsafeArtifactName,
    )
}
"""Errors of signed content. A newer genctl will accept what is ``SchemaTooNew``; wrong bytes of
one manifest may well be the right ones of another: both are looked at whenever they are met."""

UNSIGNED = frozenset({ManifestHashMismatch.__name__, ManifestLengthMismatch.__name__})
"""Errors that anybody who can write to a store can bring about at will."""

_TOLD = {"content_hash", "error", "message", "kept"}


class QuarantineEntry(Frozen):
    """One content that was refused for one reason; the times are of UTC, in ISO 8601.

    ``message`` and ``facts`` are of the last time it was met, cut to a bounded length.
    """

    content_hash: Blake3Hex
    error: str
    message: str
    facts: dict[str, str]
    first_seen: str
    last_seen: str
    seen: int = Field(ge=1)

    @property
    def is_refused(self) -> bool:
        """Whether the content is refused unseen from now on, until the entry is cleared."""
        return self.error in REFUSED


class QuarantineState(Frozen):
    """What ``quarantine.json`` holds, in the order in which it was first met.

    ``dropped`` counts the entries that made room for others since everything was last cleared.
    """

    schema_version: Literal[1] = 1
    entries: tuple[QuarantineEntry, ...] = ()
    dropped: int = Field(default=0, ge=0)


class Quarantine:
    """The quarantine of the node in ``home``. Who changes it holds the node's lock."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / QUARANTINE_FILE

    def state(self) -> QuarantineState:
        """All that is remembered.

        Raises:
            QuarantineCorrupt: the file is damaged, so what is in quarantine is not known.
        """
        try:
            data = files.read_file(self._path)
        except FileNotFoundError:
            return QuarantineState()
        except OSError as error:
            raise self._corrupt(error.strerror or str(error)) from error
        body = data.partition(b"\n")[0]
        if data != _with_checksum(body):
            raise self._corrupt("its checksum does not match")
        try:
            return parse_document(body, QuarantineState, 1)
        except ManifestError as error:
            raise self._corrupt(error.message) from error

    def entries(self) -> tuple[QuarantineEntry, ...]:
        """What is in quarantine, in the order in which it was first met.

        Raises:
            QuarantineCorrupt: see :meth:`state`.
        """
        return self.state().entries

    def is_clear(self) -> bool:
        """Whether there is nothing that :meth:`clear` would change; a damaged file is something."""
        try:
            return self.state() == QuarantineState()
        except QuarantineCorrupt:
            return False

    def refuse(self, content_hashes: Iterable[str]) -> None:
        """Refuse content that was found to be signed and wrong before, unseen.

        Raises:
            ManifestError, UnsafeArtifactName, ArtifactHashMismatch, BadSymbolSet: one of these is
                in quarantine for it; the fact ``quarantined`` is its hash.
            QuarantineCorrupt: see :meth:`state`.
        """
        entries = self.entries()
        for content_hash in content_hashes if entries else ():
            entry = _find(entries, content_hash)
            if entry is None or not entry.is_refused:
                continue
            raise REFUSED[entry.error](
                f"{content_hash[:12]}… is in quarantine since {entry.first_seen} and is not "
                f"fetched again: {entry.message}. When the writer has published what is right, or "
                "you know that this was, run `genctl node quarantine clear "
                f"{self._home} {content_hash[:12]}`",
                quarantined=content_hash,
                **{name: value for name, value in entry.facts.items() if name != "quarantined"},
            ).with_runbook("divergence")

    def add(
        self, content_hash: str, error: str, message: str, now: datetime, /, **facts: object
    ) -> bool:
        """Remember that this content was refused; whether that was not known yet.

        What is new is told by the critical event ``generation_quarantined``; what is known is
        counted. It never raises, so that the error that led here is the one that is told: where the
        disk or a damaged file does not let it be kept, the event says ``kept=False``.

        Args:
            content_hash: the BLAKE3 of the refused bytes; of an artifact, its id.
            error: the name of the error that refused it.
            message: the error's sentence.
            now: the time in UTC.
            facts: what else is known of it.
        """
        told = {name: _bounded(str(value), MAX_FACT_CHARACTERS) for name, value in facts.items()}
        entry = QuarantineEntry(
            content_hash=content_hash,
            error=error,
            message=_bounded(message, MAX_MESSAGE_CHARACTERS),
            facts=dict(sorted(told.items())[:MAX_FACTS]),
            first_seen=now.isoformat(),
            last_seen=now.isoformat(),
            seen=1,
        )
        is_new, kept = True, True
        try:
            is_new = self._remember(entry)
        except (QuarantineCorrupt, DiskFull, DiskError):
            kept = False
        if is_new:
            emit_critical(
                "generation_quarantined",
                content_hash=content_hash,
                error=error,
                message=entry.message,
                kept=kept,
                **{name: value for name, value in entry.facts.items() if name not in _TOLD},
            )
        return is_new

    @contextlib.contextmanager
    def noting(self, now: datetime) -> Iterator[None]:
        """Remember what the block refuses: errors whose facts give the ``content_hash`` of it."""
        try:
            yield
        except GenctlError as error:
            facts = dict(error.facts)
            content_hash = facts.pop("content_hash", None)
            if isinstance(content_hash, str):
                self.add(content_hash, error.name, error.message, now, **facts)
            raise

    def clear(self, content_hash: str | None = None) -> tuple[QuarantineEntry, ...]:
        """Forget one content, or everything; what was forgotten.

        A damaged file is forgotten as a whole only.

        Raises:
            QuarantineCorrupt: the file is damaged, and one content was named.
            DiskFull, DiskError: it could not be written; what was known stands.
        """
        if content_hash is None:
            before: tuple[QuarantineEntry, ...] = ()
            with contextlib.suppress(QuarantineCorrupt):
                before = self.entries()
            self._write(QuarantineState())
            return before
        state = self.state()
        gone = tuple(each for each in state.entries if each.content_hash == content_hash)
        if gone:
            left = tuple(each for each in state.entries if each.content_hash != content_hash)
            self._write(state.model_copy(update={"entries": left}))
        return gone

    def _remember(self, entry: QuarantineEntry) -> bool:
        """Add or count the entry; whether it is a new one."""
        state = self.state()
        same = (entry.content_hash, entry.error)
        known = next((e for e in state.entries if (e.content_hash, e.error) == same), None)
        if known is None:
            entries, dropped = _making_room((*state.entries, entry))
        else:
            counted = {"first_seen": known.first_seen, "seen": known.seen + 1}
            again = entry.model_copy(update=counted)
            entries, dropped = tuple(again if e is known else e for e in state.entries), 0
        self._write(
            state.model_copy(update={"entries": entries, "dropped": state.dropped + dropped})
        )
        return known is None

    def _write(self, state: QuarantineState) -> None:
        files.replace_file(self._path, [_with_checksum(to_canonical(state))])

    def _corrupt(self, reason: str) -> QuarantineCorrupt:
        return QuarantineCorrupt(
            f"{self._path} is damaged ({reason}), so what is in quarantine is not known, and "
            "nothing new is fetched; the node goes on serving. Look at the file, then run "
            f"`genctl node quarantine clear {self._home}`: all is verified anew",
            path=str(self._path),
        )


def _find(entries: Iterable[QuarantineEntry], content_hash: str) -> QuarantineEntry | None:
    found = [each for each in entries if each.content_hash == content_hash]
    return next((each for each in found if each.is_refused), found[0] if found else None)


def _making_room(entries: tuple[QuarantineEntry, ...]) -> tuple[tuple[QuarantineEntry, ...], int]:
    """As many entries as may be kept, and how many had to go: unsigned first, then the oldest."""
    surplus = max(0, len(entries) - MAX_ENTRIES)
    going = sorted(range(len(entries)), key=lambda n: (entries[n].error not in UNSIGNED, n))
    gone = set(going[:surplus])
    return tuple(each for n, each in enumerate(entries) if n not in gone), surplus


def _with_checksum(body: bytes) -> bytes:
    return b"%b\n%b\n" % (body, content_id(body).encode())


def _bounded(text: str, characters: int) -> str:
    """At most so many characters, each of which can be written as UTF-8."""
    written = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return written if len(written) <= characters else written[: characters - 1] + "…"
