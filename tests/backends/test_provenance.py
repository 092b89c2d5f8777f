"""Origin of a session in each backend, where its own client stores it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pte_backends.aim import AimSink
from pte_backends.clearml import ClearMLSink
from pte_backends.mlflow import MLflowSink
from pte_backends.swanlab import SwanLabSink
from pte_backends.tensorboard import TensorBoardSink
from pte_backends.wandb import WandbSink
from pte_tracking._store import events
from pte_tracking.sinks import Sink
from pte_tracking.testing import RecordedRun
from tests.backends import swanlab_files, trackio_store
from tests.backends.aim_runs import read_run
from tests.backends.clearml_sessions import read_task
from tests.backends.test_mlflow import find_run
from tests.backends.test_wandb import read_records

DIFF = "--- a/train.py\n+++ b/train.py\n"
VALUES = {
    "git_commit": "1" * 40,
    "git_branch": "main",
    "git_remote": "https://example.org/code.git",
    "git_dirty": "true",
    "git_root": "/src/code",
    "source": "/src/code/tools/train.py",
    "command": "python train.py --lr 1",
    "python": "3.12.1",
    "torch": "2.6.0",
    "starts": "1",
}
SECOND = {**VALUES, "git_commit": "2" * 40, "git_dirty": "false", "starts": "2"}


def record(directory: Path, sink: Sink, *, resumes: bool = False) -> RecordedRun:
    run = RecordedRun(directory, sink)
    files = {"diff.txt": DIFF, "requirements.txt": "numpy==2.0\npte @ git+https://h/p@c0ffee\n"}
    (directory / "provenance/start_1").mkdir(parents=True)
    for name, text in files.items():
        (directory / "provenance/start_1" / name).write_text(text)
    paths = {name: f"provenance/start_1/{name}" for name in files}
    for path in paths.values():
        run.journal.append(events.Artifact, path, "provenance/start_1")
    run.journal.append(events.Provenance, VALUES, paths)
    run.log(1, {"a": 1.0})
    if resumes:
        run.deliver()
        del paths["diff.txt"]
        run.journal.append(events.Provenance, SECOND, paths)
    run.end()
    assert not run.rejected_events
    return run


def test_mlflow_has_its_own_tags_of_the_last_session_and_the_files(mlflow_store: str, tmp_path: Path) -> None:
    first = find_run(mlflow_store, record(tmp_path / "first", MLflowSink(mlflow_store)))
    second = find_run(mlflow_store, record(tmp_path / "second", MLflowSink(mlflow_store), resumes=True))
    git = {
        name.removeprefix("mlflow.source.git."): value
        for name, value in first.data.tags.items()
        if name.startswith("mlflow.source.git.")
    }
    assert git == {
        "commit": "1" * 40,
        "branch": "main",
        "repoURL": "https://example.org/code.git",
        "dirty": "true",
        "diff": DIFF,
    }
    tags = second.data.tags
    assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.dirty"]) == ("2" * 40, "false")
    assert tags["mlflow.source.git.diff"] == ""
    artifacts = MlflowClient(mlflow_store).list_artifacts(first.info.run_id, "provenance/start_1")
    assert [Path(item.path).name for item in artifacts] == ["diff.txt", "requirements.txt"]


def test_long_diff_is_named_in_the_tag_of_mlflow(mlflow_store: str, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store))
    (run.directory / "diff.txt").write_text("+" * 8001)
    run.journal.append(events.Provenance, VALUES, {"diff.txt": "diff.txt"})
    run.end()
    assert find_run(mlflow_store, run).data.tags["mlflow.source.git.diff"] == "See the artifact diff.txt."


def test_wandb_has_commit_environment_and_files_of_the_last_session(tmp_path: Path) -> None:
    run = record(tmp_path / "run", WandbSink("p"))
    (files,) = (tmp_path / "run").glob("wandb/*/files")
    assert (files / "diff.patch").read_text() == DIFF
    records = read_records(run.directory)
    environments = [record.environment for record in records if record.HasField("environment")]
    assert environments[0].git.commit == "1" * 40
    assert environments[0].code_path == "tools/train.py"
    names = [file.path for record in records for file in record.files.files]
    assert names[-2:] == ["diff.patch", "requirements.txt"]
    resumed = record(tmp_path / "resumed", WandbSink("p"), resumes=True)
    assert [item.run.git.commit for item in read_records(resumed.directory) if item.HasField("run")][-1] == "2" * 40
    (files,) = (tmp_path / "resumed").glob("wandb/*/files")
    assert [path.name for path in sorted(files.glob("*.*"))] == ["requirements.txt"]


def test_tensorboard_has_a_text_for_each_session(tmp_path: Path) -> None:
    record(tmp_path / "run", TensorBoardSink(), resumes=True)
    accumulator = EventAccumulator(str(tmp_path / "run")).Reload()
    texts: list[Any] = [accumulator.Tensors(f"provenance/start_{number}")[0] for number in (1, 2)]
    assert [f"- git_commit: `{digit * 40}`" in str(text.tensor_proto) for digit, text in zip("12", texts, strict=True)]


def test_aim_has_the_system_parameters_of_its_page(aim_repository: str, tmp_path: Path) -> None:
    run = record(tmp_path / "run", AimSink(aim_repository))
    params = read_run(aim_repository, run.directory)["__system_params"]
    assert params["git_info"]["commit"]["hash"] == "1" * 40
    assert params["git_info"]["remote_origin_url"] == "https://example.org/code.git"
    assert params["packages"] == {"numpy": "2.0", "pte": "git+https://h/p@c0ffee"}
    assert params["arguments"] == ["train.py", "--lr", "1"]


def test_trackio_has_the_facts_in_its_configuration(tmp_path: Path) -> None:
    sink = trackio_store.new_sink()
    run = record(tmp_path / "run", sink, resumes=True)
    config = trackio_store.read_config(sink, run.directory)
    assert (config["run/git_commit"], config["run/torch"]) == ("2" * 40, "2.6.0")


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_clearml_has_the_script_of_the_last_session(tmp_path: Path) -> None:
    script = read_task(record(tmp_path / "first", ClearMLSink("p")).directory).script
    assert (script.repository, script.branch, script.version_num) == ("https://example.org/code.git", "main", "1" * 40)
    assert (script.diff, script.entry_point) == (DIFF, "tools/train.py")
    assert script.requirements["pip"].splitlines()[0] == "numpy==2.0"
    script = read_task(record(tmp_path / "second", ClearMLSink("p"), resumes=True).directory).script
    assert (script.version_num, script.diff) == ("2" * 40, "")


def test_swanlab_has_metadata_and_requirements(tmp_path: Path) -> None:
    run = record(tmp_path / "run", SwanLabSink("p"))
    saves = {item.save.name: item for item in swanlab_files.read_records(run.directory) if item.HasField("save")}
    assert b'"commit":"1111' in saves["metadata"].save.payload
    assert saves["requirements"].save.payload.startswith(b"numpy==2.0\n")
    assert (saves["metadata"].num, saves["requirements"].num) == (-4, -5)
    assert swanlab_files.read_config(run.directory)["provenance/torch"] == "2.6.0"
