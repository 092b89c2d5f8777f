"""Exact resume of models: wrappers, hooks, parametrizations, and buffers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import pte_tracking as pte
from pte_tracking import extensions
from tests.snapshots.object_training import Objects, check_exact_resume, train


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
        self.head = nn.Linear(6, 3)

    def forward(self, batch: Tensor) -> Tensor:
        output: Tensor = self.head(self.body(batch))
        return output


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def compile_part(model: Any) -> Any:
    model.body = torch.compile(model.body, backend="eager")
    return model


def compile_inner_part(model: Any) -> Any:
    model.body[1] = torch.compile(model.body[1], backend="eager")
    return model


def parallelize_part(model: Any) -> Any:
    model.body = nn.DataParallel(model.body)
    return model


def wrap_part_twice(model: Any) -> Any:
    model.body = torch.compile(DistributedDataParallel(model.body), backend="eager")
    return model


def compile_in_place(model: Any) -> Any:
    model.compile(backend="eager")
    return model


FORMS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda model: model,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled in place": compile_in_place,
    "compiled part": compile_part,
    "compiled inner part": compile_inner_part,
    "DataParallel": nn.DataParallel,
    "DataParallel part": parallelize_part,
    "DDP": DistributedDataParallel,
    "DDP compiled": lambda model: DistributedDataParallel(torch.compile(model, backend="eager")),
    "DDP part, compiled": wrap_part_twice,
}


@pytest.mark.usefixtures("process_group")
@pytest.mark.filterwarnings("ignore")  # Those of torch about wrappers that do not fit together.
@pytest.mark.parametrize("form", [name for name in FORMS if name != "plain"])
@pytest.mark.parametrize("is_wrapped_first", [True, False], ids=["unwrapped later", "wrapped later"])
def test_resume_with_other_wrapper_equals_uninterrupted_training(
    form: str, is_wrapped_first: bool, tmp_path: Path
) -> None:
    """The names of weights, averages, and gradients do not depend on wrappers."""

    def make(form: str) -> Objects:
        model = FORMS[form](Net())
        average: Any = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

        def update(manager: Any, batch: Tensor) -> None:
            model(batch).square().mean().backward()
            if manager.iteration % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
                average.update_parameters(model)

        return Objects(model, optimizer, update, {"average": average})

    def train_as(form: str, folder: Path, **options: Any) -> Any:
        start, (weights, moments, average) = train(folder, lambda: make(form), **options)
        return start, list(weights.values()), moments, list(average.values())

    before, after = (form, "plain") if is_wrapped_first else ("plain", form)
    _, *whole = train_as("plain", tmp_path / "whole")
    train_as(before, tmp_path / "run", stop=7)
    start, *resumed = train_as(after, tmp_path / "run", resume=True)
    assert start == 5
    assert resumed == whole
    state = torch.load(tmp_path / "run" / "snapshot_iter_5")
    assert {name.split(".")[0] for name in state["models"]["main"]} == {"body", "head"}
    assert not any("_orig_mod" in name or "module.module" in name for name in state["state_objects"]["average"])


class LowRank(nn.Module):
    """LoRA: a frozen weight and a trained product of two small matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.zeros(3, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def make_low_rank() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    parametrize.register_parametrization(model[1], "weight", LowRank())
    model[1].parametrizations.weight.original.requires_grad_(False)
    return model


class TiedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
        self.decoder.weight = self.encoder.weight

    def forward(self, batch: Tensor) -> Tensor:
        output: Tensor = self.decoder(self.encoder(batch).relu())
        return output


class Growing(nn.Module):
    """Buffer that becomes longer, and that the module makes as long as the saved one."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(0, 6))

    def forward(self, batch: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, batch.detach()[:1]])
        return batch + self.seen.mean()

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        self.seen = torch.empty_like(state[prefix + "seen"])
        super()._load_from_state_dict(state, prefix, *rest)


class GrowingByHook(Growing):
    _load_from_state_dict = nn.Module._load_from_state_dict

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(self._resize)

    def _resize(self, module: Any, state: Any, prefix: str, *_: Any) -> None:
        self.seen = torch.empty_like(state[prefix + "seen"])


class Renaming(nn.Module):
    """Model that saves its weight under another name, with a value that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.calls = 0
        self.register_state_dict_post_hook(self._rename)
        self.register_load_state_dict_pre_hook(self._rename_back)

    def forward(self, batch: Tensor) -> Tensor:
        self.calls += 1
        output: Tensor = self.linear(batch) * (1 + self.calls / 100)
        return output

    @staticmethod
    def _rename(module: Any, state: Any, prefix: str, _: Any) -> None:
        state[f"{prefix}kernel"] = state.pop(f"{prefix}linear.weight")

    @staticmethod
    def _rename_back(module: Any, state: Any, prefix: str, *_: Any) -> None:
        state[f"{prefix}linear.weight"] = state.pop(f"{prefix}kernel")

    def get_extra_state(self) -> Any:
        return {"calls": self.calls}

    def set_extra_state(self, state: Any) -> None:
        self.calls = state["calls"]


def make_quantized() -> nn.Module:
    quantization = pytest.importorskip("torch.ao.quantization")

    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 3)
            self.quantize = quantization.FakeQuantize(
                quantization.PerChannelMinMaxObserver,
                quant_min=-128,
                quant_max=127,
                dtype=torch.qint8,
                qscheme=torch.per_channel_symmetric,
                ch_axis=0,
            )

        def forward(self, batch: Tensor) -> Tensor:
            return nn.functional.linear(batch, self.quantize(self.linear.weight), self.linear.bias)

    return Quantized()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "weight_norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 3))),
    "spectral_norm": lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 3))),
    "orthogonal": lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(6, 3))),
    "weight_norm by hooks": lambda: nn.Sequential(_ignore_warnings(nn.utils.weight_norm)(nn.Linear(6, 3))),
    "LoRA": make_low_rank,
    "tied": TiedNet,
    "growing buffer": lambda: nn.Sequential(Growing(), nn.Linear(6, 3)),
    "growing buffer by a hook": lambda: nn.Sequential(GrowingByHook(), nn.Linear(6, 3)),
    "hooks": lambda: nn.Sequential(nn.Linear(6, 6), Renaming()),
    "quantized": make_quantized,
    "normalized": lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3), nn.LayerNorm(3)),
}


def _ignore_warnings(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args)

    return call


@pytest.mark.filterwarnings("ignore:.*quant.*:DeprecationWarning")
@pytest.mark.parametrize("name", MODELS)
def test_resumed_model_equals_uninterrupted_one(name: str, tmp_path: Path) -> None:
    def make() -> Objects:
        model = MODELS[name]()
        return Objects(model, torch.optim.NAdam(model.parameters(), lr=0.05))

    check_exact_resume(tmp_path, make)


def test_lazy_model_is_restored_before_its_first_batch(tmp_path: Path) -> None:
    def make(is_initialized: bool) -> Objects:
        model = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyLinear(3))
        if is_initialized:
            model(torch.ones(2, 6))
        return Objects(model, torch.optim.NAdam(model.parameters(), lr=0.05))

    check_exact_resume(tmp_path, lambda: make(True), lambda: make(False))


def test_buffer_of_another_size_is_refused_without_own_loading(tmp_path: Path) -> None:
    def make(size: int) -> Objects:
        model = nn.Linear(6, 3)
        model.register_buffer("bank", torch.zeros(size, 2))
        return Objects(model, torch.optim.SGD(model.parameters(), lr=0.1))

    train(tmp_path, lambda: make(4), stop=7)
    with pytest.raises(ValueError, match="models/main: 'bank' is 4x2 in the snapshot, 3x2 in the model"):
        train(tmp_path, lambda: make(3), resume=True)


# -- buffers that are not persistent -----------------------------------------------------------------------------------


class Cached(nn.Module):
    cache: Tensor

    def __init__(self, is_updated: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.register_buffer("cache", torch.arange(3.0), persistent=False)
        self.is_updated = is_updated

    def forward(self, batch: Tensor) -> Tensor:
        if self.is_updated:
            self.cache += 1
        output: Tensor = self.linear(batch) + self.cache
        return output


@pytest.mark.parametrize("is_updated", [True, False])
def test_unsaved_buffer_is_named_if_it_changed(
    is_updated: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Objects:
        model = torch.compile(nn.Sequential(Cached(is_updated)), backend="eager")
        return Objects(model, torch.optim.SGD(model.parameters(), lr=0.1))

    train(tmp_path, make, stop=7)
    caplog.clear()
    train(tmp_path, make, resume=True)
    named = [record.getMessage() for record in caplog.records if "persistent=False" in record.getMessage()]
    assert len(named) == is_updated
    assert not named or "from those of the snapshot: 'main/0.cache'" in named[0]


# -- frozen parameters -------------------------------------------------------------------------------------------------


class Unfreeze(pte.Extension):
    trigger = (1, "iteration")

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, manager: pte.Manager) -> None:
        if manager.iteration == 3:
            self.layer.requires_grad_(True)


def make_frozen(wrap: Callable[[Any], Any] = lambda model: model, freezes: int = 0) -> Objects:
    model = Net()
    layers: list[nn.Module] = [model.body, model.head]
    layers[freezes].requires_grad_(False)
    wrapped = wrap(model)
    optimizer = torch.optim.Adam(wrapped.parameters(), lr=0.1)
    return Objects(wrapped, optimizer, extensions=[Unfreeze(model.body)])


def test_layer_that_training_unfroze_stays_unfrozen(tmp_path: Path) -> None:
    check_exact_resume(tmp_path, make_frozen)


def test_layer_that_training_unfroze_stays_unfrozen_in_compiled_model(tmp_path: Path) -> None:
    _, (whole, _) = train(tmp_path / "whole", make_frozen)
    train(tmp_path / "run", make_frozen, stop=7)
    _, (weights, _) = train(tmp_path / "run", lambda: make_frozen(compile_part), resume=True)
    assert list(weights.values()) == list(whole.values())


def test_layer_that_training_froze_stays_frozen(tmp_path: Path) -> None:
    def make() -> Objects:
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            if manager.iteration == 3:
                model.body.requires_grad_(False)
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()

        return Objects(model, optimizer, update)

    check_exact_resume(tmp_path, make)


def test_module_that_training_evaluates_stays_in_that_mode(tmp_path: Path) -> None:
    """Fine-tuning often stops the running means of a BatchNorm."""

    def make(wrap: Callable[[Any], Any] = lambda model: model) -> Objects:
        model = Net()
        model.head = nn.Sequential(model.head, nn.Dropout(0.5))
        wrap(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            if manager.iteration == 3:
                model.body[1].eval()
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()

        return Objects(model, optimizer, update)

    check_exact_resume(tmp_path, make)
    assert torch.load(tmp_path / "run" / "snapshot_iter_5")["parameters"]["evaluating"]["current"] == ["main/body.1"]


def test_mode_that_script_sets_after_resume_is_not_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pretrained model may be constructed in evaluation mode."""

    def make() -> Objects:
        model = Net().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def update(manager: pte.ExtensionsManager, batch: Tensor) -> None:
            model.train()
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()

        return Objects(model, optimizer, update)

    check_exact_resume(tmp_path, make)
    assert "training mode" not in caplog.text


def test_parameters_that_script_freezes_newly_stay_frozen_and_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, make_frozen, stop=7)
    objects = make_frozen(freezes=1)
    manager = pte.ExtensionsManager(
        objects.model,
        3,
        [*objects.extensions, extensions.snapshot(trigger=(5, "iteration"))],
        optimizers=objects.optimizer,
        out_dir=tmp_path,
        sinks=[],
    )
    manager.resume()
    manager.close()
    assert not objects.model.head.weight.requires_grad
    assert objects.model.body[0].weight.requires_grad
    (message,) = [record.getMessage() for record in caplog.records if "requires_grad" in record.getMessage()]
    assert "'main/head.bias' is False, 'main/head.weight' is False" in message
    assert "body" not in message


# -- views of tensors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [True, False])
def test_views_with_one_memory_keep_their_values(asynchronous: bool, tmp_path: Path) -> None:
    wave = torch.tensor([1 + 2j, 3 - 4j])
    state = {
        "wave": wave,
        "mirrored": wave.conj(),
        "negated": wave.conj().imag,
        "imaginary": wave.imag,
        "real": wave.real,
    }
    expected = {name: tensor.tolist() for name, tensor in state.items()}

    class Waves:
        def __init__(self) -> None:
            self.loaded: dict[str, Any] = {}

        def state_dict(self) -> dict[str, Any]:
            return state

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.loaded = state

    def make(waves: Waves) -> pte.ExtensionsManager:
        snapshot = extensions.snapshot(trigger=(1, "iteration"), asynchronous=asynchronous)
        return pte.ExtensionsManager(
            {}, 1, [snapshot], iters_per_epoch=1, out_dir=tmp_path, state_objects={"waves": waves}
        )

    with make(Waves()) as manager, manager.run_iteration():
        pass
    waves = Waves()
    manager = make(waves)
    manager.resume()
    manager.close()
    assert {name: tensor.tolist() for name, tensor in waves.loaded.items()} == expected
