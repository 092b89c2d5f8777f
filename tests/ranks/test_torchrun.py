"""Runs under torchrun in every front end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.sync import sync
from pte_tracking._store import journal_reader
from pte_tracking._store.events import Rewound
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.status import read_status
from tests.ranks.components import read_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # raised by MLflow
]


def torchrun(
    out: Path, *words: str, ranks: int = 2, launcher: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run ``tests.ranks.training`` with torchrun."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), *launcher]
    # Port 0 selects a free port, so that several groups can run at the same time.
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "tests.ranks.training"]
    with subprocess.Popen(
        [*command, "--out", str(out), *words],
        cwd=Path(__file__).parents[2],
        # After a restart, the store that torchrun shares with its ranks still contains the addresses of the previous
        # group, and gloo may connect to them (torch 2.13).
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def get_run(store: str) -> Run:
    client = MlflowClient(store)
    (run,) = client.search_runs(["0"])
    return run


def test_front_ends_write_equal_rows_on_rank_0_only(tmp_path: Path) -> None:
    logs = []
    for front_end in ("loop", "trainer", "ignite"):
        out = tmp_path / front_end
        done = torchrun(out, "--front-end", front_end, launcher=("--tee", "3"))
        assert done.returncode == 0, done.stderr
        identity = json.loads((out / "run.json").read_text())["id"]
        assert not (out / "previous").exists()
        others = re.findall(r"^\[\w+1\]:(.*)", done.stdout + done.stderr, re.MULTILINE)
        assert others == [f"rank 1: run {identity}, open files: 0, threads: 1"]
        assert "main/loss" in done.stdout, "rank 0 must print the report"
        state = torch.load(out / "snapshot_iter_4")
        assert [name for name in state["models"]["main"] if name.startswith("module.")] == []
        logs.append(read_rows(out))
    assert [row["iteration"] for row in logs[0]] == [3, 6, 9, 12]
    assert logs[0] == logs[1] == logs[2]


@pytest.mark.parametrize("failure", ["--kill 1 5", "--kill 0 5", "--raise-in 1 5"])
def test_failing_rank_ends_run_as_failed_in_every_sink(
    failure: str, tmp_path: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    out = tmp_path / "run"
    done = torchrun(out, *failure.split(), "--sinks", "json", "tensorboard", "mlflow")
    assert done.returncode != 0
    end = time.monotonic() + 60
    while backlog(out, Manifest.load(out)) and time.monotonic() < end:
        time.sleep(0.2)  # The delivery process outlives the ranks.
    assert backlog(out, Manifest.load(out)) == []
    assert read_status(out) == "FAILED"
    assert get_run(mlflow_store).info.status == "FAILED"
    board = EventAccumulator(str(out))
    board.Reload()
    data = plugin_data_pb2.HParamsPluginData.FromString(
        board.SummaryMetadata("_hparams_/session_end_info").plugin_data.content
    )
    assert data.session_end_info.status == api_pb2.STATUS_FAILURE
    # Both ranks completed iteration 3 before the failure. A rank 0 that is not killed also logs its last interval.
    steps = [3] if failure.startswith("--kill 0") else [3, 5]
    assert [row["iteration"] for row in read_rows(out)] == steps
    history = MlflowClient(mlflow_store).get_metric_history(get_run(mlflow_store).info.run_id, "main/loss")
    assert [point.step for point in history] == steps


@pytest.mark.parametrize("kind", [[], ["--sharded"]])
def test_restarted_group_resumes_same_run(
    kind: list[str], tmp_path: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    assert torchrun(tmp_path / "uninterrupted", *kind).returncode == 0
    # In iteration 10 the first snapshot is complete, because the second one waited for it.
    options = ["--kill", "1", "10", "--once", "--resume", "--sinks", "json", "mlflow"]
    done = torchrun(tmp_path / "killed", *kind, *options, launcher=("--max-restarts", "3"))
    assert done.returncode == 0, done.stderr
    rewound = [event for event, _ in journal_reader.read(tmp_path / "killed" / JOURNAL) if isinstance(event, Rewound)]
    assert [event.step for event in rewound] in ([4], [8]), "the restarted group must resume from a snapshot"
    assert read_rows(tmp_path / "killed") == read_rows(tmp_path / "uninterrupted")
    assert read_status(tmp_path / "killed") == "FINISHED"
    assert sync(tmp_path / "killed", timeout=60) == []
    assert not (tmp_path / "killed" / "previous").exists()
    run = get_run(mlflow_store)
    assert run.info.status == "FINISHED"
    history = MlflowClient(mlflow_store).get_metric_history(run.info.run_id, "main/loss")
    # MLflow keeps the last interval of the session that failed in iteration 10, which belongs to no row.
    points: list[Any] = [(point.step, point.value) for point in history if point.step != 10]
    assert points == [(row["iteration"], row["main/loss"]) for row in read_rows(tmp_path / "uninterrupted")]
