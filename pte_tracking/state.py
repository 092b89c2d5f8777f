"""The state of named things: models, optimizers, extensions and whatever else a training consists of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class StateObject(Protocol):
    """Anything whose state belongs into snapshots: a scheduler, a GradScaler, an average of weights."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def states_of(objects: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The state of each object by its name."""
    return {name: thing.state_dict() for name, thing in objects.items()}


def restore(objects: Mapping[str, Any], states: Mapping[str, dict[str, Any]]) -> None:
    """Gives each object its state back."""
    for name, thing in objects.items():
        thing.load_state_dict(states[name])


def check_names(state: Mapping[str, Any], expected: Mapping[str, Iterable[str]]) -> None:
    """Checks a state before anything of it is restored.

    Args:
        state: The state, one mapping for each part.
        expected: The names that are wanted in each part.

    Raises:
        TypeError: It is no mapping.
        ValueError: Parts or names are missing or unexpected; all of them are named.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a dictionary from state_dict() or torch.load(), got {type(state).__name__}")
    complaints = [f"{part!r} is missing" for part in expected if part not in state]
    for part, names in expected.items():
        saved, here = list(state.get(part, names)), list(names)
        if missing := [name for name in here if name not in saved]:
            complaints.append(f"{part}: missing {', '.join(map(repr, missing))}")
        if unexpected := [name for name in saved if name not in here]:
            complaints.append(f"{part}: unexpected {', '.join(map(repr, unexpected))}")
    if complaints:
        raise ValueError(f"state: it is that of another training: {'; '.join(complaints)}")
