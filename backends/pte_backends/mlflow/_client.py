"""MLflow itself, imported lean and quiet, and less patient than it is by default."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator

#: MLflow's defaults hold a thread for 16 minutes where a server hangs; whoever delivers tries again for ever anyway.
#: But a server that is overrun goes on with what nobody waits for any more: who gives up soon, and asks again, makes
#: more work for it.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}
_TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_MIN_UPLOAD_BYTES_PER_SECOND = 5_000_000  # bytes per second that a server must at least be able to pass on
_ARTIFACT_ROOT_VARIABLE = "_MLFLOW_SERVER_ARTIFACT_ROOT"

# MLflow takes settings from the environment, which threads share that deliver several runs.
_artifact_root_lock = threading.Lock()
_timeout_lock = threading.Lock()
_upload_timeouts: list[int] = []
_original_timeout: str | None = None


def configure() -> None:
    """Import MLflow in a process that is there for delivery alone."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # The trainer's active model: MLflow would add it to each point.
    for name in ("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID"):
        os.environ.pop(name, None)
    # That a request is tried a second time is no news; what fails in the end is said by whoever delivers.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    _import_without_pandas()


@contextlib.contextmanager
def artifact_root(root: str | None) -> Iterator[None]:
    """Make the client of a store without a server here, whose artifacts go to ``root``.

    Args:
        root: A folder; None for a server, which knows itself. What the environment says comes before it.
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
    """Wait for the answer to an upload as long as a server may need to pass ``size`` bytes on to its own storage."""
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


def _import_without_pandas() -> None:
    if "mlflow" in sys.modules:
        return
    # Without pandas it takes 50 MB and 0.3 s less. It works so: its skinny package comes without.
    is_pandas_blocked = "pandas" not in sys.modules
    if is_pandas_blocked:
        sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        import mlflow  # noqa: F401
    finally:
        if is_pandas_blocked:
            del sys.modules["pandas"]
