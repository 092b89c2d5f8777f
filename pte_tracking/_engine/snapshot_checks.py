"""Checks of the names and classes in a snapshot, before anything is restored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pte_tracking._engine.differences import AllowedDifferences, is_trigger, part_name


def check_names(state: Mapping[str, Any], expected: Mapping[str, Iterable[str]], allowed: AllowedDifferences) -> None:
    """Check that a state has the expected parts and names.

    Args:
        state: The state.
        expected: Names by kind of part.
        allowed: Parts that may be missing from the state or from the training.

    Raises:
        ValueError: If the names differ. The message lists all differences.
    """
    mismatches = [f"{kind!r} is missing" for kind in expected if kind not in state]
    differing: list[str] = []
    for kind, names in expected.items():
        saved_names, expected_names = list(state.get(kind, names)), list(names)
        missing = [name for name in expected_names if name not in saved_names]
        unexpected = [name for name in saved_names if name not in expected_names]
        for label in (f"{kind}/{name}" for name in missing if f"{kind}/{name}" in allowed):
            allowed.skip(label, "The snapshot does not contain it.")
        for text, found in (("not in the snapshot:", missing), ("only in the snapshot:", unexpected)):
            if refused := [name for name in found if f"{kind}/{name}" not in allowed]:
                mismatches.append(f"{kind}: {text} {', '.join(map(repr, refused))}")
                differing += refused
    if mismatches:
        raise ValueError(f"state: does not match this run: {'; '.join(mismatches)}.{_advice(differing, allowed)}")


def check_classes(differences: Iterable[tuple[str, str]], allowed: AllowedDifferences) -> None:
    """Check that the objects with a state are of the same classes as in the snapshot.

    Args:
        differences: Label and description of each object of another class.
        allowed: Objects that may be of another class. Triggers may be, and start as constructed.

    Raises:
        ValueError: If the class of another object differs.
    """
    refused = []
    for label, text in differences:
        if is_trigger(label):
            allowed.skip(label, f"{text[0].upper()}{text[1:]}.")
        elif label not in allowed:
            refused.append((label, text))
    if refused:
        texts = "; ".join(text for _, text in refused)
        raise ValueError(f"state: {texts}.{_advice([part_name(label) for label, _ in refused], allowed)}")


def _advice(names: list[str], allowed: AllowedDifferences) -> str:
    if not names:
        return ""
    allow = list(dict.fromkeys(names))
    other = allowed.other_training
    return (
        f" Nothing was restored. {other}"
        f"To continue anyway, pass allow={allow!r}: a part that does not fit is not restored."
    )
