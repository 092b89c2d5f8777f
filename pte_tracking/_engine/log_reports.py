"""File names and order of the LogReports of a training."""

from __future__ import annotations

from collections.abc import Iterable

from pte_tracking._interface.extension import Extension
from pte_tracking.extensions.log_report import LogReport


def find_log_reports(extensions: Iterable[Extension]) -> list[LogReport]:
    """Return the LogReports among the extensions, and those that other extensions run, such as a PrintReport.

    Args:
        extensions: The extensions in the order of registration.
    """
    extensions = list(extensions)
    registered = [extension for extension in extensions if isinstance(extension, LogReport)]
    attributes = (value for extension in extensions for value in vars(extension).values())
    others = [value for value in attributes if isinstance(value, LogReport)]
    return list({id(report): report for report in (*registered, *others)}.values())


def log_reports_run_by(extension: Extension) -> list[LogReport]:
    """Return the LogReports that run when an extension runs: itself, or an unregistered LogReport of a PrintReport.

    Args:
        extension: A registered extension.
    """
    return [report for report in find_log_reports([extension]) if report is extension or report.name is None]


def check_filename(log_report: LogReport, earlier: Iterable[LogReport]) -> None:
    """Check that a LogReport with a file name does not share it.

    Args:
        log_report: The LogReport.
        earlier: LogReports registered before.

    Raises:
        ValueError: If an earlier LogReport has the same file name.
    """
    if log_report.has_default_filename:
        return
    for other in earlier:
        if not other.has_default_filename and other.filename == log_report.filename:
            raise ValueError(
                f"filename: {log_report.filename!r} is the JSON log of the extension {other.name!r}. "
                "Choose another name for this LogReport."
            )


def assign_filenames(log_reports: Iterable[LogReport]) -> None:
    """Set the file names that were not passed: the restored one, or the first unused of ``log``, ``log_1``, ...

    Args:
        log_reports: The LogReports in the order of registration.
    """
    log_reports = list(log_reports)
    used = {log_report.filename for log_report in log_reports if not log_report.has_default_filename}
    unnamed = []
    for log_report in log_reports:
        restored = log_report.restored_filename
        if not log_report.has_default_filename:
            continue
        if restored is None or restored in used:
            unnamed.append(log_report)
        else:
            used.add(restored)
            log_report.set_default_filename(restored)
    for log_report in unnamed:
        name, suffix = "log", 0
        while name in used:
            suffix += 1
            name = f"log_{suffix}"
        used.add(name)
        log_report.set_default_filename(name)
