"""Looking at generations: generations, show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import home_argument, json_option, open_writer
from controller.terminal import emit_json, facts, plural, printable, say, size, table

if TYPE_CHECKING:
    from controller.writer import WriterHome
    from manifests.generation import GenerationManifest


def described(manifest: GenerationManifest) -> dict[str, Any]:
    """A generation under the names that every command prints as JSON."""
    return {
        "generation_id": manifest.generation_id,
        "low_seq": manifest.commits.low_seq,
        "high_seq": manifest.commits.high_seq,
        "documents": manifest.counts.documents,
        "bytes": manifest.size_bytes,
    }


@click.command()
@home_argument
@json_option
def generations(home: Path, as_json: bool) -> None:
    """List the generations built here."""
    writer = open_writer(home)
    record = writer.current().signed.record
    published = {entry.generation_id for entry in record.published}
    listed = [
        described(manifest)
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
    """Show all that a generation is.

    For each artifact: what loss it survives, and at what cost.
    """
    writer = open_writer(home)
    manifest = writer.manifest(generation)
    stores = _stores_survived(manifest, writer.settings.stores)
    override = _override_of(writer, generation)
    if as_json:
        emit_json(
            manifest.model_dump(mode="json") | {"stores": stores, "embedder_override": override}
        )
        return
    commits, counts = manifest.commits, manifest.counts
    store_count, survived = len(stores["urls"]), stores["artifacts"]
    several = store_count > 1
    facts(
        f"Generation {manifest.generation_id} of shard {manifest.shard}",
        [
            ("built", manifest.built_at),
            ("commits", f"{commits.low_seq} to {commits.high_seq}"),
            ("parent", commits.parent_generation_id or "none"),
            ("documents", f"{counts.documents:,} live of {counts.rows:,} rows"),
            ("embedder", f"{manifest.embedder.name}, {manifest.embedder.dimensions} dimensions"),
            ("revision", manifest.embedder.revision),
            *([("override", printable(override["reason"]))] if override else []),
            ("text", manifest.lexical.library),
            ("size", f"{size(manifest.size_bytes)} in {len(manifest.artifacts)} artifacts"),
            ("stores", "\n".join(stores["urls"])),
            *([("survives", f"losing {stores['survives']}")] if several else []),
        ],
    )
    say("  gate")
    for invariant in manifest.activation.invariants:
        say(f"    {invariant.replace('_', ' ')}")
    say("  may be lost of each artifact: symbols" + (", or whole stores" if several else ""))
    table(
        [
            ("symbols", "right"),
            *([("stores", "right")] if several else []),
            ("spare", "right"),
            ("size", "right"),
            ("artifact", "left"),
        ],
        [
            [
                f"{artifact.symbols.m - artifact.symbols.k} of {artifact.symbols.m}",
                *([f"{survived[artifact.name]['survived']} of {store_count}"] if several else []),
                f"{artifact.symbols.overhead_percent} %",
                size(artifact.size_bytes),
                artifact.name,
            ]
            for artifact in manifest.artifacts
        ],
    )


def _override_of(writer: WriterHome, generation_id: str) -> dict[str, Any] | None:
    """The signed leave for nodes with another embedder; none is shown if the store is silent."""
    from manifests.errors import GenctlError

    try:
        override = writer.current().signed.record.override_of(generation_id)
    except GenctlError:
        return None
    return override.model_dump(mode="json") if override else None


def _stores_survived(manifest: GenerationManifest, urls: Sequence[str]) -> dict[str, Any]:
    """How many stores may be lost whole, of each artifact and of all; by the rule of the spread."""
    from symbols.geometry import from_manifest

    def told(survived: int) -> dict[str, Any]:
        return {"survived": survived, "survives": f"any {survived} of {plural(len(urls), 'store')}"}

    artifacts = {
        artifact.name: from_manifest(artifact.size_bytes, artifact.symbols).stores_survived(
            len(urls)
        )
        for artifact in manifest.artifacts
    }
    return {
        "urls": list(urls),
        **told(min(artifacts.values())),
        "artifacts": {name: told(survived) for name, survived in artifacts.items()},
    }


COMMANDS = (generations, show)
