"""Cache of the data points that an MLflow run contains."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric

_MAX_RECENT_METRICS = 10_000


class MetricCache:
    """Cache of recent data points that reads older ones from MLflow.

    Args:
        client: MLflow client.
        run_id: ID of the MLflow run.
        has_foreign_metrics: Whether the MLflow run may contain data points that are unknown to the journal.
    """

    def __init__(self, client: MlflowClient, run_id: str, *, has_foreign_metrics: bool = False) -> None:
        self._client = client
        self._run_id = run_id
        self._has_foreign_metrics = has_foreign_metrics
        self._recent: deque[Metric] = deque(maxlen=_MAX_RECENT_METRICS)
        self._steps_by_key: dict[str, set[int]] = {}
        #: Whether data points of earlier steps are sent again. Otherwise, steps ascend.
        self._may_repeat_steps = False

    def read_stored(self) -> None:
        """From now on, store only data points that MLflow does not have, because a failed request stored some."""
        self._has_foreign_metrics = self._may_repeat_steps = True
        self._steps_by_key.clear()

    def add(self, metrics: Sequence[Metric]) -> None:
        """Add data points that were stored.

        Args:
            metrics: Stored data points.
        """
        self._recent.extend(metrics)
        if self._may_repeat_steps:
            for metric in metrics:
                self._steps_by_key.setdefault(metric.key, set()).add(metric.step)

    def select_new(self, metrics: Iterable[Metric]) -> list[Metric]:
        """Select the data points whose key and step are not stored yet.

        MLflow also distinguishes data points by their time, so it would store a second point for the same step.

        Args:
            metrics: Data points to store.

        Returns:
            The data points to send.
        """
        if not self._has_foreign_metrics:
            return list(metrics)
        return [metric for metric in metrics if metric.step not in self._stored_steps(metric.key, metric.step)]

    def _stored_steps(self, key: str, min_step: int) -> set[int]:
        if key not in self._steps_by_key:
            history = self._client.get_metric_history(self._run_id, key)
            self._steps_by_key[key] = {
                metric.step for metric in history if self._may_repeat_steps or metric.step >= min_step
            }
        return self._steps_by_key[key]

    def find(self, key: str, step: int) -> Metric | None:
        """Return the stored data point of a key at a step.

        Args:
            key: Metric key.
            step: Step.

        Returns:
            The data point with its time in MLflow; None if there is none.
        """
        cached = [metric for metric in reversed(self._recent) if metric.key == key and metric.step <= step]
        recent = next((metric for metric in cached if metric.step == step), None)
        # Steps ascend. If an earlier step of the key is cached, a point at this step would be cached too.
        if cached:
            return recent
        history = self._client.get_metric_history(self._run_id, key)
        return next((metric for metric in history if metric.step == step), None)
