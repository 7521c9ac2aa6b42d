"""Settings are data: one file in a writer's home, one in a node's, parsed strictly."""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from durable import files
from manifests.canonical import Frozen
from manifests.errors import BadSetting, HomeMissing, HomeOccupied
from manifests.generation import Quantization
from manifests.identifiers import ShardName

WRITER_FILE = "settings.json"
NODE_FILE = "node.json"
S = TypeVar("S", bound=Frozen)


class WriterSettings(Frozen):
    """``HOME/settings.json``: what a writer's home was made with."""

    schema_version: Literal[1] = 1
    shard: ShardName
    store: str
    embedder: str
    dimensions: int
    quantization: Quantization = "bf16"
    writer_epoch: int = Field(default=1, ge=1)
    timestamp_lifetime_hours: int = Field(default=7 * 24, ge=1, le=366 * 24)


class NodeEmbedder(Frozen):
    """The embedder a node is bound to by the first generation it activated."""

    name: str
    dimensions: int


class NodeSettings(Frozen):
    """``NODE/node.json``: where a node gets generations from, and how it embeds queries."""

    schema_version: Literal[1] = 1
    store: str
    embedder: NodeEmbedder | None = None


def load(path: Path, model: type[S], what: str) -> S:
    """Read a settings file.

    Raises:
        HomeMissing: it is not there, so the folder is not ``what``.
        BadSetting: it cannot be read; names the field.
    """
    try:
        return model.model_validate_json(path.read_bytes())
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
        raise BadSetting(f"{path}: {field}: {first['msg']}", field=field) from error


def made(model: type[S], **values: object) -> S:
    """Settings from what a user gave.

    Raises:
        BadSetting: a value cannot be used; names the field.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadSetting(f"{field} {first['input']!r}: {first['msg']}", field=field) from error


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
