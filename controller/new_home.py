"""Making a writer's home: keys, root of trust, and an empty signed record in the store.

Either all keys are made here and the home is ready at once, or the root of trust names root keys
that others hold: then it waits as a draft until enough of them have signed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError

from builder.keys import ONLINE, ROOT, TARGETS, create_key, read_public
from builder.published_roots import FIRST_KEY, published_root
from builder.root_draft import Draft
from builder.root_metadata import first_root, with_shard
from controller import clock, passphrases, root_drafts, settings, wiring
from controller.root_drafts import RootReport
from controller.signing_home import ROOT_FILE
from controller.writer import WriterHome
from durable import files
from index.embedding import make_embedder
from manifests.errors import BadSetting, HomeOccupied
from manifests.record import ControlRecord
from store.locate import open_store
from store.port import Store
from store.signed import LIMITS_BYTES, trusted_root
from store.spread import SpreadStore

KNOWN_NAMES = {
    "settings.json",
    "root.json",
    "root_before.json",
    "root_draft.json",
    "signed_last.json",
    "replaced_timestamp.json",
    "audit.jsonl",
    "keys",
    "log",
    "artifacts",
    "tables",
    "generations",
    "symbols",
    "draft",
    "merges",
    "intact.json",
    "lock",
}


@dataclass(frozen=True, slots=True)
class RootHolders:
    """Root keys that others hold, and how many of them must sign."""

    public_files: Sequence[Path]
    threshold: int | None = None
    """More than half of them when it is ``None``."""


def init_home(
    home: Path,
    wanted: settings.WriterSettings,
    holders: RootHolders | None = None,
    *,
    encrypt: bool = False,
) -> bool:
    """Make a home and claim its stores; run again, it finishes what is missing.

    As long as a home has no keys, no root of trust and no commits, its settings may be corrected.
    Keys are encrypted if there is a passphrase; with ``encrypt``, there must be one.

    Returns whether the stores had to be given its first record. They are given none as long as the
    root of trust is a draft (:mod:`controller.root_drafts`) that lacks signatures.

    Raises:
        BadSetting: no such embedder, impossible dimensions, unknown store, or a key is missing
            that the root of trust names.
        HomeOccupied: the folder holds something else, or a store is another home's.
        ObjectMissing: generations were built here and a record was signed, but the first store has
            none any more.
    """
    make_embedder(wanted.embedder, wanted.dimensions)
    for url in wanted.stores:
        if Path(open_store(url).url).is_relative_to(home.absolute()):
            raise BadSetting(f"the store {url} is inside the home {home}; keep them apart")
    for public_file in holders.public_files if holders else ():
        read_public(public_file)  # refused before anything is made
    settings.refuse_foreign(home, KNOWN_NAMES)
    files.make_folder(home)
    with files.locked(home / "lock", "run init"):
        path = home / settings.WRITER_FILE
        if not path.exists():
            settings.save(path, wanted)
        writer = WriterHome(home)
        if writer.settings.model_copy(update={"signers": wanted.signers}) != wanted:
            if _is_begun(home):
                raise HomeOccupied(
                    f"{home} was made with other settings than these; they are in {path}. Give the "
                    "same ones, or use another folder; where a store has moved, correct that file"
                )
            settings.save(path, wanted)
            writer = WriterHome(home)
        files.remove_temporaries(home)
        files.make_folder(home / "log")
        stores = wiring.open_stores(wanted.stores, create=True)
        if not _settle_trust(writer, stores, holders, encrypt=encrypt):
            return False
        if writer.residence.resident_ids() and writer.signed_last.read() is not None:
            writer.current()  # a store that lost its record is not given an empty one
        record = ControlRecord(shard=wanted.shard, kind="publish", writer_epoch=wanted.writer_epoch)
        was_made = writer.repository().create(record, clock.now())
        root_drafts.drop_published(writer)
        return was_made


def _is_begun(home: Path) -> bool:
    """Whether anything was made by the settings of this home."""
    log = home / "log"
    return (
        any((home / "keys").glob("*.pem"))
        or (home / ROOT_FILE).exists()
        or (log.exists() and any(log.iterdir()))
    )


def _settle_trust(
    writer: WriterHome, stores: SpreadStore, holders: RootHolders | None, *, encrypt: bool
) -> bool:
    """Have keys and a root that names them; keys are made only where there is no root yet.

    Returns whether the root is there; if not, a draft of it is.
    """
    root = writer.home / ROOT_FILE
    ring = writer.key_ring
    if root.exists():
        _check_holders(root.read_bytes(), holders)
        for role in (TARGETS, ONLINE):
            writer.keys(role)  # what is missing is told now, not at the first publish
    keyids = {ring.keyid(each) for each in writer.settings.signers.targets} - {None}
    # One by one: a store of another home is refused before anything is written to any of them.
    found = [published_root(store, {str(keyid) for keyid in keyids}) for store in stores.stores]
    if root.exists():
        return True
    published = next((data for data in found if data is not None), None)
    if published is None or root_drafts.read_home(writer) is not None:
        draft = root_drafts.sign_at_hand(writer, _first_draft(writer, holders, encrypt=encrypt))
        for store in stores.stores:
            _refuse_another_first(store, draft)
        if draft.lacking():
            root_drafts.save(writer, draft)
            return False
        published = draft.root_bytes()
    else:
        _check_holders(published, holders)
    files.create_file(root, [published])
    return True


def _refuse_another_first(store: Store, draft: Draft) -> None:
    """Refuse a store with another first root than the one whose holders were asked to sign.

    Raises:
        HomeOccupied: it has one. The keys that it names say nothing: a draft is no secret.
    """
    held = store.get_versioned(FIRST_KEY, limit_bytes=LIMITS_BYTES[Root.type])
    if held is not None and not _is_of(held.data, draft):
        raise HomeOccupied(
            f"{store.url} has another {FIRST_KEY} than the one that is being signed here: somebody "
            "else wrote it. Find out who; then remove it, or choose an empty place",
            store=store.url,
        )


def _is_of(root: bytes, draft: Draft) -> bool:
    try:
        return Metadata[Root].from_bytes(root).signed_bytes == draft.metadata.signed_bytes
    except DeserializationError:
        return False


def _first_draft(writer: WriterHome, holders: RootHolders | None, *, encrypt: bool) -> Draft:
    """The draft that is there, unless other root keys are asked for; else a new one."""
    known = root_drafts.read_home(writer)
    publics = [read_public(path) for path in holders.public_files] if holders else None
    if known is not None and (publics is None or _names(known.root, publics, holders)):
        return known
    made = {
        name: _create(writer, name, must_encrypt=encrypt)
        for name in (ROOT, TARGETS, ONLINE)
        if name != ROOT or publics is None
    }
    roots = [made[ROOT]] if publics is None else publics
    root = first_root(
        {ROOT: roots, TARGETS: [made[TARGETS]], ONLINE: [made[ONLINE]]},
        _threshold(holders, len(roots)),
        clock.now(),
    )
    shard = writer.settings.shard
    return Draft(shard, None, Metadata(with_shard(root, shard)))


def _create(writer: WriterHome, name: str, *, must_encrypt: bool) -> Key:
    folder = writer.home / "keys"
    files.make_folder(folder, private=True)
    return create_key(
        folder / f"{name}.pem",
        functools.partial(passphrases.for_new_key, must_encrypt=must_encrypt),
        passphrases.ask,
    )


def _threshold(holders: RootHolders | None, key_count: int) -> int:
    given = holders.threshold if holders else None
    return key_count // 2 + 1 if given is None else given


def _names(root: Root, publics: Sequence[Key], holders: RootHolders | None) -> bool:
    role = root.roles[Root.type]
    wanted = {key.keyid for key in publics}
    return set(role.keyids) == wanted and role.threshold == _threshold(holders, len(publics))


def _check_holders(root: bytes, holders: RootHolders | None) -> None:
    """Refuse other root keys than those of the root that is there."""
    if holders is None:
        return
    publics = [read_public(path) for path in holders.public_files]
    if not _names(trusted_root(root), publics, holders):
        raise BadSetting(
            "the root of trust is there already and names other root keys or another threshold; "
            "`genctl keys show HOME` tells, `genctl keys rotate` and `keys threshold` change them"
        )


def waiting(writer: WriterHome) -> RootReport | None:
    """What the first root of a home still lacks; ``None`` once it is published."""
    draft = root_drafts.read_home(writer)
    if draft is None or draft.before is not None:
        return None
    return RootReport(draft.root.version, root_drafts.path_of(writer), draft.lacking())


def publish_draft(writer: WriterHome, paths: Sequence[Path]) -> RootReport:
    """Publish the root that waits in a home, be it the first or a later one.

    Raises:
        SignaturesMissing: the draft lacks some.
        BadSetting, HomeOccupied, WriterFenced, StoreUnavailable, SignerUnavailable: see
            :func:`controller.root_drafts.publish` and :func:`init_home`.
    """
    if waiting(writer) is None and not root_drafts.is_first_unfinished(writer):
        return root_drafts.publish(writer, paths)
    with writer.exclusively("publish the root"):
        root_drafts.gathered(writer, paths)
    init_home(writer.home, writer.settings)
    report = waiting(writer)
    if report is not None:
        root_drafts.refuse_lacking(report)
    return RootReport(1, root_drafts.path_of(writer), ())
