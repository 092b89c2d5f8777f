"""Compare a snapshot with the current models and optimizers before anything is restored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn, optim
from torch.nn.parameter import is_lazy

#: Format number of the states that this version writes.
FORMAT = 1

_MAX_DIFFERENCES = 20
#: Keys that schedulers and torch itself add to the parameter groups of an optimizer.
_SCHEDULER_KEYS = ("initial_lr", "max_lr", "min_lr", "swa_lr", "max_momentum", "base_momentum", "param_names")


def check_format(state: object) -> None:
    """Check that this version supports the format of a state.

    Raises:
        TypeError: If the state is not a dictionary.
        ValueError: If a newer version wrote the state.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a dictionary from state_dict() or torch.load(), got {type(state).__name__}")
    if state.get("format", FORMAT) > FORMAT:
        raise ValueError(
            f"state: format {state['format']} is not supported. This version of pte-tracking reads formats up to "
            f"{FORMAT}. Install a newer version."
        )


def check_compatible(
    models: Mapping[str, nn.Module], optimizers: Mapping[str, optim.Optimizer], state: Mapping[str, Any]
) -> None:
    """Check that a state can be loaded into the current models and optimizers.

    Args:
        models: The models by name.
        optimizers: The optimizers by name.
        state: A state with entries for the same names.

    Raises:
        ValueError: If a parameter is missing, unexpected, or of another shape, or if an optimizer has other parameter
            groups or another class. The message lists up to 20 differences.
    """
    differences = [
        *(
            text
            for name, model in models.items()
            for text in _model_differences(f"models/{name}", model, state["models"][name])
        ),
        *(
            text
            for name, optimizer in optimizers.items()
            for text in _optimizer_differences(f"optimizers/{name}", optimizer, state["optimizers"][name])
        ),
    ]
    if not differences:
        return
    more = f"\n  and {len(differences) - _MAX_DIFFERENCES} more" if len(differences) > _MAX_DIFFERENCES else ""
    raise ValueError(
        "state: the snapshot does not match the models or optimizers. Nothing was restored. Differences:\n  "
        + "\n  ".join(differences[:_MAX_DIFFERENCES])
        + more
    )


def _model_differences(path: str, model: nn.Module, saved: Mapping[str, Any]) -> Iterator[str]:
    if type(model).load_state_dict is not nn.Module.load_state_dict:
        return  # The model decides which states it accepts.
    current = model.state_dict()
    for name in current:
        if name not in saved:
            yield f"{path}: {name!r} is missing from the snapshot"
    for name, value in saved.items():
        if name not in current:
            yield f"{path}: {name!r} is in the snapshot but not in the model"
        elif not _is_compatible(value, current[name]):
            yield (
                f"{path}: {name!r} is {_format_shape(value)} in the snapshot, "
                f"{_format_shape(current[name])} in the model"
            )


def _optimizer_differences(path: str, optimizer: optim.Optimizer, saved: Mapping[str, Any]) -> Iterator[str]:
    if not hasattr(optimizer, "param_groups") or "param_groups" not in saved:
        return  # An object that wraps an optimizer decides which states it accepts.
    saved_sizes = [len(group["params"]) for group in saved["param_groups"]]
    current_sizes = [len(group["params"]) for group in optimizer.param_groups]
    if current_sizes != saved_sizes:
        yield f"{path}: group sizes are {saved_sizes} in the snapshot, {current_sizes} in the optimizer"
        return
    for group, saved_group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        # A newer torch may have added keys. Only another optimizer class replaces keys by others.
        missing = [name for name in getattr(optimizer, "defaults", ()) if name not in saved_group]
        unexpected = [name for name in saved_group if name not in group and name not in _SCHEDULER_KEYS]
        if missing and unexpected:
            yield (
                f"{path}: the snapshot is of another optimizer class. Its parameter groups have "
                f"{', '.join(unexpected)}, those of {type(optimizer).__name__} have {', '.join(missing)}"
            )
            return


def _is_compatible(saved: object, current: object) -> bool:
    if not isinstance(saved, Tensor) or not isinstance(current, Tensor) or is_lazy(current):
        return True
    return saved.shape == current.shape


def _format_shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
