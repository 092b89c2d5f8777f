"""The trainer and its standard updater."""

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
    """Gives the loss when called, as Chainer's Classifier did."""

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


def loader(batches: int = 4) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(data(batches), batch_size=4)


def targeted(model: nn.Module, kind: Callable[..., torch.optim.Optimizer] = torch.optim.SGD) -> torch.optim.Optimizer:
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


def test_the_seeds_form(train: Any) -> None:
    model = Regressor()
    optimizer = targeted(model)
    seen: list[float] = []
    trainer = train(
        pte.updaters.StandardUpdater(loader(), optimizer, device="cpu"),
        (2, "epoch"),
        lambda manager: seen.append(manager.observation["main/loss"]),
    )
    assert (trainer.manager.iteration, trainer.manager.epoch) == (8, 2)
    assert seen[-1] < seen[0]
    assert trainer.manager.models == {"main": model}
    assert trainer.manager.optimizers == {"main": optimizer}
    assert trainer.stop_trigger


def test_the_weights_are_those_of_a_plain_loop(train: Any) -> None:
    plain, managed = Regressor(), Regressor()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(2):
        for x, y in loader():
            optimizer.zero_grad()
            plain(x, y).backward()
            optimizer.step()
    train(StandardUpdater(loader(), targeted(managed)))
    assert managed.predictor.weight.equal(plain.predictor.weight)


def test_extensions_are_handed_the_manager(tmp_path: Path) -> None:
    handed: list[Any] = []
    trainer = pte.Trainer(StandardUpdater(loader(), targeted(Regressor())), (1, "iteration"), tmp_path, sinks=[])
    trainer.extend(handed.append, "mine", (1, "iteration"), 7)
    assert trainer.get_extension("mine").name == "mine"
    trainer.run()
    assert handed == [trainer.manager]
    assert trainer.out == str(tmp_path)


@pytest.mark.parametrize(
    ("stop", "iterations"),
    [((1.5, "epoch"), 6), ((3, "iteration"), 3), (pte.triggers.ManualScheduleTrigger(5, "iteration"), 5)],
)
def test_any_trigger_stops_it(train: Any, stop: Any, iterations: int) -> None:
    assert train(StandardUpdater(loader(), targeted(Regressor())), stop).manager.iteration == iterations


def test_the_length_is_told_in_epochs(tmp_path: Path) -> None:
    def epochs(stop: Any) -> float:
        updater = StandardUpdater(loader(), targeted(Regressor()))
        return pte.Trainer(updater, stop, tmp_path).manager.max_epochs

    assert epochs((3, "epoch")) == 3
    assert epochs((6, "iteration")) == 1.5
    assert epochs(lambda manager: True) == math.inf


def test_an_error_fails_the_run_and_is_told_to_extensions(train: Any) -> None:
    class Told(pte.Extension):
        trigger = None

        def on_error(self, manager: Any, exc: Exception, tb: Any) -> None:
            told.append(exc)

    def broken(x: Tensor, y: Tensor) -> Tensor:
        raise ZeroDivisionError

    told: list[Exception] = []
    with pytest.raises(ZeroDivisionError):
        train(StandardUpdater(loader(), targeted(Regressor()), loss_func=broken), (1, "epoch"), Told())
    assert [type(error) for error in told] == [ZeroDivisionError]


def test_it_runs_once(train: Any) -> None:
    trainer = train(StandardUpdater(loader(), targeted(Regressor())))
    with pytest.raises(RuntimeError, match="has ended"):
        trainer.run()


def test_state_goes_to_another_trainer(tmp_path: Path) -> None:
    def trainer(out: str, stop: Any) -> pte.Trainer:
        return pte.Trainer(StandardUpdater(loader(), targeted(Regressor())), stop, tmp_path / out, sinks=[])

    first, whole = trainer("first", (4, "iteration")), trainer("whole", (2, "epoch"))
    first.run()
    second = trainer("first", (2, "epoch"))
    second.load_state_dict(first.state_dict())
    assert second.manager.iteration == 4
    second.run()
    whole.run()
    weights = [trainer.manager.models["main"].state_dict()["predictor.weight"] for trainer in (second, whole)]
    assert weights[0].equal(weights[1])


def test_a_finished_training_that_is_resumed_has_nothing_to_do(tmp_path: Path) -> None:
    def trainer() -> pte.Trainer:
        return pte.Trainer(StandardUpdater(loader(), targeted(Regressor())), (1, "epoch"), tmp_path, sinks=[])

    first, second = trainer(), trainer()
    first.run()
    second.load_state_dict(first.state_dict())
    second.run()
    assert second.manager.iteration == 4


# -- the updater -------------------------------------------------------------------------------------------------------


def test_a_loss_function_besides_the_model(train: Any) -> None:
    model = nn.Linear(2, 1)
    before = model.weight.clone()
    train(StandardUpdater(loader(), targeted(model), loss_func=lambda x, y: F.mse_loss(model(x), y)))
    assert not model.weight.equal(before)


def test_batches_that_are_dictionaries_go_by_name(train: Any) -> None:
    named = DataLoader([{"y": torch.ones(1), "x": torch.ones(2)}] * 8, batch_size=4)  # type: ignore[arg-type]
    assert train(StandardUpdater(named, targeted(Regressor()))).manager.iteration == 4


def test_a_converter_makes_the_batch(train: Any) -> None:
    devices: list[Any] = []

    def convert(batch: list[Tensor], device: Any) -> dict[str, Tensor]:
        devices.append(device)
        return {"x": batch[0] * 2, "y": batch[1]}

    train(StandardUpdater(loader(), targeted(Regressor()), convert, "cpu"))
    assert devices == ["cpu"] * 8


def test_closure_optimizers(train: Any) -> None:
    model = Regressor()
    train(StandardUpdater(loader(1), targeted(model, torch.optim.LBFGS)), (5, "epoch"))
    assert model(*data(1).tensors).item() < 1e-6


def test_several_optimizers_step_down_one_loss(train: Any) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(2, 2), nn.Linear(2, 1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.mse_loss(self.head(self.body(x)), y)

    model = Two()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizers = {
        "main": torch.optim.SGD(model.body.parameters(), lr=0.1),
        "head": torch.optim.Adam(model.head.parameters(), lr=0.1),
    }
    for optimizer in optimizers.values():
        optimizer.target = model  # type: ignore[attr-defined]
    train(StandardUpdater(loader(), optimizers))
    assert not any(value.equal(before[name]) for name, value in model.state_dict().items())


def test_an_update_of_ones_own_with_two_loaders_and_two_models(train: Any) -> None:
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
        {"main": loader(), "noise": [torch.ones(1, 3), torch.ones(2, 3), torch.ones(3, 3)]},
        {"generator": targeted(generator), "critic": targeted(critic)},
    )
    trainer = train(updater)
    assert trainer.manager.models == {"generator": generator, "critic": critic}
    assert seen == [(4, 1), (4, 2), (4, 3), (4, 1), (4, 2), (4, 3), (4, 1), (4, 2)]


def test_mixed_precision_by_arguments(tmp_path: Path) -> None:
    dtypes: list[torch.dtype] = []

    def loss(x: Tensor, y: Tensor) -> Tensor:
        output = model.predictor(x)
        dtypes.append(output.dtype)
        return F.mse_loss(output.float(), y)

    model = Regressor()
    before = model.predictor.weight.clone()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
    updater = StandardUpdater(
        loader(), targeted(model), loss_func=loss, autocast=torch.autocast("cpu", torch.bfloat16), scaler=scaler
    )
    trainer = pte.Trainer(updater, (1, "epoch"), tmp_path, sinks=[])
    trainer.run()
    assert dtypes == [torch.bfloat16] * 4
    assert not model.predictor.weight.equal(before)
    assert trainer.state_dict()["state_objects"] == {"scaler": scaler.state_dict()}
    assert scaler.get_scale() == 2048.0


def test_what_is_not_finite_is_skipped_with_a_scaler(train: Any) -> None:
    model = Regressor()
    before = model.predictor.weight.clone()
    updater = StandardUpdater(
        loader(),
        targeted(model),
        loss_func=lambda x, y: model.predictor(x).sum() * math.inf,
        scaler=torch.amp.GradScaler("cpu"),
    )
    train(updater)
    assert model.predictor.weight.equal(before)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: StandardUpdater(loader(), torch.optim.SGD([torch.ones(1)])), ValueError, "optimizer.target = model"),
        (lambda: StandardUpdater({"train": loader()}, targeted(Regressor())), ValueError, "iterator.*'main'.*'train'"),
        (lambda: StandardUpdater(loader(), {"sgd": targeted(Regressor())}), ValueError, "loss_func.*'main'.*'sgd'"),
        (lambda: StandardUpdater(loader(), targeted(nn.Linear(2, 1))), TypeError, "loss_func.*part_1, part_2"),
    ],
)
def test_bad_arguments_are_told_at_construction(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_loss_function_that_returns_nothing_is_told(train: Any) -> None:
    with pytest.raises(TypeError, match="loss_func: expected it to return the loss as a tensor, got None"):
        train(StandardUpdater(loader(), targeted(Regressor()), loss_func=lambda x, y: None))  # type: ignore[arg-type, return-value]


def test_empty_data_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"iters_per_epoch.*is the data empty"):
        pte.Trainer(StandardUpdater([], targeted(Regressor())), (1, "epoch"), tmp_path)
    with pytest.raises(ValueError, match="iterator: 'main' is empty"):
        StandardUpdater([], targeted(Regressor())).update()


def test_an_iterator_that_is_used_up_is_told(train: Any) -> None:
    with pytest.raises(ValueError, match="'main' is empty; an iterator gives one pass only: give what"):
        train(StandardUpdater(iter(loader()), targeted(Regressor())))
