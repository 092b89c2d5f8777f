"""Tables, pages, sounds, and videos in MLflow, read back with its client."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_backends.mlflow import _media as mlflow_media
from pte_tracking._runs.tables import encode_table
from pte_tracking._store import events
from pte_tracking.testing import RecordedRun

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # Raised inside MLflow.
]


@pytest.fixture
def recorded(mlflow_store: str, tmp_path: Path) -> RecordedRun:
    return RecordedRun(tmp_path / "run", MLflowSink(mlflow_store))


def add_table(recorded: RecordedRun, key: str, step: int, table: Any) -> None:
    name = f"media/table/{key}/step_{step}.json"
    path = recorded.directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_table(table, key).json)
    recorded.journal.append(events.Table, key, step, name, "a caption")


def load_table(uri: str, name: str) -> pd.DataFrame:
    mlflow.set_tracking_uri(uri)
    return mlflow.load_table(name)


def find_run(uri: str) -> Any:
    (run,) = MlflowClient(uri).search_runs(["0"])
    return run


def list_files(uri: str, directory: str) -> list[str]:
    run_id = find_run(uri).info.run_id
    return [item.path for item in MlflowClient(uri).list_artifacts(run_id, directory)]


@pytest.mark.filterwarnings("ignore:The behavior of DataFrame concatenation:FutureWarning")
def test_load_table_returns_newest_table_and_each_step_is_file(mlflow_store: str, recorded: RecordedRun) -> None:
    cells = {"word": ["a", "學習"], "p": [0.5, math.nan], "nested": [[1, [2]], {"k": None}]}
    add_table(recorded, "words", 1, {"word": ["old"]})
    add_table(recorded, "words", 2, cells)
    recorded.end()
    frame = load_table(mlflow_store, "tables/words.json")
    assert frame.columns.tolist() == ["word", "p", "nested"]
    assert frame["word"].tolist() == ["a", "學習"]
    assert frame["nested"].tolist() == [[1, [2]], {"k": None}]
    assert frame["p"].isna().tolist() == [False, True]
    steps = [f"media/table/words/step_{step}.json" for step in (1, 2)]
    assert list_files(mlflow_store, "media/table/words") == steps


def test_tables_of_script_stay_listed(mlflow_store: str, recorded: RecordedRun) -> None:
    add_table(recorded, "first", 1, {"a": [1]})
    recorded.deliver()
    MlflowClient(mlflow_store).log_table(find_run(mlflow_store).info.run_id, {"b": [2]}, "own.json")
    add_table(recorded, "second", 1, {"a": [1]})
    recorded.deliver()
    recorded.end()
    listed = json.loads(find_run(mlflow_store).data.tags["mlflow.loggedArtifacts"])
    assert {entry["path"] for entry in listed} == {"tables/first.json", "own.json", "tables/second.json"}


def test_too_many_tables_are_stored_without_listing(
    mlflow_store: str, recorded: RecordedRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mlflow_media, "_MAX_TAG_LENGTH", 60)
    for key in ("first", "second"):
        add_table(recorded, key, 1, {"a": [1]})
    recorded.end()
    assert json.loads(find_run(mlflow_store).data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "tables/first.json", "type": "table"}
    ]
    assert list_files(mlflow_store, "tables") == ["tables/first.json", "tables/second.json"]
    assert "too many tables, the artifact 'tables/second.json' is not listed" in caplog.text


def test_forked_run_has_tables_of_effective_history(mlflow_store: str, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, on_rewind="fork"))
    add_table(recorded, "words", 1, {"step": [1]})
    position = recorded.log(1, {"a": 1.0})
    recorded.log(2, {"a": 2.0})
    add_table(recorded, "words", 2, {"step": [2]})
    recorded.deliver()
    recorded.journal.rewind(position, 1)
    recorded.log(2, {"a": 3.0})
    recorded.end()
    by_part = {run.data.tags.get("pte.part", "0"): run for run in MlflowClient(mlflow_store).search_runs(["0"])}
    fork = by_part[max(by_part, key=int)]
    mlflow.set_tracking_uri(mlflow_store)
    assert mlflow.load_table("tables/words.json", run_ids=[fork.info.run_id])["step"].tolist() == [1]


@pytest.mark.slow
def test_logged_media_reach_mlflow(mlflow_store: str, tmp_path: Path) -> None:
    with pte.Run(tmp_path / "run", sinks=[MLflowSink(mlflow_store)], close_timeout=60) as run:
        run.log_table("t", {"a": [1]}, 1)
        run.log_html("h", "<p>", 1)
        run.log_audio("s", np.zeros(8), 1, sample_rate=8000)
        run.log_video("v", np.zeros((1, 2, 2), np.uint8), 1)
    assert load_table(mlflow_store, "tables/t.json")["a"].tolist() == [1]
    for name in ("media/html/h/step_1.html", "media/audio/s/step_1.wav", "media/video/v/step_1.gif"):
        path = mlflow.artifacts.download_artifacts(
            run_id=find_run(mlflow_store).info.run_id, artifact_path=name, tracking_uri=mlflow_store
        )
        assert Path(path).read_bytes() == (tmp_path / "run" / name).read_bytes()
