"""State of the objects that a data loader refers to: random generators, counters, and epochs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from pte_tracking._data.counters import changed_names, counters_of, is_equal, set_counters
from pte_tracking._data.object_search import walk
from pte_tracking._snapshots.generator_state import (
    GeneratorState,
    get_generator_state,
    is_generator,
    set_generator_state,
)


class PartsState(TypedDict):
    """State of the parts of a loader.

    Attributes:
        generators: States of the random generators by path, such as ``"sampler.generator"``.
        counters: Numbers in the attributes of samplers and loaders, by path and attribute name.
    """

    generators: dict[str, GeneratorState]
    counters: dict[str, dict[str, Any]]


class LoaderParts:
    """Objects that a loader refers to and whose state belongs to the position in the data.

    The objects are searched at the start of each pass and for each snapshot, because they may be created or replaced
    during a pass.

    Args:
        loader: The loader.
        constructed: Counters of state objects at their construction, by object identity.
    """

    def __init__(self, loader: object, constructed: Mapping[int, dict[str, Any]]) -> None:
        self._loader = loader
        self._found = list(walk(loader))
        self._initial = {path: counters for path, part in self._found if (counters := counters_of(path, part))}
        self._constructed = {path: constructed[id(part)] for path, part in self._found if id(part) in constructed}

    def state(self) -> PartsState:
        """Return copies of the current states."""
        self._found = list(walk(self._loader))
        return self.start_state()

    def start_state(self) -> PartsState:
        """Return copies of the current states, just after :meth:`set_epoch`."""
        state = PartsState(generators={}, counters={})
        for path, part in self._found:
            if is_generator(part):
                state["generators"][path] = get_generator_state(part)
            elif counters := counters_of(path, part, self._initial.get(path)):
                state["counters"][path] = counters
        return state

    def changed(self, state: PartsState, *others: PartsState) -> PartsState:
        """Return a state without the counters that never changed since the construction.

        Args:
            state: The state.
            *others: States at other times.
        """
        counters = {}
        for path, values in state["counters"].items():
            later = [values, *(other["counters"].get(path, {}) for other in others)]
            names = changed_names({**self._initial.get(path, {}), **self._constructed.get(path, {})}, *later)
            if kept := {name: item for name, item in values.items() if name in names}:
                counters[path] = kept
        return PartsState(generators=state["generators"], counters=counters)

    def restore(self, state: PartsState) -> list[str]:
        """Restore the states of generators and counters. Those of generators of another kind are skipped.

        Args:
            state: The state.

        Returns:
            Paths of the objects whose state was not restored. An object may be created later, in a pass.
        """
        unrestored = dict.fromkeys([*state["generators"], *state["counters"]])
        for path, part in walk(self._loader):
            if path in state["generators"] and is_generator(part):
                if _set_if_same_kind(part, state["generators"][path]):
                    del unrestored[path]
            elif path in self._constructed or path in state["counters"]:
                # A state object was restored before. Attributes that only its load_state_dict() sets are reset.
                set_counters(part, {**self._constructed.get(path, {}), **state["counters"].get(path, {})})
                unrestored.pop(path, None)
        return list(unrestored)

    def restore_integers(self, state: PartsState, start: PartsState | None) -> None:
        """Restore the integers that the length or the batch size of a sampler may depend on, until :meth:`restore`.

        Args:
            state: The state.
            start: The state that is restored next. Only integers that it contains are set. None if it is the same.
        """
        for path, part in walk(self._loader):
            integers = {name: item for name, item in state["counters"].get(path, {}).items() if type(item) is int}
            known = integers if start is None else start["counters"].get(path, {})
            set_counters(part, {name: item for name, item in integers.items() if name in known})

    def differing(self, paths: Iterable[str], state: PartsState | None) -> list[str]:
        """Return the paths of objects that do not exist, or of generators whose state differs.

        Args:
            paths: The paths to check.
            state: The expected states of generators; None to check only whether the objects exist.
        """
        current = self.state()
        return [
            path
            for path in paths
            if (path not in current["generators"] and path not in current["counters"])
            or (state is not None and not is_equal(current["generators"].get(path), state["generators"].get(path)))
        ]

    def restore_generators(self, state: PartsState) -> None:
        """Restore the states of the generators that exist now."""
        for path, part in walk(self._loader):
            if path in state["generators"] and is_generator(part):
                _set_if_same_kind(part, state["generators"][path])

    def restore_unmoved(self, state: PartsState, start: PartsState) -> None:
        """Restore the state after the batches of an interrupted pass were read again.

        Generators are set to the state. Of the counters, only those are set that reading did not change: the training
        changed them.

        Args:
            state: The state after the last batch.
            start: The state at the start of the pass.
        """
        current = self.state()["counters"]
        counters = {}
        for path, values in state["counters"].items():
            before = start["counters"].get(path, {})
            moved = changed_names(before, current.get(path, {}))
            counters[path] = {name: item for name, item in values.items() if name in before and name not in moved}
        self.restore_generators(state)
        for path, part in walk(self._loader):
            if path in counters:
                set_counters(part, counters[path])

    def set_epoch(self, epoch: int) -> None:
        """Call ``set_epoch()`` of the loader, and of all samplers, datasets, and loaders that it refers to.

        Args:
            epoch: The number of the pass, from 0.
        """
        self._found = list(walk(self._loader))
        for _, part in self._found:
            set_epoch = getattr(type(part), "set_epoch", None)
            if callable(set_epoch) and _takes_one_argument(set_epoch):
                part.set_epoch(epoch)


def _set_if_same_kind(generator: object, state: GeneratorState) -> bool:
    try:
        set_generator_state(generator, state)
    except ValueError:
        return False
    return True


@functools.cache
def _takes_one_argument(method: Callable[..., Any]) -> bool:
    try:
        inspect.signature(method).bind(None, 0)
    except TypeError:
        return False
    except ValueError:
        return True  # builtins have no signature
    return True
