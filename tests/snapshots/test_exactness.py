"""A resumed training is bitwise equal to an uninterrupted one."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import pte_tracking as pte
from tests.snapshots import small_training as small

LAST = small.ITERATIONS * small.EPOCHS


@pytest.mark.parametrize("front_end", small.FRONT_ENDS)
def test_resumed_training_equals_uninterrupted_training(front_end: str, tmp_path: Path) -> None:
    weights, _ = small.train(tmp_path / "uninterrupted", front_end=front_end)
    out = tmp_path / "stopped"
    for iteration in (
        3,
        7,
        16,
        17,
        22,
    ):  # before any snapshot, after a snapshot in each epoch, and twice after the same
        small.train_until(out, iteration, front_end=front_end)
    resumed_weights, resumed = small.train(out, front_end=front_end)
    assert resumed is not None
    assert resumed.step == 20
    assert resumed_weights == weights
    assert small.read_rows(out) == small.read_rows(tmp_path / "uninterrupted")


@pytest.mark.parametrize("iteration", range(1, LAST + 1, 3))
def test_resume_from_any_snapshot_reproduces_weights_and_log(iteration: int, tmp_path: Path) -> None:
    snapshot_options = {"trigger": (1, "iteration")}
    weights, _ = small.train(tmp_path / "uninterrupted", extension_list=small.default_extensions(**snapshot_options))
    resumed_weights, resumed = small.train(
        tmp_path / "resumed",
        extension_list=small.default_extensions(**snapshot_options),
        resume_from=str(tmp_path / "uninterrupted" / f"snapshot_iter_{iteration}"),
    )
    assert resumed is not None
    assert resumed.step == iteration
    assert resumed_weights == weights
    assert small.read_rows(tmp_path / "resumed") == small.read_rows(tmp_path / "uninterrupted")


def test_front_ends_produce_identical_weights_and_logs(tmp_path: Path) -> None:
    results = [small.train(tmp_path / name, front_end=name)[0] for name in small.FRONT_ENDS]
    logs = [small.read_rows(tmp_path / name) for name in small.FRONT_ENDS]
    assert results[1:] == results[:-1]
    assert logs[1:] == logs[:-1]


@pytest.mark.parametrize("loader", [{"workers": 2}, {"stateful": True}], ids=["workers", "stateful"])
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # raised by torchdata
def test_resume_worker_and_stateful_loaders_reproduce_training(loader: Any, tmp_path: Path) -> None:
    weights, _ = small.train(tmp_path / "uninterrupted", **loader)
    for iteration in (7, 17):
        small.train_until(tmp_path / "stopped", iteration, **loader)
    assert small.train(tmp_path / "stopped", **loader)[0] == weights
    assert small.read_rows(tmp_path / "stopped") == small.read_rows(tmp_path / "uninterrupted")


def test_load_state_dict_in_chainer_style_resumes_same_run(tmp_path: Path) -> None:
    weights, _ = small.train(tmp_path / "uninterrupted")
    out = tmp_path / "stopped"
    small.train_until(out, 13)

    parts = small.TrainingParts()
    manager = pte.ExtensionsManager(
        parts.model,
        small.EPOCHS,
        small.default_extensions(),
        optimizers=parts.optimizer,
        out_dir=out,
        state_objects=parts.state_objects,
    )
    manager.load_state_dict(torch.load(out / "snapshot_iter_10"))
    assert manager.iteration == 10
    assert [checkpoint.path for checkpoint in manager.run.checkpoints()] == ["snapshot_iter_5", "snapshot_iter_10"]
    for batch in manager.batches(parts.loader):
        with manager.run_iteration():
            parts.update(batch)
    assert parts.weights() == weights
    assert small.read_rows(out) == small.read_rows(tmp_path / "uninterrupted")
    assert not (out / "previous").exists()


def test_resume_ignores_random_draws_before_first_iteration(tmp_path: Path) -> None:
    weights, _ = small.train(tmp_path / "uninterrupted")
    small.train_until(tmp_path / "stopped", 13)
    parts = small.TrainingParts()
    manager = pte.ExtensionsManager(
        parts.model,
        small.EPOCHS,
        small.default_extensions(),
        optimizers=parts.optimizer,
        out_dir=tmp_path / "stopped",
        state_objects=parts.state_objects,
    )
    manager.resume()
    torch.rand(100)
    for batch in manager.batches(parts.loader):
        with manager.run_iteration():
            parts.update(batch)
    assert parts.weights() == weights


@pytest.mark.parametrize("front_end", small.FRONT_ENDS)
def test_preempted_training_resumes_exactly(front_end: str, tmp_path: Path) -> None:
    def make_extensions() -> list[Any]:
        return small.default_extensions(on_signal=signal.SIGUSR1)

    def preempt(iteration: int) -> None:
        if iteration == 13:
            os.kill(os.getpid(), signal.SIGUSR1)

    weights, _ = small.train(tmp_path / "uninterrupted", front_end=front_end, extension_list=make_extensions())
    with pytest.raises(SystemExit) as caught:
        small.train(tmp_path / "stopped", front_end=front_end, extension_list=make_extensions(), hook=preempt)
    assert caught.value.code == 128 + signal.SIGUSR1
    resumed_weights, resumed = small.train(tmp_path / "stopped", front_end=front_end, extension_list=make_extensions())
    assert resumed is not None
    assert resumed.step == 13
    assert resumed_weights == weights
    assert small.read_rows(tmp_path / "stopped") == small.read_rows(tmp_path / "uninterrupted")
