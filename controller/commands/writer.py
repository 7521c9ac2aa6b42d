"""The writer's own commands: init, ingest, status."""

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
@click.option(
    "--root-key",
    "root_keys",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE.pub",
    help="A root key that somebody holds elsewhere (`genctl keys init` made it); several times "
    "for several. Without any, one is made in HOME/keys.",
)
@click.option(
    "--root-threshold",
    type=click.IntRange(1, 64),
    help="How many of the root keys must sign.  [default: more than half]",
)
@click.option("--encrypt", is_flag=True, help="Ask for a passphrase to encrypt the keys with.")
@json_option
def init(
    home: Path,
    stores: tuple[str, ...],
    embedder: str,
    dimensions: int,
    shard: str,
    quantization: Any,
    root_keys: tuple[Path, ...],
    root_threshold: int | None,
    encrypt: bool,
    as_json: bool,
) -> None:
    """Make a writer's home.

    Keys, commit log, and an empty signed record in the store. With --root-key, the root of trust
    waits for its holders' signatures first: `genctl keys sign`, then `genctl keys publish`.
    """
    from controller.new_home import RootHolders, init_home, waiting
    from controller.root_drafts import told_lacking
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
    if root_threshold is not None and not root_keys:
        raise click.UsageError("--root-threshold goes with --root-key")
    was_made = init_home(
        home,
        settings,
        RootHolders(root_keys, root_threshold) if root_keys else None,
        encrypt=encrypt,
    )
    report = waiting(open_writer(home))
    root = home / "root.json"
    if as_json:
        document = {"home": str(home), "root": str(root), "made": was_made}
        draft = {} if report is None else {"draft": str(report.draft)}
        emit_json(document | draft | settings.model_dump())
        return
    if report is not None:
        facts(
            f"The writer's home {home} waits for signatures of its root of trust.",
            [
                ("draft", str(report.draft)),
                ("lacks", told_lacking(report.lacking)),
                ("next", "genctl keys sign DRAFT --key FILE      (where the keys are)"),
                ("then", f"genctl keys publish {home} DRAFT"),
            ],
        )
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
    say(f"  next: `genctl release {home}`")


@click.command()
@home_argument
@json_option
def status(home: Path, as_json: bool) -> None:
    """Show where the writer stands.

    Log, built, published, active, what is retained, and when the signatures expire. Reads of the
    past are possible as of the retained commits.
    """
    writer = open_writer(home)
    state = writer.status()
    if as_json:
        emit_json(state)
        return
    if state.pop("expired"):
        state["record_expires"] = f"{state['record_expires']} (expired)"
    del state["collected"]  # `genctl generations` tells them
    if state.pop("collecting"):
        state["collection"] = f"under way, or interrupted: `genctl gc {home}` ends it"
    facts(
        f"Writer's home {home}",
        [(key.replace("_", " "), _told(value)) for key, value in state.items()],
    )


def _told(value: object) -> str:
    if isinstance(value, list):
        return "\n".join(value)
    return "none yet" if value is None else str(value)


COMMANDS = (init, ingest, status)
