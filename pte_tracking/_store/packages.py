"""Installed packages of this Python environment."""

from __future__ import annotations

import json
import re
from importlib.metadata import Distribution, distributions

from pte_tracking._store.git import remove_credentials

_NAME = re.compile(r"^Name:\s*(\S+)", re.MULTILINE | re.IGNORECASE)
_VERSION = re.compile(r"^Version:\s*(\S+)", re.MULTILINE | re.IGNORECASE)


def list_packages() -> str:
    """Return the installed packages as the lines of a requirements file, sorted by name.

    A package from a version control system has its URL and commit, and a local one its directory in a comment.
    """
    packages: dict[str, str] = {}
    for distribution in distributions():
        # The properties of a distribution parse the whole description of the package, which takes 20 times as long.
        header = (_read(distribution, "METADATA") or _read(distribution, "PKG-INFO")).partition("\n\n")[0]
        name, version = _NAME.search(header), _VERSION.search(header)
        if name and version:  # The first one in the search path is imported.
            packages.setdefault(name[1].lower(), _requirement(distribution, name[1], version[1]))
    return "".join(f"{packages[name]}\n" for name in sorted(packages))


def _requirement(distribution: Distribution, name: str, version: str) -> str:
    origin = _read_origin(distribution)  # See https://packaging.python.org/specifications/direct-url/.
    url = origin.get("url")
    if not isinstance(url, str):
        return f"{name}=={version}"
    url = remove_credentials(url)
    control = origin.get("vcs_info")
    if isinstance(control, dict):
        return f"{name} @ {control.get('vcs')}+{url}@{control.get('commit_id')}"
    folder = origin.get("dir_info")
    is_editable = isinstance(folder, dict) and folder.get("editable")
    return f"{name}=={version}  # {url}{' (editable)' if is_editable else ''}"


def _read_origin(distribution: Distribution) -> dict[str, object]:
    try:
        origin = json.loads(_read(distribution, "direct_url.json") or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


def _read(distribution: Distribution, name: str) -> str:
    try:
        return distribution.read_text(name) or ""
    except (OSError, UnicodeDecodeError):
        return ""
