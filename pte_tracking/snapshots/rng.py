"""The state of every random generator that a training draws from without naming it."""

from __future__ import annotations

import logging
import random
import sys
from typing import Any, TypedDict

import torch
from torch import Tensor

_logger = logging.getLogger("pte_tracking")


class RandomState(TypedDict, total=False):
    """The states: CUDA's by device, and NumPy's, CUDA's and Metal's only where they are used."""

    python: tuple[Any, ...]
    torch: Tensor
    numpy: dict[str, Any]
    cuda: list[Tensor]
    mps: Tensor


def get_state() -> RandomState:
    """The states now."""
    state = RandomState(python=random.getstate(), torch=torch.get_rng_state())
    if numpy := sys.modules.get("numpy"):
        state["numpy"] = _as_lists(numpy.random.get_state(legacy=False))
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_state(state: RandomState) -> None:
    """Go on from these states; those of devices that are not here are left out, and that is said."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        _set_numpy(state["numpy"])
    if "cuda" in state:
        here = torch.cuda.device_count()
        if here < len(state["cuda"]):
            _logger.warning(
                "random state: the snapshot has that of %d CUDA devices, here are %d; what was drawn on the others "
                "differs from here on",
                len(state["cuda"]),
                here,
            )
        for device, device_state in enumerate(state["cuda"][:here]):
            torch.cuda.set_rng_state(device_state, device)
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def _set_numpy(state: dict[str, Any]) -> None:
    try:
        import numpy  # torch works without it, and then nothing draws from it
    except ImportError:
        return
    numpy.random.set_state(state)


def _as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_lists(item) for key, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
