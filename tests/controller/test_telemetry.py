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

from controller.telemetry import telling
from manifests.errors import BadSetting
from replicator.repair_events import EVENTS, emit

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROGRAM = """
import sys
from datetime import UTC, datetime
from controller.telemetry import telling
from replicator.repair_events import record_ratio
from replicator.tally import FetchTally
with telling(sys.stderr, lambda: datetime(2026, 1, 1, tzinfo=UTC)):
    record_ratio(FetchTally(store_bytes=100, repaired_bytes=25))
print("sdk", any(name.startswith("opentelemetry.sdk") for name in sys.modules))
"""


def run(environment: Mapping[str, str]) -> str:
    keep = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=keep | dict(environment),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


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


def test_without_the_variable_the_sdk_is_not_even_imported() -> None:
    assert run({}).endswith("sdk False\n")
    assert run({"OTEL_METRICS_EXPORTER": "none"}).endswith("sdk False\n")
    disabled = {"OTEL_METRICS_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}
    assert run(disabled).endswith("sdk False\n")


def test_the_console_exporter_prints_the_metrics_at_the_end() -> None:
    out = run({"OTEL_METRICS_EXPORTER": "console"})
    assert '"name": "distributed.artifact.repair_ratio"' in out
    assert '"sum": 0.25' in out


def test_an_exporter_that_is_not_installed_is_named() -> None:
    with (
        pytest.raises(BadSetting, match=r"absent.*console"),
        telling(io.StringIO(), lambda: NOW, {"OTEL_METRICS_EXPORTER": "absent"}),
    ):
        pass
