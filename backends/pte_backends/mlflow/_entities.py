"""Events as MLflow's metrics, params and tags."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from typing import NamedTuple

from mlflow.entities import Dataset as MLflowDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag

from pte_backends.mlflow._resolution import LIMITS
from pte_tracking.sinks import (
    AnyEvent,
    Dataset,
    Figure,
    Image,
    Metrics,
    Params,
    RejectedEventError,
    Tags,
    map_key,
    safe_file_name,
)

_logger = logging.getLogger("pte_tracking")
_LONGEST_PARAM = 6000
_LONGEST_TAG = 8000
_LONGEST_DIGEST = 36
_LONGEST_NAME = 500
_LONGEST_RUN_NAME = 250
_STEPS = range(-(2**63), 2**63)
_EPOCH = "epoch"
_CONTEXT = "mlflow.data.context"
_HAS_PICTURES = "mlflow.loggedImages"  # lets the run's page ask for them


class Entities(NamedTuple):
    """What an event is at MLflow."""

    metrics: list[Metric]
    params: list[Param]
    tags: list[RunTag]


def run_name(name: str) -> str:
    """The name of a run, as long as a database takes it."""
    return _storable(name)[:_LONGEST_RUN_NAME]


def dataset_input(event: Dataset) -> DatasetInput:
    """A dataset that the run uses. Its page links a source that is on the web."""
    is_web = event.source.startswith(("http://", "https://"))
    source = json.dumps({"url" if is_web else "uri": event.source})  # escapes what is not storable
    name, digest = _storable(event.name)[:_LONGEST_NAME], _storable(event.digest)[:_LONGEST_DIGEST]
    dataset = MLflowDataset(name, digest, "http" if is_web else "local", source)
    return DatasetInput(dataset, [InputTag(_CONTEXT, _storable(event.context)[:_LONGEST_NAME])])


class Translation:
    """Turns events into entities.

    Args:
        keep: Stores a text as a file of the run, given its path there and the text.

    Attributes:
        epoch_step: The last step that an epoch was stored for: it has one point, also where several logs report it.
    """

    def __init__(self, keep: Callable[[str, str], None]) -> None:
        self.epoch_step: int | None = None
        self._held: dict[str, str] = {}
        self._keep = keep
        self._told: set[str] = set()

    def start(self, held: dict[str, str], epoch_step: int | None) -> None:
        """Begin from what MLflow has.

        Args:
            held: The run's params.
            epoch_step: See the attribute.
        """
        self._held, self.epoch_step = dict(held), epoch_step

    def translate(self, event: AnyEvent) -> Entities:
        """The entities of one event.

        Raises:
            RejectedEventError: MLflow has no form for it.
        """
        if isinstance(event, Metrics):
            return Entities(self._metrics(event), [], [])
        if isinstance(event, Params):
            return self._params(event)
        if isinstance(event, Tags):
            return Entities([], [], [self._tag(key, value) for key, value in event.values.items()])
        if isinstance(event, Figure | Image):
            return Entities([], [], [RunTag(_HAS_PICTURES, "True")])
        return Entities([], [], [])

    def _metrics(self, event: Metrics) -> list[Metric]:
        if event.step not in _STEPS:
            raise RejectedEventError(event.seq, f"the step {event.step} has more than 64 bits")
        timestamp = int(event.time * 1000)
        try:
            metrics = [Metric(key, float(value), timestamp, event.step) for key, value in event.values.items()]
        except OverflowError as error:
            raise RejectedEventError(event.seq, f"a value has no 64-bit float: {error}") from None
        is_news = self.epoch_step is None or event.step > self.epoch_step
        if event.epoch is not None and is_news and _EPOCH not in event.values:
            metrics.append(Metric(_EPOCH, float(event.epoch), timestamp, event.step))
            self.epoch_step = event.step
        return metrics

    def _params(self, event: Params) -> Entities:
        params, tags = [], []
        for key, value in event.values.items():
            text = self._short("param", key, str(value), _LONGEST_PARAM)
            before = self._held.get(key)
            if before is None:
                self._held[key] = text
                params.append(Param(key, text))
            elif before != text:
                # MLflow's params are for ever, and one that differs would spoil the whole request.
                tag = map_key(f"pte.param.{key}", LIMITS)
                self._tell(key, "mlflow: the param %r was %s and now is %s: kept as the tag %s", key, before, text, tag)
                tags.append(RunTag(tag, text))
        return Entities([], params, tags)

    def _tag(self, key: str, value: str) -> RunTag:
        return RunTag(key, self._short("tag", key, value, _LONGEST_TAG))

    def _short(self, kind: str, key: str, value: str, most: int) -> str:
        if len(value) <= most:
            return _storable(value)
        path = f"{kind}s/{'/'.join(map(safe_file_name, key.split('/')))}.txt"
        self._keep(path, value)
        digest = hashlib.sha256(value.encode()).hexdigest()[:8]
        self._tell(
            key,
            "mlflow: the %s %r has %d characters, more than MLflow's %d: kept as %s",
            kind,
            key,
            len(value),
            most,
            path,
        )
        return f"{len(value)} characters, see the artifact {path} (sha256 {digest})"

    def _tell(self, once: str, message: str, *args: object) -> None:
        if once not in self._told:
            self._told.add(once)
            _logger.warning(message, *args)


def _storable(text: str) -> str:
    """A text without the one character that PostgreSQL refuses, and the whole request with it."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}")
