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
    from manifests.record import ControlRecord

MAX_SHOWN_RANGES = 8


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
    """List the generations that are retained, and those built here that wait to be published."""
    from controller.generation_list import listed

    writer = open_writer(home)
    record = writer.current().signed.record
    found = listed(writer, record)
    if as_json:
        emit_json(found)
        return
    table(
        [
            ("generation", "left"),
            ("commits", "right"),
            ("documents", "right"),
            ("size", "right"),
            ("published (UTC)", "left"),
            ("state", "left"),
        ],
        [_row(each) for each in found],
        spare=("size", "documents"),
    )
    if record.collected:
        say(f"Collected, and retained no more: {_told_ranges(record)}.")
    if record.collecting is not None:
        say(f"A collection is under way, or was interrupted: `genctl gc {home}` finishes it.")


def _row(each: dict[str, Any]) -> list[str]:
    return [
        each["generation_id"],
        f"{each['low_seq']}–{each['high_seq']}",
        "" if each["documents"] is None else f"{each['documents']:,}",
        "" if each["bytes"] is None else size(each["bytes"]),
        (each["published_at"] or "")[:16].replace("T", " "),
        "; ".join(_states(each)),
    ]


def _states(each: dict[str, Any]) -> list[str]:
    state = "published" if each["published"] else "built"
    return [
        "revoked" if each["revoked"] else "active" if each["active"] else state,
        *(["gone back from"] if each["gone_back_from"] else []),
        *([] if each["in_home"] else ["not here"]),
        *(["tagged " + ", ".join(each["tags"])] if each["tags"] else []),
        *([f"pinned: {printable(each['pin'])}"] if each["pin"] else []),
    ]


def _told_ranges(record: ControlRecord) -> str:
    spans = [(span.low_seq, span.high_seq) for span in record.collected]
    if len(spans) > MAX_SHOWN_RANGES:
        return f"commits of {spans[0][0]}–{spans[-1][1]}, in {len(spans):,} ranges"
    return "commits " + ", ".join(f"{a}–{b}" if a < b else f"{a}" for a, b in spans)


@click.command()
@home_argument
@click.argument("generation", metavar="GEN")
@json_option
def show(home: Path, generation: str, as_json: bool) -> None:
    """Show all that a generation is.

    For each artifact: what loss it survives, and at what cost. One that was revoked or collected is
    not shown.
    """
    writer = open_writer(home)
    said = _said_of(_record_of(writer), generation)
    manifest = writer.manifest(generation)
    stores = _stores_survived(manifest, writer.settings.stores)
    override = said["embedder_override"]
    if as_json:
        emit_json(manifest.model_dump(mode="json") | {"stores": stores} | said)
        return
    commits, counts = manifest.commits, manifest.counts
    store_count, survived = len(stores["urls"]), stores["artifacts"]
    several = store_count > 1
    facts(
        f"Generation {manifest.generation_id} of shard {manifest.shard}",
        [
            ("built", manifest.built_at),
            *([("published", said["published_at"])] if said["published_at"] else []),
            *([("tags", ", ".join(said["tags"]))] if said["tags"] else []),
            *([("pinned", printable(said["pin"]))] if said["pin"] else []),
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
        spare=("size", "spare"),
        are_names=True,
    )


def _record_of(writer: WriterHome) -> ControlRecord | None:
    """The signed record; ``None`` if the store is silent."""
    from manifests.errors import GenctlError

    try:
        return writer.current().signed.record
    except GenctlError:
        return None


def _said_of(record: ControlRecord | None, generation_id: str) -> dict[str, Any]:
    """What the record says of a generation besides its manifest.

    Raises:
        GenerationRevoked, GenerationCollected: it is not to be read any more.
    """
    if record is None:
        return {"embedder_override": None, "published_at": None, "tags": [], "pin": None}
    record.refuse_revoked(generation_id)
    record.refuse_collected(generation_id)
    override = record.override_of(generation_id)
    pins = {pin.generation_id: pin.reason for pin in record.pins}
    return {
        "embedder_override": override.model_dump(mode="json") if override else None,
        "published_at": record.published_at.get(generation_id),
        "tags": [tag.name for tag in record.tags if tag.generation_id == generation_id],
        "pin": pins.get(generation_id),
    }


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
