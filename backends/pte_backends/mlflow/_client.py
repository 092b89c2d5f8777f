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
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_UPLOAD_RATE = 5_000_000  # bytes per second that a server must at least be able to pass on
_ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"

# MLflow takes settings from the environment, which threads share that deliver several runs.
_making_store = threading.Lock()
_changing_timeout = threading.Lock()
_uploads: list[int] = []
_timeout_before: str | None = None


def prepare() -> None:
    """Import MLflow in a process that is there for delivery alone."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # The trainer's active model: MLflow would add it to each point.
    for name in ("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID"):
        os.environ.pop(name, None)
    # That a request is tried a second time is no news; what fails in the end is said by whoever delivers.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    _import_lean()


@contextlib.contextmanager
def artifacts_at(root: str | None) -> Iterator[None]:
    """Make the client of a store without a server here, whose artifacts go to ``root``.

    Args:
        root: A folder; None for a server, which knows itself. What the environment says comes before it.
    """
    if root is None:
        yield
        return
    with _making_store:
        said = os.environ.get(_ARTIFACT_ROOT)
        os.environ[_ARTIFACT_ROOT] = said or root
        try:
            yield
        finally:
            if not said:
                del os.environ[_ARTIFACT_ROOT]


@contextlib.contextmanager
def patience(size: int) -> Iterator[None]:
    """Wait for the answer to an upload as long as a server may need to pass ``size`` bytes on to its own storage."""
    global _timeout_before
    seconds = 60 + size // _UPLOAD_RATE
    with _changing_timeout:
        if not _uploads:
            _timeout_before = os.environ.get(_TIMEOUT)
        _uploads.append(seconds)
        _set_timeout()
    try:
        yield
    finally:
        with _changing_timeout:
            _uploads.remove(seconds)
            _set_timeout()


def _set_timeout() -> None:
    if _uploads:
        os.environ[_TIMEOUT] = str(max(int(_timeout_before or 0), *_uploads))
    elif _timeout_before is None:
        del os.environ[_TIMEOUT]
    else:
        os.environ[_TIMEOUT] = _timeout_before


def _import_lean() -> None:
    if "mlflow" in sys.modules:
        return
    # Without pandas it takes 50 MB and 0.3 s less. It works so: its skinny package comes without.
    lean = "pandas" not in sys.modules
    if lean:
        sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        import mlflow  # noqa: F401
    finally:
        if lean:
            del sys.modules["pandas"]
