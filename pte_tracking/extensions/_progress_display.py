"""Where the progress of a training is shown: a bar that is redrawn, or lines that are added."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol, TextIO

from tqdm import tqdm

from pte_tracking.extensions._bar import IS_WIDGET, Bar
from pte_tracking.extensions._columns import number
from pte_tracking.extensions._lines import writing

_REDRAWN_EVERY = 0.1  # seconds; more often nobody could read
_LINE_EVERY = 10.0  # seconds at least between lines in a file,
_LINE_GROWTH = 0.02  # and this part of the time so far: a week makes some 400 lines
_SHORTEST_BAR = 10  # characters
_VALUES_ROOM = 100  # characters, where there is no terminal to say
_VALUE_WIDTH = 7  # characters


class Display(Protocol):
    """Shows the progress somewhere.

    Attributes:
        rests_until: When it may be shown again, by the monotonic clock.
    """

    rests_until: float

    def show(self, iteration: int, total: int | None, epoch: str, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class BarDisplay:
    """A bar in a terminal or a notebook."""

    def __init__(self, initial: int, total: int | None, length: int | None, out: TextIO) -> None:
        bar = "{bar}" if length is None or IS_WIDGET else f"{{bar:{length}}}"
        status = _status(total, f"|{bar}|")
        self._bar = Bar(initial=initial, total=total, bar_format=status, file=out, dynamic_ncols=True, smoothing=0)
        self._rest = _status(total, "|" + " " * (length or _SHORTEST_BAR) + "|")
        self.rests_until = 0.0

    def show(self, iteration: int, total: int | None, epoch: str, values: Mapping[str, float]) -> None:
        bar = self._bar
        bar.n, bar.total = iteration, total
        bar.set_description_str(epoch, refresh=False)
        bar.set_postfix_str(_fitting(values, self._room()), refresh=False)
        bar.refresh()
        self.rests_until = time.monotonic() + _REDRAWN_EVERY

    def close(self) -> None:
        self._bar.close()

    def _room(self) -> int:
        """Characters that are left for the values."""
        state = self._bar.format_dict
        if not isinstance(state["ncols"], int):
            return _VALUES_ROOM
        rest = tqdm.format_meter(**{**state, "postfix": None, "ncols": None, "bar_format": self._rest})
        return state["ncols"] - len(rest)


class LineDisplay:
    """Lines of text in a file."""

    def __init__(self, initial: int, out: TextIO) -> None:
        self._initial = initial
        self._out = out
        self._shown: int | None = None
        self._started = time.monotonic()
        self.rests_until = self._started + _LINE_EVERY

    def show(self, iteration: int, total: int | None, epoch: str, values: Mapping[str, float]) -> None:
        if iteration == self._shown:
            return  # a line was due at the last iteration already
        self._shown = iteration
        now = time.monotonic()
        line = tqdm.format_meter(
            iteration,
            total,  # type: ignore[arg-type]
            now - self._started,
            prefix=epoch,
            initial=self._initial,
            bar_format=_status(total, " "),
            postfix=_fitting(values, _VALUES_ROOM),
        )
        with writing(self._out):
            self._out.write(f"{line}\n")
        self.rests_until = now + max(_LINE_EVERY, (now - self._started) * _LINE_GROWTH)

    def close(self) -> None:
        """Nothing is open."""


def _status(total: int | None, bar: str) -> str:
    """The form of the whole line, for tqdm."""
    if total is None:
        return "{desc}{n_fmt} [{elapsed}, {rate_fmt}{postfix}]"
    return "{desc}{percentage:3.0f}%" + bar + " {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


def _fitting(values: Mapping[str, float], room: int) -> str:
    """The first values as text, as many as there is room for."""
    text = ""
    for key, value in values.items():
        longer = f"{text}, {key}={number(value, _VALUE_WIDTH)}" if text else f"{key}={number(value, _VALUE_WIDTH)}"
        if len(longer) + len(", ") > room:
            break
        text = longer
    return text
