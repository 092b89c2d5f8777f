"""Names that resemble a misspelled one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_NAMES = 5
_MAX_SUGGESTIONS = 3
_SIMILAR = 0.7
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


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a question with the names that resemble an unknown one, to be appended to a message.

    Args:
        name: Name that is not known.
        known: Names that the user may have meant.

    Returns:
        Such as ``" Did you mean 'val/loss'?"``. Empty if no name is similar.
    """
    names = list(dict.fromkeys(known))
    by_lower = {other.lower(): other for other in reversed(names)}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=_MAX_SUGGESTIONS, cutoff=_SIMILAR)
    similar = [by_lower[match] for match in matches]
    similar += [other for other in names if len(name) > 1 and name.lower() in other.lower()]
    chosen = list(dict.fromkeys(similar))[:_MAX_SUGGESTIONS]
    return f" Did you mean {' or '.join(map(repr, chosen))}?" if chosen else ""


def is_misspelled(name: str, known: Iterable[str]) -> bool:
    """Return whether a name that is not known is almost equal to a known key.

    Args:
        name: Name that is not known.
        known: Keys that were reported.
    """
    return bool(difflib.get_close_matches(name, list(known), n=1, cutoff=_MISSPELLED))
