"""Delivery with a full disk: every event is delivered once space is available."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pte_backends.mlflow import MLflowSink
from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._runs.run import Run
from pte_tracking._store import events
from pte_tracking._store.manifest import Manifest
from pte_tracking.testing import RecordedRun
from tests import servers
from tests.disks import fill, grow, small_disk

pytestmark = pytest.mark.usefixtures("mlflow_environment")


@pytest.fixture
def disk(tmp_path: Path, mlflow_template: Path) -> Iterator[Path]:
    """Small disk with an MLflow store and 400 kB of free space."""
    with small_disk(tmp_path / "disk", mlflow_template.stat().st_size + 400_000) as mount:
        servers.copy_store(mlflow_template, mount)
        yield mount


def deliver_with_retries(consumer: SinkConsumer, max_attempts: int) -> list[str]:
    """Deliver all events with retries, as the delivery process does, and return the errors."""
    problems = []
    for _ in range(max_attempts):
        try:
            while consumer.deliver_next():
                pass
        except Exception as error:
            problems.append(str(error))
            consumer.record_failure(error)
        else:
            break
    return problems


@pytest.mark.parametrize("full_from", ["start", "first delivery"])
def test_delivery_store_disk_full_completes_after_space_is_freed(disk: Path, tmp_path: Path, full_from: str) -> None:
    uri = f"sqlite:///{disk / 'mlflow.db'}"
    recorded = RecordedRun(tmp_path / "run", MLflowSink(uri))
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    recorded.log(0, {"a": 0.0})
    if full_from == "first delivery":
        assert not deliver_with_retries(consumer, 1)
    filler = fill(disk)
    for step in range(1, 4000):
        recorded.log(step, {"a": float(step)})
    (recorded.directory / "picture.png").write_bytes(b"x" * 100_000)
    recorded.journal.append(events.Figure, "loss", 1, "picture.png")
    recorded.journal.append(events.Params, {"lr": 0.1})
    problems = deliver_with_retries(consumer, 3)
    assert len(problems) == 3
    assert all("full" in problem or "No space" in problem or "disk I/O" in problem for problem in problems), problems
    filler.unlink()
    grow(disk, 20 << 20)
    assert not deliver_with_retries(consumer, 1)
    consumer.finish("FINISHED")
    assert not consumer.cursor.rejected
    (run,) = MlflowClient(uri).search_runs(["0"])
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.1"})
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "a")
    assert sorted((point.step, point.value) for point in history) == [(step, float(step)) for step in range(4000)]
    (figure,) = MlflowClient(uri).list_artifacts(run.info.run_id, "figures")
    assert figure.file_size == 100_000


def test_delivery_run_disk_full_completes_after_space_is_freed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        with Run(disk / "run", sinks=["json", "tensorboard"]) as run:
            filler = fill(disk)  # The delivery process is still starting.
            for step in range(3000):
                run.log_metrics({"a": float(step)}, step)
            time.sleep(3)
            filler.unlink()
            grow(disk, 20 << 20)
        assert not backlog(run.directory, Manifest.load(run.directory))
        accumulator = EventAccumulator(str(run.directory), size_guidance={"scalars": 0})
        accumulator.Reload()
        assert [(event.step, event.value) for event in accumulator.Scalars("a")] == [(i, float(i)) for i in range(3000)]
        assert [row["a"] for row in json.loads((run.directory / "log").read_text())] == [*map(float, range(3000))]
    assert len(caplog.records) < 10, caplog.text
