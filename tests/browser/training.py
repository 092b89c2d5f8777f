"""The digits example, run as a user runs it."""

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
    """A training that is over.

    Attributes:
        folder: The folder above the run's.
        server: The MLflow server that it was delivered to.
        experiment: Its experiment's id there.
        run_id: Its run's id there.
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
        """The log."""
        rows: list[dict[str, Any]] = json.loads((self.folder / "result" / "log").read_text())
        return rows

    def curve(self, key: str) -> list[tuple[int, float]]:
        return [(row["iteration"], row[key]) for row in self.rows]


def start(folder: Path, server: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the example, delivering to an experiment that is called as the folder is."""
    folder.mkdir(exist_ok=True)
    environment = {"MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_NAME": folder.name}
    with open(folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            [sys.executable, str(EXAMPLE), *arguments],
            cwd=folder,
            env={**os.environ, **servers.MLFLOW_ENVIRONMENT, **environment},
            stdout=output,
            stderr=output,
        )


def finish(training: subprocess.Popen[bytes], folder: Path, server: str) -> FinishedTraining:
    """Wait for the example and look up where it was delivered to."""
    assert training.wait(200) == 0, (folder / "output.txt").read_text()
    assert sync(folder / "result", timeout=60) == []
    from mlflow import MlflowClient

    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(folder.name)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return FinishedTraining(folder, server, experiment.experiment_id, run.info.run_id)
