"""Making a writer's home: keys, root of trust, and an empty signed record in the store."""

from __future__ import annotations

from pathlib import Path

from builder.keys import ROOT, create_keys, has_keys, load_key, load_keys
from builder.repository import make_root, published_root
from controller import clock, settings, wiring
from controller.writer import WriterHome
from durable import files
from index.embedding import make_embedder
from manifests.errors import BadSetting, HomeOccupied
from manifests.record import ControlRecord
from store.locate import open_store
from store.spread import SpreadStore

_KNOWN = {
    "settings.json",
    "root.json",
    "keys",
    "log",
    "artifacts",
    "tables",
    "generations",
    "symbols",
    "draft",
    "lock",
}


def init_home(home: Path, wanted: settings.WriterSettings) -> bool:
    """Make a home and claim its stores; run again, it finishes what is missing.

    As long as a home has no keys, no root of trust and no commits, its settings may be corrected.

    Returns whether the stores had to be given its first record.

    Raises:
        BadSetting: no such embedder, impossible dimensions, unknown store, or a key is missing
            that the root of trust names.
        HomeOccupied: the folder holds something else, or a store is another home's.
        ObjectMissing: generations were built here, but the first store has no record any more.
    """
    make_embedder(wanted.embedder, wanted.dimensions)
    for url in wanted.stores:
        if Path(open_store(url).url).is_relative_to(home.absolute()):
            raise BadSetting(f"the store {url} is inside the home {home}; keep them apart")
    settings.refuse_foreign(home, _KNOWN)
    files.make_folder(home)
    with files.locked(home / "lock", "run init"):
        path = home / settings.WRITER_FILE
        if not path.exists():
            settings.save(path, wanted)
        writer = WriterHome(home)
        if writer.settings != wanted:
            if _is_begun(home):
                raise HomeOccupied(
                    f"{home} was made with other settings than these; they are in {path}"
                )
            settings.save(path, wanted)
            writer = WriterHome(home)
        files.remove_temporaries(home)
        files.make_folder(home / "log")
        _settle_trust(home, wiring.open_stores(wanted.stores, create=True))
        if writer.residence.resident_ids():
            writer.current()  # a store that lost its record is not given an empty one
        record = ControlRecord(shard=wanted.shard, kind="publish", writer_epoch=wanted.writer_epoch)
        return writer.repository().create(record, clock.now())


def _is_begun(home: Path) -> bool:
    """Whether anything was made by the settings of this home."""
    log = home / "log"
    return (
        has_keys(home / "keys")
        or (home / "root.json").exists()
        or (log.exists() and any(log.iterdir()))
    )


def _settle_trust(home: Path, stores: SpreadStore) -> None:
    """Have keys and a root that names them; keys are made only where there is no root yet."""
    folder, root = home / "keys", home / "root.json"
    keys = load_keys(folder) if root.exists() or has_keys(folder) else None
    # One by one: a store of another home is refused before anything is written to any of them.
    found = [published_root(store, keys) for store in stores.stores]
    if root.exists():
        return
    published = next((data for data in found if data is not None), None)
    if published is None:
        create_keys(folder)
        published = make_root(load_key(folder, ROOT), load_keys(folder), clock.now())
    files.create_file(root, [published])
