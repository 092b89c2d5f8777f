"""Conversion of events to MLflow metrics, parameters and tags."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import NamedTuple

from mlflow.entities import Dataset as MLflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunData, RunTag

from pte_backends.mlflow._limits import LIMITS
from pte_backends.mlflow._origin import MAX_TAG_LENGTH, provenance_tags
from pte_tracking.sinks import (
    AnyEvent,
    Dataset,
    Figure,
    Image,
    Metrics,
    Params,
    Provenance,
    RejectedEventError,
    RunView,
    Tags,
    map_key,
    safe_file_name,
)

_logger = logging.getLogger("pte_tracking")
_MAX_PARAM_LENGTH = 6000
_MAX_DIGEST_LENGTH = 36
_MAX_NAME_LENGTH = 500
_MAX_RUN_NAME_LENGTH = 250
_STEP_RANGE = range(-(2**63), 2**63)
_EPOCH_KEY = "epoch"
_CHANGED_PARAM = "pte.param."  # prefix of the tags of parameters that have changed
_CONTEXT_TAG = "mlflow.data.context"
_LOGGED_IMAGES_TAG = "mlflow.loggedImages"  # MLflow's run page loads images only if this tag is set.


class Entities(NamedTuple):
    """MLflow entities of one event.

    Attributes:
        metrics: Metrics.
        params: Parameters.
        tags: Tags.
        texts: Contents of artifacts by path, for values that are too long.
    """

    metrics: list[Metric]
    params: list[Param]
    tags: list[RunTag]
    texts: Mapping[str, str] = {}


def truncate_run_name(name: str) -> str:
    """Return a run name that every database accepts.

    Args:
        name: Name of the run.

    Returns:
        The name without null characters, at most 250 characters long.
    """
    return _replace_null(name)[:_MAX_RUN_NAME_LENGTH]


def build_dataset_input(event: Dataset) -> DatasetInput:
    """Convert a dataset event to a dataset input.

    Args:
        event: Dataset event. A source on the web becomes a link in MLflow.

    Returns:
        The dataset input.
    """
    is_web = event.source.startswith(("http://", "https://"))
    source = json.dumps({"url" if is_web else "uri": event.source})  # JSON escapes null characters.
    name, digest = _replace_null(event.name)[:_MAX_NAME_LENGTH], _replace_null(event.digest)[:_MAX_DIGEST_LENGTH]
    dataset = MLflowDataset(name, digest, "http" if is_web else "local", source)
    return DatasetInput(dataset, [InputTag(_CONTEXT_TAG, _replace_null(event.context)[:_MAX_NAME_LENGTH])])


class EntityBuilder:
    """Converter from events to MLflow entities.

    Args:
        run: Run to deliver.

    Attributes:
        epoch_step: Last step for which an epoch was stored. Each step has one epoch, even if several logs report it.
    """

    def __init__(self, run: RunView) -> None:
        self.epoch_step: int | None = None
        self._run = run
        self._stored_params: dict[str, str] = {}
        #: Tags of the parameters that have changed.
        self._changed_params: set[str] = set()
        self._texts: dict[str, str] = {}
        self._logged_keys: set[str] = set()

    def reset(self, stored: RunData, epoch_step: int | None) -> None:
        """Start from the state of the MLflow run.

        Args:
            stored: Parameters and tags of the MLflow run.
            epoch_step: Last step for which an epoch was stored.
        """
        self._stored_params, self.epoch_step = dict(stored.params), epoch_step
        self._changed_params = {tag for tag in stored.tags if tag.startswith(_CHANGED_PARAM)}

    def build(self, event: AnyEvent) -> Entities:
        """Convert one event.

        Args:
            event: Event to convert.

        Returns:
            The entities. Empty if the event has none.

        Raises:
            RejectedEventError: If MLflow cannot represent the event.
        """
        self._texts = {}
        if isinstance(event, Metrics):
            return Entities(self._build_metrics(event), [], [])
        if isinstance(event, Params):
            return self._build_params(event)
        if isinstance(event, Tags | Provenance):
            values = event.values if isinstance(event, Tags) else provenance_tags(event, self._run)
            tags = [self._build_tag(key, value) for key, value in values.items()]
            return Entities([], [], tags, self._texts)
        if isinstance(event, Figure | Image):
            return Entities([], [], [RunTag(_LOGGED_IMAGES_TAG, "True")])
        return Entities([], [], [])

    def _build_metrics(self, event: Metrics) -> list[Metric]:
        if event.step not in _STEP_RANGE:
            raise RejectedEventError(event.seq, f"Step {event.step} does not fit into 64 bits.")
        timestamp = int(event.time * 1000)
        try:
            metrics = [Metric(key, float(value), timestamp, event.step) for key, value in event.values.items()]
        except OverflowError as error:
            raise RejectedEventError(event.seq, f"A value does not fit into a 64-bit float: {error}.") from None
        is_new_step = self.epoch_step is None or event.step > self.epoch_step
        if event.epoch is not None and is_new_step and _EPOCH_KEY not in event.values:
            metrics.append(Metric(_EPOCH_KEY, float(event.epoch), timestamp, event.step))
            self.epoch_step = event.step
        return metrics

    def _build_params(self, event: Params) -> Entities:
        params, tags = [], []
        for key, value in event.values.items():
            text = self._shorten("param", key, str(value), _MAX_PARAM_LENGTH)
            stored = self._stored_params.get(key)
            tag = map_key(f"{_CHANGED_PARAM}{key}", LIMITS)
            if stored is None:
                self._stored_params[key] = text
                params.append(Param(key, text))
            elif stored != text or tag in self._changed_params:  # also if it has the first value again
                # MLflow parameters cannot change, and a different value would make MLflow reject the whole request.
                self._changed_params.add(tag)
                if stored != text:
                    self._warn_once(
                        key,
                        "mlflow: parameter %r changed from %s to %s, storing the new value as tag %r",
                        *(key, stored, text, tag),
                    )
                tags.append(RunTag(tag, text))
        return Entities([], params, tags, self._texts)

    def _build_tag(self, key: str, value: str) -> RunTag:
        return RunTag(key, self._shorten("tag", key, value, MAX_TAG_LENGTH))

    def _shorten(self, kind: str, key: str, value: str, max_length: int) -> str:
        if len(value) <= max_length:
            return _replace_null(value)
        path = f"{kind}s/{'/'.join(map(safe_file_name, key.split('/')))}.txt"
        self._texts[path] = value
        digest = hashlib.sha256(value.encode()).hexdigest()[:8]
        self._warn_once(
            key,
            "mlflow: %s %r has %d characters, the limit is %d, storing the value as artifact %r",
            kind,
            key,
            len(value),
            max_length,
            path,
        )
        return f"{len(value)} characters, see the artifact {path} (sha256 {digest})"

    def _warn_once(self, log_key: str, message: str, *args: object) -> None:
        if log_key not in self._logged_keys:
            self._logged_keys.add(log_key)
            _logger.warning(message, *args)


def _replace_null(text: str) -> str:
    """Replace null characters, because PostgreSQL rejects the whole request if a text contains one."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}")
