"""Matching of the saved states of extensions with the extensions of a training, also in another order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class NumberedName(NamedTuple):
    """Name of an extension that was assigned by the order of registration if other extensions have the same base.

    Attributes:
        name: The name, such as ``"min_value_1"``.
        base: The name without a number.
        digests: Digests of the arguments of the extension and its trigger, by position.
    """

    name: str
    base: str
    digests: Mapping[str, str]


def match_names(current: Iterable[NumberedName], saved: Iterable[NumberedName]) -> dict[str, str]:
    """Return the saved name of each extension.

    Extensions with the same base get the states of those with the most equal arguments; of equally good ones, that with
    the same name. The others get the states of their names.

    Args:
        current: The extensions of the training.
        saved: The extensions in the snapshot.

    Returns:
        The saved names by current name, without extensions that are not in the snapshot.
    """
    saved_by_base: dict[str, list[NumberedName]] = {}
    for item in saved:
        saved_by_base.setdefault(item.base, []).append(item)
    pairs = [(item, other) for item in current for other in saved_by_base.get(item.base, ())]
    names: dict[str, str] = {}
    for item, other in sorted(pairs, key=lambda pair: (-_count_equal(*pair), pair[0].name != pair[1].name)):
        if item.name not in names and other.name not in names.values():
            names[item.name] = other.name
    return names


def _count_equal(item: NumberedName, other: NumberedName) -> int:
    return len(item.digests.items() & other.digests.items())


def rename_extensions(state: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a state with the current names of its extensions. Unmatched ones get names that are not in use.

    Args:
        state: The state.
        names: Saved names by current name.
    """
    current = {saved: name for name, saved in names.items()}
    renamed = {
        saved: _unused(current.get(saved, saved), saved in current, names) for saved in state.get("extensions", {})
    }
    given = {}
    for label, digests in state.get("given", {}).items():
        kind, _, name = label.partition("/")
        given[f"{kind}/{renamed[name]}" if kind in ("extensions", "triggers") else label] = digests
    return {
        **state,
        **({"extensions": {renamed[name]: saved for name, saved in state["extensions"].items()}} if renamed else {}),
        "given": given,
    }


def _unused(name: str, is_matched: bool, names: Mapping[str, str]) -> str:
    return name if is_matched or name not in names else f"{name} (not registered)"
