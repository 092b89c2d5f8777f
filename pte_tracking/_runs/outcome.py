"""Status of a run that an exception or the end of the interpreter ends."""

from __future__ import annotations

import sys
import traceback
from typing import NamedTuple, TypeAlias

from pte_tracking._runs.exit_status import script_exit
from pte_tracking._store.events import Status
from pte_tracking._store.exit_calls import is_by_signal
from pte_tracking._store.values import check_key, to_text

_MAX_MESSAGE_LENGTH = 2000
_UNKNOWN_EXIT = (
    "SystemExit of unknown exit status before the run was closed. Close the run, or end the script with sys.exit()"
)

ErrorId: TypeAlias = tuple[int, int]

#: Names of exceptions that stop a training on purpose.
_stop_exceptions = {
    "optuna.TrialPruned",
    "fastai.CancelFitException",
    "lightning._TunerExitException",
    "pytorch_lightning._TunerExitException",
}


class Outcome(NamedTuple):
    """How a run ended. The fields are the arguments of :meth:`pte_tracking.Run.close`.

    Attributes:
        status: Status of the run.
        error: Error message. None if the run finished.
        stopped_by: Name of the exception that stopped the training on purpose.
    """

    status: Status
    error: str | None = None
    stopped_by: str | None = None


def register_stop_exception(exception: type[BaseException] | str) -> None:
    """Register an exception that stops a training on purpose, such as ``optuna.TrialPruned``.

    A run that such an exception ends is FINISHED, and its tag ``stopped_by`` contains the name of the exception.
    ``optuna.TrialPruned`` is registered already.

    Args:
        exception: Class, or its name after the name of its package: ``"optuna.TrialPruned"`` is the class
            ``TrialPruned`` of any module in ``optuna``. Subclasses count as well.

    Raises:
        TypeError: If ``exception`` is neither an exception class nor a string.
        ValueError: If the name contains no package.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> from pte_tracking import sinks
        >>> class BudgetSpent(Exception):
        ...     pass
        >>> pte.register_stop_exception(BudgetSpent)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     try:
        ...         with pte.Run(directory) as run:
        ...             raise BudgetSpent
        ...     except BudgetSpent:
        ...         ((end, _),) = sinks.find_events(run.directory / sinks.JOURNAL, sinks.RunEnded)
        >>> end.status
        'FINISHED'
    """
    if isinstance(exception, type) and issubclass(exception, BaseException):
        exception = _full_name(exception)
    name = check_key(exception, "exception")
    if "." not in name:
        raise ValueError(f"exception: expected a name such as 'optuna.TrialPruned', got {name!r}. Add the package.")
    _stop_exceptions.add(name)


def outcome_of(error: BaseException | None) -> Outcome:
    """Return the status and the error message of a run.

    Args:
        error: Exception that ended the run. None if it finished.

    Returns:
        FINISHED without an error, after ``sys.exit(0)``, and after an exception that stops a training on purpose.
        KILLED after an interrupt, an exception in a signal handler, or an exit status above 128. FAILED otherwise.
    """
    if error is None:
        return Outcome("FINISHED")
    if (name := _stop_name(type(error))) is not None:
        return Outcome("FINISHED", None, name)
    message = to_text(traceback.format_exception_only(error)[-1].strip())[:_MAX_MESSAGE_LENGTH]
    if isinstance(error, KeyboardInterrupt) or is_by_signal(error):
        return Outcome("KILLED", message)
    if not isinstance(error, SystemExit):
        return Outcome("FAILED", message)
    if error.code in (None, 0):
        return Outcome("FINISHED")
    # By convention, an exit status above 128 reports a signal to shells and schedulers.
    return Outcome("KILLED" if isinstance(error.code, int) and error.code > 128 else "FAILED", message)


def outcome_at_exit(error_before: ErrorId | None) -> Outcome:
    """Return the outcome of a run that the end of the interpreter ends.

    Args:
        error_before: ID of the last uncaught exception when the run was opened.
    """
    if error := uncaught_error(error_before):
        return outcome_of(error)
    end = script_exit()
    if end is None:
        return Outcome("FINISHED")
    if not end.is_known:
        return Outcome("FAILED", _UNKNOWN_EXIT)
    outcome = outcome_of(SystemExit(end.code))
    return Outcome("KILLED", outcome.error or "SystemExit in a signal handler") if end.is_by_signal else outcome


def uncaught_error(error_before: ErrorId | None) -> BaseException | None:
    """Return the exception that ends the interpreter, or None.

    Args:
        error_before: ID of the last uncaught exception when the run was opened.
    """
    if error := sys.exc_info()[1]:  # a child of multiprocessing ends while it handles the exception
        return error
    # In an interactive session, an uncaught exception does not end the interpreter.
    error = None if hasattr(sys, "ps1") else last_uncaught_error()
    return error if error_id(error) != error_before else None


def last_uncaught_error() -> BaseException | None:
    """Return the last uncaught exception, or None."""
    error: BaseException | None = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error


def last_error_id() -> ErrorId | None:
    """Return the ID of the last uncaught exception, or None."""
    return error_id(last_uncaught_error())


def error_id(error: BaseException | None) -> ErrorId | None:
    """Return a value that identifies an exception without keeping it and the variables of its traceback alive."""
    return None if error is None else (id(error), id(error.__traceback__))


def _stop_name(kind: type[BaseException]) -> str | None:
    for base in kind.__mro__:
        for name in _stop_exceptions:
            package, _, class_name = name.rpartition(".")
            if base.__qualname__ == class_name and f"{base.__module__}.".startswith(f"{package}."):
                return name
            if _full_name(base) == name:
                return name
    return None


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
