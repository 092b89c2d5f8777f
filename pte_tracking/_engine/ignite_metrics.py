"""State of Ignite's metrics, which the engine resets when it starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pte_tracking._distributed import environment
from pte_tracking._snapshots.plain_state import to_plain

if TYPE_CHECKING:
    from ignite.engine import Engine

_logger = logging.getLogger("pte_tracking")


class IgniteMetrics:
    """Metrics that are attached to an engine.

    The engine resets metrics when it starts and at the start of each epoch. Their state is therefore restored in the
    first iteration.

    Args:
        engine: The engine that trains.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._saved: Mapping[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the metrics by name, without those that cannot be saved."""
        return {name: state for name, metric in self._metrics().items() if (state := _state_of(metric))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the states in the first iteration.

        Args:
            state: The states by name.
        """
        self._saved = state

    def restore(self, *, is_first: bool) -> None:
        """Restore the states, after the engine has reset the metrics. Has no effect without a state.

        Args:
            is_first: Whether the iteration is the first one of its epoch.
        """
        from ignite.engine import Events

        saved, self._saved = self._saved, None
        if saved is None:
            return
        lost = []
        for name, metric in self._metrics().items():
            is_reset = self._engine.has_event_handler(metric.started, Events.EPOCH_STARTED) and is_first
            if is_reset or self._engine.has_event_handler(metric.started, Events.ITERATION_STARTED):
                continue
            try:
                metric._load_state_dict_per_rank(saved[name])
            except (AttributeError, KeyError, TypeError, ValueError):
                lost.append(name)
        if lost and environment.rank() == 0:
            _logger.warning(
                "The state of the Ignite metrics %s is not in the snapshot. Their next values do not include the "
                "iterations before the resume. Report the values instead, and LogReport computes their mean.",
                ", ".join(map(repr, lost)),
            )

    def _metrics(self) -> dict[str, Any]:
        """Return the attached metrics by the name of their value."""
        from ignite.metrics import Metric

        handlers = self._engine._event_handlers
        found: dict[str, Any] = {}
        for event in list(handlers):
            for handler, args, _ in handlers[event]:
                method = handler._parent() if hasattr(handler, "_parent") else handler  # of a filtered event
                metric = getattr(method, "__self__", None)
                if isinstance(metric, Metric) and getattr(method, "__name__", "") == "completed" and args:
                    found[str(args[-1])] = metric
        return found


def _state_of(metric: Any) -> dict[str, Any] | None:
    """Return the state of a metric on this rank; None if it has none, or it cannot be saved."""
    try:
        state: dict[str, Any] = to_plain(dict(metric._state_dict_per_rank()))
    except (AttributeError, TypeError):
        return None
    return state
