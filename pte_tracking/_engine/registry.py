"""The extensions of a training: their names, their order, and the calls that all of them get."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pte_tracking._interface.extension import PRIORITY_SNAPSHOT, Extension, FunctionExtension, Manager, TriggerLike
from pte_tracking.triggers import Trigger, get_trigger
from pte_tracking.triggers.description import describe_trigger

_logger = logging.getLogger("pte_tracking")


class ExtensionEntry:
    """An extension with what was said about it; what was not said is taken from the extension.

    Args:
        extension: An extension, or any function that takes the manager.
        name: What it is called.
        priority: Where in the order of an iteration.
        trigger: When it runs.
        call_before_training: Run it once before the first iteration, too.

    Raises:
        TypeError: It is no extension, the trigger no trigger, the name no string, or the priority no number.
        ValueError: The trigger's unit or period is wrong.
    """

    __slots__ = ("call_before_training", "extension", "name", "priority", "runs_here", "trigger")

    def __init__(
        self,
        extension: Callable[[Manager], Any],
        *,
        name: str | None = None,
        priority: int | None = None,
        trigger: TriggerLike = None,
        call_before_training: bool = False,
    ) -> None:
        self.extension = _as_extension(extension)
        self.name = name or self.extension.name or self.extension.default_name
        if not isinstance(self.name, str):
            raise TypeError(
                f"name: expected a string, got {self.name!r}; for when it runs, write trigger={self.name!r}"
            )
        self.priority = self.extension.priority if priority is None else priority
        if not isinstance(self.priority, int):
            raise TypeError(
                f"priority: expected a whole number, such as PRIORITY_READER, got {self.priority!r} "
                f"of type {type(self.priority).__name__}"
            )
        self.trigger: Trigger = get_trigger(self.extension.trigger if trigger is None else trigger)
        self.call_before_training = call_before_training
        #: Whether it runs on this rank. Its trigger is asked on all of them: it may need the others to decide.
        self.runs_here = True

    def replace(
        self, name: str | None, priority: int | None, trigger: TriggerLike, call_before_training: bool | None
    ) -> ExtensionEntry:
        """The same extension, with what is said now in place of what was said before; None leaves it."""
        return ExtensionEntry(
            self.extension,
            name=name or self.name,
            priority=self.priority if priority is None else priority,
            trigger=self.trigger if trigger is None else trigger,
            call_before_training=self.call_before_training if call_before_training is None else call_before_training,
        )


class ExtensionRegistry:
    """All extensions of a training, in the order they run.

    Attributes:
        running: What runs when its trigger fires; by priority, equal ones in order of registration.
        saving: What comes last, when all triggers have decided: priorities up to that of snapshots.

    Args:
        rank: This process's number among those that train together.
    """

    def __init__(self, rank: int = 0) -> None:
        self._rank = rank
        self._entries: list[ExtensionEntry] = []
        self.running: list[ExtensionEntry] = []
        self.saving: list[ExtensionEntry] = []

    def __iter__(self) -> Iterator[Extension]:
        return (entry.extension for entry in self._entries)

    def _local_entries(self) -> list[ExtensionEntry]:
        return [entry for entry in self._entries if entry.runs_here]

    def description(self) -> list[str]:
        """What has to be alike on all ranks: each extension, its name, kind, place, and when it does something."""
        return [
            f"{entry.name} ({type(entry.extension).__name__}, {entry.priority}, {_describe_trigger(entry)})"
            for entry in self._entries
        ]

    def names(self) -> list[str]:
        """What they are called."""
        return [entry.name for entry in self._entries]

    def add(self, entry: ExtensionEntry) -> None:
        """Registers an extension; where its name is taken, the first free of ``name_1``, ``name_2`` ... is used."""
        existing = self.names()
        base_name, suffix = entry.name, 0
        while entry.name in existing:
            suffix += 1
            entry.name = f"{base_name}_{suffix}"
        entry.extension.name = entry.name
        entry.runs_here = self._rank == 0 or not entry.extension.rank_zero_only
        self._entries.append(entry)
        self._entries.sort(key=lambda entry: -entry.priority)
        self.running = [entry for entry in self._entries if entry.priority > PRIORITY_SNAPSHOT]
        self.saving = [entry for entry in self._entries if entry.priority <= PRIORITY_SNAPSHOT]

    def has(self, kind: type[Extension]) -> bool:
        """Whether there is one of a kind."""
        return any(isinstance(entry.extension, kind) for entry in self._entries)

    def get(self, name: str) -> Extension:
        """The extension of that name.

        Raises:
            ValueError: There is none.
        """
        for entry in self._entries:
            if entry.name == name:
                return entry.extension
        registered = ", ".join(self.names()) or "none"
        raise ValueError(f"name: no extension is called {name!r}; there are {registered}")

    def initialize(self, manager: Manager) -> None:
        """Prepares them for the first iteration, but for those that will never run."""
        for entry in self._entries:
            if entry.runs_here and not entry.trigger.finished:
                entry.extension.initialize(manager)

    def call_before_training(self, manager: Manager) -> None:
        """Calls those that asked to be called before the first iteration."""
        for entry in self._entries:
            if entry.runs_here and entry.call_before_training:
                entry.extension(manager)

    def on_error(self, manager: Manager, error: Exception) -> None:
        """Tells all of an error; what goes wrong there is logged, for the first error is the one that matters."""
        for entry in self._local_entries():
            try:
                entry.extension.on_error(manager, error, error.__traceback__)
            except Exception:
                _logger.exception("the extension %r raised in on_error; the first error goes on", entry.name)

    def finalize(self, manager: Manager, error: BaseException | None) -> BaseException | None:
        """Ends them all; returns ``error``, or else the first error of theirs. Others are logged."""
        for entry in self._local_entries():
            try:
                entry.extension.finalize(manager)
            except Exception as finalize_error:
                if error is None:
                    error = finalize_error
                else:
                    _logger.exception("the extension %r raised in finalize; the first error goes on", entry.name)
        return error

    def state_dict(self) -> dict[str, Any]:
        """The state of each extension and of its trigger, by name."""
        return {entry.name: _entry_state(entry) for entry in self._entries}

    def expected_names(self, state: Mapping[str, Any]) -> list[str]:
        """The names that a state has to have: what has no state may have come since it was taken, or gone."""
        entries = {entry.name: entry for entry in self._entries}
        return [
            *(name for name, entry in entries.items() if name in state or any(_entry_state(entry).values())),
            *(name for name, saved in state.items() if name not in entries and not any(saved.values())),
        ]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` returned.

        An extension that has come since begins anew, and so does a trigger in place of one without a state.
        """
        for entry in self._entries:
            if not (saved := state.get(entry.name)):
                continue
            part: Extension | Trigger
            for part, kind in ((entry.extension, "extension"), (entry.trigger, "trigger")):
                if kind == "trigger" and not saved[kind]:
                    continue
                try:
                    part.load_state_dict(saved[kind])
                except Exception as error:
                    raise ValueError(
                        f"state: the {kind} of {entry.name!r}, a {type(part).__name__} here, cannot take what was "
                        f"saved of it ({type(error).__name__}: {error}); was it of another kind then?"
                    ) from error


def _entry_state(entry: ExtensionEntry) -> dict[str, dict[str, Any]]:
    return {"extension": entry.extension.state_dict(), "trigger": entry.trigger.state_dict()}


def _describe_trigger(entry: ExtensionEntry) -> str:
    inner = (value for value in vars(entry.extension).values() if isinstance(value, Trigger))
    return ", ".join(map(describe_trigger, (entry.trigger, *inner)))


def _as_extension(extension: object) -> Extension:
    if isinstance(extension, Extension):
        return extension
    if isinstance(extension, type):
        raise TypeError(f"extension: got the class {extension.__name__}; write {extension.__name__}()")
    if callable(extension):
        return FunctionExtension(extension)
    raise TypeError(
        f"extension: expected an Extension or a function that takes the manager, "
        f"got {extension!r} of type {type(extension).__name__}"
    )
