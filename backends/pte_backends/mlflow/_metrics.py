"""The points that the MLflow run holds: for checkpoints to refer to, and so that none is stored twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from mlflow import MlflowClient
from mlflow.entities import Metric

_MAX_RECENT_METRICS = 10_000


class MetricCache:
    """Remembers the latest points of a run, and asks for older ones.

    Args:
        client: Talks to the store.
        run_id: The MLflow run.
        has_others: Whether it may hold points that this record of the run does not know.
    """

    def __init__(self, client: MlflowClient, run_id: str, *, has_foreign_metrics: bool = False) -> None:
        self._client = client
        self._run_id = run_id
        self._has_foreign_metrics = has_foreign_metrics
        self._recent: OrderedDict[tuple[str, int], Metric] = OrderedDict()
        self._steps_by_key: dict[str, set[int]] = {}

    def add(self, metrics: Iterable[Metric]) -> None:
        """These were stored."""
        for metric in metrics:
            self._recent[metric.key, metric.step] = metric
        while len(self._recent) > _MAX_RECENT_METRICS:
            self._recent.popitem(last=False)

    def select_new(self, metrics: Iterable[Metric]) -> list[Metric]:
        """Those whose step holds no point yet. MLflow tells points by their times, too, and would store both."""
        if not self._has_foreign_metrics:
            return list(metrics)
        return [metric for metric in metrics if metric.step not in self._stored_steps(metric.key, metric.step)]

    def _stored_steps(self, key: str, min_step: int) -> set[int]:
        if key not in self._steps_by_key:
            history = self._client.get_metric_history(self._run_id, key)
            self._steps_by_key[key] = {metric.step for metric in history if metric.step >= min_step}
        return self._steps_by_key[key]

    def find(self, key: str, step: int) -> Metric | None:
        """The point of a key at a step, with the time that it has at MLflow; None if there is none."""
        recent = self._recent.get((key, step))
        # Steps ascend: with an earlier one in memory, a point at this one would be there too.
        if recent is not None or any(
            cached_key == key and cached_step < step for cached_key, cached_step in self._recent
        ):
            return recent
        history = self._client.get_metric_history(self._run_id, key)
        return next((metric for metric in history if metric.step == step), None)
