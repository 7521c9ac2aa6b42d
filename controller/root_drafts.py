"""Drafts of a root: kept in the home, carried to who signs them, brought back, published.

Publishing a root takes these steps, each of which can be run again: ``N.root.json`` is created in
all stores; ``HOME/root.json`` becomes the new root; the record is signed anew if its keys changed;
the draft is removed. Whatever signs in a home (:meth:`WriterHome.ready_to_sign`) takes up a root
that it finds in the store, so nothing is lost where a command was killed between two steps. A root
change only follows the root first (:meth:`WriterHome.follow_root`): it needs none of the keys that
the root names, so that one that was lost meanwhile can be replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root

from builder.keys import MAX_KEY_FILE_BYTES
from builder.published_roots import publish_root
from builder.root_draft import Draft, Lacking, parse_draft
from builder.root_metadata import changes, next_root, with_shard
from builder.signers import KeyRing, SignerReference, sign
from controller import clock
from controller.signing_home import DRAFT_FILE, ROOT_FILE
from controller.writer import WriterHome
from durable import files
from manifests.errors import BadSetting, HomeMissing, SignaturesMissing, TrustError
from store.signed import LIMITS_BYTES, trusted_root

MAX_DRAFT_BYTES = 2 * LIMITS_BYTES[Root.type] + MAX_KEY_FILE_BYTES


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the root, as a command asks for it.

    Attributes:
        purpose: what for, as an imperative, for messages.
        make: given a root and the version that it will be published as, gives it changed.
        is_made: whether a draft has the change already: the same command was killed after it.
        renews: the next root is made even if nothing changes but the time when it expires.
    """

    purpose: str
    make: Callable[[Root, int], Root]
    is_made: Callable[[Draft], bool]
    renews: bool = False


@dataclass(frozen=True, slots=True)
class RootReport:
    """What became of a change of the root: ``lacking`` is empty when it is published.

    ``changed`` is false if the root, or the draft that waits, was so before. ``withdrawn`` is true
    if the change took back all that the draft would have changed, so that it is gone.
    """

    version: int
    draft: Path
    lacking: tuple[Lacking, ...]
    changed: bool = True
    withdrawn: bool = False

    @property
    def published(self) -> bool:
        """Whether nodes follow it."""
        return not self.lacking


def path_of(writer: WriterHome) -> Path:
    """Where a home keeps the draft that waits for signatures."""
    return writer.home / DRAFT_FILE


def read(path: Path) -> Draft:
    """A draft from a file.

    Raises:
        BadSetting: there is none, or it is none that can be signed.
    """
    return parse_draft(_read(path, MAX_DRAFT_BYTES, "draft"), str(path))


def _read(path: Path, limit_bytes: int, what: str) -> bytes:
    try:
        if not path.is_file():
            raise BadSetting(f"there is no {what} {path}")
        if path.stat().st_size > limit_bytes:
            raise BadSetting(f"{path} is too long to be a {what}")
        return path.read_bytes()
    except OSError as error:
        raise BadSetting(f"{path} cannot be read: {error.strerror}") from error


def check_before(draft: Draft, path: Path) -> None:
    """Refuse a draft that does not follow on the root in ``path``, its holder's own copy.

    Raises:
        BadSetting: it follows on another; or the file is no root.
    """
    try:
        draft.check_before(_read(path, LIMITS_BYTES[Root.type], "root"))
    except TrustError as error:
        raise BadSetting(f"{path} is no root of trust: {error.message}") from error


def read_home(writer: WriterHome) -> Draft | None:
    """The draft that waits in a home, if it is not published already."""
    path = path_of(writer)
    if not path.exists():
        return None
    draft = read(path)
    root = writer.home / ROOT_FILE
    if root.exists() and draft.root.version <= trusted_root(root.read_bytes()).version:
        return None
    return draft


def is_first_unfinished(writer: WriterHome) -> bool:
    """Whether the draft is of a first root, and the record that it trusts was never signed.

    So it is while the holders sign, and where a command was killed or refused after they did.
    """
    path = path_of(writer)
    return path.exists() and not writer.signed_last.path.exists() and read(path).before is None


def save(writer: WriterHome, draft: Draft) -> None:
    """Keep a draft in the home."""
    files.replace_file(path_of(writer), [draft.to_bytes()])


def drop_published(writer: WriterHome) -> Draft | None:
    """Remove a draft that is published, or that another root came before.

    One of a first root stays until the first record is signed: by it ``init`` knows that there was
    none. Returns the draft if it is the root that is published.
    """
    path = path_of(writer)
    if not path.exists() or is_first_unfinished(writer) or read_home(writer) is not None:
        return None
    draft = read(path)
    files.remove_file(path)
    return draft if _is_published(writer, draft) else None


def sign_at_hand(writer: WriterHome, draft: Draft) -> Draft:
    """The draft, signed by those of its root keys that this home has, until it is complete.

    Raises:
        BadSetting: a key file is there and cannot be used.
        SignerUnavailable: a key service does not answer.
    """
    ring = writer.key_ring
    for reference in writer.settings.signers.root:
        if not draft.lacking():
            break
        keyid = ring.keyid(reference)
        if keyid not in {None, *draft.signer_ids()} or not ring.is_here(reference):
            continue
        draft = with_signature(draft, ring.open(reference, draft.key(keyid or "")))
    return draft


def with_signature(draft: Draft, signer: Signer) -> Draft:
    """The draft with one signature more, if it counts and is not there."""
    keyid = signer.public_key.keyid
    if keyid not in draft.signer_ids() or keyid in draft.metadata.signatures:
        return draft
    metadata = Metadata(draft.root, dict(draft.metadata.signatures))
    sign(metadata, [signer])
    return Draft(draft.shard, draft.before, metadata)


def sign_file(
    path: Path, draft: Draft, reference: SignerReference, ring: KeyRing
) -> tuple[Draft, bool]:
    """Sign ``draft``, as it was read from ``path`` and shown, and put it there.

    It takes no home and no network. Returns the draft, and whether the key had signed it before.

    Raises:
        BadSetting: no usable key, or one whose signature would not count.
    """
    signer = ring.open(reference, draft.key(reference.keyid or ""))
    keyid = signer.public_key.keyid
    if keyid not in draft.signer_ids():
        raise BadSetting(
            f"{reference.shown} is the key {keyid[:16]}…, which is not among the root keys whose "
            "signatures count here; sign with one of those that the draft names"
        )
    signed = with_signature(draft, signer)
    if signed is not draft:
        files.replace_file(path, [signed.to_bytes()])
    return signed, signed is draft


def change(writer: WriterHome, wanted: Change) -> RootReport:
    """Make the next root, or change the one that waits, and publish it if it can be signed here.

    Changes gather in the draft until it is published; what others signed before a change does not
    count after it. What changes nothing makes no new root, and a draft that would change nothing
    any more is removed.

    Raises:
        BadSetting: the change is refused, or a key cannot be used.
        HomeMissing: the first root is not published yet.
        WriterFenced, StoreUnavailable, SignerUnavailable: run it again, or ``keys publish``.
    """
    with writer.exclusively(wanted.purpose):
        writer.follow_root()
        if is_first_unfinished(writer):
            raise HomeMissing(
                f"the first record of {writer.home} is not signed yet; finish that with "
                f"`genctl keys publish {writer.home}`, then change the keys"
            )
        finished = drop_published(writer)
        if finished is not None and wanted.is_made(finished):
            writer.ready_to_sign()
            return RootReport(finished.root.version, path_of(writer), ())
        root = writer.root_bytes()
        waiting = read_home(writer)
        start = waiting.root if waiting else trusted_root(root)
        edited = start
        if waiting is None or not wanted.is_made(waiting):
            edited = wanted.make(start, trusted_root(root).version + 1)
        is_new = edited != start or (wanted.renews and waiting is None)
        shard = writer.settings.shard
        if waiting and is_new and not changes(with_shard(trusted_root(root), shard), edited):
            files.remove_file(path_of(writer))
            writer.ready_to_sign()
            return RootReport(trusted_root(root).version, path_of(writer), (), withdrawn=True)
        if is_new:
            following = edited if waiting else next_root(edited, clock.now())
            waiting = Draft(shard, root, Metadata(with_shard(following, shard)))
            save(writer, waiting)
        if waiting is None:
            writer.ready_to_sign()
            return RootReport(start.version, path_of(writer), (), changed=False)
        report = _finish(writer, waiting)
        return replace(report, changed=is_new or report.published)


def publish(writer: WriterHome, paths: Sequence[Path]) -> RootReport:
    """Take home the signatures that drafts brought, and publish the root if they are enough.

    Without anything left to publish, it still finishes what a killed command left undone.

    Raises:
        BadSetting: a draft is of another root.
        SignaturesMissing: there are not enough.
        WriterFenced, StoreUnavailable, SignerUnavailable: run it again.
    """
    with writer.exclusively("publish the root"):
        writer.follow_root()
        drop_published(writer)
        draft = gathered(writer, paths)
        if draft is None:
            writer.ready_to_sign()
            version = trusted_root(writer.root_bytes()).version
            return RootReport(version, path_of(writer), (), changed=False)
        report = _finish(writer, draft)
        refuse_lacking(report)
        return report


def gathered(writer: WriterHome, paths: Sequence[Path]) -> Draft | None:
    """The home's draft with the signatures of the drafts in ``paths``.

    ``None`` if it is published.

    Raises:
        BadSetting: one of them is of another root.
    """
    home = read_home(writer)
    for path in paths:
        brought = read(path)
        if home is None:
            if not _is_published(writer, brought):
                raise BadSetting(
                    f"{path} is not of a root that waits in {writer.home}; `genctl keys show` tells"
                )
        elif not brought.is_same_root(home):
            raise BadSetting(
                f"{path} is of another root than {path_of(writer)}: the draft was changed since. "
                "Have the new one signed"
            )
        else:
            home = home.with_signatures_of(brought)
    if home is not None:
        save(writer, home)
    return home


def _is_published(writer: WriterHome, draft: Draft) -> bool:
    root = writer.home / ROOT_FILE
    if not root.exists():
        return False
    return Metadata[Root].from_bytes(root.read_bytes()).signed_bytes == draft.metadata.signed_bytes


def _finish(writer: WriterHome, draft: Draft) -> RootReport:
    """Sign with what is here; publish if that is enough."""
    signed = sign_at_hand(writer, draft)
    if signed is not draft:
        save(writer, signed)
    report = RootReport(signed.root.version, path_of(writer), signed.lacking())
    if report.published:
        publish_root(writer.store(), signed.root_bytes())
        writer.ready_to_sign()
        drop_published(writer)
    return report


def refuse_lacking(report: RootReport) -> None:
    """Refuse a draft that is not complete.

    Raises:
        SignaturesMissing: naming the keys that can still sign.
    """
    if report.published:
        return
    raise SignaturesMissing(
        f"root version {report.version} lacks signatures: {told_lacking(report.lacking)}. Carry "
        f"{report.draft} to who holds them: `genctl keys sign DRAFT --key FILE`",
        draft=str(report.draft),
        lacking=[[each.root_version, each.needed, list(each.keyids)] for each in report.lacking],
    )


def told_lacking(lacking: Sequence[Lacking]) -> str:
    """Which signatures are missing, in words."""
    return "; ".join(
        f"{each.needed} more of the root keys of version {each.root_version} "
        f"({', '.join(f'{keyid[:16]}…' for keyid in each.keyids)})"
        for each in lacking
    )
