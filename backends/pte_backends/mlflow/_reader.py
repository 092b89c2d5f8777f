"""Reader of MLflow runs that any program logged."""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pte_backends.mlflow import _errors, _store_lock, _tracking_uri
from pte_backends.mlflow._import import without_optional_packages
from pte_tracking.sinks import AnyEvent, Metrics, Params, RunEnded, RunStarted, Scalar, Status, Tags

_logger = logging.getLogger("pte_tracking")

_MAX_FLOAT = 1.7976931348623157e308  # MLflow stores infinities as this number.
#: Tags of MLflow itself, and tags by which this package finds its runs.
_SYSTEM_TAGS = ("mlflow.", "pte.")
_STATUS: dict[str, Status] = {"FINISHED": "FINISHED", "FAILED": "FAILED", "KILLED": "KILLED"}
_MAX_NAMED = 5


def read_run(source: str, tracking_uri: str) -> Iterator[AnyEvent]:
    """Read an MLflow run; see :meth:`MLflowSink.read_run`."""
    run_id = source.partition(":")[2].strip("/")
    _check_exists(tracking_uri)
    try:
        with _errors.translate_auth_errors(tracking_uri):
            uri = _tracking_uri.restore_credentials(tracking_uri)
            with _store_lock.open_store(uri) as store_uri, without_optional_packages():
                client = MlflowClient(store_uri)
            yield from _read(client, run_id, source)
    except (MlflowException, ConnectionError) as error:
        if getattr(error, "error_code", None) in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise LookupError(
                f"{source}: {tracking_uri} has no such run. Check the ID, and the server in MLFLOW_TRACKING_URI."
            ) from error
        raise ConnectionError(
            f"{source}: the run cannot be read: {error}. Check that the server is running and that "
            "MLFLOW_TRACKING_URI, or --option tracking_uri=URI, is its address."
        ) from error


def _check_exists(tracking_uri: str) -> None:
    """Check that a local store exists, because MLflow's client would create it."""
    is_file_store = tracking_uri.startswith("file:")
    path = Path(unquote(urlsplit(tracking_uri).path)) if is_file_store else _store_lock.store_path(tracking_uri)
    if path is not None and not path.exists():
        raise LookupError(
            f"{path}: the MLflow store does not exist. Set MLFLOW_TRACKING_URI, or pass --option tracking_uri=URI."
        )


def _read(client: MlflowClient, run_id: str, source: str) -> Iterator[AnyEvent]:
    run = client.get_run(run_id)
    info, data = run.info, run.data
    start = info.start_time / 1000
    yield RunStarted(0, start, run_id, info.run_name or "", 0, "")
    if data.params:
        yield Params(0, start, {key: _parse_param(value) for key, value in data.params.items()})
    tags = {key: value for key, value in data.tags.items() if not key.startswith(_SYSTEM_TAGS)}
    if tags:
        yield Tags(0, start, tags)
    yield from _build_metrics((key, client.get_metric_history(run_id, key)) for key in data.metrics)
    _report_artifacts(client, run_id, source)
    status = _STATUS.get(info.status)
    if status is None:
        _logger.warning("%s: is %s in MLflow. Its data points so far were imported.", source, info.status)
    end = (info.end_time or info.start_time) / 1000
    yield RunEnded(0, end, status or "FINISHED")


def _build_metrics(histories: Iterable[tuple[str, Iterable[Any]]]) -> Iterator[Metrics]:
    """Order the data points of all metrics by time, then by step."""
    points = [(point.timestamp, point.step, key, point.value) for key, history in histories for point in history]
    points.sort(key=operator.itemgetter(0, 1))
    for timestamp, step, key, value in points:
        if abs(value) >= _MAX_FLOAT:
            value = math.copysign(math.inf, value)
        time = timestamp / 1000
        if int(time * 1000) != timestamp:  # The sink of this package truncates to milliseconds.
            time = math.nextafter(time, math.inf)
        yield Metrics(0, time, step, {key: value})


def _parse_param(text: str) -> Scalar:
    """Return a parameter as a number or constant if its text is that of one, because MLflow stores texts only."""
    constants: dict[str, Scalar] = {"True": True, "False": False, "None": None}
    if text in constants:
        return constants[text]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text and math.isfinite(number):
            return number
    return text


def _report_artifacts(client: MlflowClient, run_id: str, source: str) -> None:
    try:
        names = [artifact.path for artifact in client.list_artifacts(run_id)]
    except Exception as error:  # of any client library of an artifact store
        _logger.warning("%s: its artifacts were not imported, and cannot be listed: %s", source, error)
        return
    if names:
        more = f", and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        _logger.warning("%s: its artifacts were not imported: %s%s", source, ", ".join(names[:_MAX_NAMED]), more)
