"""Making a node's home, or opening one with what it was made with."""

from __future__ import annotations

from pathlib import Path

from controller import settings
from controller.node import NodeHome
from durable import files
from manifests.errors import BadSetting
from store.locate import open_store
from store.signed import trusted_root

_KNOWN = {
    "node.json",
    "root.json",
    "trust",
    "artifacts",
    "generations",
    "incoming",
    "active.json",
    "lock",
}


def open_node(home: Path, store_url: str | None, root: Path | None) -> NodeHome:
    """Open a node, or make a new one that trusts ``root`` and follows ``store_url``.

    Raises:
        BadSetting: the store or the root is missing, or not what the node was made with.
        UnsignedRecord: ``root`` is not a root of trust; take root.json from the writer's home.
        HomeOccupied: the folder holds something else.
    """
    if store_url is None or root is None:
        if not (home / settings.NODE_FILE).exists():
            raise BadSetting("a new node needs --store and --root (the writer's root.json)")
        node = NodeHome(home)
        _check_same(node, store_url, root)
        return node
    settings.refuse_foreign(home, _KNOWN)
    root_bytes = _read(root)
    trusted_root(root_bytes)
    followed = settings.NodeSettings(store=open_store(store_url).url)
    files.make_folder(home)
    with files.locked(home / "lock", "run bootstrap"):
        if (home / settings.NODE_FILE).exists():
            node = NodeHome(home)
            # What led to no accepted record may be corrected; what did is kept.
            if node.trust().has_accepted():
                _check_same(node, store_url, root)
                return node
        files.remove_temporaries(home)
        files.replace_file(home / "root.json", [root_bytes])
        settings.save(home / settings.NODE_FILE, followed)
    return NodeHome(home)


def _check_same(node: NodeHome, store_url: str | None, root: Path | None) -> None:
    if store_url is not None and open_store(store_url).url != node.settings.store:
        raise BadSetting(
            f"{node.home} follows the store {node.settings.store}, not {store_url}; use another "
            "folder for another store"
        )
    if root is not None and _read(root) != node.root_bytes():
        raise BadSetting(
            f"{node.home} trusts another root than {root}; a node's root of trust is not changed "
            "by a bootstrap"
        )


def _read(root: Path) -> bytes:
    try:
        return root.read_bytes()
    except OSError as error:
        raise BadSetting(f"{root}: {error.strerror}") from error
