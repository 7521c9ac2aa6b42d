"""The command that lets other nodes fetch from this one."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.commands.options import json_option, node_argument
from controller.terminal import emit_json, say
from manifests.errors import NothingPublished

if TYPE_CHECKING:
    from fastapi import FastAPI

    from controller.node import NodeHome


@click.command()
@node_argument
@click.option(
    "--listen",
    default="127.0.0.1:7420",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0 is a free one.",
)
@json_option
def serve(home: Path, listen: str, as_json: bool) -> None:
    """Let other nodes fetch what this node has verified, until it is interrupted.

    Meanwhile the node's disk is scrubbed, and events go to stderr, one line of JSON each.

    Anyone who reaches the address can read, without authentication; whoever fetches verifies the
    bytes. Listen on an address that only peers reach.
    """
    from controller import clock
    from controller import serve as server
    from controller.node import NodeHome
    from controller.node_scrub import background
    from controller.telemetry import telling

    node = NodeHome(home)
    application = peer_application_of(node)
    with server.open_listener(listen) as listener:
        url = server.url_of(listener)

        def on_ready() -> None:
            if as_json:
                emit_json({"url": url})
            else:
                say(f"Serving what {home} has verified at {url}; Ctrl-C ends it")

        with telling(sys.stderr, clock.now):
            server.serve(application, listener, [background(node)], on_ready)


def peer_application_of(node: NodeHome) -> FastAPI:
    """What a node serves, within the limits of its settings."""
    from controller.peer_service import peer_application
    from controller.verified_files import VerifiedFiles
    from store.rate_limit import TokenBucket

    limits = node.settings.limits
    bandwidth = None
    if limits.serve_bytes_per_s is not None:
        bandwidth = TokenBucket(limits.serve_bytes_per_s, time.monotonic)
    return peer_application(
        VerifiedFiles(node.home),
        lambda: _health(node),
        limits.serve_reads_at_once,
        bandwidth,
    )


def _health(node: NodeHome) -> dict[str, object]:
    """What the node answers queries from.

    Nothing yet in a node that is still being filled, and nothing where the active generation is
    damaged: the node refuses to read it.
    """
    nothing: dict[str, object] = {"generation_id": None, "commit_seq": None}
    try:
        active = node.pointer().active
    except NothingPublished:
        return nothing
    if node.state().damage_of(active.generation_id) is not None:
        return nothing
    return {"generation_id": active.generation_id, "commit_seq": active.high_seq}
