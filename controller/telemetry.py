"""What genctl tells the world: events as JSON lines, metrics where asked for.

``genctl node serve`` tells both (:func:`telling`). A command that ends by itself keeps stderr to
one error and tells metrics only (:func:`exporting_metrics`).

The rooms log events to ``genctl.events`` and record metrics with the OpenTelemetry API; this is the
only place that knows its SDK, and imports it only if ``OTEL_METRICS_EXPORTER`` (a list, as in
``console`` or ``otlp``) asks for it. Exporters are found by the entry points that OpenTelemetry
gives them, and read their own ``OTEL_*`` variables; ``otlp`` is in a package of its own,
``opentelemetry-exporter-otlp``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TextIO

from manifests.errors import BadSetting
from replicator.repair_events import EVENTS

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

EXPORTER_VARIABLE = "OTEL_METRICS_EXPORTER"
_EXPORTERS = "opentelemetry_metrics_exporter"


class EventLines(logging.Handler):
    """Writes each event as one line of JSON: ``{"time", "event", "facts"}``."""

    def __init__(self, stream: TextIO, now: Callable[[], datetime]) -> None:
        super().__init__()
        self._stream = stream
        self._now = now

    def emit(self, record: logging.LogRecord) -> None:
        """See :meth:`logging.Handler.emit`."""
        line = {
            "time": self._now().isoformat(),
            "event": record.getMessage(),
            "facts": getattr(record, "facts", {}),
        }
        try:
            self._stream.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self.handleError(record)


@contextlib.contextmanager
def telling(
    stream: TextIO, now: Callable[[], datetime], environment: Mapping[str, str] = os.environ
) -> Iterator[None]:
    """Tell events on ``stream`` and export metrics as the environment says, while the block runs.

    Raises:
        BadSetting: it names an exporter that is not installed.
    """
    handler = EventLines(stream, now)
    level, propagates = EVENTS.level, EVENTS.propagate
    with exporting_metrics(environment):
        EVENTS.addHandler(handler)
        EVENTS.setLevel(logging.INFO)
        EVENTS.propagate = False
        try:
            yield
        finally:
            EVENTS.removeHandler(handler)
            EVENTS.setLevel(level)
            EVENTS.propagate = propagates


@contextlib.contextmanager
def exporting_metrics(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Export metrics as the environment says while the block runs, for the last time at its end.

    At most once in a process: OpenTelemetry keeps the first provider that it is given.

    Raises:
        BadSetting: it names an exporter that is not installed.
    """
    listed = environment.get(EXPORTER_VARIABLE, "").split(",")
    names = [name.strip() for name in listed if name.strip() not in {"", "none"}]
    if not names or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield
        return
    from opentelemetry.metrics import set_meter_provider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    readers = [PeriodicExportingMetricReader(_exporter(name)()) for name in names]
    provider = MeterProvider(readers, shutdown_on_exit=False)
    set_meter_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def _exporter(name: str) -> Callable[[], MetricExporter]:
    """The exporter that OpenTelemetry knows by this name."""
    for point in entry_points(group=_EXPORTERS, name=name):
        exporter: Callable[[], MetricExporter] = point.load()
        return exporter
    known = ", ".join(sorted({point.name for point in entry_points(group=_EXPORTERS)}))
    raise BadSetting(
        f"{EXPORTER_VARIABLE} names the exporter {name!r}, which is not installed (there is: "
        f"{known}); install it, or unset the variable",
        exporter=name,
    )
