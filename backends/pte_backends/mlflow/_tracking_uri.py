"""Tracking URI: resolution, absolute form, and credentials."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

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


def _variable_name(uri: str) -> str:
    return f"PTE_MLFLOW_URI_{hashlib.sha256(uri.encode()).hexdigest()[:8].upper()}"


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
