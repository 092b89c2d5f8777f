"""One run with many sinks: the training thread pays for one append per event, and every sink receives everything."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_backends.wandb import WandbSink
from pte_tracking._delivery.backlog import backlog
from pte_tracking._store.manifest import Manifest
from pte_tracking.sinks import Sink

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.probe.pte_probe import Probe

ROWS = 100


def count_writes() -> int:
    """Return the number of system calls of this thread that wrote something."""
    match = re.search(r"^syscw: (\d+)", Path("/proc/thread-self/io").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def log_rows(directory: Path, sinks: Sequence[str | Sink]) -> int:
    """Return the number of writes of this thread for all rows after the first one."""
    with pte.Run(directory, sinks=sinks, close_timeout=100) as run:
        run.log_metrics({"loss": 0.0, "accuracy": 0.0}, 0)
        before = count_writes()
        for step in range(1, ROWS):
            run.log_metrics({"loss": float(step), "accuracy": step / 7}, step)
        return count_writes() - before


@pytest.mark.skipif(sys.platform != "linux", reason="counts writes in /proc")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # Raised inside MLflow.
def test_row_costs_one_append_for_any_number_of_sinks_and_reaches_each(
    tmp_path: Path, mlflow_store: str, probes: Callable[[str], Probe]
) -> None:
    first, second = probes("first"), probes("second")
    delivered = ["tensorboard", MLflowSink(mlflow_store), WandbSink("digits"), first.sink(), second.sink()]
    assert log_rows(tmp_path / "one", [probes("only").sink()]) == ROWS - 1
    # The training thread also writes the JSON log, because it is an inline sink.
    assert log_rows(tmp_path / "run", ["json", "csv", *delivered]) == 2 * (ROWS - 1)
    assert backlog(tmp_path / "run", Manifest.load(tmp_path / "run")) == []

    expected = [(step, float(step)) for step in range(ROWS)]
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0}).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == expected
    client = MlflowClient(mlflow_store)
    (run,) = client.search_runs(["0"])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == expected
    for probe in (first, second):
        assert [(step, value) for key, step, value in probe.points() if key == "loss"] == expected
    (file,) = (tmp_path / "run").glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 0
    with open(tmp_path / "run" / "log.csv", newline="") as table:
        assert [(int(row["iteration"]), float(row["loss"])) for row in csv.DictReader(table)] == expected
    rows = json.loads((tmp_path / "run" / "log").read_text())
    assert [(row["iteration"], row["loss"]) for row in rows] == expected
