"""What an operator does with the keys of a home: replace, revoke, renew, set how many must sign.

Every change is a new root of trust; :mod:`controller.root_drafts` gets it signed and published.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.metadata import Root

from builder import root_metadata
from builder.keys import (
    ROOT,
    RoleName,
    create_key,
    is_encrypted,
    public_path,
    read_public,
)
from builder.root_draft import Draft
from builder.signers import SignerReference
from controller import passphrases, root_drafts, settings
from controller.root_drafts import Change, RootReport
from controller.signing_home import ROOT_FILE
from controller.writer import WriterHome
from durable import files
from manifests.errors import BadSetting
from store.signed import trusted_root

ROOT_WARNING = timedelta(days=180)
"""So long before a root expires, everything that shows it says so."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """The key that a role is to be given.

    With neither ``signer`` nor ``public``, one is made in the home. ``signer`` is a reference as
    :class:`builder.signers.SignerReference` has them; ``public`` is the file of the public part,
    needed for a signer that is neither a file nor a variable, and enough for a root key that is
    held elsewhere. One that is made is encrypted if there is a passphrase; with ``encrypt``, or if
    a key of the role that this home has is, it must be.
    """

    signer: str | None = None
    public: Path | None = None
    encrypt: bool = False

    @property
    def is_made_here(self) -> bool:
        """Whether it is a key that is still to be made."""
        return self.signer is None and self.public is None


def rotate(
    writer: WriterHome,
    name: RoleName,
    new: NewKey,
    *,
    instead_of: str | None = None,
    add: bool = False,
) -> RootReport:
    """Give a role a new key in the place of one that it has, or besides those with ``add``.

    Run again after it was killed, it goes on with the key that it made.

    Raises:
        BadSetting: it is not clear which key goes, or the new one cannot be used.
        WriterFenced, StoreUnavailable, SignerUnavailable: run it again.
    """

    def make(root: Root, version: int) -> Root:
        key, reference = _new_key(writer, name, new, version)
        keyids = root_metadata.role_table(root)[name].keyids
        if key.keyid in keyids:
            _refuse_left(name, new, [each for each in keyids if each != key.keyid], instead_of)
            return root
        if instead_of is not None:
            _refuse_gone(writer, name, keyids, instead_of)
        gone = None if add else _key_to_go(name, keyids, instead_of)
        edited = root_metadata.with_key(root, name, key, gone)
        if reference is not None:
            _remember(writer, name, reference)
        return edited

    def is_made(draft: Draft) -> bool:
        private = _made_path(writer, name, draft.root.version)
        if not (new.is_made_here and private.exists() and public_path(private).exists()):
            return False
        keyids = root_metadata.role_table(draft.root)[name].keyids
        is_left = instead_of is not None and any(
            each.startswith(instead_of.lower()) for each in keyids
        )
        return read_public(public_path(private)).keyid in keyids and not is_left

    return root_drafts.change(writer, Change("rotate the key", make, is_made))


def _refuse_left(name: RoleName, new: NewKey, others: list[str], instead_of: str | None) -> None:
    """Refuse to put a key that the role has in the place of another, which would stay.

    Raises:
        BadSetting: ``instead_of`` is one of the ``others``.
    """
    for keyid in others:
        if instead_of is None or not keyid.startswith(instead_of.lower()):
            continue
        if new.is_made_here:
            raise BadSetting(
                f"a {name} key that was made here waits in the draft already. Publish it first, or "
                f"make another with `genctl keys init FILE` and give it with --signer file:FILE "
                f"(where only its FILE.pub is here, with --public)",
                role=name,
            )
        raise BadSetting(
            f"{name} has this key already, besides {keyid[:16]}…; take that one away with "
            f"`genctl keys revoke HOME {keyid[:16]}`",
            role=name,
        )


def _refuse_gone(writer: WriterHome, name: RoleName, keyids: list[str], instead_of: str) -> None:
    """Refuse to replace a key that the draft takes away, though the root has it still.

    Raises:
        BadSetting: ``instead_of`` is such a key.
    """
    published = root_metadata.role_table(trusted_root(writer.root_bytes()))[name].keyids
    start = instead_of.lower()
    gone = [each for each in published if len(start) >= 8 and each.startswith(start)]
    if gone and not any(each.startswith(start) for each in keyids):
        raise BadSetting(
            f"the draft that waits has taken {gone[0][:16]} away from {name} already; give the "
            "role another key with --add instead of --replace",
            role=name,
        )


def _made_path(writer: WriterHome, name: RoleName, version: int) -> Path:
    """The key that a root brings is named by it: who was killed finds it when run again."""
    return writer.home / "keys" / f"{name}-{version}.pem"


def _key_to_go(name: RoleName, keyids: list[str], instead_of: str | None) -> str:
    if instead_of is not None:
        return root_metadata.find_keyid(instead_of, keyids)
    if len(keyids) != 1:
        raise BadSetting(
            f"{name} has {len(keyids)} keys; say with --replace which one goes, or --add: "
            f"{', '.join(f'{keyid[:16]}…' for keyid in keyids)}"
        )
    return keyids[0]


def _new_key(
    writer: WriterHome, name: RoleName, new: NewKey, version: int
) -> tuple[Key, SignerReference | None]:
    """The new key, and where this home finds its private part."""
    public = None if new.public is None else read_public(new.public)
    if new.signer is None and public is not None:
        if name != ROOT:
            raise BadSetting(
                f"this home must sign with its {name} key; say with --signer where the private "
                "part is"
            )
        return public, None
    if new.signer is None:
        path = _made_path(writer, name, version)
        files.make_folder(path.parent, private=True)
        key = create_key(
            path,
            functools.partial(
                passphrases.for_new_key,
                must_encrypt=new.encrypt or _is_encrypted_here(writer, name),
            ),
            passphrases.ask,
        )
        return key, SignerReference(uri=f"file:keys/{path.name}", keyid=key.keyid)
    given = settings.made(
        SignerReference, uri=new.signer, keyid=None if public is None else public.keyid
    )
    if public is None and given.scheme not in {"file", "env"}:
        raise BadSetting(f"{given.shown} needs --public FILE, the public part of its key")
    key = writer.key_ring.open(given, public).public_key
    return key, given.model_copy(update={"keyid": key.keyid})


def _is_encrypted_here(writer: WriterHome, name: RoleName) -> bool:
    ring = writer.key_ring
    references: tuple[SignerReference, ...] = getattr(writer.settings.signers, name)
    return any(is_encrypted(ring.path(each)) for each in references if each.scheme == "file")


def _remember(writer: WriterHome, name: RoleName, reference: SignerReference) -> None:
    known: tuple[SignerReference, ...] = getattr(writer.settings.signers, name)
    if reference not in known:
        _save_signers(writer, {name: (*known, reference)})


def _save_signers(writer: WriterHome, changed: Mapping[str, tuple[SignerReference, ...]]) -> None:
    signers = writer.settings.signers.model_copy(update=changed)
    writer.settings = writer.settings.model_copy(update={"signers": signers})
    settings.save(writer.home / settings.WRITER_FILE, writer.settings)


def revoke(writer: WriterHome, keyid: str) -> RootReport:
    """Take a key away from every role that has it; ``keyid`` may be its first eight digits.

    Raises:
        BadSetting: no role has it, or one would have too few keys left.
        WriterFenced, StoreUnavailable, SignerUnavailable: run it again.
    """

    def make(root: Root, version: int) -> Root:  # noqa: ARG001 - all changes are called alike
        return root_metadata.without_key(root, root_metadata.find_keyid(keyid, root.keys))

    def is_made(draft: Draft) -> bool:
        before = draft.root_before
        known = {**(before.keys if before else {}), **draft.root.keys}
        return root_metadata.find_keyid(keyid, known) not in draft.root.keys

    return root_drafts.change(writer, Change("revoke the key", make, is_made))


def threshold(writer: WriterHome, name: RoleName, number: int) -> RootReport:
    """Set how many keys of a role must sign.

    Raises:
        BadSetting: the role has fewer, or this home could not sign any more.
        WriterFenced, StoreUnavailable, SignerUnavailable: run it again.
    """

    def make(root: Root, version: int) -> Root:  # noqa: ARG001 - all changes are called alike
        edited = root_metadata.with_threshold(root, name, number)
        if name != ROOT:
            writer.key_ring.sign_as(edited, name, getattr(writer.settings.signers, name))
        return edited

    def is_made(draft: Draft) -> bool:
        return root_metadata.role_table(draft.root)[name].threshold == number

    return root_drafts.change(writer, Change("set the threshold", make, is_made))


def renew(writer: WriterHome) -> RootReport:
    """Make the next root with the same keys, so that it expires later.

    A draft that waits already expires later; it is signed with what is here.

    Raises:
        BadSetting: a key cannot be used.
        WriterFenced, StoreUnavailable, SignerUnavailable: run it again.
    """

    def make(root: Root, version: int) -> Root:  # noqa: ARG001 - all changes are called alike
        return root

    def is_made(draft: Draft) -> bool:  # noqa: ARG001 - any root that was just made is as good
        return True

    return root_drafts.change(writer, Change("renew the root", make, is_made, renews=True))


def forget_retired(writer: WriterHome) -> list[str]:
    """Drop references to keys that the newest root does not name, and tell where those are.

    The private parts stay where they are: removing them is for the operator.

    Raises:
        HomeLocked: another command holds the home.
    """
    if not _retired(writer)[0]:
        return []
    with writer.exclusively("tidy the settings"):
        retired, changed = _retired(writer)
        if changed:
            _save_signers(writer, changed)
    return retired


def _retired(writer: WriterHome) -> tuple[list[str], dict[str, tuple[SignerReference, ...]]]:
    """Where retired keys are, and the references that stay, of roles that have retired ones."""
    root = trusted_root(writer.root_bytes())
    if root_drafts.read_home(writer) is not None:
        return [], {}  # what a draft brings is not named yet
    retired: list[str] = []
    changed: dict[str, tuple[SignerReference, ...]] = {}
    for name, role in root_metadata.role_table(root).items():
        known: tuple[SignerReference, ...] = getattr(writer.settings.signers, name)
        keyids = {reference: writer.key_ring.keyid(reference) for reference in known}
        gone = [each for each in known if keyids[each] and keyids[each] not in role.keyids]
        kept = tuple(each for each in known if each not in gone)
        if gone and kept:
            changed[name] = kept
            retired += [each.shown for each in gone]
    return retired, changed


def root_expires_soon(writer: WriterHome, now: datetime) -> datetime | None:
    """When the newest root expires, if that is soon."""
    expires = trusted_root((writer.home / ROOT_FILE).read_bytes()).expires
    return expires if expires - now < ROOT_WARNING else None


def make_key(path: Path, *, must_encrypt: bool) -> Key:
    """Make a key file on a machine without any home; one that is there is kept.

    Raises:
        BadSetting: there is a file that is no usable key, or no passphrase to encrypt it with.
        DiskFull, DiskError: the disk refuses.
    """
    files.make_folder(path.absolute().parent)
    return create_key(
        path,
        functools.partial(passphrases.for_new_key, must_encrypt=must_encrypt),
        passphrases.ask,
    )
