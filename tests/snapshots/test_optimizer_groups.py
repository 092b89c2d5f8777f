"""Resume of optimizers with other parameter groups, or with parameters in another order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

import pte_tracking as pte
from pte_tracking import extensions
from tests.snapshots.object_training import Objects, check_exact_resume, make_net, train, update
from tests.snapshots.wrapping_optimizers import Lookahead


class Net(nn.Module):
    order: tuple[str, ...] = ("first", "second")

    def __init__(self) -> None:
        super().__init__()
        layers = {"first": nn.Linear(6, 6), "second": nn.Linear(6, 6)}
        for name in self.order:
            self.add_module(name, layers[name])

    def forward(self, batch: Tensor) -> Tensor:
        output: Tensor = self.second(torch.relu(self.first(batch)))
        return output


class ReorderedNet(Net):
    order = ("second", "first")


def make_ordered(kind: type[Net], groups: tuple[str, ...] = ()) -> Objects:
    model = kind()
    by_name = {name: {"params": model.get_submodule(name).parameters(), "lr": lr} for name, lr in RATES.items()}
    parameters: Any = [by_name[name] for name in groups] or model.parameters()
    return Objects(model, torch.optim.Adam(parameters, lr=0.05))


RATES = {"first": 0.05, "second": 0.01}


def weights_of(objects_state: Any) -> Any:
    return dict(sorted(objects_state[0].items()))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda: make_ordered(Net), lambda: make_ordered(ReorderedNet)),
        (lambda: make_ordered(Net, ("first", "second")), lambda: make_ordered(Net, ("second", "first"))),
        (lambda: make_ordered(Net, ("first", "second")), lambda: make_ordered(ReorderedNet, ("second", "first"))),
    ],
    ids=["layers", "groups", "both"],
)
def test_resume_of_reordered_parameters_matches_names(
    before: Callable[[], Objects], after: Callable[[], Objects], tmp_path: Path
) -> None:
    _, whole = train(tmp_path / "whole", before)
    train(tmp_path / "run", before, stop=7)
    start, state = train(tmp_path / "run", after, resume=True)
    assert start == 5
    assert weights_of(state) == weights_of(whole)


def multiply(rate: float) -> Callable[[int], float]:
    return lambda step: rate**step


SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, multiply(0.9)),
    "cyclic": lambda optimizer: lr_scheduler.CyclicLR(
        optimizer, base_lr=0.01, max_lr=[10 * group["lr"] for group in optimizer.param_groups], cycle_momentum=False
    ),
    "plateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.1, patience=0, min_lr=[group["lr"] / 2 for group in optimizer.param_groups]
    ),
    "sequential": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.ConstantLR(optimizer, 0.5, 3), lr_scheduler.LambdaLR(optimizer, multiply(0.9))],
        milestones=[3],
    ),
}


@pytest.mark.parametrize("is_extension", [True, False])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_resume_of_reordered_groups_keeps_values_of_scheduler_by_group(
    name: str, is_extension: bool, tmp_path: Path
) -> None:
    def make(groups: tuple[str, ...]) -> Objects:
        objects = make_ordered(Net, groups)
        scheduler = SCHEDULERS[name](objects.optimizer)
        arguments = [1.0] if name == "plateau" else []
        if is_extension:
            stepped = extensions.LRScheduler(
                scheduler, stepper=lambda _, item: item.step(*arguments), trigger=(1, "iteration")
            )
            objects.extensions.append(stepped)
            return objects
        objects.state_objects["scheduler"] = scheduler
        minimize = update(objects)

        def step(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            minimize(manager, batch)
            scheduler.step(*arguments)

        objects.update = step
        return objects

    _, whole = train(tmp_path / "whole", lambda: make(("first", "second")))
    train(tmp_path / "run", lambda: make(("first", "second")), stop=7)
    start, state = train(tmp_path / "run", lambda: make(("second", "first")), resume=True)
    assert start == 5
    assert weights_of(state) == weights_of(whole)


def test_resume_of_reordered_parameters_in_wrapper_is_refused_with_names(tmp_path: Path) -> None:
    def make(kind: type[Net]) -> Objects:
        model = kind()
        return Objects(model, Lookahead(torch.optim.Adam(model.parameters(), lr=0.05)))

    train(tmp_path, lambda: make(Net), stop=7)
    with pytest.raises(ValueError, match=r"Lookahead restores its state by position.*main/first\.weight.*main/second"):
        train(tmp_path, lambda: make(ReorderedNet), resume=True)


def test_resume_of_reordered_parameters_in_joined_state_is_refused_with_names(tmp_path: Path) -> None:
    def make(kind: type[Net]) -> Objects:
        model = kind()
        return Objects(model, torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2, history_size=2))

    train(tmp_path, lambda: make(Net), stop=7)
    with pytest.raises(ValueError, match=r"(?s)LBFGS restores its state by position.*main/first.*main/second"):
        train(tmp_path, lambda: make(ReorderedNet), resume=True)


def test_resume_of_moved_parameter_names_both_groups(tmp_path: Path) -> None:
    def make(decayed: str) -> Objects:
        model = Net()
        other = "second" if decayed == "first" else "first"
        groups = [{"params": model.get_submodule(decayed).weight, "weight_decay": 0.1}]
        groups.append({"params": [model.get_submodule(decayed).bias, *model.get_submodule(other).parameters()]})
        return Objects(model, torch.optim.SGD(groups, lr=0.1))

    train(tmp_path, lambda: make("first"), stop=7)
    with pytest.raises(ValueError, match=r"'main/first.weight' is in group 0 of the snapshot, in group 1 of the optim"):
        train(tmp_path, lambda: make("second"), resume=True)


def test_resume_with_additional_parameter_names_it(tmp_path: Path) -> None:
    def make(names: tuple[str, ...]) -> Objects:
        model = Net()
        groups = [{"params": model.get_submodule(name).parameters()} for name in names]
        return Objects(model, torch.optim.SGD(groups, lr=0.1))

    train(tmp_path, lambda: make(("second",)), stop=7)
    with pytest.raises(ValueError, match=r"(?s)'main/first.weight' is in group 1 of the optimizer but not in the snap"):
        train(tmp_path, lambda: make(("second", "first")), resume=True)


class Unfreeze(pte.Extension):
    """Extension that trains another layer after the first epoch."""

    trigger = (1, "epoch")

    def __init__(self, optimizer: Optimizer, layer: nn.Module, is_restored: bool) -> None:
        self.optimizer, self.layer, self.is_restored = optimizer, layer, is_restored
        self.is_done = False

    def __call__(self, manager: Any) -> None:
        if not self.is_done and (manager is None or manager.epoch == 1):
            self.optimizer.add_param_group({"params": self.layer.parameters(), "lr": 0.01})
            self.is_done = True

    def state_dict(self) -> dict[str, Any]:
        return {"is_done": self.is_done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["is_done"] and self.is_restored:
            self(None)


@pytest.mark.parametrize("is_restored", [True, False], ids=["by the extension", "by nobody"])
def test_parameter_group_added_while_training_is_restored(is_restored: bool, tmp_path: Path) -> None:
    def make() -> Objects:
        model = make_net()
        optimizer = torch.optim.SGD(model.get_submodule("1").parameters(), lr=0.1, momentum=0.9)
        return Objects(model, optimizer, extensions=[Unfreeze(optimizer, model.get_submodule("0"), is_restored)])

    check_exact_resume(tmp_path, make)


def test_parameter_group_removed_while_training_is_named_with_its_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_net()
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in model.children()], lr=0.1, momentum=0.9)

    step = update(Objects(model, optimizer))

    def remove(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        step(manager, batch)
        if manager.iteration == 6:
            del optimizer.param_groups[1]
        if manager.iteration == 11:
            for parameter in model.get_submodule("1").parameters():
                optimizer.state.pop(parameter, None)

    train(tmp_path, lambda: Objects(model, optimizer, remove))
    (message,) = (entry.getMessage() for entry in caplog.records if "was not saved" in entry.getMessage())
    assert (
        "snapshot_iter_10: the snapshot was not saved: RuntimeError: the optimizer 'main': state_dict() of" in message
    )
    assert "the state of 2 parameters that belong to none of its groups" in message
    assert "Call optimizer.state.pop(parameter, None)" in message


def test_failed_resume_removes_added_parameter_group(tmp_path: Path) -> None:
    class Refusing(nn.Linear):
        def _load_from_state_dict(self, *_: Any) -> None:
            raise RuntimeError("refused")

    def make(second: type[nn.Linear]) -> Objects:
        model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
        optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
        head = second(1, 1)
        return Objects(
            model, optimizer, extensions=[Unfreeze(optimizer, model[0], False)], state_objects={"head": head}
        )

    train(tmp_path, lambda: make(nn.Linear), stop=7)
    objects = make(Refusing)
    manager = pte.ExtensionsManager(
        objects.model,
        3,
        [*objects.extensions, extensions.snapshot(trigger=(5, "iteration"))],
        optimizers=objects.optimizer,
        state_objects=objects.state_objects,
        out_dir=tmp_path,
    )
    with pytest.raises(ValueError, match="the state object 'head'"):
        manager.resume()
    assert len(objects.optimizer.param_groups) == 1


def test_loaded_optimizer_of_model_with_another_name_matches_names(tmp_path: Path) -> None:
    train(tmp_path, lambda: make_ordered(Net), stop=7)
    saved = torch.load(tmp_path / "snapshot_iter_5")
    objects = make_ordered(ReorderedNet)
    pte.load(tmp_path, models=objects.model, optimizers=objects.optimizer)
    moments = [entry["exp_avg"] for entry in saved["optimizers"]["main"]["state"].values()]
    loaded = [
        objects.optimizer.state[parameter]["exp_avg"] for parameter in objects.model.get_submodule("first").parameters()
    ]
    assert all(map(torch.equal, loaded, moments[:2]))
