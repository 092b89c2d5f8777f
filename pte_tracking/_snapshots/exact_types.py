"""Types and devices of optimizer states, which torch converts to those of the parameters when it loads them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

#: Keys of the state of each parameter, by the number of the parameter.
HostKeys = dict[int, list[str]]


@contextlib.contextmanager
def keep_types(
    optimizers: Iterable[Optimizer], saved_dtypes: Mapping[int, torch.dtype], host_keys: HostKeys
) -> Iterator[None]:
    """Let optimizers that load a state within this context keep the types of its elements.

    A state of the type that its parameter had follows the parameter, whose type may have changed since. Any other state
    keeps its own type, such as a factor in double precision or the integers of a compressed state.

    Args:
        optimizers: The optimizers, which may load their states at any depth of a wrapper.
        saved_dtypes: Types that the parameters had when they were saved, by identity. If a type is missing, it is the
            current one.
        host_keys: States that were on the host although their parameter was on a device.
    """
    loaded: dict[int, Mapping[str, Any]] = {}

    def note(optimizer: Optimizer, state: dict[str, Any]) -> None:
        loaded[id(optimizer)] = state

    def correct(optimizer: Optimizer) -> None:
        if (saved := loaded.pop(id(optimizer), None)) is None:
            return  # An own method loaded the state.
        numbers = [number for group in saved["param_groups"] for number in group["params"]]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            if not isinstance(entry := optimizer.state.get(parameter), dict) or number not in saved["state"]:
                continue
            saved_dtype = saved_dtypes.get(id(parameter), parameter.dtype)
            for key, value in entry.items():
                entry[key] = _with_types(value, saved["state"][number].get(key), saved_dtype)
            for key in host_keys.get(number, ()):
                if isinstance(entry.get(key), Tensor):
                    entry[key] = entry[key].cpu()

    with contextlib.ExitStack() as stack:
        for optimizer in optimizers:
            for handle in (
                optimizer.register_load_state_dict_pre_hook(note),
                # Before other hooks, which may rely on the types.
                optimizer.register_load_state_dict_post_hook(correct, prepend=True),
            ):
                stack.callback(handle.remove)
        yield


def find_host_keys(state: Mapping[str, Any], optimizer: Any) -> HostKeys:
    """Return which entries of a state are on the host although their parameter is on a device.

    Args:
        state: The state of the optimizer.
        optimizer: The optimizer.
    """
    parameters = [parameter for group in getattr(optimizer, "param_groups", ()) for parameter in group["params"]]
    return {
        number: keys
        for number, parameter in enumerate(parameters)
        if parameter.device.type != "cpu"
        and isinstance(entry := state.get("state", {}).get(number), Mapping)
        # torch itself chooses the device of this key.
        and (keys := [key for key, value in entry.items() if key != "step" and _is_on_host(value)])
    }


def _is_on_host(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu"


def _with_types(loaded: Any, saved: Any, saved_dtype: torch.dtype) -> Any:
    if isinstance(loaded, Tensor) and isinstance(saved, Tensor):
        is_own = saved.dtype not in (loaded.dtype, saved_dtype) and saved.shape == loaded.shape
        return saved.to(loaded.device) if is_own else loaded
    if isinstance(loaded, dict) and isinstance(saved, Mapping):
        return {key: _with_types(value, saved.get(key), saved_dtype) for key, value in loaded.items()}
    if type(loaded) in (list, tuple) and isinstance(saved, list | tuple) and len(loaded) == len(saved):
        return type(loaded)(_with_types(*pair, saved_dtype) for pair in zip(loaded, saved, strict=True))
    # torch takes a string for a container of values.
    return saved if isinstance(saved, str) else loaded
