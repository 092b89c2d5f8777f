"""Concurrent delivery of several runs to one server."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from pte_tracking._delivery.sync import sync
from tests.postgres import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]
RUNS, ITERATIONS = 8, 200
TRAIN = f"""
import sys, time
import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
directory, uri, experiment = sys.argv[1:]
with pte.Run(directory, sinks=[MLflowSink(uri, experiment)], close_timeout=0) as run:
    for step in range(1, {ITERATIONS + 1}):
        run.log_metrics({{"loss": step / 7, "accuracy": step / 3}}, step)
        time.sleep(0.05)
"""


def test_concurrent_runs_are_delivered_without_loss_or_duplicates(
    real_server: str, database: Postgres, tmp_path: Path
) -> None:
    experiment = uuid.uuid4().hex
    folders = [tmp_path / str(number) for number in range(RUNS)]
    trainings = [
        subprocess.Popen([sys.executable, "-c", TRAIN, str(folder), real_server, experiment]) for folder in folders
    ]
    assert [training.wait(200) for training in trainings] == [0] * RUNS
    for folder in folders:
        assert sync(folder, timeout=60) == []
    rows = database.query(
        f"""SELECT run_uuid, key, array_agg(step ORDER BY step), array_agg(value ORDER BY step), min(status)
        FROM metrics JOIN runs USING (run_uuid) JOIN experiments USING (experiment_id)
        WHERE experiments.name = '{experiment}'
        GROUP BY 1, 2""",
        "mlflow",
    )
    assert len({run for run, *_ in rows}) == RUNS
    assert len(rows) == 2 * RUNS
    steps = [*range(1, ITERATIONS + 1)]
    for _, key, stored_steps, values, status in rows:
        assert stored_steps == steps
        assert values == [step / {"loss": 7, "accuracy": 3}[key] for step in steps]
        assert status == "FINISHED"
