"""Writers that race for the record of one shard, and what must hold when they have.

A *race* is one version of the record that at least two writers read and tried to replace. Writers
are production :class:`builder.repository.Repository` objects with real keys; each commit publishes
one generation of a manifest of its own and is signed, put and swapped as ``genctl publish`` does.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata

from builder.keys import RoleName
from builder.repository import CurrentState, Repository
from builder.root_metadata import first_root
from builder.signers import sign
from manifests.errors import StoreUnavailable, WriterFenced
from manifests.names import manifest_target, target_key
from manifests.record import ControlRecord, GenerationEntry
from manifests.record_changes import with_published
from store.port import Store
from store.signed import SignedState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIFETIME = timedelta(days=7)
REFRESH_EVERY = 6

End = Literal["acknowledged", "fenced", "fenced, unknown", "failed"]


class Shard:
    """The keys and the root of one shard; can be handed to another process."""

    def __init__(self) -> None:
        root_key = CryptoSigner.generate_ed25519()
        self._targets_pem = CryptoSigner.generate_ed25519().private_bytes
        self._online_pem = CryptoSigner.generate_ed25519().private_bytes
        keys = self._keys()
        root = Metadata(
            first_root(
                {
                    "root": [root_key.public_key],
                    "targets": [signer.public_key for signer in keys["targets"]],
                    "online": [signer.public_key for signer in keys["online"]],
                },
                root_threshold=1,
                now=NOW,
            )
        )
        sign(root, [root_key])
        self.root = root.to_bytes()

    def repository(self, store: Store) -> Repository:
        """The shard's repository in ``store``, as one more writer has it."""
        keys = self._keys()
        return Repository(store, self.root, keys.__getitem__, LIFETIME)

    def create(self, store: Store) -> None:
        """Put the first, empty record in ``store``."""
        record = ControlRecord(shard="main", kind="publish", writer_epoch=1)
        assert self.repository(store).create(record, NOW)

    def _keys(self) -> dict[RoleName, list[Signer]]:
        def signer(pem: bytes) -> CryptoSigner:
            return CryptoSigner(load_pem_private_key(pem, password=None))

        return {"targets": [signer(self._targets_pem)], "online": [signer(self._online_pem)]}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One commit: of which generation, on which version of the record, and how it ended.

    ``generation_id`` is ``None`` for a refresh, which signs the record as it is once more.
    """

    generation_id: str | None
    base_version: int
    end: End


@dataclass(slots=True)
class Writer:
    """One of the racing writers, and what it saw."""

    number: int
    repository: Repository
    attempts: list[Attempt] = field(default_factory=list)

    def work(self, budget: Iterator[int]) -> None:
        """Publish, and now and then refresh, as long as ``budget`` lasts.

        The record is read anew before each attempt.
        """
        for _ in budget:
            current = self.repository.current()
            generation_id: str | None = None
            end: End = "acknowledged"
            try:
                if (self.number + len(self.attempts)) % REFRESH_EVERY == REFRESH_EVERY - 1:
                    self.repository.refresh(current, NOW)
                else:
                    entry = self._next_entry(current.signed.record)
                    generation_id = entry.generation_id
                    self._publish(current, entry)
            except WriterFenced as error:
                is_known = error.__cause__ is None
                end = "fenced" if is_known else "fenced, unknown"
            except StoreUnavailable:
                end = "failed"
            version = current.signed.timestamp.version
            self.attempts.append(Attempt(generation_id, version, end))

    def _publish(self, current: CurrentState, entry: GenerationEntry) -> None:
        path = manifest_target(entry.generation_id)
        record = with_published(current.signed.record, entry, NOW)
        self.repository.commit(current, record, NOW, [(path, entry.generation_id.encode())])

    def _next_entry(self, record: ControlRecord) -> GenerationEntry:
        """An entry of one commit that may follow ``record``, and that no other attempt has."""
        newest = record.published[-1] if record.published else None
        low_seq = newest.high_seq + 1 if newest else 1
        return GenerationEntry(
            generation_id=f"g{low_seq:012d}-{self.number:06x}{len(self.attempts):06x}",
            manifest_id="0" * 64,
            manifest_size_bytes=1,
            low_seq=low_seq,
            high_seq=low_seq,
            parent_generation_id=newest.generation_id if newest else None,
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of some rounds."""

    races: int = 0
    attempts: int = 0
    ends: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.races + other.races, self.attempts + other.attempts, self.ends + other.ends
        )


def tally(logs: Sequence[Sequence[Attempt]]) -> Tally:
    """Count the races and the ends of the attempts."""
    attempts = [attempt for log in logs for attempt in log]
    tried = Counter(attempt.base_version for attempt in attempts)
    return Tally(
        races=sum(times > 1 for times in tried.values()),
        attempts=len(attempts),
        ends=Counter(attempt.end for attempt in attempts),
    )


def violations(shard: Shard, store: Store, logs: Sequence[Sequence[Attempt]]) -> list[str]:
    """What does not hold of a store that held the first record before these attempts, in words."""
    signed = shard.repository(store).current().signed
    published = [entry.generation_id for entry in signed.record.published]
    places = {generation_id: place for place, generation_id in enumerate(published)}
    attempts = sorted((a for log in logs for a in log), key=lambda attempt: attempt.base_version)
    acknowledged = [attempt for attempt in attempts if attempt.end == "acknowledged"]
    unknown = [attempt for attempt in attempts if attempt.end == "fenced, unknown"]

    # Two refreshes of one version are the same bytes: where answers are lost, both may count.
    commits = {(attempt.base_version, attempt.generation_id) for attempt in acknowledged}
    found = [
        f"two commits were acknowledged on version {version}"
        for version, times in Counter(version for version, _ in commits).items()
        if times > 1
    ]
    kept = [a for a in acknowledged if a.generation_id is None or a.generation_id in places]
    found += [f"{attempt} is not in the history" for attempt in acknowledged if attempt not in kept]
    order = [places[a.generation_id] for a in kept if a.generation_id is not None]
    if order != sorted(order):
        found.append(f"{published} is not the order of {kept}")
    reasons = {attempt.generation_id for attempt in (*acknowledged, *unknown)}
    found += [f"{each} is there without a reason" for each in published if each not in reasons]

    least = 1 + len(commits) + sum(attempt.generation_id in places for attempt in unknown)
    most = least + sum(attempt.generation_id is None for attempt in unknown)
    if not least <= signed.timestamp.version <= most:
        found.append(f"version {signed.timestamp.version} is not one of {least} to {most}")
    for log in logs:
        # A writer's next attempt starts from its own commit, or from a later one.
        found += [
            f"the versions went back from {before} to {after}"
            for before, after in itertools.pairwise(log)
            if after.base_version < before.base_version + (before.end != "failed")
        ]
    return found + _lost_manifests(signed, store)


def _lost_manifests(signed: SignedState, store: Store) -> list[str]:
    found = []
    for entry in signed.record.published:
        target = signed.targets.targets.get(manifest_target(entry.generation_id))
        if target is None or target.length != len(entry.generation_id):
            found.append(f"the manifest of {entry.generation_id} is not signed")
        elif store.stat(target_key(target.path, target.hashes["sha256"])) is None:
            found.append(f"the manifest of {entry.generation_id} is not in the store")
    return found
