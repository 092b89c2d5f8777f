"""A server that refuses user name and password says so in words for people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mlflow.exceptions import MlflowException


@contextlib.contextmanager
def translate_auth_errors(tracking_uri: str) -> Iterator[None]:
    """Do something at a server.

    Raises:
        PermissionError: It asks for another user name or password, or for more rights.
    """
    try:
        yield
    except MlflowException as error:
        if error.error_code == "UNAUTHENTICATED":
            raise PermissionError(
                f"{tracking_uri} does not accept the user name and password, or token; set MLFLOW_TRACKING_USERNAME "
                "and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, and run pte-tracking sync"
            ) from error
        if error.error_code == "PERMISSION_DENIED":
            raise PermissionError(
                f"{tracking_uri} does not let this user write to the experiment or run; ask for the right to edit it"
            ) from error
        raise
