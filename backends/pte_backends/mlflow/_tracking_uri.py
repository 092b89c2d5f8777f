"""The tracking URI: where MLflow itself would look, made absolute, with its secrets left in the environment."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

_SECRET_WORDS = ("user", "pass", "pwd", "token", "secret", "apikey", "api_key")


def find(given: str | None) -> str:
    """The tracking URI: the given one, else MLflow's own choice; absolute and without secrets.

    The order is MLflow's: what the script has told an imported ``mlflow``, the environment, a default in the
    current folder. MLflow is not imported for it: that takes a second.
    """
    imported = getattr(sys.modules.get("mlflow"), "get_tracking_uri", None)
    uri = given or (imported and imported()) or os.environ.get("MLFLOW_TRACKING_URI") or _default()
    return _absolute(without_secrets(uri))


def without_secrets(uri: str) -> str:
    """The URI without user name, password, and parameters that hold such."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    query = parts.query
    if any(_is_secret(name) for name, _ in parse_qsl(query, keep_blank_values=True)):
        query = urlencode(
            [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if not _is_secret(name)]
        )
    if (host, query) == (parts.netloc, parts.query):
        return uri
    return parts._replace(netloc=host, query=query).geturl()


def hide_secrets(uri: str) -> str:
    """Move the secrets of a URI to the environment, where the delivery process finds them.

    Returns:
        The URI without them.
    """
    bare = without_secrets(uri)
    if bare != uri:
        os.environ[_variable(_absolute(bare))] = uri
    return bare


def with_secrets(uri: str) -> str:
    """What :func:`find` gave, with the secrets that the environment holds for it.

    Those of an HTTP server go where MLflow's client looks for them, since it quotes the URI in its error messages.
    """
    for known in (os.environ.get(_variable(uri)), os.environ.get("MLFLOW_TRACKING_URI")):
        if known and known != uri and _absolute(without_secrets(known)) == uri:
            break
    else:
        return uri
    if not known.startswith(("http:", "https:")):
        return known
    parts = urlsplit(known)
    if parts.password is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username or "")
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password)
    return uri


def _variable(uri: str) -> str:
    return f"PTE_MLFLOW_URI_{hashlib.sha256(uri.encode()).hexdigest()[:8].upper()}"


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)


def _absolute(uri: str) -> str:
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


def _default() -> str:
    # MLflow stays with a folder of files where there is one from earlier versions.
    old = Path("mlruns")
    if any(path.parent.name.isdigit() for path in old.glob("*/meta.yaml")):
        return str(old)
    return "sqlite:///mlflow.db"
