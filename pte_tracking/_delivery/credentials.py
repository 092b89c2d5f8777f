"""Credentials in the environment of the training process.

A delivery process starts with a copy of the environment. Tokens that a hosted service issues are valid for an hour or
so, and a script that trains longer sets new ones in ``os.environ``.
"""

from __future__ import annotations

import os
import re

_NAME = re.compile(
    r"(?:\A|_)(?:TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIALS?|KEY|APIKEY|USER|USERNAME|AUTH|PROFILE|CERT)(?:_|\Z)"
    r"|\APTE_MLFLOW_URI_|\AMLFLOW_TRACKING_URI\Z"
)


def read_credentials() -> dict[str, str]:
    """Return the variables that may contain credentials. Their values are compared, and never stored."""
    return {name: value for name, value in os.environ.items() if _NAME.search(name)}
