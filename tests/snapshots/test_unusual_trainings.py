"""Trainings with unusual models, optimizers, and loops: a resume is exact, or a message names what is not."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, prune
from torch.optim import lr_scheduler, swa_utils

import pte_tracking as pte
from tests.snapshots.object_training import Objects, check_exact_resume, make_net, train


def make_deep_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 3))


def warnings_in(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def loop(
    model: Any, optimizer: Any, after: Callable[[pte.ExtensionsManager], object] = lambda manager: None
) -> Callable[[pte.ExtensionsManager, Tensor], None]:
    def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        after(manager)

    return update


def make_stochastic_average() -> Objects:
    model = make_deep_net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    average, scheduler = swa_utils.AveragedModel(model, use_buffers=True), swa_utils.SWALR(optimizer, 0.01)

    def after(manager: pte.ExtensionsManager) -> None:
        if manager.iteration >= 3:
            average.update_parameters(model)
            scheduler.step()

    return Objects(model, optimizer, loop(model, optimizer, after), {"average": average, "scheduler": scheduler})


def make_own_average() -> Objects:
    model = make_deep_net()
    optimizer, average = torch.optim.AdamW(model.parameters(), 0.02), copy.deepcopy(model)

    def after(manager: pte.ExtensionsManager) -> None:
        for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
            mean.data.lerp_(parameter.data, 0.1)

    return Objects(model, optimizer, loop(model, optimizer, after), {"average": average})


def make_scaled_accumulation() -> Objects:
    model = make_deep_net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=16, growth_interval=2)

    def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(batch).square().mean() / 3
        scaler.scale(loss).backward()
        if manager.iteration % 3 == 1:
            scaler.unscale_(optimizer)
            clip_grad_norm_(model.parameters(), 0.3)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

    return Objects(model, optimizer, update, {"scaler": scaler})


def make_line_search() -> Objects:
    model = make_net()
    optimizer = torch.optim.LBFGS(model.parameters(), 0.3, max_iter=3, line_search_fn="strong_wolfe")
    scheduler = lr_scheduler.StepLR(optimizer, 2, 0.5)

    def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = model(batch).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
        scheduler.step()

    return Objects(model, optimizer, update, {"scheduler": scheduler})


def make_alternating_freeze() -> Objects:
    model = make_deep_net()
    optimizer = torch.optim.Adam(model.parameters(), 0.02, weight_decay=0.1)

    def after(manager: pte.ExtensionsManager) -> None:
        if manager.iteration % 4 == 0:
            model[0].requires_grad_(not model[0].weight.requires_grad)

    return Objects(model, optimizer, loop(model, optimizer, after))


def make_pruned() -> Objects:
    model = make_deep_net()
    prune.l1_unstructured(model[0], "weight", amount=0.4)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    return Objects(model, optimizer, loop(model, optimizer))


def make_master_weights() -> Objects:
    model = make_net().to(torch.bfloat16)
    parameters = list(model.parameters())
    masters = [parameter.detach().float().requires_grad_() for parameter in parameters]
    optimizer = torch.optim.AdamW(masters, 0.02)

    def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        model.zero_grad()
        model(batch).float().square().mean().backward()
        for parameter, master in zip(parameters, masters, strict=True):
            assert parameter.grad is not None
            master.grad = parameter.grad.float()
        optimizer.step()
        with torch.no_grad():
            for parameter, master in zip(parameters, masters, strict=True):
                parameter.copy_(master)

    return Objects(model, optimizer, update)


def make_alternating_optimizers() -> Objects:
    model = make_deep_net()
    optimizers: dict[str, Any] = {
        "first": torch.optim.SGD(model[0].parameters(), 0.05, momentum=0.9),
        "second": torch.optim.Adam([*model[1].parameters(), *model[3].parameters()], 0.02),
    }

    def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        model.zero_grad()
        model(batch).square().mean().backward()
        optimizers["first" if manager.iteration % 2 else "second"].step()

    return Objects(model, optimizers, update)


def make_plateau_and_cycle() -> Objects:
    model = make_deep_net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    cycle = lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=20)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)

    def after(manager: pte.ExtensionsManager) -> None:
        cycle.step()
        if manager.iteration % 4 == 3:
            plateau.step(1.0)

    return Objects(model, optimizer, loop(model, optimizer, after), {"cycle": cycle, "plateau": plateau})


@pytest.mark.parametrize(
    "make",
    [
        make_stochastic_average,
        make_own_average,
        make_scaled_accumulation,
        make_line_search,
        make_alternating_freeze,
        make_pruned,
        make_master_weights,
        make_alternating_optimizers,
        make_plateau_and_cycle,
    ],
)
def test_unusual_training_resumed_is_exact_without_a_message(
    make: Callable[[], Objects], tmp_path: Path, caplog: Any
) -> None:
    check_exact_resume(tmp_path, make)
    assert warnings_in(caplog) == []


class Adapted(nn.Module):
    """Linear layer with an adapter of low rank."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.first = nn.Parameter(torch.randn(2, base.in_features) * 0.1)
        self.second = nn.Parameter(torch.randn(base.out_features, 2) * 0.1)

    def forward(self, batch: Tensor) -> Tensor:
        result: Tensor = self.base(batch) + batch @ self.first.T @ self.second.T
        return result


def make_adapted(is_resumed: bool = False) -> Objects:
    model = make_deep_net()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)

    def adapt() -> None:
        model[0] = Adapted(model[0])
        optimizer.add_param_group({"params": [model[0].first, model[0].second], "lr": 0.1})

    def after(manager: pte.ExtensionsManager) -> None:
        if manager.iteration == 3:
            adapt()

    if is_resumed:
        adapt()
    return Objects(model, optimizer, loop(model, optimizer, after))


def test_model_changed_while_training_is_refused_until_the_change_is_repeated_before_the_resume(tmp_path: Path) -> None:
    train(tmp_path / "refused", make_adapted, stop=7)
    with pytest.raises(ValueError, match=r"construct the manager, and repeat the change before resume\(\)") as caught:
        train(tmp_path / "refused", make_adapted, resume=True)
    assert "'0.first' is in the snapshot but not in the model" in str(caught.value)
    check_exact_resume(tmp_path, make_adapted, lambda: make_adapted(is_resumed=True))


class Recurrent(nn.Module):
    """Model with a hidden state that is a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(3, 4, batch_first=True)
        self.hidden: Any = None

    def forward(self, batch: Tensor) -> Tensor:
        output: Tensor
        output, hidden = self.layer(batch.view(-1, 2, 3), self.hidden)
        self.hidden = tuple(item.detach() for item in hidden)
        return output


def test_hidden_state_in_an_attribute_is_named_by_the_resume(tmp_path: Path, caplog: Any) -> None:
    def make() -> Objects:
        model = Recurrent()
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        return Objects(model, optimizer, loop(model, optimizer))

    train(tmp_path, make, stop=7)
    assert warnings_in(caplog) == []
    train(tmp_path, make, resume=True)
    (message,) = warnings_in(caplog)
    assert "differ from those of the snapshot: 'main/hidden[0]', 'main/hidden[1]'. Register them with" in message
