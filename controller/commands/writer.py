"""The writer's commands: init, ingest, build, publish, activate, release, rollback and looking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import home_argument, json_option
from controller.terminal import emit_json, facts, plural, progress, say, size, table

if TYPE_CHECKING:
    from controller.writer import BuiltGeneration, WriterHome
    from manifests.generation import GenerationManifest


def _open(home: Path) -> WriterHome:
    from controller.writer import WriterHome

    return WriterHome(home)


@click.command()
@home_argument
@click.option("--store", required=True, metavar="URL", help="Where to publish: a folder.")
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
    store: str,
    embedder: str,
    dimensions: int,
    shard: str,
    quantization: Any,
    as_json: bool,
) -> None:
    """Make a writer's home: keys, commit log, and an empty signed record in the store."""
    from controller.settings import WriterSettings
    from controller.writer import WriterHome
    from store.locate import open_store

    settings = WriterSettings(
        shard=shard,
        store=open_store(store, create=True).url,
        embedder=embedder,
        dimensions=dimensions,
        quantization=quantization,
    )
    made = WriterHome.init(home, settings)
    root = home / "root.json"
    if as_json:
        emit_json({"home": str(home), "root": str(root), "made": made} | settings.model_dump())
        return
    facts(
        f"{'Made' if made else 'There is already'} the writer's home {home} of shard {shard}.",
        [
            ("store", settings.store),
            ("embedder", f"{embedder}, {dimensions} dimensions, {quantization}"),
            ("give nodes", str(root)),
            ("next", f"genctl ingest {home} FILE"),
        ],
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
    r"""Append documents and deletes to the commit log, durably, all of a file or nothing.

    \b
    A document: {"id": …, "title"?: …, "text"?: …, "vector"?: […], "fields"?: {…}}
    A delete:   {"id": …, "op": "delete"}

    The same command run again appends nothing twice.
    """
    writer = _open(home)
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
def build(home: Path, as_json: bool) -> None:
    """Build a generation of everything in the commit log."""
    built = _build(_open(home))
    if as_json:
        emit_json(_described(built.manifest) | _costs(built))
        return
    _tell_built(built)


def _build(writer: WriterHome) -> BuiltGeneration:
    with progress("Building", unit="documents") as start:
        start(None)
        return writer.build()


def _described(manifest: GenerationManifest) -> dict[str, Any]:
    return {
        "generation_id": manifest.generation_id,
        "low_seq": manifest.commits.low_seq,
        "high_seq": manifest.commits.high_seq,
        "documents": manifest.counts.documents,
        "bytes": manifest.size_bytes,
    }


def _costs(built: BuiltGeneration) -> dict[str, Any]:
    report = built.report
    return {
        "built": report is not None,
        "new_bytes": report.new_bytes if report else 0,
        "reused_bytes": report.reused_bytes if report else built.manifest.size_bytes,
    }


def _tell_built(built: BuiltGeneration) -> None:
    manifest, report = built.manifest, built.report
    what = (
        f"commits {manifest.commits.low_seq} to {manifest.commits.high_seq}, "
        f"{plural(manifest.counts.documents, 'document')}, {size(manifest.size_bytes)}"
    )
    if report is None:
        say(f"Nothing new since {manifest.generation_id} ({what}).")
    else:
        say(f"Built {manifest.generation_id}: {what}.")
        say(f"  {size(report.new_bytes)} new, {size(report.reused_bytes)} reused as they were")


@click.command()
@home_argument
@click.argument("generation", required=False, metavar="[GEN]")
@json_option
def publish(home: Path, generation: str | None, as_json: bool) -> None:
    """Upload a generation's symbols and sign the record that names it. Default: the latest."""
    reports = _publish(_open(home), generation)
    if as_json:
        emit_json(reports[-1])
        return
    _tell_published(reports)


def _publish(writer: WriterHome, generation: str | None) -> list[dict[str, Any]]:
    from dataclasses import asdict

    with progress("Publishing") as start:
        return [asdict(report) for report in writer.publish(generation, start)]


def _tell_published(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        if report["already_published"]:
            say(f"{report['generation_id']} is published already.")
        else:
            say(
                f"Published {report['generation_id']}: "
                f"{plural(report['uploaded_artifacts'], 'artifact')} as "
                f"{plural(report['uploaded_objects'], 'object')}, "
                f"{size(report['uploaded_bytes'])}; {report['reused_artifacts']:,} in the store "
                "before."
            )


@click.command()
@home_argument
@click.argument("generation", metavar="GEN")
@json_option
def activate(home: Path, generation: str, as_json: bool) -> None:
    """Make a published generation the active one."""
    activated = _open(home).activate(generation)
    if as_json:
        emit_json({"generation_id": generation, "activated": activated})
        return
    say(f"{generation} is {'now' if activated else 'already'} the active generation.")


@click.command()
@home_argument
@json_option
def release(home: Path, as_json: bool) -> None:
    """Build, publish and activate: what is in the log goes live."""
    writer = _open(home)
    built = _build(writer)
    if not as_json:
        _tell_built(built)
    reports = _publish(writer, built.manifest.generation_id)
    if not as_json:
        _tell_published(reports)
    activated = writer.activate(built.manifest.generation_id)
    if as_json:
        emit_json(
            _described(built.manifest)
            | _costs(built)
            | {
                "uploaded_bytes": sum(report["uploaded_bytes"] for report in reports),
                "activated": activated,
            }
        )
        return
    say(
        f"{built.manifest.generation_id} is {'now' if activated else 'already'} the active "
        "generation."
    )


@click.command()
@home_argument
@click.option("--to", "generation", metavar="GEN", help="Default: the one before the active.")
@click.option("--reason", required=True, help="Why; it is part of the signed record.")
@json_option
def rollback(home: Path, generation: str | None, reason: str, as_json: bool) -> None:
    """Sign a record that goes back to an older generation."""
    target = _open(home).rollback(generation, reason)
    if as_json:
        emit_json({"generation_id": target, "reason": reason})
        return
    say(f"Rolled back to {target}. Nodes follow at their next bootstrap; it is still resident.")


@click.command()
@home_argument
@json_option
def generations(home: Path, as_json: bool) -> None:
    """List the generations built here, and which are published and active."""
    writer = _open(home)
    record = writer.current().signed.record
    published = {entry.generation_id for entry in record.published}
    listed = [
        _described(manifest)
        | {
            "built_at": manifest.built_at,
            "published": manifest.generation_id in published,
            "active": manifest.generation_id == record.active,
        }
        for manifest in writer.built()
    ]
    if as_json:
        emit_json(listed)
        return
    table(
        [
            ("generation", "left"),
            ("commits", "right"),
            ("documents", "right"),
            ("size", "right"),
            ("state", "left"),
        ],
        [
            [
                each["generation_id"],
                f"{each['low_seq']}–{each['high_seq']}",
                f"{each['documents']:,}",
                size(each["bytes"]),
                "active" if each["active"] else "published" if each["published"] else "built",
            ]
            for each in listed
        ],
    )


@click.command()
@home_argument
@click.argument("generation", metavar="GEN")
@json_option
def show(home: Path, generation: str, as_json: bool) -> None:
    """Show all that a generation is, and what loss each artifact survives."""
    writer = _open(home)
    manifest = writer.manifest(generation)
    if as_json:
        emit_json(manifest.model_dump(mode="json"))
        return
    commits, counts = manifest.commits, manifest.counts
    facts(
        f"Generation {manifest.generation_id} of shard {manifest.shard}",
        [
            ("built", manifest.built_at),
            ("commits", f"{commits.low_seq} to {commits.high_seq}"),
            ("parent", commits.parent_generation_id or "none"),
            ("documents", f"{counts.documents:,} live of {counts.rows:,} rows"),
            ("embedder", f"{manifest.embedder.name}, {manifest.embedder.dimensions} dimensions"),
            ("revision", manifest.embedder.revision),
            ("text", manifest.lexical.library),
            ("size", f"{size(manifest.size_bytes)} in {len(manifest.artifacts)} artifacts"),
        ],
    )
    say("  gate")
    for invariant in manifest.activation.invariants:
        say(f"    {invariant.replace('_', ' ')}")
    table(
        [("survives losing", "right"), ("spare", "right"), ("size", "right"), ("artifact", "left")],
        [
            [
                artifact.symbols.survives,
                f"{artifact.symbols.overhead_percent} %",
                size(artifact.size_bytes),
                artifact.name,
            ]
            for artifact in manifest.artifacts
        ],
    )


@click.command()
@home_argument
@json_option
def status(home: Path, as_json: bool) -> None:
    """Show where the writer stands: log, built, published, active, and when signatures expire."""
    writer = _open(home)
    state = writer.status()
    if as_json:
        emit_json(state)
        return
    facts(f"Writer's home {home}", [(key.replace("_", " "), str(v)) for key, v in state.items()])


COMMANDS = (
    init,
    ingest,
    build,
    publish,
    activate,
    release,
    rollback,
    generations,
    show,
    status,
)
