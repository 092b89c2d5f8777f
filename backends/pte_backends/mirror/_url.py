"""URL of a mirror: its protocol, the package that it requires, and credentials that must not be in it."""

from __future__ import annotations

import importlib.util
import os
from urllib.parse import urlsplit

#: Package of each supported protocol, and the command that installs it.
_PACKAGES = {
    "s3": ("s3fs", "pip install 'pte-tracking[s3]'"),
    "gs": ("gcsfs", "pip install gcsfs"),
    "gcs": ("gcsfs", "pip install gcsfs"),
    "az": ("adlfs", "pip install adlfs"),
    "abfs": ("adlfs", "pip install adlfs"),
    "sftp": ("paramiko", "pip install paramiko"),
    "ssh": ("paramiko", "pip install paramiko"),
    "file": ("fsspec", "pip install fsspec"),
}
PROTOCOLS = tuple(_PACKAGES)
#: Protocols of stores without directories, in which an object appears when it is complete.
OBJECT_STORES = frozenset({"s3", "gs", "gcs", "az", "abfs"})


def protocol_of(url: str) -> str:
    """Return the protocol of a URL. A path without one is a local directory."""
    return url.partition("://")[0] if "://" in url else "file"


def check_url(url: object) -> None:
    """Check the URL of a mirror.

    Args:
        url: URL of a directory or prefix, or path of a local directory.

    Raises:
        TypeError: If it is not a string.
        ValueError: If its protocol is not supported, a package is missing, or it contains credentials.
    """
    if not isinstance(url, str):
        raise TypeError(f"mirror: expected a URL such as 's3://bucket/prefix' or a path, got {url!r}")
    protocol = protocol_of(url)
    if protocol not in _PACKAGES:
        raise ValueError(
            f"mirror: the protocol {protocol!r} is not supported. Supported protocols: {', '.join(PROTOCOLS)}."
        )
    _check_credentials(url, protocol)
    package, command = _PACKAGES[protocol]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"mirror: {protocol}:// requires the package {package}, which is not installed. Run: {command}"
        )


def _check_credentials(url: str, protocol: str) -> None:
    if "://" not in url or protocol == "file":
        return
    parts = urlsplit(url)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    is_container = protocol in ("az", "abfs")  # abfs://container@account.dfs.core.windows.net
    if password or parts.query or (user and protocol in OBJECT_STORES and not is_container):
        raise ValueError(
            f"mirror: the {protocol}:// URL contains credentials or options. They would be stored in run.json. Pass "
            "the URL without them, and set them in the environment, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY."
        )


def absolute_url(url: str) -> str:
    """Return the URL without a trailing slash. A path becomes absolute."""
    if protocol_of(url) != "file":
        return url.rstrip("/")
    return os.path.abspath(url.removeprefix("file://"))
