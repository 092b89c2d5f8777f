"""Classification of the errors of MLflow's client and of artifact stores."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

import requests
from mlflow.exceptions import MlflowException

from pte_tracking.sinks import SinkClosedError

#: Client errors after which the same request can succeed later, or with other credentials.
_RETRYABLE_STATUSES = (401, 403, 407, 408, 423, 425, 429)
_DENIED_STATUSES = (401, 403, 407)
#: Errors of a file system that has no place for a file. A full disk, for example, is not among them.
_PERMANENT_ERRNOS = (
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
_NETWORK_LIBRARIES = ("requests", "urllib3", "botocore", "boto3", "google", "azure", "paramiko")
#: Exceptions that mlflow wraps if it has no connection to its server.
_UNREACHABLE = (requests.exceptions.ConnectionError, requests.exceptions.Timeout)
_STATUS_TEXT = re.compile(r"failed with error code (\d{3}) != ")


class RefusedUploadError(Exception):
    """Raised when an artifact store will never accept a file."""


class FailedUploadError(Exception):
    """Raised when a file cannot be stored now."""


@contextlib.contextmanager
def close_on_invalid_configuration(tracking_uri: str) -> Iterator[None]:
    """Stop the delivery if MLflow can never use the configuration of a sink.

    Args:
        tracking_uri: Tracking URI for the message, without credentials.

    Raises:
        SinkClosedError: If MLflow refuses a value, such as the scheme of the URI or the ID of an experiment, or if a
            driver is not installed.
    """
    try:
        yield
    except (ImportError, MlflowException) as error:
        # A proxy that restarts may refuse a request, too. Its response is not one of MLflow.
        is_refused = getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE" and not _STATUS_TEXT.search(
            str(error)
        )
        if isinstance(error, MlflowException) and not is_refused:
            raise
        raise SinkClosedError(
            f"MLflow cannot use the configuration of the sink for {tracking_uri}: {error} Correct the environment and "
            "run: pte-tracking sync. To name another destination, run: pte-tracking sync RUN_DIR --to mlflow --option "
            "NAME=VALUE"
        ) from error


@contextlib.contextmanager
def translate_auth_errors(tracking_uri: str) -> Iterator[None]:
    """Translate authentication errors of an MLflow server, and errors of the connection to it.

    Args:
        tracking_uri: Tracking URI for the message.

    Raises:
        PermissionError: If the server does not accept the credentials, or the user lacks a permission.
        ConnectionError: If the server is not reachable.
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
        causes = list(_causes(error))
        if any(isinstance(cause, _UNREACHABLE) for cause in causes):
            raise ConnectionError(f"{tracking_uri} is not reachable: {causes[-1]}") from error
        raise


@contextlib.contextmanager
def translate_upload_errors(location: str) -> Iterator[None]:
    """Translate the errors of an upload.

    Args:
        location: Location of the artifacts for the message.

    Raises:
        RefusedUploadError: If the same upload will fail again.
        FailedUploadError: If the upload can succeed later. The cause is a PermissionError if credentials are refused.
    """
    try:
        yield
    except RefusedUploadError:
        raise
    except Exception as error:
        status = _http_status(error)
        # A proxy in front of a store that restarts returns 404, too.
        if is_permanent(error) and status != 404:
            raise RefusedUploadError(f"{location} refused the file: {error}") from error
        if status in _DENIED_STATUSES:
            denial = PermissionError(f"{location} denied access (HTTP {status}): {error}")
            raise FailedUploadError(str(denial)) from denial
        raise FailedUploadError(f"{location}: {error}") from error


def is_raised_by_client(error: BaseException) -> bool:
    """Return whether MLflow's client raised an error by itself, rather than because of another error or a response.

    Args:
        error: Exception of the client.
    """
    return type(error) is MlflowException and len(list(_causes(error))) == 1


def find_denial(error: BaseException | None) -> BaseException | None:
    """Return the PermissionError that caused an error. Return the error itself if there is none."""
    return error.__cause__ if error and isinstance(error.__cause__, PermissionError) else error


def is_permanent(error: BaseException) -> bool:
    """Whether a request fails again if it is repeated.

    Args:
        error: Exception of a client library, with its causes.
    """
    if any(isinstance(cause, ImportError) for cause in _causes(error)):  # the client library of a store is missing
        return True
    is_local = not any(type(cause).__module__.split(".")[0] in _NETWORK_LIBRARIES for cause in _causes(error))
    if is_local and any(isinstance(cause, OSError) and cause.errno in _PERMANENT_ERRNOS for cause in _causes(error)):
        return True
    status = _http_status(error)
    return status is not None and 400 <= status < 500 and status not in _RETRYABLE_STATUSES


def _http_status(error: BaseException) -> int | None:
    """Return the HTTP status in an exception of MLflow, requests, botocore, azure-core or google-api-core."""
    for cause in _causes(error):
        if isinstance(cause, MlflowException):
            match = _STATUS_TEXT.search(str(cause))
            status: object = int(match[1]) if match else cause.get_http_status_code()  # type: ignore[no-untyped-call]
            if status == 500:  # also the default code of an exception without a response
                continue
        else:
            response = getattr(cause, "response", None)
            if isinstance(response, dict):
                status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            else:
                status = getattr(response, "status_code", None) or getattr(cause, "status_code", None)
                status = status or getattr(cause, "code", None)
        if isinstance(status, int):
            return int(status)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
