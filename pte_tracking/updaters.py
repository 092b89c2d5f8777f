"""How a Trainer updates the weights: one batch, one loss, one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn, optim

from pte_tracking._data.batch import check_signature, example_batch, to_device, unpack
from pte_tracking._data.loader import LoaderRegistry
from pte_tracking._interface.progress import Progress


class Updater(Protocol):
    """What a Trainer needs of an updater."""

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """The models that are trained, by name."""

    @property
    def optimizers(self) -> Mapping[str, optim.Optimizer]:
        """The optimizers by name."""

    @property
    def state_objects(self) -> Mapping[str, Any]:
        """What else of the updater's belongs into snapshots, by name."""

    @property
    def iters_per_epoch(self) -> int | None:
        """Updates in one epoch, if that is known."""

    def connect(self, loaders: LoaderRegistry, progress: Progress) -> None:
        """Take the batches from here from now on, where the places in the data are kept; updates are counted there."""

    def update(self) -> None:
        """Do one update."""


class StandardUpdater:
    """Takes a batch, has a loss computed for it, and steps the optimizers down its gradient.

    The loss function is called with the batch unpacked: with the parts of a list or tuple as arguments, with those of a
    dictionary by name. It reports what it wants to be seen; the loss itself is not reported by the updater. Optimizers
    that evaluate the loss several times, such as LBFGS, are given what they need for that, as any single optimizer is;
    what was reported last counts then. Several optimizers all step down the gradient of the one loss; for anything
    else, such as two networks against each other, override :meth:`update_core`.

    Mixed precision: ``autocast=torch.autocast("cuda", torch.float16), scaler=torch.amp.GradScaler()``. The scaler's
    state is in the snapshots as ``"scaler"``.

    Args:
        iterator: A ``DataLoader``, or several by name. A pass over ``"main"`` is an epoch.
        optimizer: An optimizer, or several by any names. The attribute ``target`` of each is the model that it trains:
            ``optimizer.target = model``.
        converter: Called with a batch and the device; by default moves the batch there.
        device: Where the batches are needed.
        loss_func: Gives the loss of a batch, a tensor of one element; by default the target of the optimizer
            ``"main"``. An :meth:`update_core` of one's own may do without.
        autocast: Around the computation of the loss.
        scaler: Scales the loss, so that its gradient does not vanish in half precision.

    Raises:
        TypeError: An argument is of the wrong type, or the loss function cannot be called with the batches.
        ValueError: An optimizer has no target, no loader is called ``"main"``, or there is no loss function.

    Attributes:
        optimizers: The optimizers by name.
        models: Their targets, by the names of the optimizers.
        loss_func: The function that gives the loss, if there is one.
        progress: How many updates were done; an updater in a Trainer has the Trainer's.
    """

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
        self._loaders: dict[str, Iterable[Any]] = _by_name("iterator", iterator, Iterable)
        self.optimizers: dict[str, optim.Optimizer] = _by_name("optimizer", optimizer, optim.Optimizer)
        self.models = {name: _target_of(name, optimizer) for name, optimizer in self.optimizers.items()}
        self.loss_func: Callable[..., Tensor] | None = loss_func or self.models.get("main")
        self._converter = converter or to_device
        self._device = device
        self._autocast = autocast or nullcontext()
        self._scaler = scaler
        self._registry = LoaderRegistry()
        self.progress = Progress(self.iters_per_epoch or None)
        self._iterators: dict[str, Iterator[Any]] = {}
        if type(self).update_core is not StandardUpdater.update_core:
            return  # which may need no loss function, or call it otherwise
        loss_func, example = self._loss_func(), example_batch(self._loaders["main"])
        if converter is None and example is not None:
            check_signature(loss_func, example, "loss_func")

    @property
    def state_objects(self) -> Mapping[str, Any]:
        """What else belongs into snapshots: the scaler."""
        return {} if self._scaler is None else {"scaler": self._scaler}

    @property
    def iters_per_epoch(self) -> int | None:
        """Batches in one pass over ``"main"``, if that is known."""
        try:
            return len(self._loaders["main"])  # type: ignore[arg-type]
        except TypeError:
            return None

    @property
    def iteration(self) -> int:
        """Updates done before the one under way."""
        return self.progress.iteration

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.progress.epoch

    @property
    def epoch_detail(self) -> float:
        """Epochs done, with the fraction of the one under way."""
        return self.progress.epoch_detail

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last update done was the last of its epoch."""
        return self.progress.is_new_epoch

    def connect(self, loaders: LoaderRegistry, progress: Progress) -> None:
        """Take the batches from here from now on, and the count of updates."""
        self._registry, self.progress = loaders, progress
        for name, loader in self._loaders.items():
            loaders.register(loader, name)

    def get_iterator(self, name: str = "main") -> Iterable[Any]:
        """The loader of that name."""
        return self._loaders[name]

    def get_optimizer(self, name: str = "main") -> optim.Optimizer:
        """The optimizer of that name."""
        return self.optimizers[name]

    def get_all_optimizers(self) -> dict[str, optim.Optimizer]:
        """All optimizers by name."""
        return dict(self.optimizers)

    def next_batch(self, name: str = "main") -> Any:
        """The next batch of a loader, converted; begins the next pass at the end of one.

        Raises:
            ValueError: The loader gives no batch at all.
        """
        batch = next(self._iterators.get(name, iter(())), _END)
        if batch is _END:
            self._iterators[name] = iter(self._registry.register(self._loaders[name], name))
            batch = next(self._iterators[name], _END)
        if batch is _END:
            hint = "; an iterator gives one pass only: give what it was made from" if self.iteration else ""
            raise ValueError(f"iterator: {name!r} is empty{hint}")
        return self._converter(batch, self._device)

    def update(self) -> None:
        """Do one update."""
        self.update_core()

    def update_core(self) -> None:
        """What an update is; for subclasses to override, with :meth:`next_batch` and :meth:`minimize`."""
        loss_func = self._loss_func()
        args, kwargs = unpack(self.next_batch())
        self.minimize(lambda: loss_func(*args, **kwargs), *self.optimizers.values())

    def _loss_func(self) -> Callable[..., Tensor]:
        if self.loss_func is None:
            raise ValueError(
                "loss_func: needed unless an optimizer is called 'main', whose target it would be; there are "
                f"{', '.join(map(repr, self.optimizers)) or 'none'}"
            )
        return self.loss_func

    def minimize(self, compute_loss: Callable[[], Tensor], *optimizers: optim.Optimizer) -> None:
        """Step optimizers down the gradient of a loss.

        Args:
            compute_loss: Computes it.
            optimizers: The optimizers that take the step; the gradients of no others are set to zero before.

        Raises:
            TypeError: The loss is no tensor.
        """

        def closure() -> Any:
            for optimizer in optimizers:
                optimizer.zero_grad()
            with self._autocast:
                loss = compute_loss()
            if not isinstance(loss, Tensor):
                raise TypeError(f"loss_func: expected it to return the loss as a tensor, got {loss!r}")
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()
            return loss

        if self._scaler is None and len(optimizers) == 1:
            optimizers[0].step(closure)
            return
        closure()
        for optimizer in optimizers:
            if self._scaler is None:
                optimizer.step()
            else:
                self._scaler.step(optimizer)
        if self._scaler is not None:
            self._scaler.update()


_END: Any = object()


def _by_name(argument: str, value: Any, kind: type) -> dict[str, Any]:
    by_name = dict(value) if isinstance(value, Mapping) else {"main": value}
    for name, item in by_name.items():
        if not isinstance(item, kind):
            raise TypeError(
                f"{argument}: expected {'a DataLoader' if kind is Iterable else 'an optimizer'} as {name!r}, "
                f"got {item!r} of type {type(item).__name__}; the order is StandardUpdater(iterator, optimizer)"
            )
    if kind is Iterable and "main" not in by_name:
        raise ValueError(
            f"{argument}: one of them has to be called 'main', got {', '.join(map(repr, by_name)) or 'none'}"
        )
    return by_name


def _target_of(name: str, optimizer: optim.Optimizer) -> nn.Module:
    target = getattr(optimizer, "target", None)
    if not isinstance(target, nn.Module):
        raise ValueError(
            f"optimizer: {name!r} has no model as its target; set optimizer.target = model, which is also what "
            "snapshots of the training hold"
        )
    return target
