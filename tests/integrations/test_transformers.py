"""TrackingCallback in the real Trainer of Transformers, with a tiny model."""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

import pte_tracking as pte
from pte_tracking._runs.verification import verify_run
from pte_tracking._store.files import sync_tree
from pte_tracking._store.status import read_status
from pte_tracking.integrations._saved_checkpoints import SavedCheckpoints
from pte_tracking.integrations.transformers import TrackingCallback
from pte_tracking.sinks import JOURNAL, CheckpointRemoved, Params, RunEnded, RunStarted, Text, find_events

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # libraries of Hugging Face use names that others have deprecated
]

CONFIG = GPT2Config(vocab_size=8, n_positions=4, n_embd=8, n_layer=1, n_head=1, bos_token_id=None, eos_token_id=None)
TOKENS = torch.arange(4) % 8
DATA = [{"input_ids": TOKENS, "labels": TOKENS}] * 8


def make_trainer(directory: Path, *others: Any, max_steps: int = 4, **options: Any) -> tuple[Trainer, TrackingCallback]:
    callback = TrackingCallback(directory, params={"data": "tiny", "seed": "given"})
    settings = {"output_dir": str(directory), "save_steps": 2, "save_total_limit": 1, **options}
    arguments = TrainingArguments(
        report_to="none",
        max_steps=max_steps,
        per_device_train_batch_size=2,
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    model = GPT2LMHeadModel(CONFIG)
    return Trainer(model, arguments, train_dataset=DATA, eval_dataset=DATA, callbacks=[callback, *others]), callback


def events(directory: Path, *kinds: Any) -> list[Any]:
    return [event for event, _ in find_events(directory / JOURNAL, *kinds)]


class Waiting(TrainerCallback):
    """Let the thread register a checkpoint before it is pruned."""

    def __init__(self, callback: TrackingCallback) -> None:
        self._callback = callback

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._callback.run.saved.join()


class Raising(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise ValueError("broken")


def test_training_logs_metrics_params_and_checkpoints(tmp_path: Path) -> None:
    trainer, callback = make_trainer(tmp_path, eval_strategy="steps", eval_steps=2)
    trainer.add_callback(Waiting(callback))
    trainer.train()
    rows = callback.run.rows()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [(row.step, row.values["train/loss"], row.epoch) for row in rows if "train/loss" in row.values] == [
        (entry["step"], entry["loss"], entry["epoch"]) for entry in history
    ]
    assert [row.step for row in rows if "eval/loss" in row.values] == [2, 4]
    assert [row.step for row in rows if "train/train_runtime" in row.values] == [4]
    params = {name: value for event in events(tmp_path, Params) for name, value in event.values.items()}
    assert params["data"] == "tiny"
    assert params["seed"] == "given"
    assert params["learning_rate"] == trainer.args.learning_rate
    assert params["model_config/n_embd"] == 8
    (checkpoint,) = callback.run.checkpoints()
    assert (checkpoint.path, checkpoint.step) == ("checkpoint-4", 4)
    assert checkpoint.values["eval/loss"] == trainer.state.log_history[-2]["eval_loss"]
    assert verify_run(tmp_path) == ([], {})
    assert [event.path for event in events(tmp_path, CheckpointRemoved)] == ["checkpoint-2"]
    assert read_status(tmp_path) == "FINISHED"


def test_evaluation_after_training_is_added_to_ended_run(tmp_path: Path) -> None:
    trainer, callback = make_trainer(tmp_path, max_steps=1, save_strategy="no")
    trainer.train()
    trainer.evaluate(metric_key_prefix="test")
    callback.run.close()
    assert [row.step for row in callback.run.rows() if "test/loss" in row.values] == [1]
    assert read_status(tmp_path) == "FINISHED"


def test_evaluation_without_training_keeps_run_in_directory(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"train/loss": 1.0}, 1)
    trainer, callback = make_trainer(tmp_path)
    trainer.evaluate()
    callback.run.close()
    assert [next(iter(row.values)) for row in callback.run.rows()] == ["train/loss", "eval/loss"]


def test_evaluation_before_training_belongs_to_run_of_training(tmp_path: Path) -> None:
    trainer, callback = make_trainer(tmp_path, max_steps=1, save_strategy="no")
    trainer.evaluate()
    trainer.train()
    assert [row.step for row in callback.run.rows() if "eval/loss" in row.values] == [0]
    assert [row.step for row in callback.run.rows() if "train/loss" in row.values] == [1]
    assert not (tmp_path / "previous").exists()


def test_new_trainer_continues_run_that_failed_while_checkpoint_was_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_dropped = threading.Event()

    def wait_and_sync(path: Path) -> None:
        is_dropped.wait(60)
        sync_tree(path)

    monkeypatch.setattr("pte_tracking.integrations._saved_checkpoints.sync_tree", wait_and_sync)
    trainer, callback = make_trainer(tmp_path, Raising())
    with pytest.raises(ValueError, match="broken") as raised:
        trainer.train()
    del trainer, callback, raised
    gc.collect()
    is_dropped.set()
    trainer, callback = make_trainer(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert [end.status for end in events(tmp_path, RunEnded)] == ["FAILED", "FINISHED"]
    assert [row.step for row in callback.run.rows() if "train/loss" in row.values] == [1, 2, 3, 4]


def test_new_trainer_continues_run_whose_exception_is_kept(tmp_path: Path) -> None:
    trainer, callback = make_trainer(tmp_path, Raising())
    with pytest.raises(ValueError, match="broken") as raised:
        trainer.train()
    first, (trainer, callback) = callback.run, make_trainer(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert raised.value.__traceback__ is not None
    assert callback.run.id == first.id
    assert [end.status for end in events(tmp_path, RunEnded)] == ["FAILED", "FINISHED"]


def test_second_training_archives_first(tmp_path: Path) -> None:
    trainer, callback = make_trainer(tmp_path, max_steps=1, save_strategy="no")
    trainer.train()
    first = callback.run.id
    trainer.train()
    assert [path.name for path in (tmp_path / "previous").iterdir()] == [first]
    assert [row.step for row in callback.run.rows() if "train/loss" in row.values] == [1]


def test_exception_that_is_caught_ends_run_as_failed_and_resume_continues_it(tmp_path: Path) -> None:
    trainer, callback = make_trainer(tmp_path, Raising())
    with pytest.raises(ValueError, match="broken"):
        trainer.train()
    first = callback.run
    first.close()
    assert events(tmp_path, RunEnded)[-1].error == "Trainer.train() raised an exception; ended at step 3 of 4"
    assert read_status(tmp_path) == "FAILED"
    trainer.remove_callback(Raising)
    trainer.train(resume_from_checkpoint=True)
    assert callback.run.id == first.id
    assert [row.step for row in callback.run.rows() if "train/loss" in row.values] == [1, 2, 3, 4]
    assert read_status(tmp_path) == "FINISHED"


def test_resume_registers_checkpoint_that_was_not_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, callback = make_trainer(tmp_path, Raising(), save_total_limit=2)
    with monkeypatch.context() as patch:
        patch.setattr(SavedCheckpoints, "add", lambda *arguments: None)
        with pytest.raises(ValueError, match="broken"):
            trainer.train()
    assert callback.run.checkpoints() == []
    trainer.remove_callback(Raising)
    trainer.train(resume_from_checkpoint=True)
    assert [checkpoint.step for checkpoint in callback.run.checkpoints()] == [2, 4]


def test_checkpoints_outside_of_run_directory_are_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, callback = make_trainer(tmp_path / "run", output_dir=str(tmp_path / "out"))
    with caplog.at_level(logging.WARNING, "pte_tracking"):
        trainer.train()
    messages = [record.getMessage() for record in caplog.records if record.name == "pte_tracking"]
    assert len(messages) == 1
    assert f"{tmp_path / 'out' / 'checkpoint-2'} is not registered" in messages[0]
    assert callback.run.checkpoints() == []


def test_texts_are_logged_and_other_values_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer, callback = make_trainer(tmp_path)
    for _ in range(2):
        trainer.log({"note": "text", "table": [1, 2], "tensor": torch.tensor(0.5), "eval_nan": math.nan})
    callback.run.close()
    assert [(event.key, event.text) for event in events(tmp_path, Text)] == [("train/note", "text")] * 2
    assert list(callback.run.rows()[0].values) == ["train/tensor", "eval/nan"]
    not_logged, repeated = caplog.messages
    assert "'table' is not logged" in not_logged
    assert repeated.startswith("text 'train/note' was logged before at step 0")


def test_other_rank_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callback = TrackingCallback(tmp_path / "run", rank=1)
    trainer, _ = make_trainer(tmp_path / "out", max_steps=1)
    trainer.add_callback(callback)
    trainer.train()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., int]:
    def run(script: Path, *arguments: str) -> int:
        command = [sys.executable, str(script), *arguments, "--sinks", "json", "tensorboard", "--max-steps", "10"]
        return subprocess.run(command, cwd=tmp_path, env=dict(os.environ), timeout=200).returncode

    return run


def test_killed_training_resumes_as_same_run(tmp_path: Path, run_script: Callable[..., int]) -> None:
    example = Path(__file__).parent.parent.parent / "examples" / "transformers_loop.py"
    assert run_script(Path(__file__).with_name("hf_training.py"), "7") == -signal.SIGKILL
    directory = tmp_path / "result"
    assert read_status(directory) == "KILLED"
    assert run_script(example) == 0
    assert read_status(directory) == "FINISHED"
    assert len({event.run_id for event in events(directory, RunStarted)}) == 1
    run = pte.Run(directory, resume=True)
    points = Counter((row.step, key) for row in run.rows() for key in row.values)
    assert max(points.values()) == 1
    assert [row.step for row in run.rows() if "train/loss" in row.values] == list(range(1, 11))
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [8, 10]
    shown = EventAccumulator(str(directory)).Reload().Scalars("train/loss")
    assert [event.step for event in shown] == list(range(1, 11))
