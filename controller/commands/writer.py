"""The writer's own commands: init, ingest, status, keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, facts, plural, progress, say


@click.command()
@home_argument
@click.option(
    "--store",
    "stores",
    multiple=True,
    required=True,
    metavar="URL",
    help="Where to publish; given several times, artifacts are spread so that any one store may "
    "be lost. The first is the one whose record counts.",
)
@click.option(
    "--embedder",
    default="hashing",
    show_default=True,
    help="hashing (built in) or precomputed (vectors come with the documents).",
)
@click.option("--dimensions", type=int, default=384, show_default=True, help="Length of a vector.")
@click.option("--shard", default="main", show_default=True, help="Name of the shard.")
@click.option(
    "--quantization",
    type=click.Choice(["bf16", "f16", "f32", "i8"]),
    default="bf16",
    show_default=True,
    help="How vectors are kept.",
)
@json_option
def init(
    home: Path,
    stores: tuple[str, ...],
    embedder: str,
    dimensions: int,
    shard: str,
    quantization: Any,
    as_json: bool,
) -> None:
    """Make a writer's home.

    Keys, commit log, and an empty signed record in the store.
    """
    from controller.new_home import init_home
    from controller.settings import WriterSettings, made
    from controller.wiring import open_stores

    settings = made(
        WriterSettings,
        shard=shard,
        stores=tuple(store.url for store in open_stores(stores).stores),
        embedder=embedder,
        dimensions=dimensions,
        quantization=quantization,
    )
    was_made = init_home(home, settings)
    root = home / "root.json"
    if as_json:
        emit_json({"home": str(home), "root": str(root), "made": was_made} | settings.model_dump())
        return
    facts(
        f"{'Made' if was_made else 'There is already'} the writer's home {home} of shard {shard}.",
        [
            *[("store", url) for url in settings.stores],
            ("spare", _spare(len(settings.stores))),
            ("embedder", f"{embedder}, {dimensions} dimensions, {quantization}"),
            ("give nodes", str(root)),
            ("next", f"genctl ingest {home} FILE"),
        ],
    )


def _spare(store_count: int) -> str:
    """What publishing to so many stores costs, and what it is good for."""
    from symbols.geometry import choose

    large = choose(1 << 30, store_count)
    return (
        f"{large.overhead_percent} % more bytes for large artifacts;\n{large.survives} may be lost"
        + (f",\nor any {large.stores_survived(store_count)} of {store_count} stores")
        * (store_count > 1)
    )


@click.command()
@home_argument
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["jsonl", "csv", "msgpack"]),
    help="By default, what the file's name says; else jsonl.",
)
@click.option("--id-field", default="id", show_default=True, help="What the input calls the id.")
@click.option(
    "--commit-size",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    show_default=True,
    help="Documents a commit.",
)
@json_option
def ingest(
    home: Path,
    paths: tuple[Path, ...],
    format_name: str | None,
    id_field: str,
    commit_size: int,
    as_json: bool,
) -> None:
    """Append documents and deletes to the commit log.

    Durably, and all of the input or nothing.

    \b
    A document: {"id": …, "title"?: …, "text"?: …, "vector"?: […], "fields"?: {…}}
    A delete:   {"id": …, "op": "delete"}

    The same command run again appends nothing twice.
    """  # noqa: D301 - click wants a real backspace character
    writer = open_writer(home)
    with progress("Ingesting", unit="documents") as start:
        report = writer.ingest(
            paths,
            format_name=format_name,
            id_field=id_field,
            commit_size=commit_size,
            progress=start(None),
        )
    if as_json:
        emit_json(
            {
                "commit_seq": report.commit_seq,
                "documents": report.documents,
                "commits": report.commits,
                "skipped_commits": report.skipped_commits,
            }
        )
        return
    say(
        f"Reached commit_seq {report.commit_seq}: {plural(report.documents, 'document')} in "
        f"{plural(report.commits, 'commit')}."
    )
    if report.skipped_commits:
        say(f"{plural(report.skipped_commits, 'commit')} had been ingested before.")


@click.command()
@home_argument
@json_option
def status(home: Path, as_json: bool) -> None:
    """Show where the writer stands.

    Log, built, published, active, and when the signatures expire.
    """
    writer = open_writer(home)
    state = writer.status()
    if as_json:
        emit_json(state)
        return
    facts(
        f"Writer's home {home}",
        [(key.replace("_", " "), _told(value)) for key, value in state.items()],
    )


def _told(value: object) -> str:
    if isinstance(value, list):
        return "\n".join(value)
    return "none yet" if value is None else str(value)


@click.group()
def keys() -> None:
    """Work that takes the writer's keys."""


@keys.command()
@home_argument
@json_option
def refresh(home: Path, as_json: bool) -> None:
    """Sign the record again before it expires; nodes activate nothing from an expired one."""
    signed = open_writer(home).refresh().signed
    expires = signed.timestamp.expires.isoformat()
    if as_json:
        emit_json({"record_version": signed.timestamp.version, "record_expires": expires})
        return
    say(f"Signed version {signed.timestamp.version}; it expires {expires}.")


COMMANDS = (init, ingest, status, keys)
