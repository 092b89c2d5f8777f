"""Training extensions for PyTorch in the style of Chainer, connected to durable experiment tracking."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pte_tracking._store.dependencies import check_required as _check_required
from pte_tracking._store.exit_calls import watch_exit as _watch_exit
from pte_tracking._store.messages import install_fallback_handler as _install_fallback_handler

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pte_tracking import extensions as extensions
    from pte_tracking import reporter as reporter
    from pte_tracking import sinks as sinks
    from pte_tracking import testing as testing
    from pte_tracking import triggers as triggers
    from pte_tracking import updaters as updaters
    from pte_tracking._engine.entry import ExtensionEntry as ExtensionEntry
    from pte_tracking._engine.ignite import IgniteExtensionsManager as IgniteExtensionsManager
    from pte_tracking._engine.loading import load as load
    from pte_tracking._engine.manager import ExtensionsManager as ExtensionsManager
    from pte_tracking._engine.trainer import Trainer as Trainer
    from pte_tracking._interface.extension import PRIORITY_EDITOR as PRIORITY_EDITOR
    from pte_tracking._interface.extension import PRIORITY_READER as PRIORITY_READER
    from pte_tracking._interface.extension import PRIORITY_SNAPSHOT as PRIORITY_SNAPSHOT
    from pte_tracking._interface.extension import PRIORITY_WRITER as PRIORITY_WRITER
    from pte_tracking._interface.extension import Extension as Extension
    from pte_tracking._interface.extension import Manager as Manager
    from pte_tracking._interface.function_extension import make_extension as make_extension
    from pte_tracking._runs.directory_lock import DirectoryInUseError as DirectoryInUseError
    from pte_tracking._runs.outcome import register_stop_exception as register_stop_exception
    from pte_tracking._runs.run import Run as Run
    from pte_tracking._runs.stored_run import StoredRun as StoredRun
    from pte_tracking._runs.stored_run import open_runs as open_runs
    from pte_tracking._snapshots.errors import SnapshotError as SnapshotError
    from pte_tracking._store.manifest import RunNotFoundError as RunNotFoundError
    from pte_tracking.reporter import DictSummary as DictSummary
    from pte_tracking.reporter import Reporter as Reporter
    from pte_tracking.reporter import Summary as Summary
    from pte_tracking.reporter import get_current_reporter as get_current_reporter
    from pte_tracking.reporter import report as report
    from pte_tracking.reporter import report_scope as report_scope
    from pte_tracking.sinks import Checkpoint as Checkpoint
    from pte_tracking.triggers import Trigger as Trigger
    from pte_tracking.triggers import get_trigger as get_trigger
else:
    # Loaded on first use: backends and the delivery process import this package and must not wait for torch.
    _NAMES_BY_MODULE = {
        "_engine.ignite": ("IgniteExtensionsManager",),
        "_engine.loading": ("load",),
        "_engine.manager": ("ExtensionsManager",),
        "_engine.entry": ("ExtensionEntry",),
        "_engine.trainer": ("Trainer",),
        "_interface.extension": (
            "PRIORITY_EDITOR",
            "PRIORITY_READER",
            "PRIORITY_SNAPSHOT",
            "PRIORITY_WRITER",
            "Extension",
            "Manager",
        ),
        "_interface.function_extension": ("make_extension",),
        "_runs.directory_lock": ("DirectoryInUseError",),
        "_runs.outcome": ("register_stop_exception",),
        "_runs.run": ("Run",),
        "_runs.stored_run": ("StoredRun", "open_runs"),
        "_snapshots.errors": ("SnapshotError",),
        "_store.manifest": ("RunNotFoundError",),
        "reporter": ("DictSummary", "Reporter", "Summary", "get_current_reporter", "report", "report_scope"),
        "sinks": ("Checkpoint",),
        "triggers": ("Trigger", "get_trigger"),
    }
    _MODULES = ("extensions", "reporter", "sinks", "testing", "triggers", "updaters")
    _MODULE_BY_NAME = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}
    __all__ = sorted(["__version__", *_MODULES, *_MODULE_BY_NAME])

    def __getattr__(name: str) -> Any:
        if name not in _MODULES and name not in _MODULE_BY_NAME:
            raise AttributeError(f"module 'pte_tracking' has no attribute {name!r}")
        _check_required()
        if name in _MODULES:
            return importlib.import_module(f"pte_tracking.{name}")
        value = getattr(importlib.import_module(f"pte_tracking.{_MODULE_BY_NAME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


_install_fallback_handler()
_watch_exit()
