"""A draft: a root of trust on its way to its signers.

Version N+1 of the root counts when as many root keys of version N have signed it as N asks for, and
as many of its own as it asks for itself (TUF specification 1.0.31, section 5.3.4). A draft carries
the root before it, so that a machine with nothing but the draft and one key can say what it says
would change. Whoever made the draft chose that root as well: what changes is certain only where the
holder of a key has a copy of their own of the root before (:meth:`Draft.check_before`). Pure rules,
no files and no clock.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field
from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Role, Root

from builder.keys import checked_key
from builder.root_metadata import check_root
from manifests.canonical import Frozen, canonical_bytes, parse_document, to_canonical
from manifests.errors import BadSetting, ManifestMalformed, SchemaTooNew, TrustError
from manifests.identifiers import ShardName
from store.signed import SHARD, refuse_other_shard, shard_of, trusted_root


class DraftDocument(Frozen):
    """A draft's file: canonical JSON; ``before`` and ``root`` are TUF root metadata."""

    schema_version: Literal[1] = 1
    shard: ShardName
    before: dict[str, Any] | None = Field(default=None)
    root: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lacking:
    """Signatures that a draft still needs from the root keys of one version.

    ``needed`` more of those whose ids are ``keyids`` must sign.
    """

    root_version: int
    needed: int
    keyids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A root on its way to its signers; ``before`` is the exact bytes of the root before it."""

    shard: str
    before: bytes | None
    metadata: Metadata[Root]

    @property
    def root(self) -> Root:
        """What is to be signed."""
        return self.metadata.signed

    @property
    def root_before(self) -> Root | None:
        """The root whose keys must sign as well, if this is not the first."""
        return None if self.before is None else trusted_root(self.before)

    def lacking(self) -> tuple[Lacking, ...]:
        """The signatures that it needs; none when it is complete."""
        roots = [root for root in (self.root_before, self.root) if root is not None]
        results = [
            (
                root,
                root.get_verification_result(
                    Root.type, self.metadata.signed_bytes, self.metadata.signatures
                ),
            )
            for root in roots
        ]
        return tuple(
            Lacking(root.version, result.missing, tuple(result.unsigned))
            for root, result in results
            if not result.verified
        )

    def check_before(self, known: bytes) -> None:
        """Refuse a draft that does not follow on ``known``, the last root as its holder has it.

        Raises:
            BadSetting: it follows on another root, or is the first.
            TrustError: ``known`` is no root.
        """
        held = parse_root(known)
        if self.before is None:
            raise BadSetting("this draft is of a first root, which follows on none")
        before = parse_root(self.before)
        if held.signed_bytes != before.signed_bytes:
            version = held.signed.version
            told = (
                f"another version {version} than this copy: do not sign it, and ask who made it"
                if version == before.signed.version
                else f"version {before.signed.version}, and this copy is version {version}: get "
                "the versions between by a way that you trust"
            )
            raise BadSetting(f"the draft says that it follows on {told}")

    def signer_ids(self) -> set[str]:
        """The ids of the keys whose signatures count, whether they signed already or not."""
        before = self.root_before
        return {
            *self.root.roles[Root.type].keyids,
            *(before.roles[Root.type].keyids if before else ()),
        }

    def key(self, keyid: str) -> Key | None:
        """The key of this id that the draft or the root before it names."""
        before = self.root_before
        return self.root.keys.get(keyid) or (before.keys.get(keyid) if before else None)

    def root_bytes(self) -> bytes:
        """The root metadata with its signatures, as stores and nodes are given it."""
        return self.metadata.to_bytes()

    def to_bytes(self) -> bytes:
        """The content of a draft's file."""
        before = None if self.before is None else parse_root(self.before).to_dict()
        return to_canonical(
            DraftDocument(shard=self.shard, before=before, root=self.metadata.to_dict())
        )

    def is_same_root(self, other: Draft) -> bool:
        """Whether a signature of one is a signature of the other."""
        return self.metadata.signed_bytes == other.metadata.signed_bytes

    def with_signatures_of(self, other: Draft) -> Draft:
        """This draft, and the signatures of another of the same root that are valid."""
        merged = dict(self.metadata.signatures)
        brought = other.metadata.signatures
        for keyid in self.signer_ids() & set(brought):
            candidate = Metadata(self.root, {keyid: brought[keyid]})
            key = self.key(keyid)
            if key is not None and _is_valid(candidate, key):
                merged[keyid] = brought[keyid]
        return Draft(self.shard, self.before, Metadata(self.root, merged))


def _is_valid(metadata: Metadata[Root], key: Key) -> bool:
    alone = Root(keys={key.keyid: key})
    alone.roles[Root.type] = Role([key.keyid], 1)
    return alone.get_verification_result(
        Root.type, metadata.signed_bytes, metadata.signatures
    ).verified


def parse_root(data: bytes) -> Metadata[Root]:
    """Root metadata, its own signatures checked.

    Raises:
        UnsignedRecord: it is none, or not signed by its own keys.
    """
    trusted_root(data)
    return Metadata[Root].from_bytes(data)


def parse_draft(data: bytes, what: str) -> Draft:
    """A draft from a file that somebody carried here; ``what`` names it in messages.

    Everything that would be signed is checked: the key ids are the keys' own, no field is unknown,
    the version follows on the root before it.

    Raises:
        BadSetting: it is not a draft that can be signed.
    """
    try:
        document = parse_document(data, DraftDocument, 1)
        before = None if document.before is None else canonical_bytes(document.before)
        root_before = None if before is None else trusted_root(before)
        for keyid, described in document.root["signed"]["keys"].items():
            checked_key(keyid, described)
        metadata = Metadata[Root].from_dict(copy.deepcopy(document.root))
        _check_form(metadata, root_before, document.shard)
    except (
        *(BadSetting, ManifestMalformed, SchemaTooNew, TrustError),
        *(ValueError, KeyError, TypeError, AttributeError),
    ) as error:
        raise BadSetting(
            f"{what} is not a draft of a root that genctl made ({error}); copy it again from the "
            "writer's home"
        ) from error
    draft = Draft(document.shard, before, metadata)
    # What is no valid signature is dropped: it would keep the holder of that key from signing.
    return Draft(document.shard, before, Metadata(metadata.signed)).with_signatures_of(draft)


def _check_form(metadata: Metadata[Root], before: Root | None, shard: str) -> None:
    root = metadata.signed
    if not isinstance(root, Root):
        raise TypeError("it is other metadata")
    if root.unrecognized_fields.get(SHARD, shard) != shard:
        raise ValueError("it is of another shard than the draft says")
    if before is not None:
        refuse_other_shard(shard_of(before), root)
    unknown = set(root.unrecognized_fields) - {SHARD}
    fields = [unknown, metadata.unrecognized_fields]
    fields += [role.unrecognized_fields for role in root.roles.values()]
    if any(fields) or not root.consistent_snapshot:
        raise ValueError("it has fields that are not known here")
    if root.version != (before.version + 1 if before else 1):
        raise ValueError("its version does not follow on the root before it")
    check_root(root)
