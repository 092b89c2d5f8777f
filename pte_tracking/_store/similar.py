"""Names that resemble a misspelled one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_NAMES = 5
# Two keys such as val/acc1 and val/acc5 are less similar than a key and its misspelling.
_MISSPELLED = 0.9


def describe_known(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the known keys that are most similar to a name.

    Args:
        name: Name that is not known.
        known: Keys that were reported.
    """
    keys = difflib.get_close_matches(name, list(known), n=_MAX_NAMES, cutoff=0)
    return f"Reported keys: {', '.join(map(repr, keys))}." if keys else "No keys were reported."


def is_misspelled(name: str, known: Iterable[str]) -> bool:
    """Return whether a name that is not known is almost equal to a known key.

    Args:
        name: Name that is not known.
        known: Keys that were reported.
    """
    return bool(difflib.get_close_matches(name, list(known), n=1, cutoff=_MISSPELLED))
