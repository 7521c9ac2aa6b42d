"""Making a node's home, or opening one with what it was made with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from controller import settings, wiring
from controller.node import NodeHome
from durable import files
from manifests.errors import BadSetting
from store.signed import trusted_root

_KNOWN = {
    "node.json",
    "root.json",
    "trust",
    "artifacts",
    "tables",
    "generations",
    "incoming",
    "active.json",
    "state.json",
    "scrub.json",
    "scrub.lock",
    "throughput.json",
    "lock",
}


def open_node(
    home: Path, store_urls: Sequence[str], root: Path | None, peers: Sequence[str] = ()
) -> NodeHome:
    """Open a node, or make a new one that trusts ``root`` and follows ``store_urls``.

    ``peers`` that are given replace those that the node knew, since peers come and go.

    Raises:
        BadSetting: the stores or the root are missing, or not what the node was made with; or an
            address is none.
        UnsignedRecord: ``root`` is not a root of trust; take root.json from the writer's home.
        HomeOccupied: the folder holds something else.
    """
    if not store_urls or root is None:
        if not (home / settings.NODE_FILE).exists():
            raise BadSetting("a new node needs --store and --root (the writer's root.json)")
        _check_same(NodeHome(home), store_urls, root)
        if peers:
            with files.locked(home / "lock", "run bootstrap"):
                _replace_peers(home, peers)
        return NodeHome(home)
    settings.refuse_foreign(home, _KNOWN)
    root_bytes = _read(root)
    trusted_root(root_bytes)
    followed = settings.made(settings.NodeSettings, stores=_opened(store_urls), peers=tuple(peers))
    files.make_folder(home)
    with files.locked(home / "lock", "run bootstrap"):
        if (home / settings.NODE_FILE).exists():
            node = NodeHome(home)
            # What led to no accepted record may be corrected; what did is kept.
            if node.trust().has_accepted():
                _check_same(node, store_urls, root)
                if peers:
                    _replace_peers(home, peers)
                return NodeHome(home)
        files.remove_temporaries(home)
        files.replace_file(home / "root.json", [root_bytes])
        settings.save(home / settings.NODE_FILE, followed)
    return NodeHome(home)


def _replace_peers(home: Path, peers: Sequence[str]) -> None:
    """Have the node know these peers; the caller holds its lock."""
    before = NodeHome(home).settings
    values = {name: getattr(before, name) for name in settings.NodeSettings.model_fields}
    after = settings.made(settings.NodeSettings, **values | {"peers": tuple(peers)})
    settings.save(home / settings.NODE_FILE, after)


def _check_same(node: NodeHome, store_urls: Sequence[str], root: Path | None) -> None:
    followed = node.settings.stores
    if store_urls and _opened(store_urls) != followed:
        raise BadSetting(
            f"{node.home} follows {', '.join(followed)}, not {', '.join(store_urls)}; use another "
            f"folder for another writer's stores. If the same ones moved, correct "
            f"{settings.NODE_FILE} there"
        )
    if root is not None and _read(root) != node.root_bytes():
        raise BadSetting(
            f"{node.home} trusts another root than {root}; a node's root of trust is not changed "
            "by a bootstrap"
        )


def _opened(store_urls: Sequence[str]) -> tuple[str, ...]:
    """The URLs as settings keep them: absolute, whatever the working folder will be."""
    return tuple(store.url for store in wiring.open_stores(store_urls).stores)


def _read(root: Path) -> bytes:
    try:
        return root.read_bytes()
    except OSError as error:
        raise BadSetting(f"{root}: {error.strerror}") from error
