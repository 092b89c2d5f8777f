"""Extensions that most training scripts use."""

from __future__ import annotations

from pte_tracking._interface.extension import Extension
from pte_tracking.extensions.log_report import LogReport
from pte_tracking.extensions.print_report import PrintReport
from pte_tracking.extensions.progress_bar import ProgressBar
from pte_tracking.extensions.training_snapshot import snapshot


def defaults() -> list[Extension]:
    """Return the extensions that most training scripts use.

    A manager has no extensions unless they are passed, so nothing is printed or saved that the script does not
    name.

    Returns:
        A new ``LogReport()``, ``PrintReport()``, ``ProgressBar()``, and ``snapshot(n_retains=2)``. They write one row
        per epoch to the log and to the terminal, show a progress bar, and save a snapshot after each epoch, of which
        the two newest are kept.

    Example:
        >>> from pte_tracking import extensions
        >>> validation = extensions.Evaluator([], {}, eval_func=print)
        >>> [type(extension).__name__ for extension in [validation, *extensions.defaults()]]
        ['Evaluator', 'LogReport', 'PrintReport', 'ProgressBar', 'TrainingSnapshot']
    """
    return [LogReport(), PrintReport(), ProgressBar(), snapshot(n_retains=2)]
