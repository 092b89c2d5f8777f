"""Extensions of a training: their names, their order, and calls to all of them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pte_tracking._engine.log_reports import assign_filenames, check_filename, find_log_reports
from pte_tracking._engine.unrecorded import UnrecordedValues
from pte_tracking._interface.extension import PRIORITY_SNAPSHOT, Extension, FunctionExtension, Manager, TriggerLike
from pte_tracking.extensions.log_report import LogReport
from pte_tracking.triggers import IntervalTrigger, Trigger, get_trigger
from pte_tracking.triggers.description import describe_trigger

_logger = logging.getLogger("pte_tracking")


class ExtensionEntry:
    """Extension with its settings, for the list of extensions of a front end.

    Args:
        extension: An extension, or a function of the manager.
        name: Name of the extension. Defaults to ``extension.name``, or else to ``extension.default_name``.
        priority: Position in the order of an iteration, highest first. Defaults to ``extension.priority``.
        trigger: Trigger that decides when the extension runs. Defaults to ``extension.trigger``.
        call_before_training: Whether the extension also runs once before the first iteration. Defaults to False.

    Attributes:
        extension: The extension.
        name: Name of the extension.
        priority: Priority of the extension.
        trigger: Trigger of the extension.
        call_before_training: Whether the extension also runs once before the first iteration.
        runs_here: Whether the extension runs on this rank.
        measures: Whether the extension reports more rarely than in each iteration.

    Raises:
        TypeError: If the extension is neither an extension nor a callable, or another argument has the wrong type.
        ValueError: If the unit or the period of the trigger is invalid.

    Example:
        >>> import pte_tracking as pte
        >>> def print_iteration(manager):
        ...     print(manager.iteration)
        >>> entry = pte.ExtensionEntry(print_iteration, name="printer", trigger=(2, "iteration"))
        >>> manager = pte.ExtensionsManager({}, 1, [entry], iters_per_epoch=4, sinks=[])
        >>> while not manager.stop_trigger:
        ...     with manager.run_iteration():
        ...         pass
        2
        4
    """

    __slots__ = ("call_before_training", "extension", "measures", "name", "priority", "runs_here", "trigger")

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
        self._set_names(
            name or self.extension.name or self.extension.default_name,
            self.extension.priority if priority is None else priority,
        )
        own_trigger = get_trigger(self.extension.trigger)
        if trigger is None and not _fires_each_iteration(own_trigger):
            trigger = own_trigger  # A subclass or the user may set the attribute of an extension with an inner trigger.
        self._set_trigger(own_trigger if trigger is None else trigger, is_given=trigger is not None)
        self.call_before_training = call_before_training
        # The trigger is evaluated on all ranks, also where the extension does not run: ranks may decide together.
        self.runs_here = True

    def _set_names(self, name: object, priority: object) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {name!r}. To set the trigger, pass trigger={name!r}.")
        if not isinstance(priority, int):
            raise TypeError(
                f"priority: expected an integer, such as PRIORITY_READER, got {priority!r} "
                f"of type {type(priority).__name__}"
            )
        self.name, self.priority = name, priority

    def _set_trigger(self, trigger: TriggerLike, *, is_given: bool = True) -> None:
        is_taken = is_given and self.extension.take_trigger(trigger)
        self.trigger: Trigger = get_trigger(Extension.trigger if is_taken else trigger)
        self.measures = not (_fires_each_iteration(self.trigger) and self.extension.reports_each_iteration)

    def replace(
        self, name: str | None, priority: int | None, trigger: TriggerLike, call_before_training: bool | None
    ) -> ExtensionEntry:
        """Return an entry of the same extension with other settings.

        Args:
            name: Name of the extension; None to keep it.
            priority: Priority of the extension; None to keep it.
            trigger: Trigger of the extension; None to keep it.
            call_before_training: Whether the extension also runs once before the first iteration; None to keep it.
        """
        replaced = copy.copy(self)
        replaced._set_names(name or self.name, self.priority if priority is None else priority)
        if trigger is not None:
            replaced._set_trigger(trigger)
        if call_before_training is not None:
            replaced.call_before_training = call_before_training
        return replaced


class ExtensionRegistry:
    """Extensions of a training, in the order in which they run.

    Args:
        rank: Rank of this process. Defaults to 0.

    Attributes:
        running: Entries with a priority above ``PRIORITY_SNAPSHOT``, by priority, then in order of registration.
        saving: The other entries. They run last, after all triggers were evaluated.
    """

    def __init__(self, rank: int = 0) -> None:
        self._rank = rank
        self._registered: list[ExtensionEntry] = []
        self._entries: list[ExtensionEntry] = []
        self.running: list[ExtensionEntry] = []
        self.saving: list[ExtensionEntry] = []
        self._unrecorded: ExtensionEntry | None = None

    def __iter__(self) -> Iterator[Extension]:
        return (entry.extension for entry in self._entries)

    def _local_entries(self) -> list[ExtensionEntry]:
        return [entry for entry in self._entries if entry.runs_here]

    def description(self) -> list[str]:
        """Return one line per extension with all settings that have to be equal on all ranks."""
        return [
            f"{entry.name} ({type(entry.extension).__name__}, {entry.priority}, {_describe_trigger(entry)})"
            for entry in self._entries
        ]

    def names(self) -> list[str]:
        """Return the names of the extensions."""
        return [entry.name for entry in self._entries]

    def add(self, entry: ExtensionEntry) -> None:
        """Register an extension. If its name is in use, the first unused of ``name_1``, ``name_2``, ... is assigned.

        Args:
            entry: The extension and its settings.
        """
        if isinstance(entry.extension, LogReport):
            earlier = [other for other in self._registered if isinstance(other.extension, LogReport)]
            check_filename(entry.extension, find_log_reports(other.extension for other in earlier))
            # At a common step, the value of the first LogReport counts. It must not be logged after the others.
            entry.priority = min(entry.priority, *(other.priority for other in earlier), entry.priority)
        self._registered.append(entry)
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

    def get(self, name: str) -> Extension:
        """Return the extension of a name.

        Args:
            name: The name.

        Raises:
            ValueError: If no extension has this name.
        """
        for entry in self._entries:
            if entry.name == name:
                return entry.extension
        registered = ", ".join(self.names()) or "none"
        raise ValueError(f"name: no extension is named {name!r}. Registered extensions: {registered}.")

    def initialize(self, manager: Manager) -> None:
        """Initialize the extensions, except those that will never run.

        Args:
            manager: The manager.
        """
        log_reports = find_log_reports(entry.extension for entry in self._registered)
        assign_filenames(log_reports)
        if self._rank == 0 and manager.run.sinks and not log_reports:
            # Not in the list of entries: the extension is not part of the state, and has no name.
            self._unrecorded = ExtensionEntry(UnrecordedValues(self))
            self.running.append(self._unrecorded)
        for entry in self._entries:
            if entry.runs_here and not entry.trigger.finished:
                entry.extension.initialize(manager)

    def call_before_training(self, manager: Manager) -> None:
        """Call the extensions with ``call_before_training=True``.

        Args:
            manager: The manager.
        """
        for entry in self._entries:
            if entry.runs_here and entry.call_before_training:
                entry.extension(manager)

    def on_error(self, manager: Manager, error: Exception) -> None:
        """Call ``on_error()`` of all extensions. Exceptions that they raise are logged.

        Args:
            manager: The manager.
            error: Exception that the training failed with.
        """
        for entry in self._local_entries():
            try:
                entry.extension.on_error(manager, error, error.__traceback__)
            except Exception:
                _logger.exception("Extension %r raised in on_error(). The original exception is raised.", entry.name)

    def finalize(self, manager: Manager, error: BaseException | None) -> BaseException | None:
        """Call ``finalize()`` of all extensions.

        Args:
            manager: The manager.
            error: Exception that the training failed with; None if it did not fail.

        Returns:
            ``error``, or else the first exception that an extension raised. Others are logged.
        """
        entries = [*self._local_entries(), *([self._unrecorded] if self._unrecorded else [])]
        # LogReports first: they log the last rows, which other extensions display.
        for entry in sorted(entries, key=lambda entry: not isinstance(entry.extension, LogReport)):
            try:
                entry.extension.finalize(manager)
            except Exception as finalize_error:
                if error is None:
                    error = finalize_error
                else:
                    _logger.exception("Extension %r raised in finalize(). An earlier exception is raised.", entry.name)
        return error

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each extension and of its trigger, by name."""
        return {entry.name: _entry_state(entry) for entry in self._entries}

    def expected_names(self, state: Mapping[str, Any]) -> list[str]:
        """Return the names that a state has to contain. Extensions without a state may be added or removed.

        Args:
            state: Saved state of the extensions.
        """
        entries = {entry.name: entry for entry in self._entries}
        return [
            *(name for name, entry in entries.items() if name in state or any(_entry_state(entry).values())),
            *(name for name, saved in state.items() if name not in entries and not any(saved.values())),
        ]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state returned by :meth:`state_dict`.

        Extensions that are not in the state keep their current state, and so do triggers whose saved state is empty.

        Args:
            state: The state.

        Raises:
            ValueError: If an extension or a trigger raises while it restores its state.
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
                        f"state: the {kind} of {entry.name!r}, of type {type(part).__name__}, cannot restore its saved "
                        f"state: {type(error).__name__}: {error}. Check that the state was saved by the same type."
                    ) from error


def _fires_each_iteration(trigger: Trigger) -> bool:
    return isinstance(trigger, IntervalTrigger) and trigger.is_each_iteration


def _entry_state(entry: ExtensionEntry) -> dict[str, dict[str, Any]]:
    return {"extension": entry.extension.state_dict(), "trigger": entry.trigger.state_dict()}


def _describe_trigger(entry: ExtensionEntry) -> str:
    inner = (value for value in vars(entry.extension).values() if isinstance(value, Trigger))
    return ", ".join(map(describe_trigger, (entry.trigger, *inner)))


def _as_extension(extension: object) -> Extension:
    if isinstance(extension, Extension):
        return extension
    if isinstance(extension, type):
        raise TypeError(
            f"extension: expected an instance, got the class {extension.__name__}. Write {extension.__name__}()."
        )
    if callable(extension):
        return FunctionExtension(extension)
    raise TypeError(
        f"extension: expected an Extension or a function that takes the manager, "
        f"got {extension!r} of type {type(extension).__name__}"
    )
