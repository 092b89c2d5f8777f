"""Snapshots that ``pte.load`` reads for evaluation or export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._snapshots import file

LOSSES = {1: 3.0, 2: 1.0, 3: 2.0, 4: 4.0}


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def train(
    out: Path, models: Any = None, *, keep_best: Any = ("loss", "min", 9), stop_at: int = 0, **options: Any
) -> pte.ExtensionsManager:
    """Train 4 iterations. Each weight is the number of completed iterations."""
    manager = pte.ExtensionsManager(
        nn.Linear(2, 1) if models is None else models,
        4,
        [extensions.snapshot(trigger=(1, "iteration"), keep_best=keep_best, n_retains=9, asynchronous=False)],
        iters_per_epoch=1,
        out_dir=out,
        **options,
    )
    for _ in manager.batches([0]):
        with manager.run_iteration():
            for model in manager.models.values():
                for parameter in model.parameters():
                    parameter.data.fill_(manager.iteration + 1)
            pte.report({"loss": LOSSES[manager.iteration + 1]})
        if manager.iteration == stop_at:
            break
    return manager


def weight(model: nn.Module) -> float:
    return next(model.parameters()).flatten()[0].item()


@pytest.mark.parametrize(
    ("source", "step"),
    [("latest", 4), ("best", 2), (3, 3), (torch.tensor(3), 3), ("snapshot_iter_1", 1), (Path("snapshot_iter_1"), 1)],
)
def test_load_selects_snapshot_and_changes_nothing(tmp_path: Path, source: Any, step: int) -> None:
    train(tmp_path)
    before = tree(tmp_path)
    model = nn.Linear(2, 1)
    checkpoint = pte.load(tmp_path, source, models=model)
    assert (checkpoint.step, checkpoint.path, checkpoint.values["loss"]) == (
        step,
        f"snapshot_iter_{step}",
        LOSSES[step],
    )
    assert weight(model) == step
    assert checkpoint.state["manager"]["iteration"] == step
    assert "state" not in repr(checkpoint)
    assert tree(tmp_path) == before


def test_load_default_is_latest_and_loads_into_nothing(tmp_path: Path) -> None:
    train(tmp_path)
    assert pte.load(tmp_path).step == 4


def test_load_while_the_run_trains_needs_no_lock(tmp_path: Path) -> None:
    manager = train(tmp_path, stop_at=2)
    assert manager.run.is_open
    assert pte.load(str(tmp_path), 1).step == 1
    manager.close()


@pytest.mark.parametrize("source", ["latest", "best"])
@pytest.mark.parametrize("read", ["verify_snapshot", "_find_problem", "_total_size"])
def test_load_of_a_snapshot_that_retention_deletes_selects_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, source: str, read: str
) -> None:
    snapshot = extensions.snapshot(
        trigger=(1, "iteration"), keep_best=("loss", "min", 1), n_retains=1, asynchronous=False
    )
    manager = pte.ExtensionsManager(nn.Linear(2, 1), 9, [snapshot], iters_per_epoch=1, out_dir=tmp_path, sinks=[])

    def train_iteration() -> None:
        with manager.run_iteration():
            pte.report({"loss": -manager.iteration})

    original = getattr(file, read)

    def train_and_read(*args: Any) -> Any:
        if manager.iteration < 5:  # The next iteration saves the snapshot.
            train_iteration()
        return original(*args)

    train_iteration()
    train_iteration()
    monkeypatch.setattr(file, read, train_and_read)
    assert pte.load(tmp_path, source).step == 4
    manager.close()
    assert "skipping" not in caplog.text


def test_load_of_a_snapshot_that_the_training_replaces_selects_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = extensions.snapshot(trigger=(1, "iteration"), filename="snapshot", asynchronous=False)
    manager = pte.ExtensionsManager(nn.Linear(2, 1), 9, [snapshot], iters_per_epoch=1, out_dir=tmp_path, sinks=[])
    original = file.verify_snapshot

    def train_and_verify(*args: Any) -> Any:
        if manager.iteration < 4:  # The next iteration saves the snapshot.
            with manager.run_iteration():
                pass
        return original(*args)

    for _ in range(2):
        with manager.run_iteration():
            pass
    monkeypatch.setattr(file, "verify_snapshot", train_and_verify)
    assert pte.load(tmp_path, "snapshot").step == 3
    manager.close()


def test_load_path_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "result")
    monkeypatch.chdir(tmp_path)
    assert pte.load("result", "result/snapshot_iter_3").step == 3
    shutil.copy("result/snapshot_iter_3", "elsewhere.pt")
    copied = pte.load("result", "elsewhere.pt")
    assert (copied.step, copied.path, copied.epoch) == (3, "elsewhere.pt", 3.0)


def test_load_of_a_missing_snapshot_names_the_run_directory(tmp_path: Path) -> None:
    train(tmp_path / "run", stop_at=1)
    with pytest.raises(pte.SnapshotError, match=f"^{tmp_path}/run/snapshot_iter_99: file not found"):
        pte.load(tmp_path / "run", "snapshot_iter_99")


def test_load_best_by_another_metric(tmp_path: Path) -> None:
    train(tmp_path, keep_best=None)
    with pytest.raises(
        ValueError,
        match=r"no snapshots, because it had no snapshot\(keep_best=...\). Pass best=.*its metrics: loss",
    ):
        pte.load(tmp_path, "best")
    assert pte.load(tmp_path, "best", best=("loss", "max")).step == 4
    with pytest.raises(LookupError, match=r"no snapshot has a finite value of 'acc'. Available metrics: loss"):
        pte.load(tmp_path, "best", best=("acc", "max"))


def test_load_subset_of_models_and_other_objects(tmp_path: Path) -> None:
    models = {"generator": nn.Linear(2, 1), "critic": nn.Linear(3, 1)}
    optimizer = torch.optim.SGD(models["critic"].parameters(), lr=0.5, momentum=0.9)
    train(tmp_path, models, optimizers={"critic": optimizer})
    critic = nn.Linear(3, 1)
    other = torch.optim.SGD(critic.parameters(), lr=0.1, momentum=0.9)
    pte.load(tmp_path, 3, models={"critic": critic}, optimizers={"critic": other})
    assert (weight(critic), other.param_groups[0]["lr"]) == (3, 0.5)


def test_load_single_module_gets_the_only_model(tmp_path: Path) -> None:
    train(tmp_path, {"network": nn.Linear(2, 1)})
    model = nn.Linear(2, 1)
    pte.load(tmp_path, models=nn.DataParallel(model))
    assert weight(model) == 4
    assert pte.load(tmp_path).step == 4


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (nn.Linear(2, 1), r"models: the snapshot does not contain 'main'. It contains 'a', 'b', and 'main' was passed"),
        ({"a": nn.Linear(2, 1), "c": nn.Linear(2, 1)}, r"does not contain 'c'. It contains 'a', 'b', and 'a', 'c' was"),
        ({"a": nn.Linear(2, 1), "b": nn.Linear(5, 1)}, r"'weight' is .*in the snapshot"),
    ],
    ids=["single", "name", "shape"],
)
def test_load_into_other_models_raises_and_loads_nothing(tmp_path: Path, models: Any, message: str) -> None:
    train(tmp_path, {"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
    first = models if isinstance(models, nn.Module) else models["a"]
    before = weight(first)
    with pytest.raises(ValueError, match=message):
        pte.load(tmp_path, models=models)
    assert weight(first) == before


class Refusing:
    def state_dict(self) -> dict[str, Any]:
        return {"value": 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise KeyError("other")


@pytest.mark.parametrize(
    ("objects", "problem", "remedy"),
    [
        ({"models": nn.Linear(3, 1)}, "'weight' is ", "omit the object, and use the"),
        ({"state_objects": {"counter": Refusing()}}, "KeyError: 'other'", "or omit the object."),
    ],
)
def test_load_refused_state_names_no_remedy_of_a_training(
    tmp_path: Path, objects: dict[str, Any], problem: str, remedy: str
) -> None:
    train(tmp_path, state_objects={"counter": Refusing()})
    with pytest.raises(ValueError, match="Nothing was restored") as caught:
        pte.load(tmp_path, **objects)
    message = str(caught.value)
    assert problem in message
    assert remedy in message
    assert "resume" not in message
    assert "allow=" not in message
    assert "manager" not in message


def test_load_unknown_source_raises(tmp_path: Path) -> None:
    with pytest.raises(pte.RunNotFoundError, match="not a run directory"):
        pte.load(tmp_path / "missing")
    with pte.Run(tmp_path / "empty"):
        pass
    with pytest.raises(LookupError, match="has no snapshot"):
        pte.load(tmp_path / "empty")
    train(tmp_path / "run")
    with pytest.raises(LookupError, match=r"no snapshot of step 9. Steps with a snapshot: 1, 2, 3, 4"):
        pte.load(tmp_path / "run", 9)
    with pytest.raises(TypeError, match=r"source: expected 'latest', 'best', a step, a path, or a URI, got 1.5"):
        pte.load(tmp_path / "run", 1.5)  # type: ignore[arg-type]
    with pytest.raises(pte.SnapshotError, match="newest"):
        pte.load(tmp_path / "run", "newest")
    with pytest.raises(ValueError, match="no installed sink supports ftp: URIs"):
        pte.load(tmp_path / "run", "ftp://host/file")
    with pytest.raises(TypeError, match="models: expected an object with state_dict"):
        pte.load(tmp_path / "run", models=[nn.Linear(2, 1)])


def test_load_damaged_snapshot_is_skipped_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path)
    (tmp_path / "snapshot_iter_4").write_bytes(b"damaged")
    assert pte.load(tmp_path).step == 3
    message = caplog.messages[-1]
    assert message.startswith(f"load: skipping 1 unusable snapshot: {tmp_path}/snapshot_iter_4: truncated: ")
    assert "Using snapshot_iter_3 instead." in message
    with pytest.raises(pte.SnapshotError, match="snapshot_iter_4"):
        pte.load(tmp_path, 4)
    for step in (1, 2, 3):
        (tmp_path / f"snapshot_iter_{step}").unlink()
    with pytest.raises(pte.SnapshotError, match="no other snapshot can be used"):
        pte.load(tmp_path)


def test_load_of_a_state_object_as_model_names_its_part(tmp_path: Path) -> None:
    average = nn.Linear(1, 1)
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1), 1, [extensions.snapshot()], iters_per_epoch=1, out_dir=tmp_path, state_objects={"ema": average}
    )
    for _ in manager.iterations():
        pass
    with pytest.raises(ValueError, match=r"models: .* does not contain 'ema'.* 'ema' is in state_objects=\."):
        pte.load(tmp_path, models={"ema": average})
