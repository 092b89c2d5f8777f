"""Exports of models: files, times, errors, and consistency after crashes."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._store.effective_files import list_models
from pte_tracking.sinks import BestMetric, ModelSignature, TensorSpec
from tests.extensions.exporting import EXAMPLE, export_best, make_manager, make_model, train

INPUTS = torch.linspace(-2, 2, 20).reshape(5, 4)


def run_program(out: Path, step: int, *arguments: Any, **keywords: Any) -> Any:
    program = torch.export.load(out / f"artifacts/models/main/step_{step}/model.pt2").module()
    with torch.no_grad():
        return program(*arguments, **keywords)


def test_export_at_end_equals_model_in_evaluation_mode(tmp_path: Path) -> None:
    model = make_model()
    with make_manager(model, tmp_path, extensions.export_model(input_example=EXAMPLE[:1])) as manager:
        train(manager)
    assert model.training
    expected = model.eval()(INPUTS)
    assert torch.equal(run_program(tmp_path, 5, INPUTS), expected)
    weights = torch.load(tmp_path / "artifacts/models/main/step_5/state_dict.pt", weights_only=True)
    other = make_model()
    other.load_state_dict(weights)
    assert torch.equal(other.eval()(INPUTS), expected)
    (event,) = list_models(tmp_path)
    assert event.signature == ModelSignature(
        [TensorSpec("x", "float32", [-1, 4])], [TensorSpec("output", "float32", [-1, 2])]
    )
    example = json.loads((tmp_path / event.path / "input_example.json").read_text())
    assert torch.equal(torch.tensor(example["inputs"]), EXAMPLE[:1])


def test_export_does_not_change_training(tmp_path: Path) -> None:
    weights = []
    for name, added in [("with", [export_best()]), ("without", [])]:
        model = make_model()
        with make_manager(model, tmp_path / name, *added) as manager:
            train(manager)
        weights.append([*model.state_dict().values(), torch.get_rng_state()])
    assert all(map(torch.equal, *weights))


def test_export_of_best_follows_improvements_and_end(tmp_path: Path) -> None:
    with make_manager(make_model(), tmp_path, export_best()) as manager:
        train(manager)
    values = {1: 0.5, 2: 0.75, 4: 0.8, 5: None}
    assert {model.step: model.best for model in list_models(tmp_path)} == {
        step: value and BestMetric("accuracy", "max", value) for step, value in values.items()
    }


def test_export_with_trigger_follows_trigger(tmp_path: Path) -> None:
    exported = extensions.export_model(input_example=EXAMPLE, trigger=(2, "iteration"), registered_name="my model")
    with make_manager(make_model(), tmp_path, exported) as manager:
        train(manager)
    assert [(model.step, model.registered_name) for model in list_models(tmp_path)] == [
        (step, "my model") for step in (2, 4, 5)
    ]


def test_export_after_break_is_written_and_after_error_is_not(tmp_path: Path) -> None:
    with make_manager(make_model(), tmp_path / "break", extensions.export_model(input_example=EXAMPLE)) as manager:
        train(manager, stop_after=2)
    assert [model.step for model in list_models(tmp_path / "break")] == [2]
    manager = make_manager(make_model(), tmp_path / "error", extensions.export_model(input_example=EXAMPLE))
    train(manager, stop_after=2)
    with pytest.raises(OSError, match="the data is gone"), manager.run_iteration():
        raise OSError("the data is gone")
    assert list_models(tmp_path / "error") == []


def test_iteration_left_by_caught_exception_is_not_exported(tmp_path: Path) -> None:
    manager = make_manager(make_model(), tmp_path, extensions.export_model(input_example=EXAMPLE))
    with contextlib.suppress(OSError):
        for _ in manager.iterations([0] * 5):
            if manager.iteration == 2:
                raise OSError("the data is gone")
    manager.close()
    assert list_models(tmp_path) == []


def test_wrapped_model_is_exported_without_wrapper(tmp_path: Path) -> None:
    model = make_model()
    with make_manager(nn.DataParallel(model), tmp_path, extensions.export_model(input_example=EXAMPLE)) as manager:
        train(manager)
    assert torch.equal(run_program(tmp_path, 5, INPUTS), model.eval()(INPUTS))
    weights = torch.load(tmp_path / "artifacts/models/main/step_5/state_dict.pt", weights_only=True)
    assert weights.keys() == model.state_dict().keys()


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"product": left * right * self.weight, "rows": left.sum(1).long()}


def test_keyword_arguments_keep_their_names(tmp_path: Path) -> None:
    example = {"right": torch.ones(3, 2), "left": torch.ones(3, 2)}
    exported = extensions.export_model(input_example=example)
    manager = pte.ExtensionsManager(Product(), 1, [exported], out_dir=tmp_path, iters_per_epoch=1, sinks=[])
    with manager, manager.run_iteration():
        pass
    (event,) = list_models(tmp_path)
    tensor = [-1, 2]
    assert {spec.name: spec.shape for spec in event.signature.inputs} == {"left": tensor, "right": tensor}
    assert [(spec.dtype, spec.shape) for spec in event.signature.outputs] == [("float32", tensor), ("int64", [-1])]
    assert event.signature.takes_keywords
    left, right = torch.randn(5, 2), torch.randn(5, 2)
    assert torch.equal(run_program(tmp_path, 1, left=left, right=right)["product"], left * right)


@pytest.mark.parametrize(
    ("model", "example"),
    [(make_model(), EXAMPLE), (Product(), (torch.ones(3, 2), torch.ones(3, 2)))],
    ids=["one argument", "two arguments"],
)
def test_averaged_model_with_variable_arguments_accepts_any_batch_size(
    tmp_path: Path, model: nn.Module, example: Any
) -> None:
    average, exported = AveragedModel(model), extensions.export_model("average", input_example=example)
    models = {"main": model, "average": average}
    manager = pte.ExtensionsManager(models, 1, [exported], out_dir=tmp_path, iters_per_epoch=1, sinks=[])
    with manager, manager.run_iteration():
        pass
    (event,) = list_models(tmp_path)
    assert [spec.shape[0] for spec in event.signature.inputs] == [-1] * len(event.signature.inputs)
    program = torch.export.load(tmp_path / event.path / "model.pt2").module()
    inputs = [tensor.repeat(3, 1) for tensor in (example if isinstance(example, tuple) else [example])]
    with torch.no_grad():
        torch.testing.assert_close(program(*inputs), average.eval()(*inputs))


def test_example_for_variable_keyword_arguments_names_the_remedy(tmp_path: Path) -> None:
    exported = extensions.export_model(input_example={"left": torch.ones(3, 2), "right": torch.ones(3, 2)})
    average = AveragedModel(Product())
    manager = pte.ExtensionsManager(average, 1, [exported], out_dir=tmp_path, iters_per_epoch=1, sinks=[])
    with pytest.raises(RuntimeError, match=r"for \*\*kwargs of forward\(\)\. Pass input_example as a tuple"):
        manager.run_iteration().__enter__()


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 2, 2)


def test_constant_batch_size_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exported = extensions.export_model(input_example=EXAMPLE)
    manager = pte.ExtensionsManager(FixedBatch(), 1, [exported], out_dir=tmp_path, iters_per_epoch=1, sinks=[])
    with caplog.at_level(logging.WARNING), manager, manager.run_iteration():
        pass
    assert "accepts only the batch size of the example (inputs: x)" in caplog.text
    (event,) = list_models(tmp_path)
    assert event.signature.inputs[0].shape == [2, 4]


def test_unknown_model_names_the_models(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no model 'encoder'. Its models: 'main'\."):
        make_manager(make_model(), tmp_path, extensions.export_model("encoder", input_example=EXAMPLE))


def test_example_that_does_not_fit_raises_in_first_iteration(tmp_path: Path) -> None:
    manager = make_manager(make_model(), tmp_path, extensions.export_model(input_example=torch.zeros(2, 7)))
    with pytest.raises(RuntimeError, match=r"shape 0: \[2, 7\]: RuntimeError: mat1 and mat2"):
        train(manager)
    assert manager.iteration == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"registered_name": "team/digits"}, "registered_name: expected a name without '/' and ':', got 'team/digits'"),
        ({"registered_name": "models:digits"}, "registered_name"),
        ({"best": "val/loss"}, r"best: expected \(key, 'min' or 'max'\), got 'val/loss'"),
        ({"best": ("val/loss", "lowest")}, "best: expected the mode 'min' or 'max', got 'lowest'"),
        ({"input_example": [[1.0]]}, "input_example: expected a tensor"),
        ({"input_example": ()}, "input_example: expected tensors with at least one value"),
        ({"trigger": "epoch"}, "trigger: expected"),
    ],
)
def test_invalid_argument_raises_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        extensions.export_model(**{"input_example": EXAMPLE, **arguments})


def test_failed_export_is_logged_and_training_continues(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with make_manager(make_model(), tmp_path, export_best()) as manager:
        (tmp_path / "artifacts").mkdir(parents=True)
        (tmp_path / "artifacts" / "models").write_text("a file in the way")
        train(manager)
    assert manager.iteration == 5
    assert "export_model: not exported" in caplog.text
    assert list_models(tmp_path) == []


@pytest.mark.slow
def test_killed_training_has_the_exports_of_an_uninterrupted_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.extensions.exporting", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout)
    whole = results.pop("")
    assert [(step, is_best) for step, _, is_best in whole] == [(1, True), (2, True), (4, True), (5, False)]
    assert {kill_point: result for kill_point, result in results.items() if result != whole} == {}
