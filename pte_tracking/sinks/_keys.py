"""One rule for the keys that a backend refuses, the same for every backend.

Each refused character becomes ``_``, and ``-`` with 8 hexadecimal digits of the key's SHA-256 is added: ``acc@5`` is
``acc_5-0c3c9d06`` in MLflow. A key that is allowed stays as it is, unless it ends like a mapped one: then it is mapped
too, so that no allowed key ever meets a mapped one.
"""

from __future__ import annotations

import hashlib
import posixpath
import re

from pte_tracking.sinks._contract import Limits

_MAPPED_SUFFIX = re.compile(r"-[0-9a-f]{8}\Z")
_SUFFIX_LENGTH = 9


def map_key(key: str, limits: Limits) -> str:
    """The key that stands for ``key`` in a backend of such limits."""
    if limits == Limits() or (_is_allowed(key, limits) and not _MAPPED_SUFFIX.search(key)):
        return key
    mapped = key
    if limits.key_characters:
        mapped = "".join(char if limits.key_characters.fullmatch(char) else "_" for char in mapped)
    if limits.key_is_path:
        mapped = "/".join(part if part.strip(".") else "_" for part in mapped.split("/"))
        mapped = re.sub(r"^\.\.+", "_", mapped)  # a name that begins so is taken for a way out of the folder
    if limits.key_length:
        mapped = mapped[: limits.key_length - _SUFFIX_LENGTH]
    return f"{mapped}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _is_allowed(key: str, limits: Limits) -> bool:
    if limits.key_length and len(key) > limits.key_length:
        return False
    if limits.key_is_path and (posixpath.normpath(key) != key or key.startswith(("/", "..")) or key == "."):
        return False
    return not limits.key_characters or all(limits.key_characters.fullmatch(char) for char in key)
