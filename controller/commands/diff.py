"""The diff command: what changed from one generation to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.generations import described
from controller.commands.options import json_option
from controller.terminal import emit_json, plural, printable, say, size, table

if TYPE_CHECKING:
    from builder.compare import ArtifactChanges, DocumentChanges
    from index.verification import VerifiedGeneration

IDS_UNLESS_SAID = 100
MAX_SHOWN_IDS = 100_000


@click.command()
@click.argument("home", type=click.Path(path_type=Path), metavar="HOME")
@click.argument("before", metavar="GEN")
@click.argument("after", metavar="GEN")
@click.option(
    "--ids",
    "shown",
    type=click.IntRange(0, MAX_SHOWN_IDS),
    is_flag=False,
    flag_value=IDS_UNLESS_SAID,
    default=0,
    metavar="[N]",
    help=f"Name the documents, up to N of each kind ({IDS_UNLESS_SAID}).",
)
@json_option
def diff(home: Path, before: str, after: str, shown: int, as_json: bool) -> None:
    """Compare two generations: documents, bytes, embedder, counts.

    HOME is a writer's or a node's; both generations must be there. Documents are compared by id and
    content, whatever was merged in between.
    """
    from builder.compare import compare_artifacts, compare_documents, compare_embedders
    from controller.resident import open_resident
    from index.contents import Contents

    held = [open_resident(home, generation) for generation in (before, after)]
    old, new = (each.verified for each in held)
    documents = compare_documents(Contents(old).fingerprints(), Contents(new).fingerprints())
    artifacts = compare_artifacts(old.manifest, new.manifest)
    embedder = compare_embedders(old.manifest.embedder, new.manifest.embedder)
    document = {
        "before": _described(old),
        "after": _described(new),
        "documents": {
            "added": len(documents.added),
            "changed": len(documents.changed),
            "removed": len(documents.removed),
            "same": documents.unchanged,
        },
        "bytes": _bytes(artifacts),
        "artifacts": {
            "new": [{"name": a.name, "bytes": a.size_bytes} for a in artifacts.new],
            "gone": [{"name": a.name, "bytes": a.size_bytes} for a in artifacts.gone],
        },
        "embedder": {
            field: {"before": one, "after": other} for field, (one, other) in embedder.items()
        },
        "ids": _ids(documents, shown),
    }
    if as_json:
        emit_json(document)
    else:
        _tell(document)


def _described(verified: VerifiedGeneration) -> dict[str, Any]:
    counts = verified.manifest.counts
    return described(verified.manifest) | {"rows": counts.rows, "tombstones": counts.tombstones}


def _bytes(changes: ArtifactChanges) -> dict[str, Any]:
    kinds = [*changes.by_kind.items(), ("all", changes.total)]
    return {
        kind: {"shared": each.shared_bytes, "new": each.new_bytes, "gone": each.gone_bytes}
        for kind, each in kinds
    }


def _ids(documents: DocumentChanges, shown: int) -> dict[str, Any]:
    return {
        "added": list(documents.added[:shown]),
        "changed": {
            identity: list(parts) for identity, parts in [*documents.changed.items()][:shown]
        },
        "removed": list(documents.removed[:shown]),
    }


def _tell(document: dict[str, Any]) -> None:
    before, after, documents = document["before"], document["after"], document["documents"]
    say(f"From {before['generation_id']} to {after['generation_id']}")
    say(
        f"  {plural(documents['added'], 'document')} added, {documents['changed']:,} changed, "
        f"{documents['removed']:,} removed, {documents['same']:,} the same"
    )
    names = ("low_seq", "high_seq", "documents", "rows", "tombstones")
    table(
        [("", "left"), ("before", "right"), ("after", "right")],
        [[name.replace("_", " "), f"{before[name]:,}", f"{after[name]:,}"] for name in names],
    )
    table(
        [("bytes", "left"), ("shared", "right"), ("new", "right"), ("gone", "right")],
        [
            [kind, *(size(value) for value in each.values())]
            for kind, each in document["bytes"].items()
        ],
    )
    if not document["embedder"]:
        say("  the same embedder")
    for field, sides in document["embedder"].items():
        say(f"  another embedder: {field} {sides['before']} before, {sides['after']} after")
    for identity in document["ids"]["added"]:
        say(f"  + {printable(identity)}")
    for identity, parts in document["ids"]["changed"].items():
        say(f"  ~ {printable(identity)} ({', '.join(parts)})")
    for identity in document["ids"]["removed"]:
        say(f"  - {printable(identity)}")
