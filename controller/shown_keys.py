"""The keys of a home as they are shown: roles, when signatures expire, the draft that waits."""

from __future__ import annotations

from typing import TypedDict

from tuf.api.metadata import Root, Signed

from builder import root_metadata
from builder.keys import ONLINE, ROOT, TARGETS
from builder.root_draft import Draft, Lacking
from controller import clock, root_drafts
from controller.signing_home import ROOT_BEFORE_FILE
from controller.writer import WriterHome
from manifests.errors import OperatorError, RetryError
from store.signed import trusted_root


class ShownKey(TypedDict):
    """One key of a role.

    ``where`` its private part is, if that is here; ``missing_from`` where the settings say that it
    is, if it is not there. Both are ``None`` for a key that is not this home's.
    """

    keyid: str
    scheme: str
    where: str | None
    missing_from: str | None


class ShownRole(TypedDict):
    """Which keys a role has, and how many of them must sign."""

    threshold: int
    keys: list[ShownKey]


class ShownMetadata(TypedDict):
    """One kind of signed metadata as it is in the store."""

    version: int
    expires: str
    expired: bool


class ShownLacking(TypedDict):
    """Signatures that a draft lacks; see :class:`builder.root_draft.Lacking`."""

    root_version: int
    needed: int
    keyids: list[str]


class ShownDraft(TypedDict):
    """The next root, which waits for signatures."""

    path: str
    version: int
    changes: list[str]
    lacking: list[ShownLacking]


class ShownProblem(TypedDict):
    """Why the store's metadata cannot be shown."""

    error: str
    message: str
    runbook: str | None


class Shown(TypedDict):
    """What ``genctl keys show --json`` prints. Before the first root, only the draft is there.

    With a ``problem``, ``metadata`` has the root only, and ``unfinished`` says that the record may
    still be signed by the keys of the root before.
    """

    root_version: int | None
    roles: dict[str, ShownRole]
    metadata: dict[str, ShownMetadata]
    draft: ShownDraft | None
    unfinished: bool
    problem: ShownProblem | None


def show(writer: WriterHome) -> Shown:
    """The keys of a home, when what they signed expires, and the draft that waits.

    Where the store is away or its metadata damaged, what the home itself knows.

    Raises:
        HomeMissing, BadSetting: there is neither a root nor a draft, or it cannot be read.
        UnsignedRecord: the home's own root is damaged.
    """
    draft = root_drafts.read_home(writer)
    if draft is not None and draft.before is None:
        return Shown(
            root_version=None,
            roles={},
            metadata={},
            draft=_draft(writer, draft),
            unfinished=False,
            problem=None,
        )
    root, now = trusted_root(writer.root_bytes()), clock.now()
    found: tuple[Signed, ...] = (root,)
    problem: ShownProblem | None = None
    try:
        current = writer.current()
        unfinished = current.is_superseded
        found += (current.signed.targets, current.signed.snapshot, current.signed.timestamp)
    except (RetryError, OperatorError) as error:
        unfinished = (writer.home / ROOT_BEFORE_FILE).exists()
        problem = ShownProblem(error=error.name, message=error.message, runbook=error.runbook)
    return Shown(
        root_version=root.version,
        roles=_roles(writer, root),
        metadata={
            each.type: ShownMetadata(
                version=each.version, expires=each.expires.isoformat(), expired=each.expires <= now
            )
            for each in found
        },
        draft=_draft(writer, draft) if draft else None,
        unfinished=unfinished,
        problem=problem,
    )


def _draft(writer: WriterHome, draft: Draft) -> ShownDraft:
    return ShownDraft(
        path=str(root_drafts.path_of(writer)),
        version=draft.root.version,
        changes=root_metadata.changes(draft.root_before, draft.root),
        lacking=[shown_lacking(each) for each in draft.lacking()],
    )


def shown_lacking(lacking: Lacking) -> ShownLacking:
    """The same for JSON."""
    return ShownLacking(
        root_version=lacking.root_version, needed=lacking.needed, keyids=list(lacking.keyids)
    )


def _roles(writer: WriterHome, root: Root) -> dict[str, ShownRole]:
    ring = writer.key_ring
    where: dict[str | None, str] = {}
    missing_from: dict[str | None, str] = {}
    for name in (ROOT, TARGETS, ONLINE):
        for reference in getattr(writer.settings.signers, name):
            place = where if ring.is_here(reference) else missing_from
            place[ring.keyid(reference)] = reference.shown
    return {
        name: ShownRole(
            threshold=role.threshold,
            keys=[
                ShownKey(
                    keyid=keyid,
                    scheme=root.keys[keyid].scheme,
                    where=where.get(keyid),
                    missing_from=None if keyid in where else missing_from.get(keyid),
                )
                for keyid in role.keyids
            ],
        )
        for name, role in root_metadata.role_table(root).items()
    }
