"""What the world hears of repairs: rows 29 and 30."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from manifests.errors import Unrepairable
from manifests.names import symbol_key
from replicator import repair_events
from tests.replicator.encoded import EncodedArtifact, encoded_artifact, fetch_from
from tests.support.corpus import upserts
from tests.support.homes import add, make_writer, new_node

FAILURES = "distributed.repair.failures_total"
RATIO = "distributed.artifact.repair_ratio"


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedArtifact:
    return encoded_artifact(tmp_path_factory.mktemp("encoded"), 100_003, 10, 12)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """What reads the metrics of this test alone."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(repair_events, "_meter", lambda: provider.get_meter("genctl"))
    yield reader
    provider.shutdown()


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "genctl.events")


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    return [
        (record.getMessage(), record.__dict__["facts"])
        for record in caplog.records
        if record.name == "genctl.events"
    ]


def points(reader: InMemoryMetricReader, name: str) -> list[Any]:
    """The data points of one metric; none if nothing was recorded."""
    data = reader.get_metrics_data()
    return [
        point
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def test_a_healthy_fetch_tells_nothing(
    encoded: EncodedArtifact,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    reader: InMemoryMetricReader,
) -> None:
    fetch_from(encoded.artifact, tmp_path, [encoded.store()])
    assert events(caplog) == []
    assert points(reader, FAILURES) == []


def test_row_29_a_fetch_that_rebuilds_tells_of_the_start_and_the_end(
    encoded: EncodedArtifact,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    reader: InMemoryMetricReader,
) -> None:
    fetch_from(encoded.artifact, tmp_path, [encoded.store({0: None, 7: None})])
    assert [name for name, _ in events(caplog)] == [
        "artifact_repair_started",
        "artifact_repair_completed",
    ]
    for _, facts in events(caplog):
        assert facts["artifact_id"] == encoded.artifact.blake3
        assert facts["artifact"] == encoded.artifact.name
        assert facts["lost_chunks"] == sum(encoded.geometry.chunk_count(n) for n in (0, 7))
    assert points(reader, FAILURES) == []


def test_row_30_an_artifact_that_cannot_be_rebuilt_is_told_and_counted(
    encoded: EncodedArtifact,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    reader: InMemoryMetricReader,
) -> None:
    for attempt in (1, 2):
        caplog.clear()
        with pytest.raises(Unrepairable):
            fetch_from(encoded.artifact, tmp_path, [encoded.store({0: None, 1: None, 2: None})])
        assert [name for name, _ in events(caplog)] == [
            "artifact_repair_started",
            "artifact_repair_failed",
        ]
        _, facts = events(caplog)[-1]
        assert facts["artifact_id"] == encoded.artifact.blake3
        assert facts["error"] == "Unrepairable"
        assert facts["message"]
        (failures,) = points(reader, FAILURES)
        assert failures.value == attempt


@pytest.mark.parametrize("error", [KeyboardInterrupt, ArithmeticError])
def test_a_repair_that_is_interrupted_is_told_as_failed(
    encoded: EncodedArtifact,
    caplog: pytest.LogCaptureFixture,
    reader: InMemoryMetricReader,
    error: type[BaseException],
) -> None:
    with pytest.raises(error), repair_events.told(encoded.artifact):
        raise error
    (started, _), (failed, facts) = events(caplog)
    assert (started, failed) == ("artifact_repair_started", "artifact_repair_failed")
    assert facts["error"] == error.__name__
    (failures,) = points(reader, FAILURES)
    assert failures.value == 1


def test_a_repair_within_a_repair_of_the_same_artifact_is_told_once(
    encoded: EncodedArtifact, caplog: pytest.LogCaptureFixture, reader: InMemoryMetricReader
) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        repair_events.told(encoded.artifact),
        repair_events.told(encoded.artifact),
    ):
        raise KeyboardInterrupt
    assert len(events(caplog)) == 2
    (failures,) = points(reader, FAILURES)
    assert failures.value == 1


def test_row_29_a_bootstrap_that_repaired_records_which_part_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reader: InMemoryMetricReader
) -> None:
    writer = make_writer(tmp_path)
    entry = add(writer, upserts(range(50)))
    new_node(writer, "healthy").bootstrap()
    assert points(reader, RATIO) == []
    artifacts = writer.manifest(entry.generation_id).artifacts
    lost = max(artifacts, key=lambda each: each.size_bytes)
    (Path(writer.settings.stores[0]) / symbol_key(lost.blake3, 0)).unlink()
    caplog.clear()
    tally = new_node(writer).bootstrap().brought.tally
    (ratio,) = points(reader, RATIO)
    assert ratio.count == 1
    assert ratio.sum == tally.repaired_bytes / tally.fetched_bytes
    assert 0 < ratio.sum <= 1
    assert [name for name, _ in events(caplog)] == [
        "artifact_repair_started",
        "artifact_repair_completed",
        "generation_activation_succeeded",
    ]
    repaired = [facts for name, facts in events(caplog) if name.startswith("artifact_repair")]
    assert {facts["artifact_id"] for facts in repaired} == {lost.blake3}
