"""Translation of authentication errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mlflow.exceptions import MlflowException


@contextlib.contextmanager
def translate_auth_errors(tracking_uri: str) -> Iterator[None]:
    """Translate authentication errors of an MLflow server.

    Args:
        tracking_uri: Tracking URI for the message.

    Raises:
        PermissionError: If the server does not accept the credentials, or the user lacks a permission.
    """
    try:
        yield
    except MlflowException as error:
        if error.error_code == "UNAUTHENTICATED":
            raise PermissionError(
                f"{tracking_uri} rejected the credentials. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
                "or MLFLOW_TRACKING_TOKEN, and run: pte-tracking sync"
            ) from error
        if error.error_code == "PERMISSION_DENIED":
            raise PermissionError(
                f"{tracking_uri} denied write access to the experiment or run. Ask its administrator for permission."
            ) from error
        raise
