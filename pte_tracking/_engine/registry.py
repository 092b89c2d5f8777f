"""Extensions of a training: their names, their order, and calls to all of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from pte_tracking._engine.differences import AllowedDifferences, describe_part
from pte_tracking._engine.entry import ExtensionEntry, ObservedManager
from pte_tracking._engine.given_values import GivenState, GivenValues
from pte_tracking._engine.log_reports import (
    assign_filenames,
    check_filename,
    find_log_reports,
    log_reports_run_by,
)
from pte_tracking._engine.long_triggers import warn_long_triggers
from pte_tracking._engine.parts import load_allowed
from pte_tracking._engine.shared_objects import UsedObjects
from pte_tracking._engine.snapshot_files import check_snapshot_files
from pte_tracking._engine.state_matching import NumberedName, match_names
from pte_tracking._engine.unrecorded import LateValues, UnrecordedValues, may_report
from pte_tracking._interface.extension import PRIORITY_SNAPSHOT, Extension, Manager
from pte_tracking._snapshots.save_failure import named_failure
from pte_tracking.extensions.log_report import LogReport
from pte_tracking.triggers import Trigger
from pte_tracking.triggers.description import describe_trigger

_logger = logging.getLogger("pte_tracking")


#: Entry of the saved arguments with the name of each extension without the number that made it unique.
_BASE_NAMES = "base_names"


class ExtensionRegistry:
    """Extensions of a training, in the order in which they run.

    Args:
        given: Receives the arguments of the extensions and triggers.
        stop_trigger: Stop trigger of the training, which no extension may use if it has a state.
        rank: Rank of this process. Defaults to 0.

    Attributes:
        running: Entries with a priority above ``PRIORITY_SNAPSHOT``, by priority, then in order of registration.
        saving: The other entries. They run last, after all triggers were evaluated.
    """

    def __init__(self, given: GivenValues, stop_trigger: Trigger, rank: int = 0) -> None:
        self._given = given
        self._used = UsedObjects()
        self._used.add_trigger(stop_trigger, "the training, as stop_trigger")
        self._rank = rank
        #: Names without the numbers that were added to make them unique, by name.
        self._base_names: dict[str, str] = {}
        self._registered: list[ExtensionEntry] = []
        self._entries: list[ExtensionEntry] = []
        self.running: list[ExtensionEntry] = []
        self.saving: list[ExtensionEntry] = []
        self._unrecorded: ExtensionEntry | None = None

    def __iter__(self) -> Iterator[Extension]:
        return (entry.extension for entry in self._entries)

    def _log_reports(self) -> list[LogReport]:
        return find_log_reports(entry.extension for entry in self._registered)

    def _local_entries(self) -> list[ExtensionEntry]:
        return [entry for entry in self._entries if entry.runs_here]

    def description(self) -> list[str]:
        """Return one line per extension with all settings that have to be equal on all ranks."""
        return [
            f"{entry.name} ({type(entry.extension).__name__}, {entry.priority}, {_describe_trigger(entry)})"
            for entry in self._entries
        ]

    def by_name(self) -> dict[str, Extension]:
        """Return the extensions by name."""
        return {entry.name: entry.extension for entry in self._entries}

    def names(self) -> list[str]:
        """Return the names of the extensions."""
        return [entry.name for entry in self._entries]

    def add(self, entry: ExtensionEntry) -> None:
        """Register an extension. If its name is in use, the first unused of ``name_1``, ``name_2``, ... is assigned.

        Args:
            entry: The extension and its settings.
        """
        check_snapshot_files(entry.extension, self)
        if isinstance(entry.extension, LogReport):
            earlier = [other for other in self._registered if isinstance(other.extension, LogReport)]
            check_filename(entry.extension, find_log_reports(other.extension for other in earlier))
            # At a common step, the value of the first LogReport counts. It must not be logged after the others.
            entry.priority = min(entry.priority, *(other.priority for other in earlier), entry.priority)
        existing = self.names()
        base_name, suffix = entry.name, 0
        while entry.name in existing:
            suffix += 1
            entry.name = f"{base_name}_{suffix}"
        self._used.add_extension(entry.extension, entry.trigger, entry.name)
        entry.extension.name = entry.name
        self._base_names[entry.name] = base_name
        self._given.add(f"extensions/{entry.name}", entry.extension)
        self._given.add(f"triggers/{entry.name}", entry.trigger)
        self._registered.append(entry)
        assign_filenames(self._log_reports())
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
        log_reports = self._log_reports()
        if self._rank == 0 and manager.run.sinks and not log_reports:
            # Not in the list of entries: the extension is not part of the state, and has no name.
            self._unrecorded = ExtensionEntry(UnrecordedValues(self))
            self.running.append(self._unrecorded)
        if self._rank == 0 and log_reports:
            self._watch_late(log_reports)
        if self._rank == 0:
            warn_long_triggers(self._entries, manager)
        for entry in self._entries:
            if entry.runs_here and not entry.trigger.finished:
                entry.extension.initialize(manager)
        for entry in self.running:
            entry.prepare()

    def _watch_late(self, log_reports: list[LogReport]) -> None:
        """Watch the extensions that run after all LogReports, whose values are not recorded."""
        late_values = LateValues(log_reports)
        for entry in reversed(self._entries):
            if log_reports_run_by(entry.extension):
                return
            if may_report(entry.extension):
                entry.watch(late_values)

    def collect_after(self, failed: ExtensionEntry | None, manager: Manager) -> None:
        """Let LogReports collect the values of an iteration in which an extension failed before they ran.

        Args:
            failed: Entry of the extension.
            manager: The manager.
        """
        rest = iter(self.running)
        if any(entry is failed for entry in rest):
            for entry in rest:
                for log_report in log_reports_run_by(entry.extension) if entry.runs_here else ():
                    log_report.collect(manager)

    def call_before_training(self, manager: ObservedManager) -> None:
        """Call the extensions with ``call_before_training=True``, and log what they report at step 0.

        Args:
            manager: The manager.
        """
        for entry in self._entries:
            is_log = isinstance(entry.extension, LogReport) and manager.observation
            if entry.runs_here and (entry.call_before_training or is_log):
                entry.call(manager)

    def on_stop(self, manager: Manager) -> None:
        """Call ``on_stop()`` of the extensions, except those that will never run.

        Args:
            manager: The manager.
        """
        for entry in self._local_entries():
            if not entry.trigger.finished:
                entry.extension.on_stop(manager)

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
            ``error``, or else the first exception that an extension raised. Others are logged. An interrupt or an exit
            in an extension has priority.
        """
        entries = [*self._local_entries(), *([self._unrecorded] if self._unrecorded else [])]
        # LogReports first: they log the last rows, which other extensions display.
        for entry in sorted(entries, key=lambda entry: not isinstance(entry.extension, LogReport)):
            try:
                entry.extension.finalize(manager)
            except BaseException as finalize_error:  # Snapshots must also be complete after an interrupt.
                if error is None or not isinstance(finalize_error, Exception):
                    error = finalize_error
                else:
                    _logger.exception("Extension %r raised in finalize(). An earlier exception is raised.", entry.name)
        return error

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each extension and of its trigger, by name."""
        return {entry.name: _entry_state(entry) for entry in self._entries}

    def base_names(self) -> GivenState:
        """Return the names without the numbers that make them unique, which snapshots contain for a later match."""
        return {_BASE_NAMES: dict(self._base_names)}

    def match_state(self, state: Mapping[str, Any], given: GivenState) -> dict[str, str]:
        """Return the saved name of each extension, also if extensions of one class are registered in another order.

        Args:
            state: Saved state of the extensions.
            given: Saved digests of their arguments.
        """

        def numbered(name: str, base: str, digests: GivenState) -> NumberedName:
            own, trigger = digests.get(f"extensions/{name}", {}), digests.get(f"triggers/{name}", {})
            # The attribute "name" of an extension is the name that depends on the order.
            own = {key: digest for key, digest in own.items() if key != "name"}
            return NumberedName(name, base, {**own, **{f"trigger {key}": digest for key, digest in trigger.items()}})

        current, bases = self._given.state_dict(), given.get(_BASE_NAMES, {})
        return match_names(
            [numbered(name, base, current) for name, base in self._base_names.items()],
            [numbered(name, bases.get(name, name), given) for name in state],
        )

    def expected_names(self, state: Mapping[str, Any]) -> list[str]:
        """Return the names that a state has to contain. Extensions without a state may be added or removed.

        Args:
            state: Saved state of the extensions.
        """
        entries = {entry.name: entry for entry in self._entries}
        return [
            *(name for name, entry in entries.items() if name in state or any(_entry_state(entry).values())),
            *(name for name, saved in state.items() if name not in entries and not has_state(saved)),
        ]

    def load_state_dict(
        self, state: Mapping[str, Any], undo: contextlib.ExitStack, allowed: AllowedDifferences
    ) -> None:
        """Restore the state returned by :meth:`state_dict`.

        Extensions that are not in the state keep their current state, and so do triggers whose saved state is empty.

        Args:
            state: The state.
            undo: Receives functions that return the extensions and triggers to their earlier states.
            allowed: Extensions that may refuse their state, and those that are not restored.

        Raises:
            ValueError: If an extension or a trigger refuses its state.
        """
        undo.callback(lambda: assign_filenames(self._log_reports()))
        for entry in self._entries:
            if not (saved := state.get(entry.name)):
                continue
            load_allowed(f"extensions/{entry.name}", entry.extension, saved["extension"], undo, allowed)
            if saved["trigger"]:
                load_allowed(f"triggers/{entry.name}", entry.trigger, saved["trigger"], undo, allowed)
        assign_filenames(self._log_reports())


def has_state(saved: Mapping[str, Any]) -> bool:
    """Return whether the saved state of an extension or its trigger is not empty."""
    return bool(saved["extension"] or saved["trigger"])


def _entry_state(entry: ExtensionEntry) -> dict[str, dict[str, Any]]:
    with named_failure(describe_part(f"extensions/{entry.name}"), entry.extension):
        state = entry.extension.state_dict()
    with named_failure(describe_part(f"triggers/{entry.name}"), entry.trigger):
        return {"extension": state, "trigger": entry.trigger.state_dict()}


def _describe_trigger(entry: ExtensionEntry) -> str:
    inner = (value for value in vars(entry.extension).values() if isinstance(value, Trigger))
    return ", ".join(map(describe_trigger, (entry.trigger, *inner)))
