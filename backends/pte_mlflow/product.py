"""MLflow itself, imported lean and quiet, and less patient than it is by default."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
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


def prepare(artifact_root: str | None) -> None:
    """Import MLflow in a process that is there for delivery alone.

    Args:
        artifact_root: Where artifacts go in a local store.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if artifact_root:
        os.environ.setdefault("_MLFLOW_SERVER_ARTIFACT_ROOT", artifact_root)
    # The trainer's active model: MLflow would add it to each point.
    for name in ("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID"):
        os.environ.pop(name, None)
    # That a request is tried a second time is no news; what fails in the end is said by whoever delivers.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    _import_lean()


@contextlib.contextmanager
def patience(size: int) -> Iterator[None]:
    """Wait for the answer to an upload as long as a server may need to pass ``size`` bytes on to its own storage."""
    before = os.environ.get(_TIMEOUT)
    os.environ[_TIMEOUT] = str(max(int(before or 0), 60 + size // _UPLOAD_RATE))
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TIMEOUT]
        else:
            os.environ[_TIMEOUT] = before


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
