"""Settings are data: one file in a writer's home, one in a node's, parsed strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError

from builder.merge_plan import MergePolicy
from builder.signers import SignerReference
from durable import files
from manifests.canonical import MAX_INTEGER, Frozen
from manifests.errors import BadSetting, HomeMissing, HomeOccupied
from manifests.generation import Quantization
from manifests.identifiers import ShardName
from manifests.retention import RetentionPolicy

WRITER_FILE = "settings.json"
NODE_FILE = "node.json"
S = TypeVar("S", bound=Frozen)
_IN_URLS = frozenset(":@?")
"""Of these a URL has one at least: behind its scheme, a user's name or a host, behind a login, or
before a query. What has one is not shown, for it may carry a password or a token."""


def _distinct(urls: tuple[str, ...]) -> tuple[str, ...]:
    for place, url in enumerate(urls):
        if url in urls[:place]:
            raise ValueError(f"number {place + 1} is named twice")
    return urls


def _is_peer(url: str) -> str:
    form = "a peer is given as http://host:port"
    try:
        parts = urlsplit(url)
        is_address = parts.scheme == "http" and bool(parts.hostname) and bool(parts.port)
    except ValueError:  # about brackets or the port; it may repeat a password
        raise ValueError(form) from None
    if not is_address or "@" in parts.netloc:
        raise ValueError(form)
    if url != f"http://{parts.netloc}":
        raise ValueError("nothing may follow the port of a peer")
    return url


def _is_executor(name: str) -> str:
    scheduler = re.fullmatch(
        r"dask:(tcp|tls)://(\[[0-9A-Fa-f:.]+\]|[\w.-]+):\d{1,5}", name, re.ASCII
    )
    if scheduler is None and name not in {"threads", "processes"}:
        raise ValueError(
            "a build runs on threads, processes or dask:tcp://host:port (tls:// where the "
            "scheduler wants it)"
        )
    return name


Stores = Annotated[tuple[str, ...], Field(min_length=1, max_length=64), AfterValidator(_distinct)]
"""URLs as :func:`store.locate.open_store` gives them. The order matters: the first is the one
whose record counts, and which symbol is kept where goes by the place in this list."""

PeerUrl = Annotated[str, AfterValidator(_is_peer)]
Peers = Annotated[tuple[PeerUrl, ...], Field(max_length=1024), AfterValidator(_distinct)]
BytesPerSecond = Annotated[int, Field(ge=1 << 10, le=1 << 40)]


Signers = Annotated[tuple[SignerReference, ...], Field(min_length=1, max_length=64)]


class WriterSigners(Frozen):
    """Where the private keys of a home's roles are; the root of trust says which of them sign."""

    root: Signers = (SignerReference(uri="file:keys/root.pem"),)
    targets: Signers = (SignerReference(uri="file:keys/targets.pem"),)
    online: Signers = (SignerReference(uri="file:keys/online.pem"),)


class MergeSettings(Frozen):
    """When parts of a generation are merged, and how much at a time.

    Attributes:
        shards: how many vector shards a generation has at most, and how many text segments.
        size_ratio: a run of merged parts ends before one that is more than so many times as large.
        dead_documents_percent: a part with a larger share of dead documents is written again.
        compact_max_bytes: what one ``genctl compact`` reads at most.
        build_max_bytes: what the merges within one build read at most, except where that would
            leave more than ``shards``.
    """

    shards: int = Field(default=12, ge=4, le=12)
    size_ratio: int = Field(default=2, ge=1, le=100)
    dead_documents_percent: int = Field(default=50, ge=1, le=99)
    compact_max_bytes: int = Field(default=1 << 30, ge=1, le=1 << 40)
    build_max_bytes: int = Field(default=64 << 20, ge=1, le=1 << 40)

    def policy(self) -> MergePolicy:
        """The same, as the builder takes it."""
        return MergePolicy(**dict(self))


class WriterSettings(Frozen):
    """``HOME/settings.json``: what a writer's home was made with.

    ``build_executor`` is what embeds and builds vector shards (:mod:`controller.executors`), and
    ``build_task_deadline_s`` how long one of its tasks may take. Neither changes what is built.
    What no generation ever needed is at least ``collection_grace_hours`` old when a collection
    deletes it from the stores.
    """

    schema_version: Literal[1] = 1
    shard: ShardName
    stores: Stores
    embedder: str
    dimensions: int
    quantization: Quantization = "bf16"
    writer_epoch: int = Field(default=1, ge=1)
    timestamp_lifetime_hours: int = Field(default=7 * 24, ge=1, le=366 * 24)
    signers: WriterSigners = WriterSigners()
    build_executor: Annotated[str, AfterValidator(_is_executor)] = "threads"
    build_task_deadline_s: int = Field(default=3600, ge=1, le=7 * 24 * 3600)
    merges: MergeSettings = MergeSettings()
    retention: RetentionPolicy = RetentionPolicy()
    collection_grace_hours: int = Field(default=24, ge=0, le=366 * 24)


class NodeEmbedder(Frozen):
    """The embedder a node is bound to by the first generation it activated."""

    name: str
    dimensions: int


class NodeLimits(Frozen):
    """How much a node takes from others and gives to them.

    ``None``, where that may stand, is as much as there is.

    Attributes:
        store_bytes_per_s: what it reads from all stores together.
        peer_bytes_per_s: what it reads from all peers together.
        reads_at_once: how many ranges are on their way to it at a time.
        min_bytes_per_s: a source that is slower than this is given up.
        serve_bytes_per_s: what it sends to all peers together.
        serve_reads_at_once: how many answers to peers it has on their way at a time.
        scrub_bytes_per_s: how fast it re-reads its own disk to look for rot.
    """

    store_bytes_per_s: BytesPerSecond | None = None
    peer_bytes_per_s: BytesPerSecond | None = None
    reads_at_once: Annotated[int, Field(ge=1, le=64)] = 4
    min_bytes_per_s: BytesPerSecond = 64 << 10
    serve_bytes_per_s: BytesPerSecond | None = None
    serve_reads_at_once: Annotated[int, Field(ge=1, le=256)] = 8
    scrub_bytes_per_s: BytesPerSecond = 20 << 20


class NodeSettings(Frozen):
    """``NODE/node.json``: where a node gets generations from, and how it embeds queries.

    ``minimum_version`` is the least version of the record with which a new node may start. What
    only generations hold that are neither active nor the next to go back to may come to
    ``old_generations_max_bytes``: by default 4 GiB, which a small machine's disk can spare, and
    which holds the past of some million documents that change slowly; what is further back is
    fetched again when somebody asks for it.
    """

    schema_version: Literal[1] = 1
    stores: Stores
    peers: Peers = ()
    embedder: NodeEmbedder | None = None
    limits: NodeLimits = NodeLimits()
    old_generations_max_bytes: Annotated[int, Field(ge=0, le=1 << 50)] = 4 << 30
    minimum_version: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None


def load(path: Path, model: type[S], what: str) -> S:
    """Read a settings file.

    Raises:
        HomeMissing: it is not there, so the folder is not ``what``.
        BadSetting: it cannot be read; names the field.
    """
    try:
        return model.model_validate_json(files.read_file(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        other = {WRITER_FILE: "node's", NODE_FILE: "writer's"}[path.name]
        if path.with_name(NODE_FILE if path.name == WRITER_FILE else WRITER_FILE).exists():
            raise HomeMissing(
                f"{path.parent} is a {other} home, and this command takes the other kind",
                path=str(path),
            ) from error
        raise HomeMissing(f"{path.parent} is not {what}", path=str(path)) from error
    except OSError as error:
        raise BadSetting(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise BadSetting(f"{path}: {field}: {_told(first['msg'])}", field=field) from error


def made(model: type[S], **values: object) -> S:
    """Settings from what a user gave.

    Raises:
        BadSetting: a value cannot be used; names the field, and the value if it is no URL.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        given = repr(first["input"])
        shown = "" if _IN_URLS & set(given) else f" {given}"
        raise BadSetting(f"{field}{shown}: {_told(first['msg'])}", field=field) from error


def _told(message: str) -> str:
    """What pydantic says, without the word for how one of the functions above told it."""
    return message.removeprefix("Value error, ")


def save(path: Path, settings: Frozen) -> None:
    """Write a settings file, atomically, in a form people can read.

    Raises:
        BadSetting: something in it is not text.
    """
    text = json.dumps(settings.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise BadSetting("a path or a name is not valid UTF-8") from error
    files.replace_file(path, [data])


def refuse_foreign(home: Path, known: AbstractSet[str]) -> None:
    """Refuse a folder in which somebody keeps something else.

    Raises:
        HomeOccupied: it is no folder, or holds names that are not ``known``.
    """
    nearest = next(path for path in (home, *home.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise HomeOccupied(f"{nearest} is not a folder")
    if not home.exists():
        return
    for path in home.iterdir():
        if path.name not in known and not path.name.startswith(files.TEMPORARY_PREFIX):
            raise HomeOccupied(f"{home} holds {path.name}; choose an empty or a new folder")
