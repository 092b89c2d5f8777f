"""Displays of the training progress: a bar that is redrawn, or lines that are appended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol, TextIO

from tqdm import tqdm

from pte_tracking.extensions._bar import IS_WIDGET, Bar
from pte_tracking.extensions._columns import format_number
from pte_tracking.extensions._lines import tolerant_write

_REDRAW_SECONDS = 0.1  # minimum time between two updates of a bar
_MIN_LINE_SECONDS = 10.0  # minimum time between two lines
_LINE_TIME_FRACTION = 0.02  # minimum time between two lines as a fraction of the elapsed time: about 400 lines a week
_MIN_BAR_WIDTH = 5  # characters
_DEFAULT_VALUES_WIDTH = 100  # characters, if the width of the output is unknown
_MAX_VALUE_WIDTH = 7  # characters
_MIN_RATE_WIDTH = len("1000.00it/s")


class Display(Protocol):
    """Display of the training progress.

    Attributes:
        next_update_time: Earliest time of the next update, in seconds of the monotonic clock.
        shows_milestones: Whether the end of an epoch may be displayed earlier.
    """

    next_update_time: float
    shows_milestones: bool

    def count(self, iteration: int) -> None:
        """Set the number of completed iterations without an update.

        Args:
            iteration: The number, for an update that a message on the same terminal causes.
        """

    def show(self, iteration: int, total: int | None, epoch: str, values: Mapping[str, float]) -> None:
        """Display the progress.

        Args:
            iteration: Number of completed iterations.
            total: Total number of iterations. None if unknown.
            epoch: Text for the current epoch, displayed first.
            values: Newest metrics by key.
        """

    def close(self) -> None:
        """Release the output."""


class BarDisplay:
    """Progress bar in a terminal or a notebook.

    In a narrow terminal, the bar is omitted before a value, and the speed before a part of the counts.
    """

    shows_milestones = True

    def __init__(self, initial: int, total: int | None, length: int | None, out: TextIO) -> None:
        self._length = length
        # A delay suppresses the first display, before the epoch and the available width are known.
        self._bar = Bar(initial=initial, total=total, file=out, dynamic_ncols=True, smoothing=0, delay=1e-9)
        #: Maximum number of characters of each value so far. Shorter values are padded, so that no other value moves.
        self._widths: dict[str, int] = {}
        self.next_update_time = 0.0

    def count(self, iteration: int) -> None:
        self._bar.n = iteration

    def show(self, iteration: int, total: int | None, epoch: str, values: Mapping[str, float]) -> None:
        bar = self._bar
        bar.n, bar.total = iteration, total
        bar.set_description_str(epoch, refresh=False)
        bar.bar_format, text = self._fit(total, values)
        bar.set_postfix_str(text, refresh=False)
        bar.refresh()
        self.next_update_time = time.monotonic() + _REDRAW_SECONDS

    def close(self) -> None:
        self._bar.close()

    def _fit(self, total: int | None, values: Mapping[str, float]) -> tuple[str, str]:
        """Return the format of the bar, and the text of the values that fit."""
        bar = "{bar}" if self._length is None or IS_WIDGET else f"{{bar:{self._length}}}"
        with_bar, *narrower = (
            _bar_format(total, f"|{bar}|", is_aligned=True),
            _bar_format(total, " ", is_aligned=True),
            _bar_format(total, " ", has_rate=False),
        )
        columns = self._bar.format_dict["ncols"]
        if not isinstance(columns, int):
            return with_bar, _format_values(values, _DEFAULT_VALUES_WIDTH, self._widths)
        fitting: list[tuple[str, str]] = []
        for layout in (with_bar, *narrower):
            width = columns - self._measure(layout.replace(bar, " " * (self._length or _MIN_BAR_WIDTH)))
            if width >= 0:
                fitting.append((layout, _format_values(values, width, self._widths)))
        if not fitting:
            return narrower[-1], ""
        has_value = len(fitting) > 1 and not fitting[0][1] and fitting[1][1]
        # The speed is not omitted for a value, nor is a bar whose length was chosen.
        is_replaced = has_value and fitting[0][0] == with_bar and self._length is None
        return fitting[1] if is_replaced else fitting[0]

    def _measure(self, bar_format: str) -> int:
        """Return the number of characters without the values."""
        state = {**self._bar.format_dict, "postfix": None, "ncols": None, "bar_format": bar_format}
        return len(tqdm.format_meter(**state))


class LineDisplay:
    """Progress as lines of text, for output that is not a terminal."""

    shows_milestones = False

    def __init__(self, initial: int, out: TextIO) -> None:
        self._initial = initial
        self._out = out
        self._shown: int | None = None
        self._started = time.monotonic()
        self.next_update_time = self._started + _MIN_LINE_SECONDS

    def count(self, iteration: int) -> None:
        """Do nothing. Messages do not repeat a line."""

    def show(self, iteration: int, total: int | None, epoch: str, values: Mapping[str, float]) -> None:
        if iteration == self._shown:
            return  # The final update repeats an iteration that was already written.
        self._shown = iteration
        now = time.monotonic()
        line = tqdm.format_meter(
            iteration,
            total,  # type: ignore[arg-type]
            now - self._started,
            prefix=epoch,
            initial=self._initial,
            bar_format=_bar_format(total, " "),
            postfix=_format_values(values, _DEFAULT_VALUES_WIDTH, {}),
        )
        with tolerant_write(self._out):
            self._out.write(f"{line}\n")
        self.next_update_time = now + max(_MIN_LINE_SECONDS, (now - self._started) * _LINE_TIME_FRACTION)

    def close(self) -> None:
        """Do nothing. The output stream belongs to the caller."""


def _bar_format(total: int | None, bar: str, *, is_aligned: bool = False, has_rate: bool = True) -> str:
    """Return the format of a line for tqdm.

    Args:
        total: Total number of iterations. None if unknown.
        bar: Format of the bar, with its borders.
        is_aligned: Whether numbers are padded, so that they do not move from one update to the next.
        has_rate: Whether the line contains the speed.
    """
    count, rate = "{n_fmt}", ", {rate_fmt}" if has_rate else ""
    if is_aligned:
        count, rate = f"{{n_fmt:>{len(str(total or 0))}}}", f", {{rate_fmt:>{_MIN_RATE_WIDTH}}}"
    if total is None:
        return "{desc}" + count + " [{elapsed}" + rate + "{postfix}]"
    return "{desc}{percentage:3.0f}%" + bar + f" {count}/{{total_fmt}} [{{elapsed}}<{{remaining}}{rate}{{postfix}}]"


def _format_values(values: Mapping[str, float], max_width: int, widths: dict[str, int]) -> str:
    """Return as many of the first values as fit a width in characters, with any digits.

    Args:
        values: Values by key.
        max_width: The width.
        widths: Maximum number of characters of each number so far, which is updated. Shorter numbers are padded, so
            that the values after them do not move.
    """
    text = padding = ""
    for key, value in values.items():
        number = format_number(value, _MAX_VALUE_WIDTH)
        width = widths[key] = max(widths.get(key, 0), len(number))
        max_width -= len(f", {key}=") + max(width, _MAX_VALUE_WIDTH)
        if max_width < 0:
            break
        text += f",{padding} {key}={number}" if text else f"{key}={number}"
        padding = " " * (width - len(number))
    return text + padding
