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
_MIN_BAR_WIDTH = 10  # characters
_DEFAULT_VALUES_WIDTH = 100  # characters, if the width of the output is unknown
_MAX_VALUE_WIDTH = 7  # characters


class Display(Protocol):
    """Display of the training progress.

    Attributes:
        next_update_time: Earliest time of the next update, in seconds of the monotonic clock.
    """

    next_update_time: float

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
    """Progress bar in a terminal or a notebook."""

    def __init__(self, initial: int, total: int | None, length: int | None, out: TextIO) -> None:
        bar = "{bar}" if length is None or IS_WIDGET else f"{{bar:{length}}}"
        bar_format = _bar_format(total, f"|{bar}|")
        self._bar = Bar(initial=initial, total=total, bar_format=bar_format, file=out, dynamic_ncols=True, smoothing=0)
        self._format_without_bar = _bar_format(total, "|" + " " * (length or _MIN_BAR_WIDTH) + "|")
        self.next_update_time = 0.0

    def show(self, iteration: int, total: int | None, epoch: str, values: Mapping[str, float]) -> None:
        bar = self._bar
        bar.n, bar.total = iteration, total
        bar.set_description_str(epoch, refresh=False)
        bar.set_postfix_str(_format_values(values, self._available_width()), refresh=False)
        bar.refresh()
        self.next_update_time = time.monotonic() + _REDRAW_SECONDS

    def close(self) -> None:
        self._bar.close()

    def _available_width(self) -> int:
        """Return the number of characters available for the values."""
        state = self._bar.format_dict
        if not isinstance(state["ncols"], int):
            return _DEFAULT_VALUES_WIDTH
        text = tqdm.format_meter(**{**state, "postfix": None, "ncols": None, "bar_format": self._format_without_bar})
        return state["ncols"] - len(text)


class LineDisplay:
    """Progress as lines of text, for output that is not a terminal."""

    def __init__(self, initial: int, out: TextIO) -> None:
        self._initial = initial
        self._out = out
        self._shown: int | None = None
        self._started = time.monotonic()
        self.next_update_time = self._started + _MIN_LINE_SECONDS

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
            postfix=_format_values(values, _DEFAULT_VALUES_WIDTH),
        )
        with tolerant_write(self._out):
            self._out.write(f"{line}\n")
        self.next_update_time = now + max(_MIN_LINE_SECONDS, (now - self._started) * _LINE_TIME_FRACTION)

    def close(self) -> None:
        """Do nothing. The output stream belongs to the caller."""


def _bar_format(total: int | None, bar: str) -> str:
    """Return the format of a line for tqdm."""
    if total is None:
        return "{desc}{n_fmt} [{elapsed}, {rate_fmt}{postfix}]"
    return "{desc}{percentage:3.0f}%" + bar + " {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def _format_values(values: Mapping[str, float], max_width: int) -> str:
    """Return as many of the first values as fit a width in characters."""
    text = ""
    for key, value in values.items():
        longer = (
            f"{text}, {key}={format_number(value, _MAX_VALUE_WIDTH)}"
            if text
            else f"{key}={format_number(value, _MAX_VALUE_WIDTH)}"
        )
        if len(longer) + len(", ") > max_width:
            break
        text = longer
    return text
