"""Refusal of states that do not match the training, before anything is restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Format number of the states that this version writes.
FORMAT = 1

_MAX_DIFFERENCES = 20
_MAX_NAMES = 3


def check_format(state: object) -> None:
    """Check that this version supports the format of a state.

    Raises:
        TypeError: If the state is not a dictionary.
        ValueError: If a newer version wrote the state, or if the state is not that of a training.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a dictionary from state_dict() or torch.load(), got {type(state).__name__}")
    if not state.keys() & {"models", "manager"}:
        names = [*map(repr, list(state)[:_MAX_NAMES]), *(["..."] if len(state) > _MAX_NAMES else [])]
        raise ValueError(
            f"state: not that of a training. It contains {', '.join(names) or 'nothing'}. Pass a snapshot of "
            "extensions.snapshot(). To load weights, call model.load_state_dict(torch.load(path))."
        )
    if state.get("format", FORMAT) > FORMAT:
        raise ValueError(
            f"state: format {state['format']} is not supported. This version of pte-tracking reads formats up to "
            f"{FORMAT}. Install a newer version."
        )


def raise_differences(differences: Sequence[str], remedy: str) -> None:
    """Refuse a state that differs from the current models and optimizers.

    Args:
        differences: The differences.
        remedy: Sentences that tell what to do.

    Raises:
        ValueError: If there are differences. The message lists up to 20.
    """
    if not differences:
        return
    more = f"\n  and {len(differences) - _MAX_DIFFERENCES} more" if len(differences) > _MAX_DIFFERENCES else ""
    raise ValueError(
        "The snapshot does not match the models or optimizers. Nothing was restored. Differences:\n  "
        + "\n  ".join(differences[:_MAX_DIFFERENCES])
        + f"{more}\n{remedy}"
    )
