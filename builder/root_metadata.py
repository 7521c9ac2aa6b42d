"""The root of trust: how the next version is made, and which could not work.

Pure rules, no files and no clock. A root names the keys of every role and how many of them must
sign (TUF specification 1.0.31, section 6.1). Who must sign the root itself is
:mod:`builder.root_draft`'s.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta

from securesystemslib.signer import Key
from tuf.api.metadata import Role, Root

from builder.keys import ONLINE, ROOT, TARGETS, TUF_ROLES, RoleName
from manifests.errors import BadSetting
from store.signed import SHARD, shard_of

ROOT_LIFETIME = timedelta(days=10 * 365)
MAX_KEYS = 64
"""So many keys a role may have."""


def check_root(root: Root) -> None:
    """Refuse a root that could not work.

    Raises:
        BadSetting: a role has fewer keys than must sign, a key that is not described, or snapshot
            and timestamp have other keys than one another.
    """
    for name, role in role_table(root).items():
        if not 1 <= role.threshold <= len(role.keyids):
            raise BadSetting(
                f"{role.threshold} {name} keys would have to sign, and there would be "
                f"{len(role.keyids)}"
            )
        if len(role.keyids) > MAX_KEYS:
            raise BadSetting(f"{name} would have {len(role.keyids)} keys; {MAX_KEYS} is the most")
        for tuf_role in TUF_ROLES[name]:
            if root.roles[tuf_role] != role:
                raise BadSetting("snapshot and timestamp must have the same keys")
        if not set(role.keyids) <= set(root.keys):
            raise BadSetting(f"a key of {name} is not described")


def role_table(root: Root) -> dict[RoleName, Role]:
    """The three roles of a home, in order."""
    return {name: root.roles[TUF_ROLES[name][0]] for name in (ROOT, TARGETS, ONLINE)}


def first_root(keys: Mapping[RoleName, Sequence[Key]], root_threshold: int, now: datetime) -> Root:
    """Version 1. ``now`` is in UTC.

    Raises:
        BadSetting: too few root keys for the threshold, or one of them given twice.
    """
    root = Root(version=1, expires=now + ROOT_LIFETIME, consistent_snapshot=True)
    for name, given in keys.items():
        for key in given:
            root = with_key(root, name, key)
    root = _edited(root, ROOT, lambda role: Role(role.keyids, root_threshold))
    check_root(root)
    return root


def next_root(root: Root, now: datetime) -> Root:
    """The version after ``root``, with the same keys and a new expiry. ``now`` is in UTC."""
    following = copy.deepcopy(root)
    following.version += 1
    following.expires = now + ROOT_LIFETIME
    return following


def with_shard(root: Root, shard: str) -> Root:
    """The root, saying which shard it is of: the same holders may have several."""
    changed = copy.deepcopy(root)
    changed.unrecognized_fields[SHARD] = shard
    return changed


def with_key(root: Root, name: RoleName, key: Key, instead_of: str | None = None) -> Root:
    """The root with one more key in a role, or with one in the place of ``instead_of``.

    Raises:
        BadSetting: the key is in the role already, or ``instead_of`` is not.
    """
    role = role_table(root)[name]
    if key.keyid in role.keyids:
        raise BadSetting(f"{name} has the key {key.keyid[:16]}… already; give another")
    if instead_of is None:
        keyids = [*role.keyids, key.keyid]
    elif instead_of in role.keyids:
        keyids = [key.keyid if keyid == instead_of else keyid for keyid in role.keyids]
    else:
        raise BadSetting(f"{name} has no key {instead_of[:16]}…; `genctl keys show` lists them")
    changed = copy.deepcopy(root)
    changed.keys[key.keyid] = key
    return _edited(changed, name, lambda role: Role(keyids, role.threshold))


def without_key(root: Root, keyid: str) -> Root:
    """The root without a key, in whatever role.

    Raises:
        BadSetting: no role has it, or one would be left with fewer keys than must sign.
    """
    holders = [name for name, role in role_table(root).items() if keyid in role.keyids]
    if not holders:
        raise BadSetting(f"no role has the key {keyid[:16]}…; `genctl keys show` lists them")
    for name in holders:
        role = role_table(root)[name]
        left = [each for each in role.keyids if each != keyid]
        if len(left) < role.threshold:
            raise BadSetting(
                f"without the key {keyid[:16]}…, {name} would have {len(left)} keys, and "
                f"{role.threshold} must sign. Put another in its place, which revokes it as well: "
                f"`genctl keys rotate HOME {name} --replace {keyid[:16]}`",
                role=name,
            )
        root = _edited(root, name, lambda role, left=left: Role(left, role.threshold))  # type: ignore[misc]
    return root


def with_threshold(root: Root, name: RoleName, threshold: int) -> Root:
    """The root with another number of keys that must sign in a role.

    Raises:
        BadSetting: the role has fewer keys.
    """
    changed = _edited(root, name, lambda role: Role(role.keyids, threshold))
    check_root(changed)
    return changed


def _edited(root: Root, name: RoleName, edit: Callable[[Role], Role]) -> Root:
    """A copy with one role edited, and without keys that no role names any more."""
    changed = copy.deepcopy(root)
    for tuf_role in TUF_ROLES[name]:
        edited = edit(changed.roles[tuf_role])
        changed.roles[tuf_role] = Role(list(edited.keyids), edited.threshold)
    named = {keyid for role in changed.roles.values() for keyid in role.keyids}
    changed.keys = {keyid: key for keyid, key in changed.keys.items() if keyid in named}
    return changed


def find_keyid(text: str, keyids: Collection[str]) -> str:
    """The one key id that starts with ``text``, eight digits of it at least.

    Raises:
        BadSetting: none does, or several do.
    """
    found = [keyid for keyid in sorted(keyids) if len(text) >= 8 and keyid.startswith(text.lower())]
    if len(found) != 1:
        raise BadSetting(
            f"{text!r} is the start of {len(found) or 'no'} key ids here; give eight digits or "
            "more of one that `genctl keys show` lists"
        )
    return found[0]


def changes(before: Root | None, after: Root) -> list[str]:
    """What a new root changes, in sentences; all of it when there is none before it."""
    told = []
    known, shard = None if before is None else shard_of(before), shard_of(after)
    if shard != known:
        told.append(f"it is of shard {shard}" + (f", it was of {known} before" if known else ""))
    for name, role in role_table(after).items():
        old = Role([], role.threshold) if before is None else role_table(before)[name]
        told += [f"{name}: key {keyid} comes" for keyid in role.keyids if keyid not in old.keyids]
        told += [f"{name}: key {keyid} goes" for keyid in old.keyids if keyid not in role.keyids]
        if old.threshold != role.threshold:
            told.append(f"{name}: {role.threshold} must sign, {old.threshold} did before")
    return told
