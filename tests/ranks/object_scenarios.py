"""Resumed trainings with models and optimizers whose states are distributed over the ranks."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._distributed.sharding import full_tensor
from pte_tracking.sinks import JOURNAL, Histogram, Text, find_events
from tests.extensions.weight_readers import WEIGHT_READERS

#: Makes a wrapped model and its optimizer.
Maker = Callable[[], tuple[Any, torch.optim.Optimizer]]

ITERATIONS_PER_EPOCH = 4


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


def make_zero() -> tuple[Any, torch.optim.Optimizer]:
    model = DistributedDataParallel(make_net())
    return model, ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.05)


def make_flat() -> tuple[Any, torch.optim.Optimizer]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FullyShardedDataParallel(make_net(), device_id=torch.device("cpu"))
    return model, torch.optim.Adam(model.parameters(), lr=0.05)


def make_flat_with_original_parameters() -> tuple[Any, torch.optim.Optimizer]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FullyShardedDataParallel(make_net(), device_id=torch.device("cpu"), use_orig_params=True)
    return model, torch.optim.NAdam(model.parameters(), lr=0.05)


def make_sharded() -> tuple[Any, torch.optim.Optimizer]:
    model = fully_shard(make_net())
    return model, torch.optim.Adam(model.parameters(), lr=0.05)


def make_hybrid() -> tuple[Any, torch.optim.Optimizer]:
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("replicate", "shard"))
    model = fully_shard(make_net(), mesh=mesh)
    return model, torch.optim.Adam(model.parameters(), lr=0.05)


def make_data_parallel() -> tuple[Any, torch.optim.Optimizer]:
    model = DistributedDataParallel(make_net())
    return model, torch.optim.Adam(model.parameters(), lr=0.05)


def make_compressing() -> tuple[Any, torch.optim.Optimizer]:
    """Make a model whose gradients are compressed after two iterations."""
    model, optimizer = make_data_parallel()
    state = powerSGD_hook.PowerSGDState(None, start_powerSGD_iter=2, min_compression_rate=1)
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return model, optimizer


def make_with_constant_hooks() -> tuple[Any, torch.optim.Optimizer]:
    """Make a model with hooks whose states do not change."""
    model, optimizer = make_data_parallel()
    model.register_comm_hook(dist.group.WORLD, default_hooks.fp16_compress_hook)
    return model, optimizer


def make_single() -> tuple[Any, torch.optim.Optimizer]:
    model = make_net()
    return model, torch.optim.Adam(model.parameters(), lr=0.05)


def train(
    folder: Path,
    make: Maker,
    *,
    stop: int | None = None,
    resume: bool = False,
    steps_every: int = 1,
    synchronizes_late: bool = False,
    zeroes: bool = True,
) -> dict[str, Any]:
    """Train for 12 iterations or until ``stop``. Gradients are accumulated over ``steps_every`` iterations."""
    model, optimizer = make()
    manager = pte.ExtensionsManager(model, 3, [extensions.snapshot()], optimizers=optimizer, out_dir=folder)
    if resume:
        manager.resume()
    start = manager.iteration
    rank = dist.get_rank() if dist.is_initialized() else 0
    for batch in manager.batches([torch.full((4, 8), 0.1 * index) for index in range(ITERATIONS_PER_EPOCH)]):
        with manager.run_iteration():
            is_step = (manager.iteration + 1) % steps_every == 0
            with contextlib.nullcontext() if is_step or not synchronizes_late else without_synchronization(model):
                (model(batch + rank) ** 2).mean().backward()
            if is_step:
                optimizer.step()
                if zeroes:
                    optimizer.zero_grad()
        if manager.iteration == stop:
            break
    manager.close()
    return {"start": start, "weights": read_weights(model)}


def read_weights(model: Any) -> list[Any]:
    parameters: list[Tensor] = list(model.parameters())
    return [full_tensor(parameter.detach()).tolist() for parameter in parameters]


@contextlib.contextmanager
def without_synchronization(model: Any) -> Iterator[None]:
    if hasattr(model, "no_sync"):
        with model.no_sync():
            yield
        return
    model.set_requires_gradient_sync(False)
    yield
    model.set_requires_gradient_sync(True)


def compare(folder: Path, make: Maker, **options: Any) -> Any:
    """Return whether a resumed training equals an uninterrupted one, and the messages."""
    messages = collect_messages()
    whole = train(folder / "whole", make, **options)
    messages.clear()
    train(folder / "run", make, stop=6, **options)
    resumed = train(folder / "run", make, resume=True, **options)
    return {"start": resumed["start"], "is_equal": resumed["weights"] == whole["weights"], "messages": messages}


def collect_messages() -> list[str]:
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                messages.append(record.getMessage())

    logging.getLogger("pte_tracking").addHandler(Collector())
    return messages


def compare_zero(folder: Path) -> Any:
    return compare(folder, make_zero)


def compare_flat(folder: Path) -> Any:
    return compare(folder, make_flat)


def compare_flat_with_original_parameters(folder: Path) -> Any:
    return compare(folder, make_flat_with_original_parameters, steps_every=3)


def compare_hybrid(folder: Path) -> Any:
    return compare(folder, make_hybrid)


def compare_accumulating_data_parallel(folder: Path) -> Any:
    return compare(folder, make_data_parallel, steps_every=3, synchronizes_late=True)


def compare_accumulating_sharded(folder: Path) -> Any:
    return compare(folder, make_sharded, steps_every=3)


def compare_never_zeroing_sharded(folder: Path) -> Any:
    return compare(folder, make_sharded, zeroes=False)


def compare_accumulating_flat(folder: Path) -> Any:
    return compare(folder, make_flat, steps_every=3)


def lose_gradients_sharded(folder: Path) -> Any:
    return compare(folder, make_sharded, steps_every=3, synchronizes_late=True)


def lose_gradients_flat(folder: Path) -> Any:
    return compare(folder, make_flat, steps_every=3, synchronizes_late=True)


def lose_state_of_communication_hook(folder: Path) -> Any:
    return compare(folder, make_compressing)


def compare_constant_communication_hook(folder: Path) -> Any:
    return compare(folder, make_with_constant_hooks)


def save_communication_hook_as_state_object(folder: Path) -> Any:
    """Return the number of iterations that a hook has counted after a resume, and the messages."""

    class Counting:
        count = 0

        def reduce(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
            self.count += bucket.is_last()
            return default_hooks.allreduce_hook(dist.group.WORLD, bucket)

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    def train_counting(stop: int) -> int:
        model, optimizer = make_data_parallel()
        hook = Counting()
        model.register_comm_hook(hook, lambda hook, bucket: hook.reduce(bucket))
        manager = pte.ExtensionsManager(
            model,
            3,
            [extensions.snapshot()],
            optimizers=optimizer,
            state_objects={"hook": hook},
            out_dir=folder / "run",
        )
        manager.resume()
        for batch in manager.batches([torch.ones(4, 8)] * ITERATIONS_PER_EPOCH):
            with manager.run_iteration():
                optimizer.zero_grad()
                model(batch).mean().backward()
                optimizer.step()
            if manager.iteration == stop:
                break
        manager.close()
        return hook.count

    messages = collect_messages()
    train_counting(stop=6)
    return {"count": train_counting(stop=8), "messages": messages}


def train_zero(folder: Path) -> Any:
    return train(folder / "run", make_zero, stop=6)


def train_flat(folder: Path) -> Any:
    return train(folder / "run", make_flat, stop=6)


def train_accumulating(folder: Path) -> Any:
    return train(folder / "run", make_data_parallel, stop=6, steps_every=3, synchronizes_late=True)


def inspect_single(folder: Path) -> Any:
    """Resume in one process, and return the weights, the first moments, and the gradients."""
    model, optimizer = make_single()
    manager = pte.ExtensionsManager(model, 3, [extensions.snapshot()], optimizers=optimizer, out_dir=folder / "run")
    manager.resume()
    manager.close()
    return {
        "start": manager.iteration,
        "moments": [state["exp_avg"].tolist() for state in optimizer.state.values()],
        "gradients": [parameter.grad is not None and parameter.grad.tolist() for parameter in model.parameters()],
    }


def inspect_flat(folder: Path) -> Any:
    """Resume with flat parameters, and return the full first moments."""
    model, optimizer = make_flat()
    manager = pte.ExtensionsManager(model, 3, [extensions.snapshot()], optimizers=optimizer, out_dir=folder / "run")
    manager.resume()
    state = manager.state_dict()["optimizers"]["main"]
    manager.close()
    return {
        "start": manager.iteration,
        "moments": [entry["exp_avg"].tolist() for entry in state.get("state", {}).values()],
    }


def save_different_ranks(folder: Path) -> Any:
    """Train models that no wrapper keeps equal, and return the messages."""
    messages = collect_messages()

    def make() -> tuple[Any, torch.optim.Optimizer]:
        model = make_net()
        return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    train(folder / "run", make)
    return messages


def snapshot_on_error(folder: Path) -> Any:
    """Return the error of a snapshot that a rank with an error would have to save by itself."""
    model, optimizer = make_zero()
    snapshot = extensions.snapshot(snapshot_on_error=True)
    manager = pte.ExtensionsManager(model, 1, [snapshot], optimizers=optimizer, out_dir=folder / "run")
    try:
        for _ in manager.batches([1]):
            pass
    except ValueError as error:
        return str(error)


def read_flat_weights(folder: Path) -> Any:
    """Return the errors of extensions that read flat weights, and the messages of a training with the others."""
    flat, named = make_flat()[0], make_flat_with_original_parameters()[0]
    errors = []
    for kind in WEIGHT_READERS:
        for links in (flat, [named], *([flat.parameters()] if kind is extensions.VariableStatisticsPlot else [])):
            try:
                kind(links)
            except ValueError as error:
                errors.append(str(error))
    messages = collect_messages()
    others = [extensions.ModelSummary(), extensions.FailOnNonNumber(), extensions.Monitor()]
    with pte.ExtensionsManager({"flat": flat, "single": make_net()}, 1, others, out_dir=folder / "run") as manager:
        for batch in manager.batches([torch.ones(4, 8)]):
            with manager.run_iteration():
                flat(batch).mean().backward()
    texts = [text.text for text, _ in find_events(manager.run.directory / JOURNAL, Text)]
    return {"errors": errors, "messages": messages, "texts": texts}


def measure_weights(folder: Path, make: Maker) -> Any:
    """Return the statistics and the histograms of the weights and gradients of a model."""
    model, optimizer = make()
    readers = [reader(model) for reader in WEIGHT_READERS]
    manager = pte.ExtensionsManager(
        model, 1, [*readers, extensions.LogReport()], optimizers=optimizer, out_dir=folder / "run", sinks=[]
    )
    for batch in manager.iterations([torch.ones(4, 8)]):
        model(batch).mean().backward()
        optimizer.step()
    if manager.world.rank:
        return None
    histograms = find_events(manager.run.directory / JOURNAL, Histogram)
    return {"row": manager.run.rows()[0].values, "histograms": {event.key: event.counts for event, _ in histograms}}


def measure_sharded_weights(folder: Path) -> Any:
    return measure_weights(folder, make_sharded)
