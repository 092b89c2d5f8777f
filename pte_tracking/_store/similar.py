"""Names that resemble a misspelled one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_SUGGESTIONS = 3
_MAX_LISTED = 10
_SIMILAR = 0.65
# Two keys such as val/acc1 and val/acc5 are less similar than a key and its misspelling.
_MISSPELLED = 0.9
_SEPARATORS = str.maketrans("_.- ", "////")


def describe_known(name: str, known: Iterable[str]) -> str:
    """Return sentences with the known keys, at most ten, the most similar to a name first, and with those it resembles.

    Args:
        name: Name that is not known.
        known: Keys that were reported.
    """
    names = list(known)
    keys = difflib.get_close_matches(name, names, n=_MAX_LISTED, cutoff=0)
    more = ", ..." if len(names) > _MAX_LISTED else "."
    if not keys:
        return "No keys were reported."
    return f"Reported keys: {', '.join(map(repr, keys))}{more}{suggest(name, names)}"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a question with the names that resemble an unknown one, to be appended to a message.

    Args:
        name: Name that is not known.
        known: Names that the user may have meant.

    Returns:
        Such as ``" Did you mean 'val/loss'?"``. Empty if no name is similar.
    """
    return ask(find_similar(name, known))


def ask(names: Iterable[str]) -> str:
    """Return a question whether the user meant one of some names. Empty without names."""
    question = " or ".join(map(repr, names))
    return f" Did you mean {question}?" if question else ""


def find_similar(name: str, known: Iterable[str]) -> list[str]:
    """Return the names that resemble or contain an unknown one, the most similar first, at most three.

    Args:
        name: Name that is not known.
        known: Names that the user may have meant.
    """
    names = list(dict.fromkeys(known))
    by_lower = {other.lower(): other for other in reversed(names)}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=_MAX_SUGGESTIONS, cutoff=_SIMILAR)
    containing = [other for other in names if len(name) > 1 and name.lower() in other.lower()]
    return list(dict.fromkeys([*(by_lower[match] for match in matches), *containing]))[:_MAX_SUGGESTIONS]


def suggest_or_list(name: str, known: Iterable[str]) -> str:
    """Return a question with the names that resemble an unknown one, or a list of names if there are none.

    Args:
        name: Name that is not known.
        known: Names that the user may have meant.
    """
    names = sorted(known)
    more = ", ..." if len(names) > _MAX_LISTED else "."
    return suggest(name, names) or f" Names: {', '.join(names[:_MAX_LISTED]) or 'none'}{more}"


def is_misspelled(name: str, known: Iterable[str]) -> bool:
    """Return whether a name that is not known is almost equal to a known key, or a known key ends with it.

    All separators are equal, as in ``val_loss`` and ``val/loss``. Such a name is hardly that of a value that is
    reported later.

    Args:
        name: Name that is not known.
        known: Keys that were reported.
    """
    normal, *keys = (key.lower().translate(_SEPARATORS) for key in (name, *known))
    is_almost_equal = bool(difflib.get_close_matches(normal, keys, n=1, cutoff=_MISSPELLED))
    return is_almost_equal or any(key.endswith(f"/{normal}") for key in keys)
