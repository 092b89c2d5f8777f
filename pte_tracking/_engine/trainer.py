"""Trainer: a complete training loop."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from torch import nn

from pte_tracking._engine.entry import ExtensionEntry
from pte_tracking._engine.manager import ExtensionsManager
from pte_tracking._engine.parts import StateObjectLike
from pte_tracking._interface.extension import Extension, TriggerLike
from pte_tracking._interface.other_names import NO_WRITERS, accept_names, refuse_names
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.events import Checkpoint
from pte_tracking.reporter import Observation, Reporter
from pte_tracking.sinks import Sink
from pte_tracking.triggers import get_trigger
from pte_tracking.updaters import Updater


class Trainer:
    """Training loop that updates until the stop trigger fires and runs extensions after each update.

    Args:
        updater: Updater that performs the updates, such as :class:`~pte_tracking.updaters.StandardUpdater`.
        stop_trigger: Trigger that stops the training, such as ``(20, "epoch")``.
        out_dir: Run directory, also accepted as ``out``. Defaults to ``"result"``.
        extensions: Extensions, functions of the manager, or :class:`ExtensionEntry` objects. :meth:`extend` adds more.
            Defaults to none.
        sinks: Names of installed sinks, such as ``"tensorboard"``, or sink objects. Defaults to the JSON log.
        params: Hyperparameters to log, such as a dictionary or ``parser.parse_args()``; see :meth:`Run.log_params`.
            Defaults to none.
        tags: Tags of the run. Defaults to none.
        state_objects: Other objects to save in snapshots, by name. Each has ``state_dict()`` and ``load_state_dict()``,
            or is a random generator of torch, NumPy, or Python, or a dictionary of tensors and plain values, which
            ``resume()`` restores in place. Defaults to none.
        run_name: Display name of the run. Defaults to the name of the run directory and a short ID.
        group: Group of the run, such as a sweep; see :class:`Run`. Defaults to none.
        close_timeout: Maximum number of seconds that the end of the run waits for delivery. Defaults to 30.
        transform_model: Function of the name and the model that returns the model for extensions and snapshots.
            Defaults to unwrapping ``DistributedDataParallel`` and ``torch.compile``.


    Attributes:
        manager: Manager that is passed to the extensions. ``manager.run`` is the run of the training.
        updater: Updater that performs the updates.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range or contradicts another.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions, updaters
        >>> model = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer.target = model
        >>> def compute_loss(x):
        ...     loss = model(x).square().mean()
        ...     pte.report({"train/loss": loss})
        ...     return loss
        >>> updater = updaters.StandardUpdater([torch.zeros(1, 1), torch.ones(1, 1)], optimizer, loss_func=compute_loss)
        >>> trainer = pte.Trainer(updater, (2, "epoch"), extensions=[extensions.LogReport()])
        >>> trainer.run()
        >>> trainer.manager.iteration
        4
    """

    @accept_names(out="out_dir")
    @refuse_names(writer=NO_WRITERS)
    @refuse_unknown()
    def __init__(
        self,
        updater: Updater,
        stop_trigger: TriggerLike,
        out_dir: str | os.PathLike[str] = "result",
        extensions: Iterable[Callable[..., Any] | ExtensionEntry] = (),
        *,
        sinks: Iterable[str | Sink] | None = None,
        params: object = None,
        tags: Mapping[str, Any] | None = None,
        state_objects: Mapping[str, StateObjectLike] | None = None,
        run_name: str | None = None,
        group: str | None = None,
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
            group=group,
            close_timeout=close_timeout,
            transform_model=transform_model,
        )
        updater.connect(self.manager.loaders, self.manager.updater)

    @property
    def stop_trigger(self) -> bool:
        """Whether the training should stop."""
        return self.manager.stop_trigger

    @property
    def observation(self) -> Observation:
        """Values reported in the last iteration, by key."""
        return self.manager.observation

    @property
    def reporter(self) -> Reporter:
        """Reporter of the training."""
        return self.manager.reporter

    @property
    def elapsed_time(self) -> float:
        """Training time in seconds, including the time before a resume."""
        return self.manager.elapsed_time

    @property
    def is_before_training(self) -> bool:
        """Whether no iteration is completed."""
        return self.manager.is_before_training

    @property
    def out(self) -> str:
        """Path of the run directory."""
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
        """Register an extension; see :meth:`ExtensionsManager.extend`.

        Args:
            extension: An extension, a function of the manager, or an :class:`ExtensionEntry`.
            name: Name of the extension. Defaults to its own name.
            trigger: Trigger that decides when the extension runs. Defaults to ``extension.trigger``.
            priority: Position in the order of an iteration, highest first. Defaults to ``extension.priority``.
            call_before_training: Whether the extension also runs once before the training, but not again after a
                resume. Defaults to False.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If the unit or the period of the trigger is invalid, or the extension cannot run here.
            RuntimeError: If the training has already started or ended.
        """
        self.manager.extend(extension, name, trigger, priority, call_before_training=call_before_training)

    def get_extension(self, name: str) -> Extension:
        """Return the extension registered under a name.

        Args:
            name: Name of the extension.

        Raises:
            ValueError: If no extension has this name.
        """
        return self.manager.get_extension(name)

    def run(self) -> None:
        """Train until the stop trigger fires; then end the run.

        Raises:
            RuntimeError: If the training has already ended.
        """
        manager = self.manager
        if manager.is_ended:
            raise RuntimeError(
                "run(): the training has already ended. To continue, create another Trainer and call its resume()."
            )
        with manager:
            manager.start()
            while not manager.stop_trigger:
                with manager.run_iteration():
                    self.updater.update()

    def resume(self, source: str | os.PathLike[str] = "latest", *, allow: Collection[str] = ()) -> Checkpoint | None:
        """Restore a snapshot and continue its run; see :meth:`ExtensionsManager.resume`.

        Args:
            source: ``"latest"``, ``"best"``, a path, or the URI of a tracked checkpoint. Defaults to ``"latest"``.
            allow: Names of parts that may differ from the snapshot. Defaults to none.

        Returns:
            The checkpoint that was restored; None if there is no snapshot.

        Raises:
            SnapshotError: If the snapshot is damaged or not a snapshot.
            LookupError: If the checkpoint does not exist.
            RuntimeError: If the training has already started or ended.
            ValueError: If the snapshot belongs to another training.
        """
        return self.manager.resume(source, allow=allow)

    def state_dict(self) -> dict[str, Any]:
        """Return the complete training state; see :meth:`ExtensionsManager.state_dict`."""
        return self.manager.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], *, allow: Collection[str] = ()) -> None:
        """Restore a state and continue its run; see :meth:`ExtensionsManager.load_state_dict`.

        Args:
            state: The state, as returned by :meth:`state_dict` or loaded from a snapshot.
            allow: Names of parts that may differ from the snapshot. Defaults to none.

        Raises:
            RuntimeError: If the training has already started or ended.
            ValueError: If the names of models, optimizers, extensions, or state objects differ.
        """
        self.manager.load_state_dict(state, allow=allow)
