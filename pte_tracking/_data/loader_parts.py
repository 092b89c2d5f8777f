"""State of the objects that a data loader refers to: random generators, counters, epochs, and state objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from pte_tracking._data.counters import changed_names, counters_of, set_counters
from pte_tracking._data.equality import is_equal
from pte_tracking._data.loader_messages import LoaderMessages
from pte_tracking._data.object_search import walk
from pte_tracking._data.object_states import has_state, is_state_object, load_state, save_state, takes_arguments
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
        objects: States of objects with ``state_dict()`` and ``load_state_dict()``, by path.
    """

    generators: dict[str, GeneratorState]
    counters: dict[str, dict[str, Any]]
    objects: dict[str, Any]


class LoaderParts:
    """Objects that a loader refers to and whose state belongs to the position in the data.

    The objects are searched at the start of each pass and for each snapshot, because they may be created or replaced
    during a pass.

    Args:
        loader: The loader.
        constructed: Counters of state objects at their construction, by object identity.
        messages: Messages about the loader.

    Attributes:
        has_loaded: Whether the state of an object was loaded.
    """

    def __init__(self, loader: object, constructed: Mapping[int, dict[str, Any]], messages: LoaderMessages) -> None:
        self._loader = loader
        self._messages = messages
        self._unsaved: dict[str, tuple[object, Exception]] = {}
        self.has_loaded = False
        self._found = list(walk(loader))
        self._initial = {path: counters for path, part in self._found if (counters := counters_of(path, part))}
        self._constructed = {path: constructed[id(part)] for path, part in self._found if id(part) in constructed}

    def state(self) -> PartsState:
        """Return copies of the current states."""
        self._found = list(walk(self._loader))
        return self.start_state()

    def start_state(self) -> PartsState:
        """Return copies of the current states, just after :meth:`set_epoch`."""
        state = PartsState(generators={}, counters={}, objects={})
        for path, part in self._found:
            if is_generator(part):
                state["generators"][path] = get_generator_state(part)
                continue
            if counters := counters_of(path, part, self._initial.get(path)):
                state["counters"][path] = counters
            if is_state_object(path, part):
                self._unsaved.pop(path, None)
                try:
                    state["objects"][path] = save_state(part)
                except Exception as error:
                    self._unsaved[path] = part, error
        return state

    def report_unsaved(self) -> None:
        """Warn about the objects whose state could not be saved."""
        for path, (part, error) in self._unsaved.items():
            self._messages.unsaved_object(path, part, error)

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
        return PartsState(generators=state["generators"], counters=counters, objects=state["objects"])

    def restore(self, state: PartsState, *, loads_objects: bool = True) -> list[str]:
        """Restore the states of all parts. Those of generators of another kind are skipped.

        An object may keep its state until its next pass, and may take a state that it saved between two passes as the
        end of a pass. The numbers in its attributes are therefore set after the state is loaded.

        Args:
            state: The state.
            loads_objects: Whether to load the states of objects. Otherwise, only generators and counters are restored.

        Returns:
            Paths of the objects whose state was not restored. An object may be created later, in a pass.
        """
        unrestored = dict.fromkeys([*state["generators"], *state["counters"], *state["objects"]])
        for path, part in walk(self._loader):
            if path in state["generators"] and is_generator(part):
                if _set_if_same_kind(part, state["generators"][path]):
                    del unrestored[path]
                continue
            is_loaded = loads_objects and path in state["objects"] and self._load(path, part, state["objects"][path])
            self.has_loaded |= is_loaded
            if is_loaded or path in self._constructed or path in state["counters"]:
                # A state object was restored before. Attributes that only its load_state_dict() sets are reset.
                constructed = {**(self._initial.get(path, {}) if is_loaded else {}), **self._constructed.get(path, {})}
                set_counters(part, {**constructed, **state["counters"].get(path, {})})
            if path in state["objects"] and not is_state_object(path, part):
                self._messages.refused_object(path, part, TypeError("it has no load_state_dict()"))
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
            if not any(path in current[kind] for kind in ("generators", "counters", "objects"))
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
        changed them. If the state of an object differs, it is loaded, and all of its counters are set.

        Args:
            state: The state after the last batch.
            start: The state at the start of the pass.
        """
        current = self.state()
        self.restore_generators(state)
        for path, part in walk(self._loader):
            before, counters = start["counters"].get(path, {}), current["counters"].get(path, {})
            saved = state["counters"].get(path, {})
            if path in state["objects"] and not is_equal(current["objects"].get(path), state["objects"][path]):
                if self._load(path, part, state["objects"][path]):
                    set_counters(part, {**counters, **saved})
                    if not has_state(part, state["objects"][path]):
                        self._messages.differing_object(path, part)
                continue
            moved = changed_names(before, counters)
            set_counters(part, {name: item for name, item in saved.items() if name in before and name not in moved})

    def _load(self, path: str, part: object, state: Any) -> bool:
        """Load the state of an object. Return whether the object has accepted it.

        An object that has the state is not changed: it may take a loaded state as a position to continue from. A state
        object of the training was loaded before, and may keep that state until its next pass.
        """
        if not is_state_object(path, part) or (path not in self._constructed and has_state(part, state)):
            return False
        try:
            load_state(part, state)
        except Exception as error:
            self._messages.refused_object(path, part, error)
            return False
        return True

    def set_epoch(self, epoch: int) -> None:
        """Call ``set_epoch()`` of the loader, and of all samplers, datasets, and loaders that it refers to.

        Args:
            epoch: The number of the pass, from 0.
        """
        self._found = list(walk(self._loader))
        for _, part in self._found:
            set_epoch = getattr(type(part), "set_epoch", None)
            if callable(set_epoch) and takes_arguments(set_epoch, 1):
                part.set_epoch(epoch)


def _set_if_same_kind(generator: object, state: GeneratorState) -> bool:
    try:
        set_generator_state(generator, state)
    except ValueError:
        return False
    return True
