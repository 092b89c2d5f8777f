"""States of random generators that are objects: of torch, NumPy, and Python."""

from __future__ import annotations

import random
import sys
from typing import Any, TypeAlias

import torch

from pte_tracking._snapshots import rng

#: State of a generator by its kind, ``"torch"``, ``"numpy"``, or ``"python"``; tensors and plain values only.
GeneratorState: TypeAlias = dict[str, Any]


def is_generator(value: object) -> bool:
    """Whether a value is a random generator with a state of its own: of torch, NumPy, or Python."""
    if isinstance(value, torch.Generator):
        return value is not torch.default_generator
    if isinstance(value, random.Random):
        # Neither the generator of the functions of the module, nor one that reads from the operating system.
        return value is not getattr(random.seed, "__self__", None) and not isinstance(value, random.SystemRandom)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is None:
        return False
    kinds = numpy_random.Generator, numpy_random.RandomState, numpy_random.BitGenerator
    return isinstance(value, kinds) and value is not getattr(numpy_random.mtrand, "_rand", None)


def get_generator_state(generator: Any) -> GeneratorState:
    """Return the state of a generator, without advancing it."""
    if isinstance(generator, torch.Generator):
        return {"torch": generator.get_state()}
    if isinstance(generator, random.Random):
        return {"python": rng.python_state(generator)}
    if hasattr(generator, "get_state"):
        return {"numpy": rng.without_arrays(generator.get_state(legacy=False))}
    return {"numpy": rng.without_arrays(_bit_generator(generator).state)}


def set_generator_state(generator: Any, state: GeneratorState) -> None:
    """Restore the state of a generator.

    Args:
        generator: The generator.
        state: A state that :func:`get_generator_state` returned.

    Raises:
        ValueError: If the state is of another kind of generator.
    """
    kind = type(generator).__name__
    try:
        if isinstance(generator, torch.Generator):
            generator.set_state(state["torch"])
        elif isinstance(generator, random.Random):
            generator.setstate(rng.python_tuple(state["python"]))
        elif hasattr(generator, "set_state"):
            generator.set_state(rng.with_lists(state["numpy"]))
        else:
            _bit_generator(generator).state = rng.with_lists(state["numpy"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        saved = ", ".join(map(str, state)) or "none"
        raise ValueError(
            f"The snapshot contains the state of another random generator than this {kind} (library: {saved}): {error}"
        ) from error


class StatefulGenerator:
    """Random generator with the methods of a state object.

    Args:
        generator: The generator.
    """

    def __init__(self, generator: object) -> None:
        self._generator = generator

    def state_dict(self) -> GeneratorState:
        """Return the state."""
        return get_generator_state(self._generator)

    def load_state_dict(self, state_dict: GeneratorState, /) -> None:
        """Restore the state returned by :meth:`state_dict`."""
        set_generator_state(self._generator, state_dict)


def _bit_generator(generator: Any) -> Any:
    """Return the bit generator of a ``numpy.random.Generator``, or a bit generator itself."""
    return getattr(generator, "bit_generator", generator)
