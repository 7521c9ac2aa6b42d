"""Making a node's home, or opening one with what it was made with."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from builder.published_roots import newer_roots
from controller import settings, wiring
from controller.node import NodeHome
from controller.node_trust import ROOT_FILE, repin
from durable import files
from manifests.errors import BadSetting, RetryError, TrustError
from replicator.trust import has_accepted
from store.signed import trusted_root

KNOWN_NAMES = {
    settings.NODE_FILE,
    ROOT_FILE,
    "trust",
    "artifacts",
    "tables",
    "generations",
    "incoming",
    "active.json",
    "audit.jsonl",
    "state.json",
    "quarantine.json",
    "scrub",
    "scrub.lock",
    "throughput.json",
    "lock",
}


def open_node(
    home: Path,
    store_urls: Sequence[str],
    root: Path | None,
    peers: Sequence[str] = (),
    minimum_version: int | None = None,
    *,
    keep: bool = True,
) -> NodeHome:
    """Open a node, or make a new one that trusts ``root`` and follows ``store_urls``.

    ``peers`` that are given replace those that the node knew, since peers come and go, and so does
    ``minimum_version``: the least version of the record with which a new node may start. Without
    ``keep`` they do so for this one object, and a node that exists keeps what it knew.

    Raises:
        BadSetting: the stores or the root are missing, or not what the node was made with; or an
            address is none.
        UnsignedRecord, WrongRecordType: ``root`` is not a root of trust; take root.json from the
            writer's home.
        HomeMissing: the folder is a writer's home.
        HomeOccupied: the folder holds something else.
    """
    if (home / settings.WRITER_FILE).exists():
        NodeHome(home)  # refuses
    if not store_urls or root is None:
        if not (home / settings.NODE_FILE).exists():
            raise BadSetting("a new node needs --store and --root (the writer's root.json)")
        _check_same(NodeHome(home), store_urls, root)
        if peers or minimum_version is not None:
            with files.locked(home / "lock", "run bootstrap"):
                return _opened_with(home, peers, minimum_version, keep=keep)
        return NodeHome(home)
    settings.refuse_foreign(home, KNOWN_NAMES)
    root_bytes = _read(root)
    followed = settings.made(
        settings.NodeSettings,
        stores=_opened(store_urls),
        peers=tuple(peers),
        minimum_version=minimum_version,
    )
    files.make_folder(home)
    with files.locked(home / "lock", "run bootstrap"):
        is_accepted = has_accepted(home / "trust")
        is_same = _has_root(home, root_bytes)
        if (home / settings.NODE_FILE).exists():
            node = NodeHome(home)
            is_same = is_same and node.settings.stores == followed.stores
            # What led to no accepted record may be corrected; what did is kept.
            if is_accepted:
                _check_same(node, store_urls, root)
            if is_accepted or is_same:
                return _opened_with(home, peers, minimum_version, keep=keep)
        files.remove_temporaries(home)
        if not is_accepted and not is_same:
            # What was seen under a root that is being corrected says nothing under the right one.
            files.remove_tree(home / "trust")
        files.replace_file(home / ROOT_FILE, [root_bytes])
        settings.save(home / settings.NODE_FILE, followed)
    return NodeHome(home)


def repin_node(home: Path, root: Path, minimum_version: int | None = None) -> NodeHome:
    """Give an existing node a root of trust anew; see :func:`controller.node_trust.repin`.

    Raises:
        HomeMissing: there is no node.
        BadSetting: ``root`` cannot be read.
        UnsignedRecord, WrongRecordType: ``root`` is not a root of trust.
    """
    repin(NodeHome(home), _read(root), minimum_version)
    return NodeHome(home)


def _opened_with(
    home: Path, peers: Sequence[str], minimum_version: int | None, *, keep: bool
) -> NodeHome:
    """The node, with what is given of these; kept, it is so from now on.

    The caller holds its lock.
    """
    node = NodeHome(home)
    given: dict[str, object] = {}
    if peers:
        given["peers"] = tuple(peers)
    if minimum_version is not None:
        given["minimum_version"] = minimum_version
    if given:
        values = {name: getattr(node.settings, name) for name in type(node.settings).model_fields}
        node.settings = settings.made(settings.NodeSettings, **values | given)
        if keep:
            settings.save(home / settings.NODE_FILE, node.settings)
    return node


def _check_same(node: NodeHome, store_urls: Sequence[str], root: Path | None) -> None:
    followed = node.settings.stores
    if store_urls and _opened(store_urls) != followed:
        raise BadSetting(
            f"{node.home} follows {', '.join(followed)}, not {', '.join(store_urls)}; use another "
            f"folder for another writer's stores. If the same ones moved, correct "
            f"{settings.NODE_FILE} there"
        )
    if root is not None and not _is_of_one_line(node, _read(root)):
        raise BadSetting(
            f"{node.home} trusts another root than {root}; a node's root of trust is not changed "
            f"by a bootstrap, but by `genctl node repin {node.home} --root {root}`"
        )


def _is_of_one_line(node: NodeHome, given: bytes) -> bool:
    """Whether a root is the node's own, or the store has it before or after that in one chain."""
    own = node.root_bytes()
    if given == own:
        return True
    older, newer = sorted((own, given), key=lambda root: trusted_root(root).version)
    for store in node.stores().stores:
        with contextlib.suppress(RetryError, TrustError):
            return newer in newer_roots(store, older)
    return False


def _has_root(home: Path, given: bytes) -> bool:
    try:
        return files.read_file(home / ROOT_FILE) == given
    except OSError:
        return False  # what cannot be read is put there anew


def _opened(store_urls: Sequence[str]) -> tuple[str, ...]:
    """The URLs as settings keep them: absolute, whatever the working folder will be."""
    return tuple(store.url for store in wiring.open_stores(store_urls).stores)


def _read(root: Path) -> bytes:
    try:
        data = root.read_bytes()
    except OSError as error:
        raise BadSetting(f"{root}: {error.strerror}") from error
    try:
        trusted_root(data)
    except TrustError as error:
        raise type(error)(
            f"{root} is no root of trust: {error.message}. Give the file root.json of the writer's "
            "home",
            **(error.facts | {"path": str(root)}),
        ) from error
    return data
