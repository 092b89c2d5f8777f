"""Evaluation: what is called with what, in which mode, and what is reported under which key."""

from __future__ import annotations

import io
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pte_tracking as pte
from pte_tracking import ExtensionsManager, Reporter
from pte_tracking.extensions import Evaluator


class Reporting(nn.Module):
    """Keeps what it is called with, and reports it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Dropout()
        self.calls: list[tuple[Any, ...]] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((*args, *kwargs.values()))
        total = sum(part.sum() for part in self.calls[-1])
        pte.report({"loss": total}, self)
        pte.report({"inner": total}, self.inner)
        return total


def numbers(*values: float) -> DataLoader[Any]:
    return DataLoader(torch.tensor(values), batch_size=2)  # type: ignore[arg-type]


PAIRS = DataLoader(TensorDataset(torch.arange(4.0), torch.arange(4.0) * 10), batch_size=2)


def test_called_alone_it_returns_the_means_over_the_batches() -> None:
    model = Reporting()
    means = Evaluator(numbers(1, 2, 3), model)()
    # Each batch counts the same, the short one at the end, too.
    assert means == {"main/loss": 3.0, "main/inner/inner": 3.0}
    assert [call[0].tolist() for call in model.calls] == [[1, 2], [3]]


def test_the_name_goes_before_the_names_of_the_models() -> None:
    evaluator = Evaluator(numbers(1), {"main": Reporting(), "other": nn.ReLU()}, name="val")
    assert evaluator()["val/main/loss"] == 1
    evaluator.name = "test"
    assert evaluator()["test/main/loss"] == 1


def test_a_part_of_a_model_has_the_name_that_it_has_in_training(tmp_path: Path) -> None:
    body = nn.Sequential(nn.Sequential(nn.Identity()))
    part = body[0][0]
    evaluator = Evaluator([torch.ones(1)], body, lambda x: pte.report({"size": x.sum()}, part), name="val")
    manager = pte.ExtensionsManager(body, 1, [evaluator], iters_per_epoch=1, out_dir=tmp_path, sinks=[])
    with manager.run_iteration():
        pte.report({"size": 1}, part)
    assert set(manager.observation) == {"main/0/0/size", "val/main/0/0/size"}


def test_the_means_go_to_the_reporter_outside_and_nothing_else_does() -> None:
    reporter = Reporter()
    with reporter:
        means = Evaluator(numbers(1, 2, 3), Reporting())()
    assert reporter.observation == means


def test_evaluate_reports_nothing_itself() -> None:
    model, reporter = Reporting(), Reporter()
    reporter.add_observer("target", model)
    reporter.add_observer("part", model.inner)
    with reporter:
        assert Evaluator(numbers(1, 2), model).evaluate() == {"target/loss": 3.0, "part/inner": 3.0}
    assert reporter.observation == {}


@pytest.mark.parametrize(
    "batches",
    [
        [[torch.ones(2), torch.ones(3)]],
        [(torch.ones(2), torch.ones(3))],
        [{"x": torch.ones(2), "y": torch.ones(3)}],
    ],
)
def test_batches_are_handed_over_in_their_parts(batches: list[Any]) -> None:
    model = Reporting()
    assert Evaluator(batches, model)()["main/loss"] == 5
    assert [len(part) for part in model.calls[0]] == [2, 3]


def test_eval_func_is_called_instead_of_the_model() -> None:
    def test(args: types.SimpleNamespace, model: nn.Module, data: Tensor, target: Tensor) -> None:
        pte.report({"val/loss": F.mse_loss(model(data) * args.scale, target).item()})
        pte.report({"val/acc": 1 / len(data)})

    args, model = types.SimpleNamespace(scale=10), nn.Identity()
    evaluator = Evaluator(PAIRS, model, lambda data, target: test(args, model, data, target))
    assert evaluator() == {"val/loss": 0, "val/acc": 0.5}


def test_without_targets_eval_func_may_be_a_model_itself() -> None:
    seen: list[bool] = []
    model = nn.ReLU()
    model.register_forward_hook(lambda module, args, output: seen.append(module.training))
    Evaluator(numbers(1, 2, 3), {}, model)()
    assert seen == [False, False]
    assert model.training


def test_metrics_see_the_batch_the_output_and_which_is_the_last() -> None:
    seen: list[tuple[Any, Any, bool]] = []

    def metric(batch: Any, output: Any, is_last: bool) -> None:
        seen.append((batch.tolist(), output.tolist(), is_last))
        pte.report({"metric": len(batch)})

    evaluator = Evaluator(numbers(1, 2, 3), nn.Identity(), metrics=[metric])
    evaluator.add_metric(lambda batch, output, is_last: pte.report({"added": 1}))
    assert evaluator() == {"metric": 1.5, "added": 1}
    assert seen == [([1, 2], [1, 2], False), ([3], [3], True)]


def test_every_part_is_in_test_mode_and_then_as_it_was() -> None:
    frozen = nn.BatchNorm1d(1).eval()
    model = nn.Sequential(nn.Dropout(), nn.Sequential(frozen, nn.Dropout()))
    before = [module.training for module in model.modules()]
    seen: list[bool] = []

    def look(_: Tensor) -> None:
        seen.extend(module.training for module in model.modules())
        model.train()  # what the function itself does is undone, too

    Evaluator(numbers(1), model, look)()
    assert seen == [False] * 5
    assert [module.training for module in model.modules()] == before == [True, True, True, False, True]


def test_modes_come_back_after_an_error() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())

    def fail(_: Tensor) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        Evaluator(numbers(1), model, fail)()
    assert [module.training for module in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_a_module_that_does_more_than_set_its_mode_is_asked_to() -> None:
    class Merging(nn.Module):
        merged = False

        def train(self, mode: bool = True) -> Merging:
            self.merged = not mode
            return super().train(mode)

    model = Merging()
    merged: list[bool] = []
    Evaluator(numbers(1), model, lambda _: merged.append(model.merged))()
    assert merged == [True]
    assert not model.merged


@pytest.mark.parametrize("way", ["call", "evaluate"])
def test_there_are_no_gradients(way: str) -> None:
    model = nn.Linear(1, 1)
    enabled: list[bool] = []
    evaluator = Evaluator(numbers(1), model, lambda _: enabled.append(torch.is_grad_enabled()))
    with Reporter():
        (evaluator if way == "call" else evaluator.evaluate)()
    assert enabled == [False]


def test_the_hook_is_called_with_the_evaluator_before_each_evaluation() -> None:
    order: list[Any] = []
    evaluator = Evaluator(numbers(1), nn.Identity(), lambda _: order.append("batch"), eval_hook=order.append)
    evaluator()
    evaluator()
    assert order == [evaluator, "batch", evaluator, "batch"]


def test_batches_are_moved_to_the_device() -> None:
    devices: list[str] = []
    Evaluator(PAIRS, {}, lambda x, y: devices.extend([x.device.type, y.device.type]), device="meta")()
    assert devices == ["meta"] * 4


def test_a_converter_makes_the_batches() -> None:
    seen: list[Any] = []
    converter = lambda batch, device: (len(batch), device)  # noqa: E731
    Evaluator(PAIRS, {}, lambda *parts: seen.append(parts), converter=converter, device="here")()
    assert seen == [(2, "here")] * 2


def test_iterators_and_targets_by_name_can_be_had() -> None:
    main, other = nn.ReLU(), nn.ReLU()
    evaluator = Evaluator({"main": [1], "rest": [2]}, {"main": main, "other": other}, lambda _: None)
    assert evaluator.get_iterator("rest") == [2]
    assert evaluator.get_all_iterators() == {"main": [1], "rest": [2]}
    assert evaluator.get_target("other") is other
    assert evaluator.get_all_targets() == {"main": main, "other": other}


def test_data_of_unknown_length_is_evaluated_again_and_again() -> None:
    class Stream(IterableDataset[float]):
        def __iter__(self) -> Iterator[float]:
            return iter([1.0, 2.0, 3.0])

    last: list[bool] = []
    evaluator = Evaluator(
        DataLoader(Stream()), Reporting(), metrics=[lambda *given: last.append(given[2])], progress_bar=True
    )
    assert evaluator()["main/loss"] == evaluator()["main/loss"] == 2
    assert last == [False, False, True] * 2


def test_no_batches_give_no_values() -> None:
    assert Evaluator([], nn.Identity())() == {}


def test_a_progress_bar_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for output in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", output)
        Evaluator(numbers(1, 2, 3), nn.Identity(), progress_bar=True)()
        Evaluator(numbers(1, 2, 3), nn.Identity())()
        assert ("validation" in output.getvalue()) == output.isatty()
        assert ("0/2" in output.getvalue()) == output.isatty()


def test_in_a_manager_it_runs_each_epoch_before_those_who_read(tmp_path: Path) -> None:
    model = Reporting()
    seen: list[Any] = []

    @pte.make_extension(trigger=(1, "iteration"))
    def read(manager: Any) -> None:
        seen.append(manager.observation.get("validation/main/loss"))

    extensions = [read, Evaluator(numbers(1, 2, 3), model)]
    with ExtensionsManager(model, 2, extensions, iters_per_epoch=2, out_dir=tmp_path, sinks=[]) as manager:
        for _ in range(4):
            with manager.run_iteration():
                model(torch.tensor([100.0]))
        assert manager.observation["main/loss"] == 100
    assert seen == [None, 3, None, 3]


def test_two_evaluators_in_a_manager_have_their_own_names(tmp_path: Path) -> None:
    model = Reporting()
    with ExtensionsManager(model, 1, iters_per_epoch=1, out_dir=tmp_path, sinks=[]) as manager:
        manager.extend(Evaluator(numbers(1), model))
        manager.extend(Evaluator(numbers(2), model, name="train"))
        manager.extend(Evaluator(numbers(3), model), name="test")
        with manager.run_iteration():
            pass
        observed = {key: value for key, value in manager.observation.items() if key.endswith("main/loss")}
    assert observed == {"validation/main/loss": 1, "train/main/loss": 2, "test/main/loss": 3}


def needs_more(args: object, model: object, device: object, data: object, target: object) -> None: ...


def test_a_wrong_arity_is_told_at_construction_where_the_data_lie_in_memory() -> None:
    with pytest.raises(TypeError, match=r"(?s)eval_func\(part_1, part_2\); needs_more\(.*Bind what else it takes"):
        Evaluator(PAIRS, nn.Identity(), needs_more)
    with pytest.raises(TypeError, match=r"eval_func.*too many positional arguments"):
        Evaluator(PAIRS, nn.Linear(1, 1))


def test_a_wrong_arity_is_told_at_the_first_batch_otherwise() -> None:
    class Unknown(Dataset[tuple[float, float]]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[float, float]:
            return 1.0, 2.0

    evaluator = Evaluator(DataLoader(Unknown()), nn.Identity(), needs_more)
    with pytest.raises(TypeError, match=r"eval_func\(part_1, part_2\); needs_more\("):
        evaluator()


def test_an_error_inside_eval_func_is_left_as_it_is() -> None:
    def broken(_: Tensor) -> None:
        needs_more(1)  # type: ignore[call-arg]

    with pytest.raises(TypeError, match=r"needs_more\(\) missing 4 required"):
        Evaluator(numbers(1), nn.Identity(), broken)()


@pytest.mark.parametrize(
    ("iterator", "target", "rest", "error", "message"),
    [
        (
            iter([1]),
            nn.ReLU(),
            {},
            TypeError,
            r"iterator: 'main' is a list_iterator, which can be looped over only",
        ),
        (
            3,
            nn.ReLU(),
            {},
            TypeError,
            r"iterator: expected something to loop over, .* as 'main', got 3",
        ),
        (
            {"val": [1]},
            nn.ReLU(),
            {},
            ValueError,
            r"iterator: .* must be called 'main'; got \['val'\]",
        ),
        ([1], print, {}, TypeError, r"target: expected a torch.nn.Module as 'main'"),
        ([1], {"main": 3}, {}, TypeError, r"target: expected a torch.nn.Module as 'main', got 3 of type int"),
        (
            [1],
            {"other": nn.ReLU()},
            {},
            ValueError,
            r"eval_func: needed unless a target is .*\['other'\]",
        ),
        (
            [1],
            nn.ReLU(),
            {"eval_func": 3},
            TypeError,
            r"eval_func: expected a function .*, got 3",
        ),
        (
            [1],
            nn.ReLU(),
            {"metrics": [3]},
            TypeError,
            r"metrics: expected functions .*, got 3",
        ),
    ],
)
def test_wrong_arguments_are_told_at_construction(
    iterator: Any, target: Any, rest: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Evaluator(iterator, target, **rest)


def test_a_subclass_that_evaluates_otherwise_is_in_test_mode_too() -> None:
    class Own(Evaluator):
        def evaluate(self) -> dict[str, float]:
            model = self.get_target("main")
            return {"own": float(model.training or torch.is_grad_enabled())}

    with Reporter() as reporter:
        assert Own(numbers(1), nn.ReLU())() == {"own": 0}
    assert reporter.observation == {"own": 0}
