"""Tracking URI: resolution, absolute form, and credentials."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

#: Variables whose values MLflow's client sends to any server.
_CREDENTIAL_VARIABLES = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
)
#: Prefix of the variables with the URIs that this process, or the training process that started it, names.
_PREFIX = "PTE_MLFLOW_URI_"
_CREDENTIAL_WORDS = ("user", "pass", "pwd", "token", "secret", "apikey", "api_key")


def resolve(configured_uri: str | None) -> str:
    """Resolve the tracking URI.

    The order is MLflow's own: the URI that the script set on an imported ``mlflow``, the environment, and a default in
    the current directory. MLflow is not imported for this, because the import takes a second.

    Args:
        configured_uri: URI that the user configured; None if there is none.

    Returns:
        The URI, absolute and without credentials.
    """
    imported = getattr(sys.modules.get("mlflow"), "get_tracking_uri", None)
    uri = configured_uri or (imported and imported()) or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri()
    return make_absolute(strip_credentials(uri))


def strip_credentials(uri: str) -> str:
    """Remove the user name, the password, and query parameters with credentials.

    Args:
        uri: Tracking URI.

    Returns:
        The URI without credentials.
    """
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    query = parts.query
    if any(_is_credential(name) for name, _ in parse_qsl(query, keep_blank_values=True)):
        query = urlencode(
            [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if not _is_credential(name)]
        )
    if (host, query) == (parts.netloc, parts.query):
        return uri
    return parts._replace(netloc=host, query=query).geturl()


def is_local(uri: str) -> bool:
    """Return whether a store consists of files of this machine.

    Args:
        uri: Resolved URI.
    """
    return uri.startswith(("file:", "sqlite:"))


def move_credentials_to_environment(uri: str) -> str:
    """Move the credentials of a URI to an environment variable that the delivery process inherits.

    Args:
        uri: Tracking URI.

    Returns:
        The URI without credentials.
    """
    stripped = strip_credentials(uri)
    if stripped != uri:
        os.environ[_variable_name(make_absolute(stripped))] = uri
    return stripped


def restore_credentials(uri: str) -> str:
    """Return the URI of a store with the credentials from the environment.

    The credentials of an HTTP server are set in the variables that MLflow's client reads, because the client quotes the
    URI in its error messages.

    Args:
        uri: Resolved URI, without credentials.

    Returns:
        The URI to pass to MLflow's client.
    """
    for candidate in (os.environ.get(_variable_name(uri)), os.environ.get("MLFLOW_TRACKING_URI")):
        if candidate and candidate != uri and make_absolute(strip_credentials(candidate)) == uri:
            break
    else:
        return uri
    if not candidate.startswith(("http:", "https:")):
        return candidate
    parts = urlsplit(candidate)
    if parts.password is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
    return uri


def name_server(uri: str) -> None:
    """Record in the environment, which the delivery process inherits, that this process names a server.

    Args:
        uri: Resolved URI.
    """
    if uri.startswith(("http:", "https:")):
        os.environ.setdefault(_variable_name(uri), uri)


def check_credentials(uri: str) -> None:
    """Check that the credentials of the environment are meant for a server.

    The files of a run may come from somebody else, so a server that only they name receives no credentials.

    Args:
        uri: Resolved URI.

    Raises:
        PermissionError: If there are credentials, and neither the environment nor an argument names the server.
    """
    if not uri.startswith(("http:", "https:")) or not _has_credentials():
        return
    named = [value for name, value in os.environ.items() if name.startswith(_PREFIX) or name == "MLFLOW_TRACKING_URI"]
    if _origin(uri) not in map(_origin, named):
        raise PermissionError(
            f"The credentials of this environment were not sent to {uri}, because only the files of the run name this "
            f"server. To send them, set MLFLOW_TRACKING_URI={uri}. Otherwise unset {', '.join(_CREDENTIAL_VARIABLES)}."
        )


def _has_credentials() -> bool:
    file = Path("~/.mlflow/credentials").expanduser()
    return any(map(os.environ.get, _CREDENTIAL_VARIABLES)) or file.exists()


def _origin(uri: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(uri)
    try:
        port = parts.port
    except ValueError:
        port = None
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}.get(parts.scheme)


def _variable_name(uri: str) -> str:
    return f"{_PREFIX}{hashlib.sha256(uri.encode()).hexdigest()[:8].upper()}"


def _is_credential(name: str) -> bool:
    return any(word in name.lower() for word in _CREDENTIAL_WORDS)


def make_absolute(uri: str) -> str:
    """Return a URI that does not depend on the current directory.

    Args:
        uri: URI, or path of a directory.

    Returns:
        The URI. A path becomes a ``file`` URI.
    """
    scheme, _, rest = uri.partition(":")
    if scheme.startswith("sqlite"):
        path = rest.removeprefix("///")
        if path in (rest, "", ":memory:") or path.startswith("/"):
            return uri
        return f"{scheme}:///{quote(os.getcwd())}/{path.removeprefix('./')}"
    if not rest:
        return uri if uri in ("databricks", "databricks-uc", "uc") else Path(os.path.abspath(uri)).as_uri()
    if scheme == "file" and not rest.startswith("/"):
        return Path(os.path.abspath(unquote(rest))).as_uri()
    return uri


def _default_uri() -> str:
    # MLflow uses a file store of an earlier version if there is one.
    file_store = Path("mlruns")
    if any(path.parent.name.isdigit() for path in file_store.glob("*/meta.yaml")):
        return str(file_store)
    return "sqlite:///mlflow.db"
