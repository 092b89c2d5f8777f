"""Speed, gradients, learning rates, and GPU memory of a training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from pte_tracking._data.meter import Meter, Reading, batch_size
from pte_tracking._distributed.flat_sharding import is_flat
from pte_tracking._distributed.sharding import full_tensor
from pte_tracking._interface.extension import PRIORITY_WRITER, Extension, Manager
from pte_tracking._snapshots.inner_optimizers import torch_optimizers
from pte_tracking._store.printable import describe_value
from pte_tracking.reporter import report

_logger = logging.getLogger("pte_tracking")
_MEGABYTE = 1e6
_MEMORY_SECONDS = 1.0  # between two queries of the GPU memory, which build a large dictionary
_MEMORY = {
    "monitor/gpu_memory_allocated_megabytes": "allocated_bytes.all.current",
    "monitor/gpu_memory_reserved_megabytes": "reserved_bytes.all.current",
    "monitor/gpu_memory_peak_megabytes": "allocated_bytes.all.peak",
}


class Monitor(Extension):
    """Extension that reports speed, waiting for data, gradient norm, learning rates, and GPU memory.

    The extension runs after every iteration, and LogReport writes the means over its interval. Nothing waits for the
    GPU. ``docs/monitor.md`` lists the keys.

    An iteration is measured from the request of its batch to its end. Other extensions, such as an Evaluator, and
    snapshots are not included. The first iteration after a start or a resume, which starts the workers of the loader,
    is not measured. In a loop over a bare loader, without ``manager.batches(loader)``, the time since the last
    iteration counts, and the time waiting for data is unknown.

    Rates are those of all ranks together. Times, norms, and memory are means over the ranks. Snapshots contain no
    state of the extension.

    Args:
        samples: Number of samples per iteration on this rank, or a function that takes a batch and returns its number
            of samples. Defaults to the length of the first part of a batch.
        tokens: Number of tokens per iteration, or a function that takes a batch and returns a number or a tensor.
            Defaults to None: tokens are not counted.
        gradient_norm: Whether to report the norm of all gradients at the steps of the optimizers, after clipping.
            Defaults to True.

    Raises:
        TypeError: If ``samples`` or ``tokens`` is neither a number nor a function.
        ValueError: If ``samples`` or ``tokens`` is not positive.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> manager = pte.ExtensionsManager(
        ...     model, 2, [extensions.Monitor(tokens=lambda x: x.numel())], optimizers=optimizer, sinks=[]
        ... )
        >>> for x in manager.batches([torch.ones(4, 2), torch.ones(4, 2)]):
        ...     with manager.run_iteration(step_optimizers=["main"]):
        ...         model(x).sum().backward()
        >>> sorted(manager.observation)[:4]
        ['monitor/data_wait_share', 'monitor/gradient_norm', 'monitor/lr/main', 'monitor/samples_per_second']
    """

    priority = PRIORITY_WRITER
    default_name = "monitor"

    def __init__(
        self,
        samples: float | Callable[[Any], Any] = batch_size,
        tokens: float | Callable[[Any], Any] | None = None,
        *,
        gradient_norm: bool = True,
    ) -> None:
        amounts = {"samples": samples, "tokens": tokens}
        for name, amount in amounts.items():
            _check_amount(name, amount)
        self._functions = {name: amount for name, amount in amounts.items() if callable(amount)}
        self._numbers = {name: amount for name, amount in amounts.items() if isinstance(amount, int | float)}
        self._has_norm = gradient_norm
        #: Norm of each optimizer since the last iteration.
        self._norms: dict[Optimizer, Tensor] = {}
        self._hooks: list[Any] = []
        self._meter = Meter()
        #: Time and number of the last iteration that was read. None before the first one.
        self._last: tuple[float, int] | None = None
        self._has_warned = False
        self._memory: dict[str, float] = {}
        self._memory_time = -_MEMORY_SECONDS

    def initialize(self, manager: Manager) -> None:
        self._last = None
        self._meter = cast(Any, manager).loaders.meter
        self._meter.start(self._functions)
        models = manager.raw_models.values()
        if self._has_norm and any(map(is_flat, models)):
            _logger.warning("Monitor: FullyShardedDataParallel hides the gradients, so their norm is not reported.")
        elif self._has_norm:
            for optimizer in manager.optimizers.values():
                found = torch_optimizers(optimizer)
                outermost = [found[""]] if "" in found else found.values()
                self._hooks += [item.register_step_post_hook(self._measure_norm) for item in outermost]

    def __call__(self, manager: Manager) -> None:
        now, last = time.perf_counter(), self._last
        self._last = now, manager.iteration
        reading = self._meter.read()
        values: dict[str, Any] = {**dict(_learning_rates(manager)), **self._read_memory(now)}
        if norms := [*self._norms.values()]:
            self._norms.clear()
            values["monitor/gradient_norm"] = norms[0] if len(norms) == 1 else get_total_norm(norms)
        self._warn_once(reading, manager)
        if last is not None:
            values |= self._speed(reading, now - last[0], manager.iteration - last[1], manager.world.size)
        report(values)

    def finalize(self, manager: Manager) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _warn_once(self, reading: Reading | None, manager: Manager) -> None:
        if self._has_warned or manager.world.rank != 0:
            return
        if reading is None:
            self._has_warned = True
            _logger.warning(
                "Monitor: the loop does not take its batches from manager.batches(loader), so the time waiting for "
                "data is unknown, and only samples= and tokens= that are numbers are counted."
            )
        elif "samples" in self._functions and "samples" not in reading.amounts:
            self._has_warned = True
            _logger.warning(
                "Monitor: the number of samples in a batch is unknown. Pass samples=, a number per iteration or a "
                "function of the batch."
            )

    def _speed(self, reading: Reading | None, seconds: float, steps: int, ranks: int) -> dict[str, Any]:
        """Return the values of the last steps. Rates have the time as weight, so that their means are exact."""
        amounts: dict[str, Any] = {name: number * steps for name, number in self._numbers.items()}
        values: dict[str, Any] = {}
        if reading is not None:
            seconds = reading.seconds
            amounts |= reading.amounts
            values["monitor/data_wait_share"] = reading.wait_seconds / seconds, seconds
        values["monitor/step_seconds"] = seconds / steps
        for name, amount in amounts.items():
            values[f"monitor/{name}_per_second"] = amount / seconds * ranks, seconds
        return values

    @torch.no_grad()
    def _measure_norm(self, optimizer: Optimizer, *_: object) -> None:
        # After the step, because a closure computes the gradients within it.
        parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
        gradients = [_values_of(parameter.grad) for parameter in parameters if parameter.grad is not None]
        if gradients:
            self._norms[optimizer] = full_tensor(get_total_norm(gradients))

    def _read_memory(self, now: float) -> dict[str, float]:
        if now - self._memory_time >= _MEMORY_SECONDS and torch.cuda.is_initialized():
            self._memory_time, statistics = now, torch.cuda.memory_stats()
            self._memory = {key: statistics.get(name, 0) / _MEGABYTE for key, name in _MEMORY.items()}
        return self._memory


def _learning_rates(manager: Manager) -> Iterator[tuple[str, Any]]:
    for name, optimizer in manager.optimizers.items():
        groups = getattr(optimizer, "param_groups", ())
        for index, group in enumerate(groups):
            if "lr" in group:
                yield f"monitor/lr/{name}" + (f"/{index}" if len(groups) > 1 else ""), group["lr"]


def _values_of(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _check_amount(name: str, amount: object) -> None:
    if amount is None or callable(amount):
        return
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise TypeError(
            f"{name}: expected a number per iteration or a function of the batch, got {describe_value(amount)}"
        )
    if not amount > 0:
        raise ValueError(f"{name}: expected a positive number, got {amount!r}")
