"""Credentials in the environment of the training process, and the settings of the connections that use them.

A delivery process starts with a copy of the environment. Tokens that a hosted service issues are valid for an hour or
so, and a script that trains longer sets new ones in ``os.environ``.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping

_SECRET = r"(?:\A|_)(?:TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIALS?|KEY|APIKEY|USER|USERNAME|AUTH|PROFILE|CERT)(?:_|\Z)"
#: Set by the MLflow backend for each server that the training process names.
_SERVER_PREFIX = "PTE_MLFLOW_URI_"
#: Names the servers that the other variables are meant for.
_DESTINATION = r"\A(?:MLFLOW|AWS|AZURE|GOOGLE|DATABRICKS|WANDB)_(?:\w+_)?(?:URI|URL|HOST|ENDPOINT)(?:_|\Z)"
_CONNECTION = r"\A(?:MLFLOW_TRACKING|AWS|AZURE|GOOGLE|APPRISE)_|_PROXY\Z|\ASSL_CERT_|_CA_BUNDLE\Z"
_NAME = re.compile(f"{_SECRET}|\\A{_SERVER_PREFIX}|{_DESTINATION}|{_CONNECTION}", re.IGNORECASE)
_DESTINATION_NAME = re.compile(_DESTINATION)


def read_credentials() -> dict[str, str]:
    """Return the variables that a connection depends on. Their values are compared, and never stored."""
    return {name: value for name, value in os.environ.items() if _is_setting(name)}


@functools.lru_cache(maxsize=4096)  # the training process calls this function every two seconds
def _is_setting(name: str) -> bool:
    return _NAME.search(name) is not None


def are_renewed(earlier: Mapping[str, str]) -> bool:
    """Whether the environment contains other credentials than before, for the same servers.

    Credentials that were set together with another server are meant for later runs.

    Args:
        earlier: Result of :func:`read_credentials`.
    """
    current = read_credentials()
    if current == earlier or _destinations(current) != _destinations(earlier):
        return False
    # A variable for one more server, which another run uses, changes nothing for this one.
    names = [name for name in current if not name.startswith(_SERVER_PREFIX) or name in earlier]
    return {name: current[name] for name in names} != earlier


def _destinations(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if _DESTINATION_NAME.search(name)}
