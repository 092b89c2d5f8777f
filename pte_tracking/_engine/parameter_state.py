"""State of the parameters that neither models nor optimizers save: gradients, ``requires_grad``, and some buffers."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from pte_tracking._engine.parts import TrainingParts
from pte_tracking._interface.extension import Extension
from pte_tracking._snapshots.communication_hooks import report_unsaved_hooks
from pte_tracking._snapshots.gradients import (
    SavedGradients,
    has_unsynchronized,
    load_gradients,
    save_gradients,
    stepped_parameters,
    watch_steps,
)
from pte_tracking._snapshots.named_flags import frozen_parameters, module_modes
from pte_tracking._snapshots.stepped_optimizers import SteppedOptimizers, note_passed
from pte_tracking._snapshots.unsaved_averages import UnsavedAverages
from pte_tracking._snapshots.unsaved_buffers import report_unrestored, sum_unsaved
from pte_tracking._snapshots.unsaved_schedulers import report_unsaved_schedulers

_logger = logging.getLogger("pte_tracking")


class ParameterState:
    """Gradients, flags of parameters and modules, and the content of buffers that are not persistent.

    Args:
        parts: The models and optimizers.
        raw_models: The models as passed to the manager, which may be wrapped.
        rank: Rank of this process. Only rank 0 logs.
    """

    def __init__(self, parts: TrainingParts, raw_models: Mapping[str, object], rank: int) -> None:
        self._parts = parts
        self._raw_models = raw_models
        self._rank = rank
        self._averages: UnsavedAverages | None = None
        self._stepped: SteppedOptimizers | None = None
        self._stepped_before: SteppedOptimizers | None = SteppedOptimizers()
        self._flags = {
            "frozen": frozen_parameters(parts.states.names),
            "evaluating": module_modes(parts.states.names, parts.models),
        }
        self._is_loss_logged = self._is_unowned_logged = self._are_hooks_logged = self._are_users_logged = False

    def begin_training(self, current_iteration: Callable[[], int]) -> None:
        """Note from now on which gradients each step uses, and which optimizers step.

        Args:
            current_iteration: Returns the number of completed iterations.
        """
        self._stepped, self._stepped_before = SteppedOptimizers(current_iteration), None
        for optimizer in self._parts.optimizers.values():
            watch_steps(optimizer)
            note_passed(optimizer)

    def stepped_before_training(self) -> list[str]:
        """Return the types of the optimizers that have stepped the models although the training has not begun."""
        return [] if self._stepped_before is None else self._stepped_before.list_types(self._parts.states.names)

    def state_dict(self) -> dict[str, Any]:
        """Return the state: ``"gradients"`` by optimizer, and details under ``"parameters"``."""
        optimizers = self._parts.optimizers
        self._parts.states.names.refresh()  # The models were saved since, which may have replaced parameters.
        self._log_lost_gradients(optimizers.values())
        if not (self._are_hooks_logged or self._rank):
            objects = self._parts.by_kind["state_objects"].values()
            self._are_hooks_logged = report_unsaved_hooks(self._raw_models, objects)
        saved = [item for item in self._parts.users.values() if not _is_stateless(item)]
        if not (self._are_users_logged or self._rank):
            self._are_users_logged = True
            alive = gc.get_objects()  # takes about 0.1 s
            report_unsaved_schedulers(optimizers.values(), [*saved, *optimizers.values()], alive)
            state_objects = self._parts.by_kind["state_objects"].values()
            self._averages = UnsavedAverages(self._raw_models.values(), [*saved, *state_objects], alive)
        elif self._averages is not None:
            self._averages.report_updated()
        if self._stepped is not None:
            self._stepped.report_missing(optimizers.values(), saved, self._parts.states.names, self._rank)
            self._report_unowned(optimizers.values())
        gradients = {
            name: save_gradients(optimizer, self._parts.states.names_by_id(optimizer))
            for name, optimizer in optimizers.items()
        }
        return {
            "gradients": {name: saved.accumulated for name, saved in gradients.items() if saved.accumulated},
            "parameters": {
                "zero_gradients": {name: saved.zero for name, saved in gradients.items() if saved.zero},
                "kept_gradients": [name for name, saved in gradients.items() if saved.are_kept],
                **{name: flags.state_dict() for name, flags in self._flags.items()},
                "unsaved_buffers": sum_unsaved(self._parts.model_trees),
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state, after models and optimizers.

        Args:
            state: The complete state of a training.
        """
        details = state["parameters"]
        self._parts.states.names.refresh()
        for name, optimizer in self._parts.optimizers.items():
            if name in details["optimizers"]:
                self._parts.states.load_parameters(optimizer, details["optimizers"][name]["parameters"])
        for name, flags in self._flags.items():
            flags.load_state_dict(details[name], self._rank)
        for name, optimizer in self._parts.optimizers.items():
            saved = SavedGradients(
                state["gradients"].get(name, {}),
                details["zero_gradients"].get(name, []),
                name in details.get("kept_gradients", ()),
            )
            load_gradients(optimizer, self._parts.states.names_by_id(optimizer), saved)
        if self._rank == 0:
            report_unrestored(self._parts.model_trees, details["unsaved_buffers"])

    def _report_unowned(self, optimizers: Iterable[object]) -> None:
        """Log the parameters whose gradients belong to no optimizer, once, unless all optimizers are missing."""
        if self._is_unowned_logged or self._rank:
            return
        owned = {id(item) for optimizer in optimizers for item in stepped_parameters(optimizer)}
        parameters = self._parts.states.names.parameters().items()
        unowned = [name for name, item in parameters if id(item) not in owned and item.grad is not None]
        # An optimizer with other parameters, such as copies in single precision, uses these gradients itself.
        if unowned and owned and owned.issubset(map(id, self._parts.states.names.parameters().values())):
            self._is_unowned_logged = True
            more = f" and {len(unowned) - 1} more" if len(unowned) > 1 else ""
            _logger.warning(
                "snapshot: the gradients of parameters that belong to no optimizer are not part of the snapshot: %r%s. "
                "If the loop uses them in later iterations, a resume is not exact. Pass the parameters to an optimizer "
                "of the manager, or set requires_grad to False.",
                unowned[0],
                more,
            )

    def _log_lost_gradients(self, optimizers: Iterable[Any]) -> None:
        models = self._parts.model_trees.values()
        if self._is_loss_logged or not any(has_unsynchronized(models, optimizer) for optimizer in optimizers):
            return
        self._is_loss_logged = True
        _logger.warning(
            "snapshot: gradients of a sharded model that are accumulated without synchronization (no_sync() or "
            "set_requires_gradient_sync(False)) are not part of the snapshot. A resume is exact from snapshots of "
            "iterations in which the optimizer steps."
        )

    def by_optimizer(self) -> dict[str, NamedParameters]:
        """Return the parameters of each optimizer, which its gradients are sharded like."""
        return {
            name: NamedParameters(self._parts.states.parameters_by_name(optimizer))
            for name, optimizer in self._parts.optimizers.items()
        }


def _is_stateless(item: object) -> bool:
    return isinstance(item, Extension) and type(item).state_dict is Extension.state_dict


class NamedParameters:
    """Parameters as an object with a state.

    Args:
        parameters: The parameters by name.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = parameters

    def state_dict(self) -> dict[str, Tensor]:
        """Return the parameters by name."""
        return dict(self._parameters)
