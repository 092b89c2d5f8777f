"""Updaters of a Trainer: one batch, one loss, and one step per update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn, optim

from pte_tracking._data.batch import check_signature, example_batch, to_device, unpack
from pte_tracking._data.combined import combine, dataset_hint
from pte_tracking._data.position import length_of
from pte_tracking._data.registry import LoaderRegistry
from pte_tracking._interface.other_names import refuse_names
from pte_tracking._interface.progress import Progress
from pte_tracking._snapshots.gradients import mark_used

__all__ = ["StandardUpdater", "Updater"]


class Updater(Protocol):
    """Interface between a Trainer and its updater."""

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """Models to train, by name."""

    @property
    def optimizers(self) -> Mapping[str, optim.Optimizer]:
        """Optimizers by name."""

    @property
    def state_objects(self) -> Mapping[str, Any]:
        """Other objects of the updater to save in snapshots, by name."""

    @property
    def iters_per_epoch(self) -> int | None:
        """Number of updates per epoch; None if unknown."""

    def connect(self, loaders: LoaderRegistry, progress: Progress) -> None:
        """Connect the updater to a trainer.

        Args:
            loaders: Registry that the updater has to take its batches from, so that snapshots contain their positions.
            progress: Counter of the updates.
        """

    def update(self) -> None:
        """Perform one update."""


class StandardUpdater:
    """Updater that computes the loss of a batch and steps the optimizers.

    The loss function receives the parts of a batch as arguments: by position if the batch is a list or a tuple, by name
    if it is a dictionary. It has to report the values to log; the updater does not report the loss.

    A single optimizer may evaluate the loss several times in a step, as LBFGS does; the values of the last evaluation
    are logged. Several optimizers step on the gradient of the same loss. For other updates, such as those of
    adversarial networks, override :meth:`update_core`.

    For mixed precision, pass ``autocast=torch.autocast("cuda", torch.float16), scaler=torch.amp.GradScaler()``. The
    state of the scaler is saved in snapshots as ``"scaler"``.

    Args:
        iterator: A ``DataLoader`` or another iterable of batches, or several by name. A pass over ``"main"``, or over
            the single one, is an epoch. A tuple of DataLoaders yields tuples of batches.
        optimizer: An optimizer, or an object that wraps one and has ``step`` and ``state_dict``, or several by name.
            The attribute ``target`` of each has to be the model that it trains: ``optimizer.target = model``.
        converter: Function of a batch and the device that returns the batch for the loss function. Defaults to moving
            all tensors of the batch to the device.
        device: Device of the batches. Defaults to None, which leaves the batches where they are.
        loss_func: Function that returns the loss of a batch, a tensor of one element. Defaults to the target of the
            optimizer ``"main"``. Not required if a subclass overrides :meth:`update_core`.
        autocast: Context manager around the computation of the loss. Defaults to none.
        scaler: Gradient scaler for half precision. Defaults to none.

    Attributes:
        optimizers: Optimizers by name.
        models: Targets of the optimizers, by the names of the optimizers.
        loss_func: Loss function; None if there is none.
        converter: Function that converts each batch; :meth:`next_batch` calls it.
        device: Device of the batches.
        progress: Counter of the updates; that of the Trainer after :meth:`connect`.

    Raises:
        TypeError: If an argument has the wrong type, or the loss function does not accept the batches.
        ValueError: If an optimizer has no target, no iterable is named ``"main"``, or there is no loss function.

    Example:
        >>> import torch
        >>> from pte_tracking.updaters import StandardUpdater
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> optimizer.target = model
        >>> updater = StandardUpdater([torch.ones(1, 1)], optimizer, loss_func=lambda x: model(x).square().sum())
        >>> updater.update()
        >>> model.weight.item()
        0.0
    """

    @refuse_names(
        loss_scale="Pass scaler=torch.amp.GradScaler() and autocast=.",
        auto_new_epoch="Remove it. Optimizers have no epochs.",
    )
    def __init__(
        self,
        iterator: Iterable[Any] | Mapping[str, Iterable[Any]],
        optimizer: optim.Optimizer | Mapping[str, optim.Optimizer],
        converter: Callable[[Any, Any], Any] | None = None,
        device: torch.device | str | int | None = None,
        loss_func: Callable[..., Tensor] | None = None,
        *,
        autocast: torch.autocast | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        loaders = _by_name("iterator", iterator)
        self._loaders: dict[str, Iterable[Any]] = {name: combine(loader) for name, loader in loaders.items()}
        self.optimizers: dict[str, optim.Optimizer] = _by_name("optimizer", optimizer)
        self.models = {name: _target_of(name, optimizer) for name, optimizer in self.optimizers.items()}
        self.loss_func: Callable[..., Tensor] | None = loss_func or self.models.get("main")
        self.converter = converter or to_device
        self.device = device
        self._autocast = autocast or nullcontext()
        self._scaler = scaler
        self._registry = LoaderRegistry()
        self.progress = Progress(self.iters_per_epoch or None)
        self._iterators: dict[str, Iterator[Any]] = {}
        if type(self).update_core is not StandardUpdater.update_core:
            # A subclass may need no loss function, or may call it with other arguments.
            return
        loss_func, example = self._loss_func(), example_batch(self._loaders["main"])
        if converter is None and example is not None:
            check_signature(loss_func, example, "loss_func", is_given=self.loss_func is not self.models.get("main"))

    @property
    def state_objects(self) -> Mapping[str, Any]:
        """Gradient scaler, by name, to save in snapshots."""
        return {} if self._scaler is None else {"scaler": self._scaler}

    @property
    def iters_per_epoch(self) -> int | None:
        """Number of batches in one pass over ``"main"``; None if unknown. A subclass may return another number."""
        return length_of(self._loaders["main"])

    @property
    def iteration(self) -> int:
        """Number of completed updates."""
        return self.progress.iteration

    @property
    def epoch(self) -> int:
        """Number of completed epochs."""
        return self.progress.epoch

    @property
    def epoch_detail(self) -> float:
        """Number of completed epochs, including the fraction of the current epoch."""
        return self.progress.epoch_detail

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last completed update was the last one of its epoch."""
        return self.progress.is_new_epoch

    def connect(self, loaders: LoaderRegistry, progress: Progress) -> None:
        """Connect the updater to a trainer; called by the Trainer.

        Args:
            loaders: Registry to take batches from, which tracks the positions of the loaders.
            progress: Counter of the updates.
        """
        self._registry, self.progress = loaders, progress
        for name, loader in self._loaders.items():
            loaders.register(loader, name)

    def get_iterator(self, name: str = "main") -> Iterable[Any]:
        """Return the iterable of batches of a name."""
        return self._loaders[name]

    def get_optimizer(self, name: str = "main") -> optim.Optimizer:
        """Return the optimizer of a name."""
        return self.optimizers[name]

    def get_all_optimizers(self) -> dict[str, optim.Optimizer]:
        """Return all optimizers by name."""
        return dict(self.optimizers)

    def next_batch(self, name: str = "main") -> Any:
        """Return the next batch, converted. After the last batch, start the next pass.

        Args:
            name: Name of the iterable of batches. Defaults to ``"main"``.

        Raises:
            ValueError: If a pass yields no batch.
        """
        batch = next(self._iterators.get(name, iter(())), _END)
        if batch is _END:
            self._iterators[name] = iter(self._registry.register(self._loaders[name], name))
            batch = next(self._iterators[name], _END)
        if batch is _END:
            hint = " An iterator can be used once only. Pass the iterable that it was created from."
            raise ValueError(f"iterator: {name!r} is empty.{hint if self.iteration else ''}")
        return self.converter(batch, self.device)

    def update(self) -> None:
        """Perform one update."""
        self.update_core()

    def update_core(self) -> None:
        """Compute the loss of the next batch and step all optimizers.

        Subclasses override this method for other updates. They can use :meth:`next_batch` and :meth:`minimize`.
        """
        loss_func = self._loss_func()
        args, kwargs = unpack(self.next_batch())
        self.minimize(lambda: loss_func(*args, **kwargs), *self.optimizers.values())

    def _loss_func(self) -> Callable[..., Tensor]:
        if self.loss_func is None:
            raise ValueError(
                "loss_func: required unless an optimizer is named 'main', got optimizers "
                f"{', '.join(map(repr, self.optimizers)) or 'none'}"
            )
        return self.loss_func

    def minimize(self, compute_loss: Callable[[], Tensor], *optimizers: optim.Optimizer) -> None:
        """Step optimizers on the gradient of a loss.

        Args:
            compute_loss: Function that returns the loss, a tensor of one element.
            *optimizers: Optimizers to step. Only their gradients are set to zero before.

        Raises:
            TypeError: If the loss is not a tensor.
        """

        def closure() -> Any:
            for optimizer in optimizers:
                _zero_grad(optimizer)
            with self._autocast:
                loss = compute_loss()
            if not isinstance(loss, Tensor):
                raise TypeError(f"loss_func: expected a tensor as the returned loss, got {loss!r}")
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()
            return loss

        # Only optimizers of torch accept a closure for certain.
        if self._scaler is None and len(optimizers) == 1 and isinstance(optimizers[0], optim.Optimizer):
            optimizers[0].step(closure)
            return
        closure()
        for optimizer in optimizers:
            if self._scaler is None:
                optimizer.step()
            else:
                self._scaler.step(optimizer)
                mark_used(optimizer)  # Also if the scaler skipped the step.
        if self._scaler is not None:
            self._scaler.update()


_END: Any = object()


def _by_name(argument: str, value: Any) -> dict[str, Any]:
    by_name = dict(value) if isinstance(value, Mapping) else {"main": value}
    for name, item in by_name.items():
        is_loader = isinstance(item, Iterable) and not isinstance(item, str | bytes)
        is_valid = is_loader if argument == "iterator" else _is_optimizer(item)
        if not is_valid:
            raise TypeError(
                f"{argument}: expected {'a DataLoader' if argument == 'iterator' else 'an optimizer'} as {name!r}, "
                f"got {item!r} of type {type(item).__name__}. The argument order is "
                f"StandardUpdater(iterator, optimizer){dataset_hint(item) or '.'}"
            )
    if argument == "iterator" and "main" not in by_name:
        raise ValueError(f"{argument}: expected the name 'main', got {', '.join(map(repr, by_name)) or 'none'}")
    return by_name


def _is_optimizer(value: object) -> bool:
    """Whether a value is an optimizer, or an object that wraps one."""
    return not isinstance(value, type) and hasattr(value, "step") and hasattr(value, "state_dict")


def _zero_grad(optimizer: optim.Optimizer) -> None:
    (optimizer if hasattr(optimizer, "zero_grad") else _target_of("", optimizer)).zero_grad()


def _target_of(name: str, optimizer: optim.Optimizer) -> nn.Module:
    target = getattr(optimizer, "target", None)
    if not isinstance(target, nn.Module):
        raise ValueError(
            f"optimizer: {name!r} has no model as its target. Set optimizer.target = model. Snapshots save this model."
        )
    return target
