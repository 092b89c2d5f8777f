"""Configuration and import of the MLflow client.

The import takes less time and memory than the default one, requests time out earlier, and output is suppressed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator

from pte_backends.mlflow._import import import_mlflow

#: With MLflow's defaults, a hanging server blocks a thread for 16 minutes, although the delivery process retries.
#: The timeout is not shorter, because an overloaded server also processes requests whose clients have given up. Early
#: retries would add to its load.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}
_TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_MIN_UPLOAD_BYTES_PER_SECOND = 5_000_000
_ARTIFACT_ROOT_VARIABLE = "_MLFLOW_SERVER_ARTIFACT_ROOT"

# MLflow reads these settings from the environment, which all delivery threads share.
_artifact_root_lock = threading.Lock()
_timeout_lock = threading.Lock()
_upload_timeouts: list[int] = []
_original_timeout: str | None = None


def configure() -> None:
    """Configure and import MLflow in a process that only delivers runs or downloads a checkpoint.

    Environment variables that are set already take precedence.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # MLflow would attach the active model of the training script to every data point.
    for name in ("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID"):
        os.environ.pop(name, None)
    # A retried request is not worth a warning. The delivery process logs the final failure.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    import_mlflow()


def configure_for_reading() -> None:
    """Configure and import MLflow as :func:`configure` does, with time for a server to send a long history."""
    os.environ.setdefault(_TIMEOUT_VARIABLE, "120")
    configure()


@contextlib.contextmanager
def artifact_root(root: str | None) -> Iterator[None]:
    """Set the artifact root of a local store while its client is created.

    Args:
        root: Directory for the artifacts. None for a server, which has its own root. A root that is set in the
            environment takes precedence.
    """
    if root is None:
        yield
        return
    with _artifact_root_lock:
        configured_root = os.environ.get(_ARTIFACT_ROOT_VARIABLE)
        os.environ[_ARTIFACT_ROOT_VARIABLE] = configured_root or root
        try:
            yield
        finally:
            if not configured_root:
                del os.environ[_ARTIFACT_ROOT_VARIABLE]


@contextlib.contextmanager
def upload_timeout(size_bytes: int) -> Iterator[None]:
    """Extend the request timeout during an upload.

    A server answers only after it has stored the file, so the timeout grows with the size of the file. Contexts of
    several threads may overlap. The longest timeout applies.

    Args:
        size_bytes: Size of the largest file.
    """
    global _original_timeout
    timeout_seconds = 60 + size_bytes // _MIN_UPLOAD_BYTES_PER_SECOND
    with _timeout_lock:
        if not _upload_timeouts:
            _original_timeout = os.environ.get(_TIMEOUT_VARIABLE)
        _upload_timeouts.append(timeout_seconds)
        _apply_timeout()
    try:
        yield
    finally:
        with _timeout_lock:
            _upload_timeouts.remove(timeout_seconds)
            _apply_timeout()


def _apply_timeout() -> None:
    if _upload_timeouts:
        os.environ[_TIMEOUT_VARIABLE] = str(max(int(_original_timeout or 0), *_upload_timeouts))
    elif _original_timeout is None:
        del os.environ[_TIMEOUT_VARIABLE]
    else:
        os.environ[_TIMEOUT_VARIABLE] = _original_timeout
