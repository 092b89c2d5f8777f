"""Exact resume of optimizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks

import pte_tracking as pte
from pte_tracking import extensions
from tests.snapshots.object_training import Lookup, Objects, check_exact_resume, make_net, train
from tests.snapshots.wrapping_optimizers import Lookahead, Several, SharpnessAware

OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "SGD-fused": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    "Adam": (torch.optim.Adam, {"lr": 0.02}),
    "Adam-amsgrad": (torch.optim.Adam, {"lr": 0.02, "amsgrad": True}),
    "Adam-foreach": (torch.optim.Adam, {"lr": 0.02, "foreach": True}),
    "Adam-fused": (torch.optim.Adam, {"lr": 0.02, "fused": True}),
    "Adam-tensor": (torch.optim.Adam, {"lr": torch.tensor(0.02), "foreach": False}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.02}),
    "Adamax": (torch.optim.Adamax, {"lr": 0.02}),
    "Adadelta": (torch.optim.Adadelta, {}),
    "Adafactor": (torch.optim.Adafactor, {"lr": 0.02}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.1}),
    "ASGD": (torch.optim.ASGD, {"lr": 0.05, "t0": 0}),
    "LBFGS": (torch.optim.LBFGS, {"lr": 0.1, "max_iter": 2}),
    "NAdam": (torch.optim.NAdam, {"lr": 0.02}),
    "NAdam-foreach": (torch.optim.NAdam, {"lr": 0.02, "foreach": True}),
    "RAdam": (torch.optim.RAdam, {"lr": 0.02}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5, "centered": True}),
    "Rprop": (torch.optim.Rprop, {"lr": 0.01}),
}


def test_optimizers_of_torch_are_all_tested() -> None:
    names = {name for name in dir(torch.optim) if isinstance(getattr(torch.optim, name), type)}
    assert names - {name.split("-")[0] for name in OPTIMIZERS} == {"Optimizer", "SparseAdam", "Muon"} & names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_optimizer_equals_uninterrupted_one(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    kind, options = OPTIMIZERS[name]

    def make() -> Objects:
        model = make_net().to(dtype)
        return Objects(model, kind(model.parameters(), **options))

    check_exact_resume(tmp_path, make)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon")
def test_resumed_muon_equals_uninterrupted_one(tmp_path: Path) -> None:
    def make() -> Objects:
        model = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 3, bias=False)).bfloat16()
        return Objects(model, torch.optim.Muon(model.parameters(), lr=0.02))

    check_exact_resume(tmp_path, make)


def test_resumed_sparse_adam_equals_uninterrupted_one(tmp_path: Path) -> None:
    def make() -> Objects:
        model = Lookup()
        return Objects(model, torch.optim.SparseAdam(model.parameters(), lr=0.05))

    check_exact_resume(tmp_path, make)


class CompressedSGD(Optimizer):
    """SGD with a momentum of 8 bits, and values other than tensors."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.05})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state.update(
                        momentum=torch.full(parameter.shape, 128, dtype=torch.uint8),
                        scale=torch.tensor(0.01, dtype=torch.float64),
                        steps=0,
                        method="linear",
                        blocks=[torch.arange(300), None],
                        nested={"maximum": torch.tensor(1e-9, dtype=torch.float32)},
                    )
                momentum = (state["momentum"].float() - 128) * state["scale"] * 0.9 + parameter.grad
                state["scale"] = momentum.abs().max().double() / 127
                state["momentum"] = (momentum / state["scale"] + 128).round().to(torch.uint8)
                state["steps"] += 1
                state["blocks"][0] += 1
                state["nested"]["maximum"] += momentum.max().float() * 1e-9
                parameter -= (group["lr"] * momentum).to(parameter.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_resumed_compressed_state_keeps_its_integers(dtype: torch.dtype, tmp_path: Path) -> None:
    def make() -> Objects:
        model = make_net().to(dtype)
        return Objects(model, CompressedSGD(model.parameters()))

    check_exact_resume(tmp_path, make)


def test_state_follows_parameter_whose_type_changed(tmp_path: Path) -> None:
    def make(dtype: torch.dtype) -> Objects:
        model = make_net().to(dtype)
        return Objects(model, torch.optim.NAdam(model.parameters(), lr=0.02))

    train(tmp_path, lambda: make(torch.bfloat16), stop=7)
    start, (_, state) = train(tmp_path, lambda: make(torch.float32), resume=True)
    assert start == 5
    types = {key: value[0] for key, value in state["state"][0].items()}
    assert types == dict.fromkeys(("step", "mu_product", "exp_avg", "exp_avg_sq"), "torch.float32")


# -- objects that contain an optimizer ---------------------------------------------------------------------------------


def make_lookahead() -> Objects:
    model = make_net().bfloat16()
    return Objects(model, Lookahead(torch.optim.NAdam(model.parameters(), lr=0.02)))


def make_sharpness_aware() -> Objects:
    model = make_net().bfloat16()
    optimizer = SharpnessAware(model.parameters(), lr=0.02)
    return Objects(model, optimizer, compared=[optimizer.base_optimizer])


def make_several() -> Objects:
    model = make_net().bfloat16()
    layers = [model.get_submodule(name) for name in ("0", "1")]
    optimizers = [torch.optim.NAdam(layers[0].parameters(), lr=0.02), torch.optim.ASGD(layers[1].parameters(), lr=0.02)]
    return Objects(model, Several(optimizers))


@pytest.mark.parametrize("make", [make_lookahead, make_sharpness_aware, make_several])
def test_resumed_inner_optimizer_equals_uninterrupted_one(make: Callable[[], Objects], tmp_path: Path) -> None:
    check_exact_resume(tmp_path, make)


def test_resumed_wrapper_shares_parameter_groups_as_before(tmp_path: Path) -> None:
    train(tmp_path, make_sharpness_aware, stop=7)
    objects = make_sharpness_aware()
    manager = pte.ExtensionsManager(
        objects.model, 3, [extensions.snapshot()], optimizers=objects.optimizer, out_dir=tmp_path
    )
    assert manager.resume()
    assert objects.optimizer.param_groups is objects.optimizer.base_optimizer.param_groups
    manager.close()


class StepsOnly:
    """Object with ``step`` and ``state_dict`` only."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
        self.model.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}


def test_object_without_load_state_dict_is_named_and_weights_continue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Objects:
        model = make_net()
        return Objects(model, StepsOnly(model))

    _, (whole, _) = train(tmp_path / "whole", make)
    train(tmp_path / "run", make, stop=7)
    start, (weights, _) = train(tmp_path / "run", make, resume=True)
    assert (start, weights) == (5, whole)
    assert "'main' (StepsOnly) has no load_state_dict()" in caplog.text


# -- optimizers that the manager does not receive ----------------------------------------------------------------------


def make_used_by_scheduler() -> Objects:
    objects = make_hidden()
    scheduler = torch.optim.lr_scheduler.StepLR(objects.compared[0], 1, 0.5)
    return Objects(
        objects.model, None, objects.update, extensions=[extensions.LRScheduler(scheduler)], compared=objects.compared
    )


def make_used_by_observer() -> Objects:
    objects = make_hidden()
    observer = extensions.observe_lr(objects.compared[0])
    return Objects(objects.model, None, objects.update, extensions=[observer], compared=objects.compared)


def make_used_by_shift() -> Objects:
    objects = make_hidden()
    shift = extensions.ExponentialShift("lr", 0.9, optimizer=objects.compared[0])
    return Objects(objects.model, None, objects.update, extensions=[shift], compared=objects.compared)


def make_used_by_state_object() -> Objects:
    objects = make_hidden()
    scheduler = torch.optim.lr_scheduler.StepLR(objects.compared[0], 4, 0.5)

    def step(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        assert objects.update is not None
        objects.update(manager, batch)
        scheduler.step()

    return Objects(objects.model, None, step, {"scheduler": scheduler}, compared=objects.compared)


def make_hidden() -> Objects:
    model = make_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def step(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    return Objects(model, None, step, compared=[optimizer])


@pytest.mark.parametrize(
    "make", [make_used_by_scheduler, make_used_by_observer, make_used_by_shift, make_used_by_state_object]
)
def test_optimizer_of_another_object_is_restored(make: Callable[[], Objects], tmp_path: Path) -> None:
    check_exact_resume(tmp_path, make)


def test_optimizer_of_two_objects_is_saved_once(tmp_path: Path) -> None:
    model = make_net()
    lookahead = Lookahead(torch.optim.SGD(model.parameters(), lr=0.1))
    scheduler = torch.optim.lr_scheduler.StepLR(lookahead.inner, 1)
    manager = pte.ExtensionsManager(
        model,
        1,
        [extensions.LRScheduler(scheduler)],
        optimizers=lookahead,
        out_dir=tmp_path,  # type: ignore[arg-type]
    )
    assert list(manager.state_dict()["optimizers"]) == ["main"]


def test_optimizer_that_is_not_passed_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Objects:
        objects = make_hidden()
        return Objects(objects.model, None, objects.update)

    train(tmp_path, make)
    (message,) = [
        record.getMessage() for record in caplog.records if "was not passed to the manager" in record.getMessage()
    ]
    assert "the loop steps Adam" in message


@pytest.mark.parametrize("make", [make_lookahead, make_sharpness_aware, make_several, make_used_by_scheduler])
def test_passed_optimizer_is_not_named(
    make: Callable[[], Objects], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, make)
    assert "was not passed to the manager" not in caplog.text


def test_wrapper_of_an_extension_is_restored(tmp_path: Path) -> None:
    class Observing(pte.Extension):
        def __init__(self, optimizer: Any) -> None:
            self.optimizer = optimizer

        def __call__(self, manager: pte.Manager) -> None:
            pass

    def make() -> Objects:
        objects = make_lookahead()
        lookahead = objects.optimizer

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            objects.model(batch).float().square().mean().backward()
            lookahead.step()

        return Objects(objects.model, None, update, extensions=[Observing(lookahead)], compared=[lookahead])

    check_exact_resume(tmp_path, make)


def test_loaded_state_shares_no_memory_with_its_source(tmp_path: Path) -> None:
    """Two trainings from one state do not change the moments of each other."""
    managers = []
    for name in ("first", "second"):
        model = make_net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        manager = pte.ExtensionsManager(
            model, 9, optimizers=optimizer, iters_per_epoch=1, out_dir=tmp_path / name, sinks=[]
        )
        if managers:
            manager.load_state_dict(managers[0].state_dict())
        managers.append(manager)
        with manager.run_iteration(step_optimizers=["main"]):
            model(torch.ones(1, 6)).sum().backward()
    moments = [
        [entry["exp_avg"].data_ptr() for entry in manager.optimizers["main"].state.values()] for manager in managers
    ]
    assert not set(moments[0]) & set(moments[1])
    for manager in managers:
        manager.close()


def make_master_weights() -> Objects:
    """Model in half precision whose optimizer steps copies of the weights in single precision."""
    model = make_net().half()
    master = [parameter.detach().clone().float() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(master, lr=0.1, momentum=0.9)

    def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        model.zero_grad()
        model(batch).float().square().mean().backward()
        for copied, parameter in zip(master, model.parameters(), strict=True):
            assert parameter.grad is not None
            copied.grad = parameter.grad.float()
        optimizer.step()
        with torch.no_grad():
            for copied, parameter in zip(master, model.parameters(), strict=True):
                parameter.copy_(copied)

    return Objects(model, optimizer, update)


def make_trained_loss() -> Objects:
    """Loss with a weight, which is another object of the state."""
    model, scale = make_net(), nn.Linear(3, 1)
    optimizer = torch.optim.Adam([*model.parameters(), *scale.parameters()], lr=0.05)

    def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
        optimizer.zero_grad()
        scale(model(batch)).square().mean().backward()
        optimizer.step()

    return Objects(model, optimizer, update, {"scale": scale})


@pytest.mark.parametrize("make", [make_master_weights, make_trained_loss])
def test_parameters_outside_models_are_restored(make: Callable[[], Objects], tmp_path: Path) -> None:
    check_exact_resume(tmp_path, make)


def test_trainings_leave_one_hook_for_the_process(tmp_path: Path) -> None:
    """A hook that is removed while an optimizer steps breaks the step."""
    for number in range(3):
        train(tmp_path / str(number), make_used_by_scheduler, stop=2)
    hooks = _global_optimizer_post_hooks.values()
    assert len([hook for hook in hooks if str(hook.__module__).startswith("pte_tracking")]) == 1


@pytest.mark.parametrize("kind", [torch.optim.RAdam, torch.optim.Adamax, torch.optim.AdamW, torch.optim.SGD])
def test_resume_with_another_class_of_optimizer_is_refused_with_both_names(kind: Any, tmp_path: Path) -> None:
    def make(kind: Any) -> Objects:
        model = make_net()
        return Objects(model, kind(model.parameters(), lr=0.01))

    train(tmp_path, lambda: make(torch.optim.Adam), stop=7)
    message = rf"class Adam in the snapshot, of class {kind.__name__} now(?s:.*)resume\(allow=\['main'\]\)"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, lambda: make(kind), resume=True)
