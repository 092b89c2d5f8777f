"""Mapping of keys that a backend does not accept.

All backends share one rule. Each character that is not allowed becomes ``_``, and ``-`` with the first 8 hexadecimal
digits of the key's SHA-256 is appended. In MLflow, ``acc@5`` becomes ``acc_5-c4e871ab``. An allowed key stays
unchanged, unless it ends like a mapped key. Such a key is mapped too, so that mapped keys never collide with others.
"""

from __future__ import annotations

import hashlib
import posixpath
import re

from pte_tracking.sinks._contract import Limits

_MAPPED_SUFFIX = re.compile(r"-[0-9a-f]{8}\Z")
_SUFFIX_LENGTH = 9


def map_key(key: str, limits: Limits) -> str:
    r"""Return the key under which a backend stores ``key``.

    The mapping is deterministic, and distinct keys have distinct results. The core applies it before a sink receives
    events. A backend or a test calls it to find the data points of a key in the backend.

    Args:
        key: Key as the user logged it.
        limits: Limits of the backend.

    Returns:
        The unchanged key if the limits allow it, otherwise a valid key with a digest as its suffix.

    Example:
        >>> import re
        >>> from pte_tracking.sinks import Limits, map_key
        >>> limits = Limits(key_characters=re.compile(r"[\w/-]"), key_length=250)
        >>> map_key("train/loss", limits)
        'train/loss'
        >>> map_key("acc@5", limits)
        'acc_5-c4e871ab'
    """
    if limits == Limits() or (_is_allowed(key, limits) and not _MAPPED_SUFFIX.search(key)):
        return key
    mapped = key
    if limits.key_characters:
        mapped = "".join(char if limits.key_characters.fullmatch(char) else "_" for char in mapped)
    if limits.key_is_path:
        mapped = "/".join(part if part.strip(".") else "_" for part in mapped.split("/"))
        # MLflow rejects a path that starts with two dots, because it may lead out of the artifact directory.
        mapped = re.sub(r"^\.\.+", "_", mapped)
    if limits.key_length:
        mapped = mapped[: limits.key_length - _SUFFIX_LENGTH]
    return f"{mapped}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _is_allowed(key: str, limits: Limits) -> bool:
    if limits.key_length and len(key) > limits.key_length:
        return False
    if limits.key_is_path and (posixpath.normpath(key) != key or key.startswith(("/", "..")) or key == "."):
        return False
    return not limits.key_characters or all(limits.key_characters.fullmatch(char) for char in key)
