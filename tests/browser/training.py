"""Runs of the digits example."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pte_tracking._delivery.sync import sync
from tests import servers

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.py"


@dataclasses.dataclass(frozen=True)
class FinishedTraining:
    """Finished run.

    Attributes:
        folder: Parent of the run directory.
        server: URI of the MLflow server.
        experiment: ID of the MLflow experiment.
        run_id: ID of the MLflow run.
    """

    folder: Path
    server: str
    experiment: str
    run_id: str

    @property
    def name(self) -> str:
        name: str = json.loads((self.folder / "result" / "run.json").read_text())["name"]
        return name

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the JSON log."""
        rows: list[dict[str, Any]] = json.loads((self.folder / "result" / "log").read_text())
        return rows

    def curve(self, key: str) -> list[tuple[int, float]]:
        return [(row["iteration"], row[key]) for row in self.rows]


def start(folder: Path, server: str, *arguments: str, script: str = EXAMPLE.name) -> subprocess.Popen[bytes]:
    """Start an example with an MLflow experiment named after the directory."""
    folder.mkdir(exist_ok=True)
    environment = {"MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_NAME": folder.name}
    with open(folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            [sys.executable, str(EXAMPLE.with_name(script)), *arguments],
            cwd=folder,
            env={**os.environ, **servers.MLFLOW_ENVIRONMENT, **environment},
            stdout=output,
            stderr=output,
        )


def finish(training: subprocess.Popen[bytes], folder: Path, server: str) -> FinishedTraining:
    """Wait for the example and its delivery, and look up the MLflow run."""
    assert training.wait(200) == 0, (folder / "output.txt").read_text()
    assert sync(folder / "result", timeout=60) == []
    from mlflow import MlflowClient

    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(folder.name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return FinishedTraining(folder, server, experiment.experiment_id, run.info.run_id)
