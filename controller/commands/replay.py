"""The replay command: is what was shipped what the commit log comes to?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import home_argument, json_option
from controller.terminal import emit_json, plural, printable, progress, say, table

if TYPE_CHECKING:
    from builder.agreement import Agreement
    from builder.replay import ReplayReport

DEFAULT_SAMPLE = 200
MAX_SHOWN_IDS = 10_000
SHOWN_TERMS = 10


@click.command()
@home_argument
@click.option("--verify", "generation", required=True, metavar="GEN", help="What was shipped.")
@click.option(
    "--log",
    "log_folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The commit log; by default HOME/log.",
)
@click.option(
    "--sample",
    type=click.IntRange(0, 100_000),
    default=DEFAULT_SAMPLE,
    show_default=True,
    help="How many documents to make queries of, besides the golden queries.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Another seed, other sampled queries."
)
@click.option(
    "--ids",
    "shown",
    type=click.IntRange(0, MAX_SHOWN_IDS),
    default=20,
    show_default=True,
    help="How many documents to name of each kind of difference.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Rebuild in this new folder and leave it; by default in a temporary one.",
)
@json_option
def replay(
    home: Path,
    generation: str,
    log_folder: Path | None,
    sample: int,
    seed: int,
    shown: int,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Rebuild a generation from the commit log and compare it with the shipped one.

    HOME may be a copy of a writer's settings.json, root.json and log/ on another machine. Ends with
    exit code 6 if a document or a term differs, or more than 0.05 % of the hits.
    """
    from builder.replay import LEAST_AGREEMENT_PERCENT, Sampling
    from controller.replay import replay as run
    from controller.replay import scratch_folder
    from manifests.errors import ReplayDiffers

    with scratch_folder(keep) as scratch, progress("Replaying", unit="") as start:
        start(None)
        report = run(home, generation, scratch, Sampling(sample, seed), log_folder)
    document = described(report, shown) | {
        "sample": {"documents": sample, "seed": seed},
        "kept": str(keep) if keep else None,
    }
    if as_json:
        emit_json(document)
    else:
        _tell(report, document)
    if not report.agrees:
        changes = report.changes
        raise ReplayDiffers(
            f"{generation} is not what the log comes to: "
            f"{plural(len(changes.removed), 'document')} missing, {len(changes.added)} too many, "
            f"{len(changes.changed)} changed; {plural(len(report.terms), 'term')} in another "
            f"number of documents; {report.lexical.percent:.3f} % of the text hits and "
            f"{report.exact_vectors.percent:.3f} % of the exact vector hits agree",
            generation_id=generation,
            missing=len(changes.removed),
            too_many=len(changes.added),
            changed=len(changes.changed),
            terms=len(report.terms),
            lexical_percent=report.lexical.percent,
            exact_vectors_percent=report.exact_vectors.percent,
            least_percent=LEAST_AGREEMENT_PERCENT,
        )


def described(report: ReplayReport, shown: int) -> dict[str, Any]:
    """The report as ``--json`` prints it, naming up to ``shown`` documents of each kind."""
    changes = report.changes
    return {
        "generation_id": report.manifest.generation_id,
        "high_seq": report.manifest.commits.high_seq,
        "agrees": report.agrees,
        "documents": {
            "shipped": report.manifest.counts.documents,
            "rebuilt": report.rebuilt_documents,
            "same": changes.unchanged,
            "missing": len(changes.removed),
            "too_many": len(changes.added),
            "changed": len(changes.changed),
        },
        "terms": {"differ": len(report.terms), "examples": list(report.terms[:shown])},
        "ids": {
            "missing": list(changes.removed[:shown]),
            "too_many": list(changes.added[:shown]),
            "changed": {
                identity: list(parts) for identity, parts in [*changes.changed.items()][:shown]
            },
        },
        "hits": {
            "lexical": _counted(report.lexical),
            "exact_vectors": _counted(report.exact_vectors),
            "lexical_as_served": _counted(report.lexical_as_served),
            "approximate_vectors": _counted(report.approximate_vectors),
        },
    }


def _counted(found: Agreement) -> dict[str, Any]:
    return {
        "queries": found.queries,
        "hits": found.hits,
        "agreed": found.agreed,
        "percent": round(found.percent, 4),
    }


def _tell(report: ReplayReport, document: dict[str, Any]) -> None:
    documents, ids, sample = document["documents"], document["ids"], document["sample"]
    say(
        f"Rebuilt commits 1 to {document['high_seq']}: {documents['rebuilt']:,} documents; "
        f"{report.manifest.generation_id} has {documents['shipped']:,}."
    )
    say(
        f"  {documents['same']:,} the same, {documents['missing']:,} missing, "
        f"{documents['too_many']:,} too many, {documents['changed']:,} changed"
    )
    for kind in ("missing", "too_many"):
        for identity in ids[kind]:
            say(f"    {kind.replace('_', ' ')}: {printable(identity)}")
    for identity, parts in ids["changed"].items():
        say(f"    changed: {printable(identity)} ({', '.join(parts)})")
    if report.terms:
        examples = ", ".join(printable(term) for term in report.terms[:SHOWN_TERMS])
        say(f"  {plural(len(report.terms), 'term')} in another number of documents: {examples}")
    table(
        [("hits that agree", "right"), ("of", "right"), ("queries", "right"), ("", "left")],
        [
            [
                f"{found['percent']:.3f} %",
                f"{found['hits']:,}",
                f"{found['queries']:,}",
                kind.replace("_", " "),
            ]
            for kind, found in document["hits"].items()
        ],
    )
    say("  as served and approximate: reported only, they decide nothing")
    say(f"  sampled {plural(sample['documents'], 'document')}, seed {sample['seed']}")
    if document["kept"]:
        say(f"  kept in {document['kept']}")
    if report.agrees:
        say(f"{report.manifest.generation_id} is what the log comes to.")
