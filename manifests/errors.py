"""Every error genctl raises on purpose, in one tree, classed by what the caller should do.

========================  =========  ==================================================
class                     exit code  what to do
========================  =========  ==================================================
:class:`InputError`       3          mend the input or the command, then run it again
:class:`WaitError`        4          wait, or ask for less; nothing is broken
:class:`RetryError`       5          run the same command again
:class:`OperatorError`    6          a person must look; the error names its runbook
========================  =========  ==================================================

Each error carries its facts as attributes (``error.facts``) so that a program need not parse the
sentence, and the sentence says what to do next. Exit code 1 is kept for a defect in genctl itself
and 2 for wrong usage of the command line.
"""

from __future__ import annotations

from typing import ClassVar, Self


class GenctlError(Exception):
    """The root of the tree.

    ``facts`` hold ids, sizes and sequence numbers under the names used in the documentation.
    ``runbook`` is the name of a page in ``runbooks/``, or ``None``: the one of its class, or what
    :meth:`with_runbook` was given.
    """

    exit_code: ClassVar[int] = 1
    runbook: str | None = None

    def __init__(self, message: str, /, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def with_runbook(self, runbook: str | None) -> Self:
        """The same error, for which another page than its class's says what to do."""
        self.runbook = runbook
        return self

    @property
    def name(self) -> str:
        """The error's public name, as documentation and tests use it."""
        return type(self).__name__


class InputError(GenctlError):
    """The input or the request is wrong: mend it and run the command again."""

    exit_code = 3


class WaitError(GenctlError):
    """Nothing is broken, but what was asked for is not there yet."""

    exit_code = 4


class RetryError(GenctlError):
    """The same command, run again, is expected to succeed."""

    exit_code = 5


class OperatorError(GenctlError):
    """A person must look at this; the runbook says how."""

    exit_code = 6


class Interrupted(GenctlError):
    """Whoever ran the command ended it by a signal from the keyboard."""

    exit_code = 130


# --- input ----------------------------------------------------------------------------------------


class BadDocument(InputError):
    """A document operation is malformed; the facts name ``file``, ``line`` and ``field``."""


class BadQuery(InputError):
    """A query is malformed: no text, a vector of the wrong length, unknown syntax."""


class BadSetting(InputError):
    """A setting or an option has a value that cannot be used."""


class HomeMissing(InputError):
    """The folder is not a writer's home (or not a node's)."""


class HomeOccupied(InputError):
    """The folder or the store already belongs to something else."""


class NothingToBuild(InputError):
    """The commit log is empty: there is no commit a generation could be built from."""


class NotQuarantined(InputError):
    """No one content of this hash is in the node's quarantine."""


class NothingOfThatName(InputError):
    """Nothing in the home, its record or its stores is called so."""


class GenerationUnknown(InputError):
    """No generation of this id is known here."""


class GenerationNotPublished(InputError):
    """The generation exists in the writer's home but the signed record does not list it."""


class GenerationCollected(InputError):
    """What was asked for is retained no more; the facts give the range that is."""

    runbook = "collected"


class LeaseUnknown(InputError):
    """The holder has no lease of the generation that could be renewed."""


class GenerationRevoked(InputError):
    """The writer has withdrawn the generation: it is neither activated nor read."""

    runbook = "collected"


# --- wait -----------------------------------------------------------------------------------------


class NotYetActivated(WaitError):
    """No generation holding the requested ``commit_seq`` was activated before the deadline."""


class HomeLocked(WaitError):
    """Another genctl command is at work in this home."""


class NothingPublished(WaitError):
    """The store is a genctl store, but no generation has been activated in it yet."""


class SignaturesMissing(WaitError):
    """A draft of a root has too few signatures yet; the facts name who can still sign."""


# --- retry ----------------------------------------------------------------------------------------


class StoreUnavailable(RetryError):
    """The store did not answer, or answered with a failure of its own."""


class SourceBusy(StoreUnavailable):
    """A peer has as many reads under way as it will; it is asked again in a moment."""


class StoreRefused(StoreUnavailable):
    """The store answers and refuses: mend the credentials, the permissions or its URL first."""

    exit_code = InputError.exit_code


class BuildWorkersLost(RetryError):
    """The executor that a build runs on has no workers, lost them, or waits for one in vain."""


class BodyMismatch(RetryError):
    """An answer is not the range that was asked for: cut short, or a page of something else."""


class TransferDeadline(RetryError):
    """Bytes came too slowly: the read was given up when its time had passed."""


class SignerUnavailable(RetryError):
    """What holds a private key (a key service, a token) did not sign."""


class WriterFenced(RetryError):
    """Another writer moved the record, or a collection deleted what was sent, before the commit."""


# --- operator: the store and the disk -------------------------------------------------------------


class ObjectMissing(OperatorError):
    """An object that a signed record relies on is not in the store."""

    runbook = "unrepairable"


class PartsMissing(OperatorError):
    """Objects in a store, or files in a home, that are needed are not there."""

    runbook = "parts-missing"


class StoreUnsafe(OperatorError):
    """The store accepts a conditional write and ignores the condition: no writer may use it."""

    runbook = "store-unsafe"


class PeerCorrupt(OperatorError):
    """A peer sent bytes that are not the artifact's; it is not asked again for a while."""

    runbook = "untrusted-bytes"


class SizeRefused(OperatorError):
    """A manifest declares more bytes than the limit or the disk allows; nothing was fetched."""

    runbook = "disk"


class ExpansionExceeded(OperatorError):
    """A body arrived compressed; it was not expanded, since its size would be the sender's say."""

    runbook = "untrusted-bytes"


class LengthExceeded(OperatorError):
    """A body is longer than the signed length allows; reading stopped at the limit."""

    runbook = "untrusted-bytes"


class DiskFull(OperatorError):
    """The disk or the quota is full; temporary files were removed."""

    runbook = "disk"


class DiskError(OperatorError):
    """The operating system refused a read, a write or an fsync."""

    runbook = "disk"


class ObjectObstructed(DiskError):
    """Something else stands in a store where an object should be: a folder, a link, a device."""


class UnsafeArtifactName(OperatorError):
    """A name in a manifest could leave its folder or clash with another; nothing was written."""

    runbook = "untrusted-bytes"


# --- operator: manifests and the record -----------------------------------------------------------


class ManifestError(OperatorError):
    """A manifest or control record cannot be accepted."""

    runbook = "untrusted-bytes"


class ManifestHashMismatch(ManifestError):
    """The manifest's bytes do not have the hash that the signed record gives."""


class ManifestLengthMismatch(ManifestError):
    """The manifest is empty, truncated or longer than the signed record says."""


class ManifestMalformed(ManifestError):
    """The bytes are not a canonical document of the expected form."""


class SchemaTooNew(ManifestError):
    """The document was written by a newer genctl; upgrade this one."""


class ManifestIdentityMismatch(ManifestError):
    """The manifest says it is another generation than the record says."""


class ManifestIncomplete(ManifestError):
    """Artifacts are missing, or there are some that the manifest's counts do not explain."""


class CommitRangeGap(ManifestError):
    """The commit range leaves out, or repeats, commits of the generation before it."""


class CollectionUnderWay(OperatorError):
    """A collection that another home of the shard began has not ended; this home waits for it."""

    runbook = "collection-under-way"


class QuarantineCorrupt(OperatorError):
    """What is in quarantine is not known; nothing is fetched until an operator has cleared it."""

    runbook = "divergence"


class EmbedderMismatch(OperatorError):
    """The generation was embedded by something else than what this node embeds queries with."""

    runbook = "embedder-mismatch"


# --- operator: trust ------------------------------------------------------------------------------


class ForeignRecord(OperatorError):
    """The record in the store is not the one that this home signed last; it signs nothing anew."""

    runbook = "key-theft"


class RecordPutBack(OperatorError):
    """The store shows an older record than this home has signed; it signs nothing upon it."""

    runbook = "trust"


class SignedLastCorrupt(OperatorError):
    """What a writer's home knows of the record that it signed last is damaged."""

    runbook = "trust"


class TrustError(OperatorError):
    """The signed metadata cannot be accepted; the active generation goes on serving."""

    runbook = "trust"


class UnsignedRecord(TrustError):
    """The metadata is not signed by the keys that the trusted root names."""


class WrongRecordType(TrustError):
    """The metadata of one role was offered in the place of another's."""


class BadRootRotation(TrustError):
    """The next root of trust is not one that the root before it, and itself, have signed."""


class MixAndMatch(TrustError):
    """Metadata that is signed, but is not what the newer metadata above it names."""


class MetadataRollback(TrustError):
    """The store offers metadata older than what was already seen here."""


class BelowMinimumVersion(TrustError):
    """The record is older than the version that this new node was told to start from."""


class VersionJump(TrustError):
    """A version is further ahead of the last one than any writer gets; it is not believed."""


class ForkDetected(TrustError):
    """Two different, validly signed documents of one version: somebody else has the keys too."""

    runbook = "fork"


class FreezeSuspected(TrustError):
    """The metadata has expired: someone may be holding back newer records."""

    runbook = "freeze"


class ClockSuspect(TrustError):
    """The clock here disagrees with signed times or the store's: expiry cannot be judged by it."""

    runbook = "clock"


class TrustStateCorrupt(TrustError):
    """The node's own trust state is damaged and must be re-pinned by an operator."""

    runbook = "trust-state"


class UnsignedRollback(TrustError):
    """The record names an older generation but is not a rollback record."""


# --- operator: symbols and artifacts --------------------------------------------------------------


class BadSymbolSet(OperatorError):
    """The symbols offered for a decode are not a set that can be decoded."""

    runbook = "unrepairable"


class Unrepairable(OperatorError):
    """More symbols of an artifact are lost or damaged than it was built to survive."""

    runbook = "unrepairable"


class ArtifactHashMismatch(OperatorError):
    """A file does not have the hash that the manifest gives; it was not opened."""

    runbook = "damaged-artifact"


# --- operator: activation -------------------------------------------------------------------------


class ActivationFailed(OperatorError):
    """The generation is intact but did not prove itself; the active one keeps serving."""

    runbook = "activation-failed"


class LeaseExpired(OperatorError):
    """A lease ended before it was renewed, and its generation was collected meanwhile."""

    runbook = "lease-expired"


class ReplayDiffers(OperatorError):
    """The shipped generation is not what its commit log comes to; the report names what differs."""

    runbook = "replay-differs"


class PointerCorrupt(OperatorError):
    """The pointer to the active generation is damaged; a bootstrap restores it from the record."""

    runbook = "pointer-corrupt"


class AuditCorrupt(OperatorError):
    """The audit trail is damaged, or does not account for what is served; nothing else is."""

    runbook = "audit"


# --- operator: the commit log ---------------------------------------------------------------------


class LogCorrupt(OperatorError):
    """The commit log is damaged before its end; the facts name ``segment`` and ``offset_bytes``."""

    runbook = "log-corrupt"
