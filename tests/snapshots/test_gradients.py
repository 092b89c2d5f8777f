"""Gradients that are accumulated when a snapshot is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking import extensions, updaters
from tests.snapshots.object_training import Lookup, Objects, check_exact_resume, make_net

SNAPSHOT = "snapshot_iter_5"


def accumulate(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    every: int,
    *,
    set_to_none: bool = True,
    offset: int = 1,
) -> Callable[[pte.ExtensionsManager, Tensor], None]:
    def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        (model(batch).float().square().mean() / every).backward()
        if (manager.iteration + offset) % every == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)

    return update


def saved_gradients(folder: Path) -> Any:
    return torch.load(folder / SNAPSHOT)["gradients"]


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("every", [2, 3, 4, 6])
def test_accumulated_gradients_are_restored(every: int, dtype: torch.dtype, set_to_none: bool, tmp_path: Path) -> None:
    def make() -> Objects:
        model = make_net().to(dtype)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        return Objects(model, optimizer, accumulate(model, optimizer, every, set_to_none=set_to_none))

    check_exact_resume(tmp_path, make)
    assert set(saved_gradients(tmp_path / "run")["main"]) == {
        *("main/0.weight", "main/0.bias", "main/1.weight", "main/1.bias")
    }


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_zeroed_before_snapshot_stay_out(set_to_none: bool, tmp_path: Path) -> None:
    def make() -> Objects:
        model = make_net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        return Objects(model, optimizer, accumulate(model, optimizer, 5, set_to_none=set_to_none))

    check_exact_resume(tmp_path, make)
    assert saved_gradients(tmp_path / "run") == {}


def test_zero_gradient_of_unused_parameter_is_restored(tmp_path: Path) -> None:
    """Momentum moves a parameter whose gradient is zero, not one without a gradient."""

    def make() -> Objects:
        model = make_net()
        unused = nn.Linear(6, 3)
        optimizer = torch.optim.SGD([*model.parameters(), *unused.parameters()], lr=0.1, momentum=0.9)

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            optimizer.zero_grad(set_to_none=False)
            output = model(batch) + (unused(batch) if manager.iteration < 2 else 0)
            output.square().mean().backward()
            optimizer.step()

        return Objects(nn.ModuleList([model, unused]), optimizer, update)

    check_exact_resume(tmp_path, make)
    assert saved_gradients(tmp_path / "run") == {}


def test_gradient_computed_after_step_in_same_iteration_is_restored(tmp_path: Path) -> None:
    def make() -> Objects:
        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            if manager.iteration:
                optimizer.step()
                optimizer.zero_grad()
            model(batch).square().mean().backward()

        return Objects(model, optimizer, update)

    check_exact_resume(tmp_path, make)
    assert len(saved_gradients(tmp_path / "run")["main"]) == 4


def test_gradients_of_optimizers_with_different_periods(tmp_path: Path) -> None:
    """The first optimizer has used its gradients; the second one accumulates."""

    def make() -> Objects:
        model = make_net()
        first, second = (torch.optim.Adam(layer.parameters(), lr=0.02) for layer in model.children())

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            first.zero_grad()
            model(batch).square().mean().backward()
            first.step()
            if manager.iteration % 3 == 2:
                second.step()
                second.zero_grad()

        return Objects(model, {"first": first, "second": second}, update)

    check_exact_resume(tmp_path, make)
    assert set(saved_gradients(tmp_path / "run")) == {"second"}


def test_used_gradients_of_rarely_stepped_optimizer_stay_out(tmp_path: Path) -> None:
    model, critic = make_net(), make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rare = torch.optim.SGD(critic.parameters(), lr=0.1)
    manager = pte.ExtensionsManager(
        {"main": model, "critic": critic},
        1,
        [extensions.snapshot(trigger=(5, "iteration"))],
        optimizers={"main": optimizer, "critic": rare},
        out_dir=tmp_path,
        iters_per_epoch=5,
    )
    while not manager.stop_trigger:
        with manager.run_iteration():
            for part, item in ((model, optimizer), (critic, rare)):
                if part is model or manager.iteration == 2:
                    item.zero_grad()
                    part(torch.ones(1, 6)).sum().backward()
                    item.step()
    assert saved_gradients(tmp_path) == {}
    assert next(critic.parameters()).grad is not None


def test_accumulated_sparse_gradients_are_restored(tmp_path: Path) -> None:
    def make() -> Objects:
        model = Lookup()
        optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.05)

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            model(batch).square().mean().backward()
            if manager.iteration % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()

        return Objects(model, optimizer, update)

    check_exact_resume(tmp_path, make)
    assert saved_gradients(tmp_path / "run")["main"]["main/embedding.weight"].is_sparse


def test_gradients_of_parameter_outside_models_are_restored(tmp_path: Path) -> None:
    def make() -> Objects:
        model = make_net()
        scale = nn.Parameter(torch.ones(()))
        optimizer = torch.optim.SGD([*model.parameters(), scale], lr=0.1)

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            (model(batch) * scale.detach() + scale).square().mean().backward()
            if manager.iteration % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()

        class Scale:
            def state_dict(self) -> dict[str, Any]:
                return {"scale": scale}

            def load_state_dict(self, state: dict[str, Any]) -> None:
                scale.data = state["scale"]

        return Objects(model, optimizer, update, {"scale": Scale()})

    check_exact_resume(tmp_path, make)


# -- gradient scalers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 2, 3])
def test_resumed_training_with_gradient_scaler_equals_uninterrupted_one(every: int, tmp_path: Path) -> None:
    """The scaler skips some steps, also of the iteration before the snapshot."""

    def make() -> Objects:
        model = make_net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            factor = float("inf") if manager.iteration in (0, 4, 8) else 1
            scaler.scale(model(batch).square().mean() * factor).backward()
            if manager.iteration % every == every - 1:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()

        return Objects(model, optimizer, update, {"scaler": scaler})

    check_exact_resume(tmp_path, make)


def make_skipping_trainer(folder: Path, skipped: tuple[int, ...], optimizer_options: dict[str, Any]) -> Any:
    model = make_net()
    optimizer: Any = torch.optim.Adam(model.parameters(), lr=0.1, **optimizer_options)
    optimizer.target = model
    calls: list[Tensor] = []

    def compute_loss(batch: Tensor) -> Tensor:
        calls.append(batch)
        loss: Tensor = model(batch).square().mean() * (float("inf") if len(calls) in skipped else 1)
        return loss

    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    updater = updaters.StandardUpdater([torch.ones(4, 6)] * 8, optimizer, loss_func=compute_loss, scaler=scaler)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 8)
    schedule = pte.ExtensionEntry(extensions.LRScheduler(scheduler), trigger=(1, "iteration"))
    snapshot = extensions.snapshot(trigger=(5, "iteration"))
    return pte.Trainer(updater, (1, "epoch"), folder, [schedule, snapshot]), scheduler


def test_gradients_of_skipped_step_stay_out(tmp_path: Path) -> None:
    trainer, _ = make_skipping_trainer(tmp_path, (1, 5), {})
    trainer.run()
    assert saved_gradients(tmp_path) == {}


@pytest.mark.parametrize("fused", [False, True])
def test_scheduler_steps_as_often_as_optimizer(fused: bool, tmp_path: Path) -> None:
    trainer, scheduler = make_skipping_trainer(tmp_path, (1, 2, 5), {"fused": fused})
    trainer.run()
    assert scheduler.last_epoch == 5


def test_scheduler_in_loop_waits_for_skipped_and_accumulated_steps(tmp_path: Path) -> None:
    schedulers = []

    def make() -> Objects:
        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
        schedulers.append(scheduler)
        schedule = pte.ExtensionEntry(extensions.LRScheduler(scheduler), trigger=(1, "iteration"))
        return Objects(model, optimizer, accumulate(model, optimizer, 3), extensions=[schedule])

    check_exact_resume(tmp_path, make)
    assert schedulers[0].last_epoch == 4


def test_step_before_snapshot_is_known_to_scheduler_after_resume(tmp_path: Path) -> None:
    """The only step of an epoch precedes the snapshot; the scheduler runs after it."""
    rates = []

    def make() -> Objects:
        model = make_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        update = accumulate(model, optimizer, 4, offset=0)
        schedule = extensions.LRScheduler(scheduler, trigger=(4, "iteration"))
        rates.append(scheduler)
        return Objects(model, optimizer, update, extensions=[schedule])

    check_exact_resume(tmp_path, make)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_scheduler_of_optimizer_that_is_not_trained_is_stepped(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(make_net().parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    schedule = pte.ExtensionEntry(extensions.LRScheduler(scheduler), trigger=(1, "iteration"))
    with pte.ExtensionsManager({}, 1, [schedule], optimizers=optimizer, iters_per_epoch=3, out_dir=tmp_path) as manager:
        for _ in range(3):
            with manager.run_iteration():
                pass
    assert scheduler.last_epoch == 3


@pytest.mark.parametrize("clips", [False, True])
def test_gradients_that_are_never_zeroed_are_restored(clips: bool, tmp_path: Path) -> None:
    def make() -> Objects:
        model = make_net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            model(batch).square().mean().backward()
            if clips:
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()

        return Objects(model, optimizer, update)

    check_exact_resume(tmp_path, make)
    assert len(saved_gradients(tmp_path / "run")["main"]) == 4


@pytest.mark.parametrize("zeroed", [0, 1])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_of_which_only_a_part_is_zeroed_are_restored(zeroed: int, set_to_none: bool, tmp_path: Path) -> None:
    def make() -> Objects:
        model: Any = make_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            model[zeroed].zero_grad(set_to_none=set_to_none)
            model(batch).square().mean().backward()
            optimizer.step()
            if manager.iteration == 7:
                model[1 - zeroed].requires_grad_(False)

        return Objects(model, optimizer, update)

    check_exact_resume(tmp_path, make)


def test_gradients_that_are_never_zeroed_are_reported_if_a_snapshot_does_not_contain_them(
    tmp_path: Path, caplog: Any
) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    snapshot = extensions.snapshot(trigger=(1, "iteration"), asynchronous=False)
    manager = pte.ExtensionsManager(
        model, 1, [snapshot], optimizers=optimizer, iters_per_epoch=5, out_dir=tmp_path, sinks=[]
    )
    for batch in manager.batches([torch.ones(2, 6)] * 5):
        with manager.run_iteration():
            model(batch).square().mean().backward()
            optimizer.step()
    assert [len(message) > 0 for message in caplog.messages if "does not zero the gradients" in message] == [True]
    assert "main" in torch.load(tmp_path / "snapshot_iter_5")["gradients"]


def test_frozen_parameter_with_zeroed_gradient_does_not_stop_training(tmp_path: Path) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    snapshot = extensions.snapshot(trigger=(1, "iteration"))
    manager = pte.ExtensionsManager(
        model, 1, [snapshot], optimizers=optimizer, iters_per_epoch=3, out_dir=tmp_path, sinks=[]
    )
    for batch in manager.batches([torch.ones(2, 6)] * 3):
        with manager.run_iteration():
            optimizer.zero_grad(set_to_none=False)
            model(batch).square().mean().backward()
            optimizer.step()
            model[0].requires_grad_(False)  # type: ignore[index, union-attr]
    assert manager.iteration == 3


def test_gradients_without_an_optimizer_are_reported_once(tmp_path: Path, caplog: Any) -> None:
    model = make_net()
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.02)  # type: ignore[index, union-attr]
    snapshot = extensions.snapshot(trigger=(1, "iteration"))
    manager = pte.ExtensionsManager(
        model, 1, [snapshot], optimizers=optimizer, iters_per_epoch=3, out_dir=tmp_path, sinks=[]
    )
    for batch in manager.batches([torch.ones(2, 6)] * 3):
        with manager.run_iteration():
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
    (message,) = [message for message in caplog.messages if "belong to no optimizer" in message]
    assert "'main/0.bias' and 1 more" in message or "'main/0.weight' and 1 more" in message
