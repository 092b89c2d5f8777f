"""Trainer and its standard updater."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking.updaters import StandardUpdater


class Regressor(nn.Module):
    """Model that returns the loss, like Classifier of Chainer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.predictor = nn.Linear(2, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss = F.mse_loss(self.predictor(x), y)
        pte.report({"loss": loss}, self)
        return loss


def data(batches: int = 4) -> TensorDataset:
    x = torch.linspace(-1, 1, batches * 8).reshape(-1, 2)
    return TensorDataset(x, x.sum(1, keepdim=True))


def make_loader(batches: int = 4) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(data(batches), batch_size=4)


def make_optimizer(
    model: nn.Module, kind: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
) -> torch.optim.Optimizer:
    optimizer = kind(model.parameters(), lr=0.1)
    optimizer.target = model  # type: ignore[attr-defined]
    return optimizer


@pytest.fixture
def train(tmp_path: Path) -> Any:
    def run(updater: Any, stop: Any = (2, "epoch"), *extensions: Any, **options: Any) -> pte.Trainer:
        trainer = pte.Trainer(updater, stop, tmp_path, extensions, sinks=[], **options)
        trainer.run()
        return trainer

    return run


def test_run_trains_model_and_exposes_models_and_optimizers(train: Any) -> None:
    model = Regressor()
    optimizer = make_optimizer(model)
    seen: list[float] = []
    trainer = train(
        pte.updaters.StandardUpdater(make_loader(), optimizer, device="cpu"),
        (2, "epoch"),
        lambda manager: seen.append(manager.observation["main/loss"]),
    )
    assert (trainer.manager.iteration, trainer.manager.epoch) == (8, 2)
    assert seen[-1] < seen[0]
    assert trainer.manager.models == {"main": model}
    assert trainer.manager.optimizers == {"main": optimizer}
    assert trainer.stop_trigger


def test_run_weights_equal_plain_loop_weights(train: Any) -> None:
    plain, managed = Regressor(), Regressor()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(2):
        for x, y in make_loader():
            optimizer.zero_grad()
            plain(x, y).backward()
            optimizer.step()
    train(StandardUpdater(make_loader(), make_optimizer(managed)))
    assert managed.predictor.weight.equal(plain.predictor.weight)


def test_extension_receives_manager(tmp_path: Path) -> None:
    received: list[Any] = []
    trainer = pte.Trainer(
        StandardUpdater(make_loader(), make_optimizer(Regressor())), (1, "iteration"), tmp_path, sinks=[]
    )
    trainer.extend(received.append, "custom", (1, "iteration"), 7)
    assert trainer.get_extension("custom").name == "custom"
    trainer.run()
    assert received == [trainer.manager]
    assert trainer.out == str(tmp_path)


@pytest.mark.parametrize(
    ("stop", "iterations"),
    [((1.5, "epoch"), 6), ((3, "iteration"), 3), (pte.triggers.ManualScheduleTrigger(5, "iteration"), 5)],
)
def test_stop_trigger_of_any_kind_ends_training(train: Any, stop: Any, iterations: int) -> None:
    assert train(StandardUpdater(make_loader(), make_optimizer(Regressor())), stop).manager.iteration == iterations


def test_max_epochs_is_derived_from_stop_trigger(tmp_path: Path) -> None:
    def epochs(stop: Any) -> float:
        updater = StandardUpdater(make_loader(), make_optimizer(Regressor()))
        return pte.Trainer(updater, stop, tmp_path).manager.max_epochs

    assert epochs((3, "epoch")) == 3
    assert epochs((6, "iteration")) == 1.5
    assert epochs(lambda manager: True) == math.inf


def test_exception_in_loss_function_is_raised_and_calls_on_error(train: Any) -> None:
    class ErrorRecorder(pte.Extension):
        trigger = None

        def on_error(self, manager: Any, exc: Exception, tb: Any) -> None:
            errors.append(exc)

    def raise_error(x: Tensor, y: Tensor) -> Tensor:
        raise ZeroDivisionError

    errors: list[Exception] = []
    with pytest.raises(ZeroDivisionError):
        train(
            StandardUpdater(make_loader(), make_optimizer(Regressor()), loss_func=raise_error),
            (1, "epoch"),
            ErrorRecorder(),
        )
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_run_second_call_raises_runtime_error(train: Any) -> None:
    trainer = train(StandardUpdater(make_loader(), make_optimizer(Regressor())))
    with pytest.raises(RuntimeError, match="has already ended"):
        trainer.run()


def test_load_state_dict_in_new_trainer_continues_training(tmp_path: Path) -> None:
    def trainer(out: str, stop: Any) -> pte.Trainer:
        return pte.Trainer(StandardUpdater(make_loader(), make_optimizer(Regressor())), stop, tmp_path / out, sinks=[])

    first, uninterrupted = trainer("first", (4, "iteration")), trainer("uninterrupted", (2, "epoch"))
    first.run()
    second = trainer("first", (2, "epoch"))
    second.load_state_dict(first.state_dict())
    assert second.manager.iteration == 4
    second.run()
    uninterrupted.run()
    weights = [trainer.manager.models["main"].state_dict()["predictor.weight"] for trainer in (second, uninterrupted)]
    assert weights[0].equal(weights[1])


def test_run_resumed_finished_training_runs_no_iterations(tmp_path: Path) -> None:
    def trainer() -> pte.Trainer:
        return pte.Trainer(
            StandardUpdater(make_loader(), make_optimizer(Regressor())), (1, "epoch"), tmp_path, sinks=[]
        )

    first, second = trainer(), trainer()
    first.run()
    second.load_state_dict(first.state_dict())
    second.run()
    assert second.manager.iteration == 4


# -- the updater -------------------------------------------------------------------------------------------------------


def test_updater_loss_func_trains_model(train: Any) -> None:
    model = nn.Linear(2, 1)
    before = model.weight.clone()
    train(StandardUpdater(make_loader(), make_optimizer(model), loss_func=lambda x, y: F.mse_loss(model(x), y)))
    assert not model.weight.equal(before)


def test_updater_dict_batch_is_passed_as_keyword_arguments(train: Any) -> None:
    named = DataLoader([{"y": torch.ones(1), "x": torch.ones(2)}] * 8, batch_size=4)  # type: ignore[arg-type]
    assert train(StandardUpdater(named, make_optimizer(Regressor()))).manager.iteration == 4


def test_updater_converter_prepares_every_batch(train: Any) -> None:
    devices: list[Any] = []

    def convert(batch: list[Tensor], device: Any) -> dict[str, Tensor]:
        devices.append(device)
        return {"x": batch[0] * 2, "y": batch[1]}

    train(StandardUpdater(make_loader(), make_optimizer(Regressor()), convert, "cpu"))
    assert devices == ["cpu"] * 8


def test_updater_closure_optimizer_minimizes_loss(train: Any) -> None:
    model = Regressor()
    train(StandardUpdater(make_loader(1), make_optimizer(model, torch.optim.LBFGS)), (5, "epoch"))
    assert model(*data(1).tensors).item() < 1e-6


def test_updater_several_optimizers_minimize_one_loss(train: Any) -> None:
    class TwoLayers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(2, 2), nn.Linear(2, 1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.mse_loss(self.head(self.body(x)), y)

    model = TwoLayers()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = {
        "main": torch.optim.SGD(model.body.parameters(), lr=0.1),
        "head": torch.optim.Adam(model.head.parameters(), lr=0.1),
    }
    for optimizer in optimizers.values():
        optimizer.target = model  # type: ignore[attr-defined]
    train(StandardUpdater(make_loader(), optimizers))
    assert not any(value.equal(before[name]) for name, value in model.state_dict().items())


def test_updater_subclass_uses_two_loaders_and_two_models(train: Any) -> None:
    class Adversaries(StandardUpdater):
        def update_core(self) -> None:
            generator, critic = self.models["generator"], self.models["critic"]
            real, noise = self.next_batch(), self.next_batch("noise")
            seen.append((len(real[0]), len(noise)))
            self.minimize(
                lambda: critic(generator(noise)).mean() - critic(real[0]).mean(), self.get_optimizer("critic")
            )
            self.minimize(lambda: -critic(generator(noise)).mean(), self.get_optimizer("generator"))

    seen: list[tuple[int, int]] = []
    generator, critic = nn.Linear(3, 2), nn.Linear(2, 1)
    updater = Adversaries(
        {"main": make_loader(), "noise": [torch.ones(1, 3), torch.ones(2, 3), torch.ones(3, 3)]},
        {"generator": make_optimizer(generator), "critic": make_optimizer(critic)},
    )
    trainer = train(updater)
    assert trainer.manager.models == {"generator": generator, "critic": critic}
    assert seen == [(4, 1), (4, 2), (4, 3), (4, 1), (4, 2), (4, 3), (4, 1), (4, 2)]


def test_updater_autocast_and_scaler_train_in_mixed_precision(tmp_path: Path) -> None:
    dtypes: list[torch.dtype] = []

    def loss(x: Tensor, y: Tensor) -> Tensor:
        output = model.predictor(x)
        dtypes.append(output.dtype)
        return F.mse_loss(output.float(), y)

    model = Regressor()
    before = model.predictor.weight.clone()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
    updater = StandardUpdater(
        make_loader(),
        make_optimizer(model),
        loss_func=loss,
        autocast=torch.autocast("cpu", torch.bfloat16),
        scaler=scaler,
    )
    trainer = pte.Trainer(updater, (1, "epoch"), tmp_path, sinks=[])
    trainer.run()
    assert dtypes == [torch.bfloat16] * 4
    assert not model.predictor.weight.equal(before)
    assert trainer.state_dict()["state_objects"] == {"scaler": scaler.state_dict()}
    assert scaler.get_scale() == 2048.0


def test_updater_scaler_skips_non_finite_gradients(train: Any) -> None:
    model = Regressor()
    before = model.predictor.weight.clone()
    updater = StandardUpdater(
        make_loader(),
        make_optimizer(model),
        loss_func=lambda x, y: model.predictor(x).sum() * math.inf,
        scaler=torch.amp.GradScaler("cpu"),
    )
    train(updater)
    assert model.predictor.weight.equal(before)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: StandardUpdater(make_loader(), torch.optim.SGD([torch.ones(1)])),
            ValueError,
            "optimizer.target = model",
        ),
        (
            lambda: StandardUpdater({"train": make_loader()}, make_optimizer(Regressor())),
            ValueError,
            "iterator.*'main'.*'train'",
        ),
        (
            lambda: StandardUpdater(make_loader(), {"sgd": make_optimizer(Regressor())}),
            ValueError,
            "loss_func.*'main'.*'sgd'",
        ),
        (
            lambda: StandardUpdater(make_loader(), make_optimizer(nn.Linear(2, 1))),
            TypeError,
            "loss_func.*part_1, part_2",
        ),
    ],
)
def test_updater_invalid_argument_raises(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_updater_loss_func_returning_none_raises_type_error(train: Any) -> None:
    with pytest.raises(TypeError, match="loss_func: expected a tensor as the returned loss, got None"):
        train(StandardUpdater(make_loader(), make_optimizer(Regressor()), loss_func=lambda x, y: None))  # type: ignore[arg-type, return-value]


def test_updater_empty_data_raises_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"iters_per_epoch.*data is not empty"):
        pte.Trainer(StandardUpdater([], make_optimizer(Regressor())), (1, "epoch"), tmp_path)
    with pytest.raises(ValueError, match="iterator: 'main' is empty"):
        StandardUpdater([], make_optimizer(Regressor())).update()


def test_updater_exhausted_iterator_raises_value_error(train: Any) -> None:
    with pytest.raises(ValueError, match=r"'main' is empty\. An iterator can be used once only"):
        train(StandardUpdater(iter(make_loader()), make_optimizer(Regressor())))
