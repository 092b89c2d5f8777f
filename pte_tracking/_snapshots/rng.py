"""States of the global random generators of Python, NumPy, and torch."""

from __future__ import annotations

import array
import logging
import random
import sys
from typing import Any, TypedDict

import torch
from torch import Tensor

_logger = logging.getLogger("pte_tracking")


class PythonState(TypedDict):
    """State of :mod:`random`. Its integers are one tensor, which is faster to copy than a tuple of 625 elements.

    Attributes:
        version: Version of the state.
        internal: The integers.
        gauss_next: Next value of ``random.gauss``, if it was computed in advance.
    """

    version: int
    internal: Tensor
    gauss_next: float | None


class RandomState(TypedDict, total=False):
    """States of all global generators. NumPy, CUDA, and MPS have a state only if they are used.

    Attributes:
        python: State of :mod:`random`.
        torch: State of torch on the CPU.
        numpy: State of :mod:`numpy.random`.
        cuda: State of each CUDA device.
        mps: State of the MPS device.
    """

    python: PythonState
    torch: Tensor
    numpy: dict[str, Any]
    cuda: list[Tensor]
    mps: Tensor


def get_state() -> RandomState:
    """Return the current states of all global generators, without advancing them."""
    state = RandomState(python=python_state(random), torch=torch.get_rng_state())
    # NumPy imports this module on first use, before any seeding or drawing.
    if numpy_random := sys.modules.get("numpy.random"):
        state["numpy"] = without_arrays(numpy_random.get_state(legacy=False))
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_state(state: RandomState) -> None:
    """Restore the states of all global generators. States of missing devices are skipped with a warning."""
    random.setstate(python_tuple(state["python"]))
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        _set_numpy(state["numpy"])
    if "cuda" in state:
        _set_cuda(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def derive_for_rank(state: RandomState, rank: int) -> RandomState:
    """Derive states for a rank without saved state. They follow from those of rank 0 and differ between ranks."""
    generator = torch.Generator()
    generator.set_state(state["torch"])
    seed = int(torch.randint(2**31, (rank,), generator=generator)[-1])
    derived = RandomState(python=python_state(random.Random(seed)), torch=generator.manual_seed(seed).get_state())
    if "numpy" in state:
        import numpy

        derived["numpy"] = without_arrays(numpy.random.RandomState(seed).get_state(legacy=False))
    return derived


def python_state(source: Any) -> PythonState:
    """Return the state of a ``random.Random``, or of the module :mod:`random`."""
    version, internal, gauss_next = source.getstate()
    # By way of an array, which is faster than from a tuple.
    integers = torch.frombuffer(array.array("q", internal), dtype=torch.int64)
    return PythonState(version=version, internal=integers, gauss_next=gauss_next)


def python_tuple(state: PythonState) -> tuple[int, tuple[int, ...], float | None]:
    """Return the argument of ``random.setstate()`` for a state."""
    return state["version"], tuple(state["internal"].tolist()), state["gauss_next"]


def without_arrays(value: Any) -> Any:
    """Return a state of NumPy with tensors and lists in place of arrays."""
    if isinstance(value, dict):
        return {key: without_arrays(item) for key, item in value.items()}
    if not hasattr(value, "tolist"):
        return value
    return torch.from_numpy(value.astype("int64")) if value.itemsize <= 4 else value.tolist()


def with_lists(value: Any) -> Any:
    """Return a state of NumPy, from the value that :func:`without_arrays` returned."""
    if isinstance(value, dict):
        return {key: with_lists(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, Tensor) else value


def _set_numpy(state: dict[str, Any]) -> None:
    try:
        import numpy  # Without NumPy, nothing draws from its generator.
    except ImportError:
        return
    numpy.random.set_state(with_lists(state))


def _set_cuda(states: list[Tensor]) -> None:
    device_count = torch.cuda.device_count()
    if device_count < len(states):
        _logger.warning(
            "Random state: the snapshot has states of %d CUDA devices, this machine has %d devices. Random numbers on "
            "the missing devices are not reproduced.",
            len(states),
            device_count,
        )
    for device, state in enumerate(states[:device_count]):
        torch.cuda.set_rng_state(state, device)
