"""How the models and optimizers of a snapshot differ from those at hand, told before anything is restored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn, optim
from torch.nn.parameter import is_lazy

#: The form of a state, as this version writes it.
FORMAT = 1

_MAX_DIFFERENCES = 20
#: What schedulers, and torch itself, add to an optimizer's groups.
_SCHEDULER_KEYS = ("initial_lr", "max_lr", "min_lr", "swa_lr", "max_momentum", "base_momentum", "param_names")


def check_format(state: object) -> None:
    """Check that a state is one that this version knows.

    Raises:
        TypeError: It is no dictionary.
        ValueError: A newer version wrote it.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a dictionary from state_dict() or torch.load(), got {type(state).__name__}")
    if state.get("format", FORMAT) > FORMAT:
        raise ValueError(
            f"state: it has the format {state['format']}, this version of pte-tracking reads up to {FORMAT}; install a "
            "newer one"
        )


def check_compatible(
    models: Mapping[str, nn.Module], optimizers: Mapping[str, optim.Optimizer], state: Mapping[str, Any]
) -> None:
    """Check that models and optimizers can take a state.

    Args:
        models: The models by name.
        optimizers: The optimizers by name.
        state: A state with parts for the same names.

    Raises:
        ValueError: A parameter is missing, unexpected or of another shape, or an optimizer has other groups; each is
            named.
    """
    complaints = [
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
    if not complaints:
        return
    more = f"\n  and {len(complaints) - _MAX_DIFFERENCES} more" if len(complaints) > _MAX_DIFFERENCES else ""
    raise ValueError(
        "state: the snapshot is of other models or optimizers; nothing was restored:\n  "
        + "\n  ".join(complaints[:_MAX_DIFFERENCES])
        + more
    )


def _model_differences(place: str, model: nn.Module, saved: Mapping[str, Any]) -> Iterator[str]:
    if type(model).load_state_dict is not nn.Module.load_state_dict:
        return  # it has its own idea of what fits
    here = model.state_dict()
    for name in here:
        if name not in saved:
            yield f"{place}: {name!r} is missing in the snapshot"
    for name, value in saved.items():
        if name not in here:
            yield f"{place}: {name!r} is in the snapshot, not in the model"
        elif not _is_compatible(value, here[name]):
            yield f"{place}: {name!r} is {_shape(value)} in the snapshot, {_shape(here[name])} in the model"


def _optimizer_differences(place: str, optimizer: optim.Optimizer, saved: Mapping[str, Any]) -> Iterator[str]:
    there = [len(group["params"]) for group in saved.get("param_groups", ())]
    here = [len(group["params"]) for group in optimizer.param_groups]
    if here != there:
        yield f"{place}: its groups have {there} parameters in the snapshot, {here} here"
        return
    for group, other in zip(optimizer.param_groups, saved.get("param_groups", ()), strict=True):
        # A newer torch may have added some; only another kind of optimizer has others in their place.
        missing = [name for name in optimizer.defaults if name not in other]
        unexpected = [name for name in other if name not in group and name not in _SCHEDULER_KEYS]
        if missing and unexpected:
            yield (
                f"{place}: it was of another kind: its groups have {', '.join(unexpected)} in the snapshot, "
                f"{', '.join(missing)} in {type(optimizer).__name__} here"
            )
            return


def _is_compatible(saved: object, here: object) -> bool:
    if not isinstance(saved, Tensor) or not isinstance(here, Tensor) or is_lazy(here):
        return True
    return saved.shape == here.shape


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
