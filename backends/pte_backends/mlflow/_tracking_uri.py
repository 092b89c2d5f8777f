"""The tracking URI: where MLflow itself would look, made absolute, with its secrets left in the environment."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

_CREDENTIAL_WORDS = ("user", "pass", "pwd", "token", "secret", "apikey", "api_key")


def resolve(configured_uri: str | None) -> str:
    """The tracking URI: the given one, else MLflow's own choice; absolute and without secrets.

    The order is MLflow's: what the script has told an imported ``mlflow``, the environment, a default in the
    current folder. MLflow is not imported for it: that takes a second.
    """
    imported = getattr(sys.modules.get("mlflow"), "get_tracking_uri", None)
    uri = configured_uri or (imported and imported()) or os.environ.get("MLFLOW_TRACKING_URI") or _default_uri()
    return _make_absolute(strip_credentials(uri))


def strip_credentials(uri: str) -> str:
    """The URI without user name, password, and parameters that hold such."""
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
    """Move the secrets of a URI to the environment, where the delivery process finds them.

    Returns:
        The URI without them.
    """
    stripped = strip_credentials(uri)
    if stripped != uri:
        os.environ[_variable_name(_make_absolute(stripped))] = uri
    return stripped


def restore_credentials(uri: str) -> str:
    """What :func:`find` gave, with the secrets that the environment holds for it.

    Those of an HTTP server go where MLflow's client looks for them, since it quotes the URI in its error messages.
    """
    for candidate in (os.environ.get(_variable_name(uri)), os.environ.get("MLFLOW_TRACKING_URI")):
        if candidate and candidate != uri and _make_absolute(strip_credentials(candidate)) == uri:
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


def _make_absolute(uri: str) -> str:
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
    # MLflow stays with a folder of files where there is one from earlier versions.
    file_store = Path("mlruns")
    if any(path.parent.name.isdigit() for path in file_store.glob("*/meta.yaml")):
        return str(file_store)
    return "sqlite:///mlflow.db"
