"""A training loop that is written already."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from pte_tracking._engine.manager import ExtensionsManager
from pte_tracking._engine.registry import ExtensionEntry
from pte_tracking._engine.state import StateObject
from pte_tracking._interface.extension import Extension, TriggerLike
from pte_tracking._store.events import Checkpoint
from pte_tracking.reporter import Observation, Reporter
from pte_tracking.sinks import Sink
from pte_tracking.triggers import get_trigger
from pte_tracking.updaters import Updater


class Trainer:
    """Updates until the stop trigger fires, and runs extensions after each update.

    Args:
        updater: Does the updates.
        stop_trigger: When the training stops, such as ``(20, "epoch")``: any trigger.
        out_dir: The directory of the run.
        extensions: The extensions; more can be added by :meth:`extend`.
        sinks: Where the run is delivered to: names such as ``"tensorboard"``, or configured sinks. The JSON log if
            None.
        params: Hyperparameters to be recorded; nested ones are flattened.
        tags: Labels of the run.
        state_objects: What else belongs into snapshots, by name.
        run_name: The run's name, for people.
        close_timeout: Seconds that the end of the training waits for the delivery at most.
        transform_model: Called with each name and model; what it returns is the model that extensions see and
            snapshots hold. By default, the module within a ``DistributedDataParallel`` or what ``torch.compile`` made,
            and any other as it is.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument's value cannot be.

    Attributes:
        manager: What the extensions are handed; ``manager.run`` is the record of the run.
        updater: The updater.
    """

    def __init__(
        self,
        updater: Updater,
        stop_trigger: TriggerLike,
        out_dir: str | os.PathLike[str] = "result",
        extensions: Iterable[Callable[..., Any] | ExtensionEntry] = (),
        *,
        sinks: Iterable[str | Sink] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        state_objects: Mapping[str, StateObject] | None = None,
        run_name: str | None = None,
        close_timeout: float = 30.0,
        transform_model: Callable[[str, nn.Module], nn.Module] | None = None,
    ) -> None:
        if isinstance(updater, type) or not hasattr(updater, "connect"):
            raise TypeError(
                f"updater: expected an updater, such as updaters.StandardUpdater(loader, optimizer), got {updater!r}"
            )
        trigger = get_trigger(stop_trigger)
        length, unit = trigger.training_length or (math.inf, "epoch")
        self.updater = updater
        self.manager = ExtensionsManager(
            updater.models,
            length if unit == "epoch" else length / (updater.iters_per_epoch or 1),
            extensions,
            optimizers=updater.optimizers,
            iters_per_epoch=updater.iters_per_epoch,
            out_dir=out_dir,
            sinks=sinks,
            params=params,
            tags=tags,
            stop_trigger=trigger,
            state_objects={**updater.state_objects, **(state_objects or {})},
            run_name=run_name,
            close_timeout=close_timeout,
            transform_model=transform_model,
        )
        updater.connect(self.manager.loaders, self.manager.updater)

    @property
    def stop_trigger(self) -> bool:
        """Whether the training is over."""
        return self.manager.stop_trigger

    @property
    def observation(self) -> Observation:
        """What was reported in the last iteration."""
        return self.manager.observation

    @property
    def reporter(self) -> Reporter:
        """Takes what is reported."""
        return self.manager.reporter

    @property
    def elapsed_time(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.manager.elapsed_time

    @property
    def is_before_training(self) -> bool:
        """Whether no iteration was done yet."""
        return self.manager.is_before_training

    @property
    def out(self) -> str:
        """The run's directory."""
        return self.manager.out

    def extend(
        self,
        extension: Callable[..., Any] | ExtensionEntry,
        name: str | None = None,
        trigger: TriggerLike = None,
        priority: int | None = None,
        *,
        call_before_training: bool | None = None,
    ) -> None:
        """Registers an extension; see :meth:`ExtensionsManager.extend`."""
        self.manager.extend(extension, name, trigger, priority, call_before_training=call_before_training)

    def get_extension(self, name: str) -> Extension:
        """The extension that was registered under a name; ValueError if there is none."""
        return self.manager.get_extension(name)

    def run(self) -> None:
        """Trains until the stop trigger fires; then the run ends.

        Raises:
            RuntimeError: The training has ended before.
        """
        manager = self.manager
        if manager.is_ended:
            raise RuntimeError("run(): this training has ended; make another Trainer, and resume() it to go on")
        with manager:
            manager.start()
            while not manager.stop_trigger:
                with manager.run_iteration():
                    self.updater.update()

    def resume(self, source: str | os.PathLike[str] = "latest") -> Checkpoint | None:
        """Goes on from a snapshot as if the training had never stopped; see :meth:`ExtensionsManager.resume`."""
        return self.manager.resume(source)

    def state_dict(self) -> dict[str, Any]:
        """The state of the training."""
        return self.manager.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state; see :meth:`ExtensionsManager.load_state_dict`."""
        self.manager.load_state_dict(state)
