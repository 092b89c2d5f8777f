"""Mapping of keys that a backend does not accept.

All backends share one rule. Each character that is not allowed becomes ``_``, and a long key is truncated. In MLflow,
``D(x)`` becomes ``D_x_``. The first key with a name keeps it. A later key of the same name gets ``-`` and the first 8
hexadecimal digits of its SHA-256: ``D[x]`` becomes ``D_x_-64a35fb3``.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Container, Iterator

from pte_tracking.sinks._limits import Limits


def map_key(key: str, limits: Limits, taken: Container[str] = ()) -> str:
    r"""Return the name under which a backend stores ``key``.

    The core applies the mapping before a sink receives events, in the order of the journal, and remembers the names of
    each run. A backend or a test calls it to find the data points of a key in the backend.

    Args:
        key: Key as the user logged it.
        limits: Limits of the backend.
        taken: Names of earlier keys. Defaults to none.

    Returns:
        The unchanged key if the limits allow it and no earlier key has this name, otherwise a similar valid name.

    Example:
        >>> import re
        >>> from pte_tracking.sinks import Limits, map_key
        >>> limits = Limits(key_characters=re.compile(r"[\w/-]"), key_length=250)
        >>> map_key("train/loss", limits)
        'train/loss'
        >>> map_key("acc@5", limits)
        'acc_5'
        >>> map_key("acc:5", limits, taken={"acc_5"})
        'acc_5-3c320876'
    """
    return next(name for name in _candidates(key, limits) if name not in taken)


def _candidates(key: str, limits: Limits) -> Iterator[str]:
    name = _replace(key, limits)
    yield name
    yield _append_digest(name, key, 8, limits)
    if limits.key_is_path:  # Without a slash, a name is never below another one.
        name = name.replace("/", "_")
        yield name
    for length in (8, 16, 32, 64):
        yield _append_digest(name, key, length, limits)


def _append_digest(name: str, key: str, length: int, limits: Limits) -> str:
    digest = hashlib.sha256(key.encode()).hexdigest()[:length]
    if limits.key_length is None:
        return f"{name}-{digest}"
    return f"{name[: max(limits.key_length - length - 1, 0)]}-{digest}"[: limits.key_length]


def _replace(key: str, limits: Limits) -> str:
    name = key[: limits.key_length]
    if limits.key_characters:
        name = "".join(char if limits.key_characters.fullmatch(char) else "_" for char in name)
    if limits.key_is_path and (posixpath.normpath(name) != name or name.startswith(("/", "..")) or name == "."):
        name = "/".join(part if part.strip(".") else "_" for part in name.split("/"))
        # MLflow rejects a path that starts with two dots, because it may lead out of the artifact directory.
        name = re.sub(r"^\.\.+", "_", name)[: limits.key_length]
        # The truncation may have left an incomplete part.
        name = re.sub(r"[./]+\Z", lambda match: "_" * len(match[0]), name)
    return name
