"""Mean of one metric over an interval."""

from __future__ import annotations

import logging
from typing import Any

from pte_tracking._distributed.summary import SharedSummary
from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking._store.similar import describe_known
from pte_tracking._store.values import check_key
from pte_tracking.reporter import DictSummary
from pte_tracking.triggers._conversion import get_trigger

_logger = logging.getLogger("pte_tracking")


class IntervalMean:
    """Mean of one metric over each interval, over the values of all ranks.

    An interval without the metric has no mean. The first such interval causes a warning and not an error, because a
    metric may be reported less often than once per interval.

    Args:
        owner: Name of the trigger or extension in the warning.
        key: Key of the metric in the observation.
        trigger: When an interval ends.
    """

    def __init__(self, owner: str, key: str, trigger: TriggerLike) -> None:
        self._owner = owner
        self.key = check_key(key)
        self._trigger = get_trigger(trigger)
        self._summary = DictSummary()
        self._shared = SharedSummary()
        self._has_warned = False

    def set_trigger(self, trigger: TriggerLike) -> None:
        """Set when an interval ends."""
        self._trigger = get_trigger(trigger)

    def evaluate(self, manager: Manager) -> float | None:
        """Return the mean at the end of an interval, else None. The caller calls it once in every iteration."""
        if self.key in manager.observation:
            self._summary.add({self.key: manager.observation[self.key]})
        if not self._trigger.evaluate(manager):
            return None
        mean = self._shared.reduce(manager.world, self._summary).compute_mean().get(self.key)
        self._summary = DictSummary()
        if mean is None and not self._has_warned and manager.world.rank == 0:
            self._has_warned = True
            _logger.warning(
                "%s: %r was not reported in the interval that ended at iteration %d, and such an interval is skipped. "
                "%s",
                self._owner,
                self.key,
                manager.iteration,
                describe_known(self.key, manager.observation),
            )
        return mean

    def state_dict(self) -> dict[str, Any]:
        return {"key": self.key, "trigger": self._trigger.state_dict(), "summary": self._summary.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (saved_key := state.get("key", self.key)) != self.key:
            raise ValueError(f"the saved state is of the metric {saved_key!r}, but the metric is {self.key!r} now")
        self._trigger.load_state_dict(state["trigger"])
        self._summary.load_state_dict(state["summary"])
