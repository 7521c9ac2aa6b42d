"""Events become lines of JSON; the OpenTelemetry SDK is there only for who asks for it."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.telemetry import exporting_metrics, telling
from manifests.errors import BadSetting
from replicator.repair_events import EVENTS, emit

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROGRAM = """
import sys
from datetime import UTC, datetime
from controller.telemetry import exporting_metrics, telling
from replicator.repair_events import emit, record_ratio
from replicator.tally import FetchTally
long_running = telling(sys.stderr, lambda: datetime(2026, 1, 1, tzinfo=UTC))
with long_running if sys.argv[1] == "telling" else exporting_metrics():
    emit("artifact_repair_started")
    record_ratio(FetchTally(store_bytes=100, repaired_bytes=25))
print("sdk", any(name.startswith("opentelemetry.sdk") for name in sys.modules))
"""


WAYS = ("telling", "exporting_metrics")


def run(way: str, environment: Mapping[str, str]) -> str:
    """What is printed on stdout; on stderr are the events, if that is the way to tell them."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, way],
        cwd=ROOT,
        env=keep | dict(environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stderr.count("artifact_repair_started") == (way == "telling")
    assert ended.stderr.count("\n") == (way == "telling")
    return ended.stdout


def test_an_event_is_one_line_with_its_time_its_name_and_its_facts() -> None:
    stream = io.StringIO()
    with telling(stream, lambda: NOW, {}):
        emit("artifact_repair_started", artifact="heads/0.heads", lost_chunks=2)
        emit("artifact_repair_completed", path=Path("x"))
    emit("artifact_repair_failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first == {
        "time": "2026-01-02T03:04:05+00:00",
        "event": "artifact_repair_started",
        "facts": {"artifact": "heads/0.heads", "lost_chunks": 2},
    }
    assert second["facts"] == {"path": "x"}
    assert (EVENTS.level, EVENTS.propagate) == (logging.NOTSET, True)


@pytest.mark.parametrize("way", WAYS)
def test_without_the_variable_the_sdk_is_not_even_imported(way: str) -> None:
    assert run(way, {}) == "sdk False\n"
    assert run(way, {"OTEL_METRICS_EXPORTER": "none"}) == "sdk False\n"
    disabled = {"OTEL_METRICS_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}
    assert run(way, disabled) == "sdk False\n"


@pytest.mark.parametrize("way", WAYS)
def test_the_console_exporter_prints_the_metrics_at_the_end(way: str) -> None:
    out = run(way, {"OTEL_METRICS_EXPORTER": "console"})
    assert '"name": "distributed.artifact.repair_ratio"' in out
    assert '"sum": 0.25' in out


def test_an_exporter_that_is_not_installed_is_named() -> None:
    environment = {"OTEL_METRICS_EXPORTER": "absent"}
    for way in (telling(io.StringIO(), lambda: NOW, environment), exporting_metrics(environment)):
        with pytest.raises(BadSetting, match=r"absent.*console"), way:
            pass
