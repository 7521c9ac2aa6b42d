"""The query command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.commands.options import json_option
from controller.terminal import plural, progress, say, table

if TYPE_CHECKING:
    from query.request import Answer


@click.command()
@click.argument("where", type=click.Path(path_type=Path), metavar="WHERE")
@click.argument("text", required=False)
@click.option("-k", "limit", type=int, default=10, show_default=True, help="How many hits.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "lexical", "vector"]),
    help="By default hybrid, where the query has what both halves need.",
)
@click.option(
    "--as-of-commit-seq", type=int, metavar="N", help="Read the past: nothing newer than commit N."
)
@click.option(
    "--as-of",
    metavar="TIME",
    help="Read the past: the newest that was published by TIME, as 2026-11-20T12:00:00Z, whether "
    "or not it was active then, or was gone back from since.",
)
@click.option(
    "--min-commit-seq", type=int, metavar="N", help="Wait until commit N is part of the answer."
)
@click.option(
    "--deadline-ms",
    type=click.IntRange(0, 86_400_000),
    default=5000,
    show_default=True,
    help="How long --min-commit-seq waits.",
)
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help='One {"id", "text"?, "vector"?} a line; prints one JSON answer a line.',
)
@click.option("--id", "identity", metavar="ID", help="Print the document of this id instead.")
@click.option("--syntax", is_flag=True, help="TEXT is tantivy's query language, not plain words.")
@json_option
def query(
    where: Path,
    text: str | None,
    limit: int,
    mode: Any,
    as_of_commit_seq: int | None,
    as_of: str | None,
    min_commit_seq: int | None,
    deadline_ms: int,
    queries: Path | None,
    identity: str | None,
    syntax: bool,
    as_json: bool,
) -> None:
    """Search a node's generation. WHERE is the node's home."""
    if sum(given is not None for given in (text, queries, identity)) != 1:
        raise click.UsageError("give one of TEXT, --queries FILE.jsonl and --id ID")
    import msgspec

    from controller.node import NodeHome
    from controller.node_reads import choose
    from manifests.errors import BadQuery
    from query.request import Request, point_in_time, read_queries

    as_of_time = None if as_of is None else point_in_time(as_of)
    node = NodeHome(where)
    reader = node.reader()

    if identity is not None:
        chosen = choose(
            node,
            as_of_commit_seq=as_of_commit_seq,
            as_of_time=as_of_time,
            min_commit_seq=min_commit_seq,
            deadline_ms=deadline_ms,
        )
        snapshot = reader.snapshot(chosen.entry)
        document = snapshot.document(identity)
        if document is None:
            raise BadQuery(
                f"{snapshot.manifest.generation_id} has no document {identity!r}", id=identity
            )
        say(msgspec.json.encode(msgspec.structs.asdict(document)).decode())
        return

    def ask(request: Request) -> Answer:
        return node.query(
            reader,
            request,
            as_of_commit_seq=as_of_commit_seq,
            as_of_time=as_of_time,
            min_commit_seq=min_commit_seq,
            deadline_ms=deadline_ms,
        )

    if queries is None:
        answer = ask(Request(text=text, mode=mode, limit=limit, syntax=syntax))
        if as_json:
            say(msgspec.json.encode(answer).decode())
        else:
            _tell(answer)
            if mode is None and answer.mode == "lexical":
                click.echo(
                    "searched by text only: this index's vectors came with its documents; give "
                    "the query's vector with --queries",
                    err=True,
                )
        return
    with progress("Querying", unit="queries") as start:
        step = start(None)
        for number, line in read_queries(queries):
            request = Request(
                text=line.text, vector=line.array(), mode=mode, limit=limit, syntax=syntax
            )
            try:
                answer = ask(request)
            except BadQuery as error:
                place = {"file": str(queries), "line": number}
                raise BadQuery(
                    f"{queries}:{number}: {error.message}", **(error.facts | place)
                ) from error
            say(msgspec.json.encode({"query_id": line.id} | msgspec.to_builtins(answer)).decode())
            step(1)


def _tell(answer: Answer) -> None:
    published = f" · published {answer.published_at}" if answer.published_at else ""
    if answer.hits:
        table(
            [("score", "right"), ("id", "left"), ("title", "left")],
            [[f"{hit.score:.4f}", hit.id, hit.title] for hit in answer.hits],
        )
    say(
        f"{plural(len(answer.hits), 'hit')} · {answer.mode} · {answer.took_ms:.1f} ms · "
        f"{answer.generation_id} · commit_seq {answer.commit_seq}{published}"
    )
