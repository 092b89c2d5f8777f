"""Logger for Lightning, tested with Lightning's Trainer."""

from __future__ import annotations

import importlib.util
import json
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking.sinks import Params, find_events

pytest.importorskip("lightning")

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from pte_tracking.integrations.lightning import TrackingLogger
from tests.integrations import lightning_training
from tests.integrations.histories import (
    history,
    points,
    repeated_points,
    run_script,
    statuses,
    tensorboard_steps,
)
from tests.integrations.lightning_training import At, Model, data, trainer

pytestmark = [pytest.mark.filterwarnings("ignore")]  # Lightning warns of few workers, of LeafSpec, and others

SCRIPT = Path(__file__).parent / "lightning_training.py"


def fail() -> None:
    raise ValueError("no memory")


def checkpoint_paths(directory: Path) -> list[str]:
    return [checkpoint.path for checkpoint in pte.Run(directory).checkpoints()]


@pytest.fixture(autouse=True)
def _restore_handlers() -> Any:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_fit_logs_metrics_params_and_checkpoint_to_run(tmp_path: Path) -> None:
    logger = TrackingLogger(tmp_path / "run", params={"batch": 2}, tags={"kind": "test"}, name="small")
    fit = trainer(logger, ModelCheckpoint(monitor="val/loss", save_top_k=1))
    fit.fit(Model(), data(), data())
    run = logger.experiment
    assert (run.name, fit.log_dir) == ("small", str(run.directory))
    assert points(run.directory, "train/loss_step") == list(range(8))
    assert points(run.directory, "train/loss_epoch") == points(run.directory, "val/loss") == [3, 7]
    params = {
        key: value
        for event, _ in find_events(run.directory / "journal.jsonl", Params)
        for key, value in event.values.items()
    }
    assert params == {"batch": 2, "lr": 0.1}
    (checkpoint,) = run.checkpoints()
    assert (checkpoint.path, checkpoint.step) == ("checkpoints/epoch=1-step=8.ckpt", 7)
    assert checkpoint.values["val/loss"] == run.rows()[-2].values["val/loss"]
    assert run.manifest().ranking == ("val/loss", "min")
    assert statuses(run.directory) == ["FINISHED"]


def test_test_after_fit_adds_values_and_keeps_status(tmp_path: Path) -> None:
    logger = TrackingLogger(tmp_path)
    fit = trainer(logger, At(3, fail), enable_checkpointing=False)
    with pytest.raises(ValueError, match="no memory"):
        fit.fit(Model(), data(), data())
    fit.test(Model(), data(), verbose=False)
    assert statuses(tmp_path) == ["FAILED", "FAILED"]
    assert len(points(tmp_path, "test/loss")) == 1


def test_fit_exception_fails_run_with_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no memory"):
        trainer(TrackingLogger(tmp_path), At(3, fail), enable_checkpointing=False).fit(Model(), data())
    end: Any = history(tmp_path)[-1]
    assert (end.status, end.error) == ("FAILED", "ValueError: no memory")
    assert points(tmp_path, "train/loss_step") == [0, 1]


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SIGTERMException), (signal.SIGINT, SystemExit)])
def test_fit_signal_kills_run(tmp_path: Path, number: signal.Signals, error: type[BaseException]) -> None:
    fit = trainer(TrackingLogger(tmp_path), At(3, lambda: signal.raise_signal(number)), enable_checkpointing=False)
    with pytest.raises(error):
        fit.fit(Model(), data())
    assert statuses(tmp_path) == ["KILLED"]


def test_fit_checkpoint_resumes_run_at_its_step(tmp_path: Path) -> None:
    save = ModelCheckpoint(every_n_train_steps=3, save_top_k=-1)
    with pytest.raises(ValueError, match="no memory"):
        trainer(TrackingLogger(tmp_path), save, At(7, fail)).fit(Model(), data(), data())
    first = pte.Run(tmp_path, resume=True).id
    assert points(tmp_path, "train/loss_step") == list(range(6))
    assert checkpoint_paths(tmp_path) == ["checkpoints/epoch=0-step=3.ckpt", "checkpoints/epoch=1-step=6.ckpt"]
    logger = TrackingLogger(tmp_path)
    again = trainer(logger, ModelCheckpoint(every_n_train_steps=3, save_top_k=-1), log_every_n_steps=2)
    again.fit(Model(), data(), data(), ckpt_path=tmp_path / "checkpoints" / "epoch=0-step=3.ckpt")
    assert logger.experiment.id == first
    assert points(tmp_path, "train/loss_step") == [0, 1, 2, 3, 5, 7]
    assert points(tmp_path, "val/loss") == [3, 7]
    assert repeated_points(tmp_path) == []
    kept = ["checkpoints/epoch=0-step=3.ckpt", "checkpoints/epoch=1-step=6-v1.ckpt"]
    assert checkpoint_paths(tmp_path)[:2] == kept  # Lightning 2.4 counts more steps and saves another one.
    assert statuses(tmp_path)[-1] == "FINISHED"


def test_fit_without_checkpoint_archives_earlier_run(tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        logger = TrackingLogger(tmp_path)
        trainer(logger, max_epochs=1).fit(Model(), data())
        ids.append(logger.experiment.id)
    assert [path.name for path in (tmp_path / "previous").iterdir()] == ids[:1]
    assert (tmp_path / "previous" / ids[0] / "checkpoints").is_dir()
    assert checkpoint_paths(tmp_path) == ["checkpoints/epoch=0-step=4.ckpt"]


def test_metrics_and_params_logged_before_resume_belong_to_resumed_run(tmp_path: Path) -> None:
    ids = []
    for epochs in (1, 2):
        logger = TrackingLogger(tmp_path)
        logger.log_hyperparams({"seed": 5})
        logger.log_graph(Model())  # not attached to a trainer
        logger.log_metrics({"rows": 8, f"epochs_{epochs}": 1}, 0)
        fit = trainer(logger, ModelCheckpoint(save_last=True), max_epochs=epochs)
        fit.fit(Model(), data(), ckpt_path="last")
        ids.append(logger.experiment.id)
    assert ids[0] == ids[1]
    assert points(tmp_path, "train/loss_step") == list(range(8))
    assert points(tmp_path, "rows") == points(tmp_path, "epochs_2") == [0]
    params = [event.values for event in history(tmp_path) if isinstance(event, Params)]
    assert params == [{"seed": 5, "lr": 0.1}] * 2


def test_loop_without_trainer_starts_run_at_second_step_or_end(tmp_path: Path) -> None:
    logger = TrackingLogger(tmp_path)
    for step in (0, 0, 1):
        assert not (tmp_path / "journal.jsonl").exists()
        logger.log_metrics({"loss" if step else "loss_0": 0.5}, step)
    assert points(tmp_path, "loss_0") == [0, 0]
    assert points(tmp_path, "loss") == [1]
    logger.finalize("success")
    other = TrackingLogger(tmp_path / "other")
    other.log_metrics({"loss": 0.5}, 3)
    other.finalize("success")
    assert points(tmp_path / "other", "loss") == [3]


def test_second_fit_of_same_trainer_continues_run(tmp_path: Path) -> None:
    fit = trainer(TrackingLogger(tmp_path), max_epochs=1, enable_checkpointing=False)
    model = Model()
    fit.fit(model, data())
    fit.fit_loop.max_epochs = 2
    fit.fit(model, data())
    assert points(tmp_path, "train/loss_step") == list(range(8))
    assert not (tmp_path / "previous").exists()


def test_evaluation_in_used_directory_adds_to_run(tmp_path: Path) -> None:
    trainer(TrackingLogger(tmp_path), enable_checkpointing=False).fit(Model(), data())
    first = pte.Run(tmp_path, resume=True).id
    logger = TrackingLogger(tmp_path)
    trainer(logger).test(Model(), data(), verbose=False)
    assert logger.experiment.id == first
    assert points(tmp_path, "test/loss") == [0]
    assert points(tmp_path, "train/loss_step") == list(range(8))


def test_validation_before_fit_belongs_to_same_run(tmp_path: Path) -> None:
    logger = TrackingLogger(tmp_path)
    trainer(logger).validate(Model(), data(), verbose=False)
    first = logger.experiment.id
    trainer(logger, enable_checkpointing=False).fit(Model(), data())
    assert logger.experiment.id == first
    trainer(logger, enable_checkpointing=False).fit(Model(), data())
    assert logger.experiment.id != first


@pytest.mark.parametrize("checkpoint", ["damaged", "complete"])
def test_resume_that_does_not_train_keeps_run(tmp_path: Path, checkpoint: str) -> None:
    trainer(TrackingLogger(tmp_path), max_epochs=1).fit(Model(), data())
    first, before = pte.Run(tmp_path, resume=True).id, points(tmp_path, "train/loss_step")
    path = tmp_path / "checkpoints" / "epoch=0-step=4.ckpt"
    logger = TrackingLogger(tmp_path)
    if checkpoint == "damaged":
        path.write_bytes(b"damaged")
        with pytest.raises(Exception, match=r"Weights only load failed|could not find MARK"):
            trainer(logger, max_epochs=1).fit(Model(), data(), ckpt_path=path)
    else:
        trainer(logger, max_epochs=1).fit(Model(), data(), ckpt_path=path)
    assert logger.experiment.id == first
    assert points(tmp_path, "train/loss_step") == before
    assert statuses(tmp_path)[-1] == "FINISHED"
    assert not (tmp_path / "previous").exists()


def test_media_logged_before_and_during_training_belong_to_run(tmp_path: Path) -> None:
    logger = TrackingLogger(tmp_path, resume=True)
    logger.experiment.log_text("note", "before", 0)
    fit = trainer(logger, At(2, lambda: logger.experiment.log_text("note", "during")), enable_checkpointing=False)
    fit.fit(Model(), data())
    assert [(event.text, event.step) for event in history(tmp_path) if type(event).__name__ == "Text"] == [  # type: ignore[union-attr]
        ("before", 0),
        ("during", 0),
    ]


def test_checkpoint_outside_run_directory_is_not_registered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pte_tracking")
    trainer(TrackingLogger(tmp_path / "run"), ModelCheckpoint(tmp_path / "other"), max_epochs=1).fit(Model(), data())
    assert checkpoint_paths(tmp_path / "run") == []
    assert "is not in the run directory" in caplog.text


def test_logger_without_trainer_logs_at_following_steps(tmp_path: Path) -> None:
    logger = TrackingLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1})
    for _ in range(2):
        logger.log_metrics({"loss": 0.5})
    logger.log_metrics({"loss": 0.5}, 5)
    logger.finalize("success")
    again = TrackingLogger(tmp_path, resume=True)
    again.log_metrics({"loss": 0.25}, 4)
    again.finalize("success")
    assert points(tmp_path, "loss") == [0, 1, 4]


def test_logger_is_picklable_before_and_after_training(tmp_path: Path) -> None:
    logger = TrackingLogger(tmp_path)
    trainer(logger, max_epochs=1, enable_checkpointing=False).fit(Model(), data())
    copy = pickle.loads(pickle.dumps(logger))
    assert copy.save_dir == str(tmp_path)
    assert copy.experiment.directory == tmp_path


def test_values_of_original_logger_belong_to_run_that_its_copy_trains(tmp_path: Path) -> None:
    logger = TrackingLogger(tmp_path)
    logger.log_metrics({"rows": 8}, 0)
    copy = pickle.loads(pickle.dumps(logger))
    trainer(copy, max_epochs=1, enable_checkpointing=False).fit(Model(), data())
    logger.log_metrics({"rows_after": 8}, 4)  # at a second step
    logger.finalize("success")
    assert logger.experiment.id == copy.experiment.id
    assert [points(tmp_path, key) for key in ("rows", "train/loss_step", "rows_after")] == [[0], [0, 1, 2, 3], [4]]
    assert not (tmp_path / "previous").exists()


@pytest.mark.parametrize(("argument", "value"), [("sinks", ["unknown"]), ("directory", ""), ("name", "")])
def test_logger_wrong_argument_raises_at_construction(tmp_path: Path, argument: str, value: object) -> None:
    arguments: dict[str, Any] = {"directory": tmp_path, argument: value}
    with pytest.raises(ValueError, match=r"(?i)unknown|empty"):
        TrackingLogger(**arguments)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="requires tensorboard")
def test_killed_training_resumes_with_one_point_per_step_in_every_sink(tmp_path: Path) -> None:
    run_script(SCRIPT, "run", "7", folder=tmp_path, status=-signal.SIGKILL)
    directory = tmp_path / "run"
    first = pte.Run(directory, resume=True).id
    lightning_training.main(str(directory), "0")
    assert pte.Run(directory, resume=True).id == first
    assert statuses(directory) == ["FINISHED"]
    assert points(directory, "train/loss_step") == list(range(12))
    assert points(directory, "val/loss") == [3, 7, 11]
    assert repeated_points(directory) == []
    rows = json.loads((directory / "log").read_text())
    assert [row["iteration"] for row in rows if "train/loss_step" in row] == list(range(12))
    assert tensorboard_steps(directory, "train/loss_step") == list(range(12))
    registered = {checkpoint.path: checkpoint.step for checkpoint in pte.Run(directory).checkpoints()}
    assert registered == {
        f"checkpoints/{name}": step
        for name, step in {"epoch=1-step=8.ckpt": 7, "epoch=2-step=12.ckpt": 11, "last.ckpt": 11}.items()
    }
