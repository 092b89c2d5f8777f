"""Tests of Evaluator: calls, module modes, and reported keys."""

from __future__ import annotations

import io
import types
from collections import Counter
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


class ReportingModel(nn.Module):
    """Model that records its arguments and reports their sum."""

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


def make_loader(*values: float) -> DataLoader[Any]:
    return DataLoader(torch.tensor(values), batch_size=2)  # type: ignore[arg-type]


PAIRS = DataLoader(TensorDataset(torch.arange(4.0), torch.arange(4.0) * 10), batch_size=2)


def test_evaluator_called_directly_returns_batch_means() -> None:
    model = ReportingModel()
    means = Evaluator(make_loader(1, 2, 3), model)()
    # All batches have the same weight, including the short last batch.
    assert means == {"main/loss": 3.0, "main/inner/inner": 3.0}
    assert [call[0].tolist() for call in model.calls] == [[1, 2], [3]]


def test_evaluator_name_prefixes_model_names() -> None:
    evaluator = Evaluator(make_loader(1), {"main": ReportingModel(), "other": nn.ReLU()}, name="val")
    assert evaluator()["val/main/loss"] == 1
    evaluator.name = "test"
    assert evaluator()["test/main/loss"] == 1


def test_evaluator_submodule_key_matches_training_key(tmp_path: Path) -> None:
    body = nn.Sequential(nn.Sequential(nn.Identity()))
    part = body[0][0]
    evaluator = Evaluator([torch.ones(1)], body, lambda x: pte.report({"size": x.sum()}, part), name="val")
    manager = pte.ExtensionsManager(body, 1, [evaluator], iters_per_epoch=1, out_dir=tmp_path, sinks=[])
    with manager.run_iteration():
        pte.report({"size": 1}, part)
    assert set(manager.observation) == {"main/0/0/size", "val/main/0/0/size"}


def test_evaluator_reports_only_means_to_outer_reporter() -> None:
    reporter = Reporter()
    with reporter:
        means = Evaluator(make_loader(1, 2, 3), ReportingModel())()
    assert reporter.observation == means


def test_evaluate_does_not_report_to_outer_reporter() -> None:
    model, reporter = ReportingModel(), Reporter()
    reporter.add_observer("target", model)
    reporter.add_observer("part", model.inner)
    with reporter:
        assert Evaluator(make_loader(1, 2), model).evaluate() == {"target/loss": 3.0, "part/inner": 3.0}
    assert reporter.observation == {}


@pytest.mark.parametrize(
    "batches",
    [
        [[torch.ones(2), torch.ones(3)]],
        [(torch.ones(2), torch.ones(3))],
        [{"x": torch.ones(2), "y": torch.ones(3)}],
    ],
)
def test_evaluator_batch_is_unpacked_into_arguments(batches: list[Any]) -> None:
    model = ReportingModel()
    assert Evaluator(batches, model)()["main/loss"] == 5
    assert [len(part) for part in model.calls[0]] == [2, 3]


def test_evaluator_eval_func_replaces_model_call() -> None:
    def test(args: types.SimpleNamespace, model: nn.Module, data: Tensor, target: Tensor) -> None:
        pte.report({"val/loss": F.mse_loss(model(data) * args.scale, target).item()})
        pte.report({"val/acc": 1 / len(data)})

    args, model = types.SimpleNamespace(scale=10), nn.Identity()
    evaluator = Evaluator(PAIRS, model, lambda data, target: test(args, model, data, target))
    assert evaluator() == {"val/loss": 0, "val/acc": 0.5}


def test_evaluator_module_as_eval_func_runs_in_eval_mode() -> None:
    seen: list[bool] = []
    model = nn.ReLU()
    model.register_forward_hook(lambda module, args, output: seen.append(module.training))
    Evaluator(make_loader(1, 2, 3), {}, model)()
    assert seen == [False, False]
    assert model.training


def test_evaluator_metrics_receive_batch_output_and_is_last() -> None:
    seen: list[tuple[Any, Any, bool]] = []

    def metric(batch: Any, output: Any, is_last: bool) -> None:
        seen.append((batch.tolist(), output.tolist(), is_last))
        pte.report({"metric": len(batch)})

    evaluator = Evaluator(make_loader(1, 2, 3), nn.Identity(), metrics=[metric])
    evaluator.add_metric(lambda batch, output, is_last: pte.report({"added": 1}))
    assert evaluator() == {"metric": 1.5, "added": 1}
    assert seen == [([1, 2], [1, 2], False), ([3], [3], True)]


def test_evaluator_eval_mode_is_set_and_restored() -> None:
    frozen = nn.BatchNorm1d(1).eval()
    model = nn.Sequential(nn.Dropout(), nn.Sequential(frozen, nn.Dropout()))
    before = [module.training for module in model.modules()]
    seen: list[bool] = []

    def record_modes(_: Tensor) -> None:
        seen.extend(module.training for module in model.modules())
        model.train()  # A mode that the function sets is also reset.

    Evaluator(make_loader(1), model, record_modes)()
    assert seen == [False] * 5
    assert [module.training for module in model.modules()] == before == [True, True, True, False, True]


def test_evaluator_error_restores_module_modes() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())

    def fail(_: Tensor) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        Evaluator(make_loader(1), model, fail)()
    assert [module.training for module in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_evaluator_calls_overridden_train_method() -> None:
    class MergingModel(nn.Module):
        merged = False

        def train(self, mode: bool = True) -> MergingModel:
            self.merged = not mode
            return super().train(mode)

    model = MergingModel()
    merged: list[bool] = []
    Evaluator(make_loader(1), model, lambda _: merged.append(model.merged))()
    assert merged == [True]
    assert not model.merged


@pytest.mark.parametrize("method", ["call", "evaluate"])
def test_evaluator_disables_gradients(method: str) -> None:
    model = nn.Linear(1, 1)
    enabled: list[bool] = []
    evaluator = Evaluator(make_loader(1), model, lambda _: enabled.append(torch.is_grad_enabled()))
    with Reporter():
        (evaluator if method == "call" else evaluator.evaluate)()
    assert enabled == [False]


def test_evaluator_eval_hook_runs_before_each_evaluation() -> None:
    order: list[Any] = []
    evaluator = Evaluator(make_loader(1), nn.Identity(), lambda _: order.append("batch"), eval_hook=order.append)
    evaluator()
    evaluator()
    assert order == [evaluator, "batch", evaluator, "batch"]


def test_evaluator_device_moves_batches() -> None:
    devices: list[str] = []
    Evaluator(PAIRS, {}, lambda x, y: devices.extend([x.device.type, y.device.type]), device="meta")()
    assert devices == ["meta"] * 4


def test_evaluator_converter_prepares_batches() -> None:
    seen: list[Any] = []
    converter = lambda batch, device: (len(batch), device)  # noqa: E731
    Evaluator(PAIRS, {}, lambda *parts: seen.append(parts), converter=converter, device="here")()
    assert seen == [(2, "here")] * 2


def test_evaluator_getters_return_iterators_and_targets() -> None:
    main, other = nn.ReLU(), nn.ReLU()
    evaluator = Evaluator({"main": [1], "rest": [2]}, {"main": main, "other": other}, lambda _: None)
    assert evaluator.get_iterator("rest") == [2]
    assert evaluator.get_all_iterators() == {"main": [1], "rest": [2]}
    assert evaluator.get_target("other") is other
    assert evaluator.get_all_targets() == {"main": main, "other": other}


def test_evaluator_unknown_length_data_is_evaluated_repeatedly() -> None:
    class Stream(IterableDataset[float]):
        def __iter__(self) -> Iterator[float]:
            return iter([1.0, 2.0, 3.0])

    last: list[bool] = []
    evaluator = Evaluator(
        DataLoader(Stream()), ReportingModel(), metrics=[lambda *args: last.append(args[2])], progress_bar=True
    )
    assert evaluator()["main/loss"] == evaluator()["main/loss"] == 2
    assert last == [False, False, True] * 2


def test_evaluator_empty_iterator_returns_empty_dict() -> None:
    assert Evaluator([], nn.Identity())() == {}


@pytest.mark.parametrize(
    ("evaluator", "reason"),
    [
        (Evaluator([0, 1], nn.Identity(), lambda batch: {"val/loss": 1.0}), "Values that eval_func returns"),
        (Evaluator([], nn.Identity(), lambda batch: pte.report({"x": 1})), "The data has no batches."),
    ],
)
def test_evaluator_without_values_warns_once(
    evaluator: Evaluator, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ExtensionsManager({}, 3, [evaluator], iters_per_epoch=1, out_dir=tmp_path) as manager:
        for _ in range(3):
            with manager.run_iteration():
                pass
    (message,) = caplog.messages
    assert f"Evaluator 'validation' reported no values. {reason}" in message


@pytest.mark.parametrize("batch_size", [1, 3, 32, 64])
def test_evaluator_weighted_reports_give_the_exact_mean(batch_size: int) -> None:
    correct = torch.ones(100)
    correct[97:] = 0

    def evaluate(answers: Tensor) -> None:
        pte.report({"weighted": (answers.mean(), len(answers)), "deferred": (lambda: answers.mean(), len(answers))})

    data = DataLoader(correct, batch_size=batch_size)  # type: ignore[arg-type]
    result = Evaluator(data, nn.Identity(), evaluate)()
    assert result == {"weighted": pytest.approx(0.97), "deferred": pytest.approx(0.97)}


class EachTwo(Evaluator):
    trigger = (2, "iteration")


@pytest.mark.parametrize(
    ("kind", "trigger", "expected"),
    [
        (Evaluator, (2, "iteration"), [2, 4, 6]),
        (Evaluator, None, [3, 6]),
        (EachTwo, None, [2, 4, 6]),
        (EachTwo, (4, "iteration"), [4]),
    ],
)
def test_evaluator_trigger_sets_iterations(
    kind: type[Evaluator], trigger: Any, expected: list[int], tmp_path: Path
) -> None:
    evaluator = kind([0], nn.Identity(), lambda batch: pte.report({"x": 1.0}), trigger=trigger)
    found = []
    with ExtensionsManager({}, 2, [evaluator], iters_per_epoch=3, out_dir=tmp_path, sinks=[]) as manager:
        for _ in range(6):
            with manager.run_iteration():
                pass
            if "x" in manager.observation:
                found.append(manager.iteration)
    assert found == expected


def test_evaluator_invalid_trigger_raises_value_error() -> None:
    with pytest.raises(ValueError, match="'epochs'"):
        Evaluator([0], nn.Identity(), lambda batch: None, trigger=(1, "epochs"))


def test_evaluator_progress_bar_is_shown_on_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for output in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", output)
        Evaluator(make_loader(1, 2, 3), nn.Identity(), progress_bar=True)()
        Evaluator(make_loader(1, 2, 3), nn.Identity())()
        assert ("validation" in output.getvalue()) == output.isatty()
        assert ("0/2" in output.getvalue()) == output.isatty()


def test_evaluator_in_manager_runs_each_epoch_before_readers(tmp_path: Path) -> None:
    model = ReportingModel()
    seen: list[Any] = []

    @pte.make_extension(trigger=(1, "iteration"))
    def read(manager: Any) -> None:
        seen.append(manager.observation.get("validation/main/loss"))

    extensions = [read, Evaluator(make_loader(1, 2, 3), model)]
    with ExtensionsManager(model, 2, extensions, iters_per_epoch=2, out_dir=tmp_path, sinks=[]) as manager:
        for _ in range(4):
            with manager.run_iteration():
                model(torch.tensor([100.0]))
        assert manager.observation["main/loss"] == 100
    assert seen == [None, 3, None, 3]


def test_evaluators_in_manager_report_under_separate_names(tmp_path: Path) -> None:
    model = ReportingModel()
    with ExtensionsManager(model, 1, iters_per_epoch=1, out_dir=tmp_path, sinks=[]) as manager:
        manager.extend(Evaluator(make_loader(1), model))
        manager.extend(Evaluator(make_loader(2), model, name="train"))
        manager.extend(Evaluator(make_loader(3), model), name="test")
        with manager.run_iteration():
            pass
        observed = {key: value for key, value in manager.observation.items() if key.endswith("main/loss")}
    assert observed == {"validation/main/loss": 1, "train/main/loss": 2, "test/main/loss": 3}


def needs_more(args: object, model: object, device: object, data: object, target: object) -> None: ...


def test_evaluator_wrong_arity_in_memory_data_raises_at_construction() -> None:
    with pytest.raises(
        TypeError, match=r"(?s)eval_func\(part_1, part_2\), but needs_more\(.*Bind additional arguments"
    ):
        Evaluator(PAIRS, nn.Identity(), needs_more)
    with pytest.raises(TypeError, match=r"eval_func.*too many positional arguments"):
        Evaluator(PAIRS, nn.Linear(1, 1))


def test_evaluator_wrong_arity_unread_data_raises_at_first_batch() -> None:
    class LazyDataset(Dataset[tuple[float, float]]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[float, float]:
            return 1.0, 2.0

    evaluator = Evaluator(DataLoader(LazyDataset()), nn.Identity(), needs_more)
    with pytest.raises(TypeError, match=r"eval_func\(part_1, part_2\), but needs_more\("):
        evaluator()


def test_evaluator_error_inside_eval_func_is_unchanged() -> None:
    def broken(_: Tensor) -> None:
        needs_more(1)  # type: ignore[call-arg]

    with pytest.raises(TypeError, match=r"needs_more\(\) missing 4 required"):
        Evaluator(make_loader(1), nn.Identity(), broken)()


@pytest.mark.parametrize(
    ("iterator", "target", "rest", "error", "message"),
    [
        (
            iter([1]),
            nn.ReLU(),
            {},
            TypeError,
            r"iterator: expected a reusable iterable as 'main', got a list_iterator\. Pass the object",
        ),
        (
            3,
            nn.ReLU(),
            {},
            TypeError,
            r"iterator: expected an iterable .* as 'main', got 3",
        ),
        (
            {"val": [1]},
            nn.ReLU(),
            {},
            ValueError,
            r"iterator: expected data named 'main', got \['val'\]. To evaluate one loader, pass the loader itself.",
        ),
        ([1], print, {}, TypeError, r"target: expected a torch.nn.Module as 'main'"),
        ([1], {"main": 3}, {}, TypeError, r"target: expected a torch.nn.Module as 'main', got 3 of type int"),
        (
            [1],
            {"other": nn.ReLU()},
            {},
            ValueError,
            r"eval_func: required unless a target is named 'main'.*\['other'\]",
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
        (
            [1],
            nn.ReLU(),
            {"metrics": [Counter]},
            TypeError,
            r"metrics: expected a function or an instance, got the class Counter\. Write Counter\(\)\.",
        ),
        ([1], nn.ReLU(), {"metrics": print}, TypeError, r"metrics: expected a list of functions .*, got <built-in"),
        ([1], nn.ReLU(), {"eval_func": Counter}, TypeError, r"eval_func: .* got the class Counter\."),
        (nn.ReLU(), [1], {}, TypeError, r"iterator: .* as 'main', got the model ReLU$"),
    ],
)
def test_evaluator_invalid_arguments_raise_at_construction(
    iterator: Any, target: Any, rest: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Evaluator(iterator, target, **rest)


def test_evaluator_subclass_evaluate_runs_in_eval_mode() -> None:
    class CustomEvaluator(Evaluator):
        def evaluate(self) -> dict[str, float]:
            model = self.get_target("main")
            return {"own": float(model.training or torch.is_grad_enabled())}

    with Reporter() as reporter:
        assert CustomEvaluator(make_loader(1), nn.ReLU())() == {"own": 0}
    assert reporter.observation == {"own": 0}
