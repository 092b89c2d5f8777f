"""How far the training is, on the screen."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Protocol, TextIO

from tqdm import tqdm

from pte_tracking.extension import Extension, Manager
from pte_tracking.extensions.bar import IS_WIDGET, Bar, can_show
from pte_tracking.extensions.columns import number
from pte_tracking.extensions.known_epoch import known_epoch
from pte_tracking.extensions.log_report import LogReport, Row
from pte_tracking.reporter import Value
from pte_tracking.triggers import IntervalTrigger
from pte_tracking.triggers.interval import exact_fraction

_REDRAWN_EVERY = 0.1  # seconds; more often nobody could read
_LINE_EVERY = 10.0  # seconds at least between lines in a file,
_LINE_GROWTH = 0.02  # and this part of the time so far: a week makes some 400 lines
_SHORTEST_BAR = 10  # characters
_VALUES_ROOM = 100  # characters, where there is no terminal to say
_VALUE_WIDTH = 7  # characters


class ProgressBar(Extension):
    """Shows how far the training is: the epoch, iterations, time left, and the last values.

    It runs after every iteration and redraws its one bar ten times a second at most. The time left comes from the
    average speed of this session, evaluations included. Beside it stand the newest values, as many as there is room
    for; those that lie on another device are not fetched for it, but appear with the next row of the LogReport. In a
    notebook it is a widget, if ipywidgets is installed. Where the output is no terminal, it prints a plain line now
    and then, ever more rarely. It reports nothing.

    Args:
        training_length: The length of the training, such as ``(20, "epoch")``; what the stop trigger says if None.
        update_interval: Iterations between two looks at the clock.
        bar_length: Length of the bar in characters; what there is room for if None.
        out: Where it is shown; the standard error if None.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A length is not positive, or its unit unknown.

    State in snapshots: none.
    """

    def __init__(
        self,
        training_length: tuple[float, str] | None = None,
        update_interval: int = 1,
        bar_length: int | None = None,
        out: TextIO | None = None,
    ) -> None:
        if training_length is not None:
            training_length = IntervalTrigger(*training_length).training_length
        for argument, count in (("update_interval", update_interval), ("bar_length", bar_length)):
            if count is not None and (not isinstance(count, int) or count < 1):
                raise ValueError(f"{argument}: expected a positive whole number, got {count!r}")
        self._training_length = training_length
        self._update_interval = update_interval
        self._bar_length = bar_length
        self._out = out
        self._display: _Display | None = None
        self._total: int | None = None
        self._row: Row = {}
        self._observed: dict[str, Value] = {}

    def initialize(self, manager: Manager) -> None:
        out = sys.stderr if self._out is None else self._out
        self._total = self._iterations(manager)
        if can_show(out):
            self._display = _Bar(manager.iteration, self._total, self._bar_length, out)
        else:
            self._display = _Lines(manager.iteration, self._total, out)
        try:
            log_report = manager.get_extension("LogReport")
        except ValueError:
            return
        if isinstance(log_report, LogReport):
            log_report.subscribe(self._row.update)

    def __call__(self, manager: Manager) -> None:
        self._observed.update(manager.observation)
        display = self._display
        if display is None or manager.iteration % self._update_interval or time.monotonic() < display.rests_until:
            return
        self._show(manager, display)

    def finalize(self, manager: Manager) -> None:
        if self._display is not None:
            self._show(manager, self._display)
            self._display.close()
            self._display = None

    def _show(self, manager: Manager, display: _Display) -> None:
        plain = {key: value for key, value in self._observed.items() if isinstance(value, float | int)}
        values = {key: value for key, value in {**self._row, **plain}.items() if key not in _SHOWN_ANYWAY}
        display.show(manager.iteration, self._epoch(manager), values)

    def _iterations(self, manager: Manager) -> int | None:
        length = self._training_length or manager.training_length
        if length is None:
            return None
        period = exact_fraction("training_length", length[0])
        return math.ceil(period if length[1] == "iteration" else period * manager.iters_per_epoch)

    def _epoch(self, manager: Manager) -> str:
        done = known_epoch(manager)
        if done is None:
            return ""
        if self._total is None:
            return f"epoch {done + 1}  "
        epochs = math.ceil(self._total / manager.iters_per_epoch)
        return f"epoch {min(done + 1, epochs)}/{epochs}  "


_SHOWN_ANYWAY = {"epoch", "iteration", "elapsed_time"}


class _Display(Protocol):
    """Shows the progress somewhere.

    Attributes:
        rests_until: When it may be shown again, by the monotonic clock.
    """

    rests_until: float

    def show(self, iteration: int, epoch: str, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class _Bar:
    """A bar in a terminal or a notebook."""

    def __init__(self, initial: int, total: int | None, length: int | None, out: TextIO) -> None:
        bar = "{bar}" if length is None or IS_WIDGET else f"{{bar:{length}}}"
        status = _status(total, f"|{bar}|")
        self._bar = Bar(initial=initial, total=total, bar_format=status, file=out, dynamic_ncols=True, smoothing=0)
        self._rest = _status(total, "|" + " " * (length or _SHORTEST_BAR) + "|")
        self.rests_until = 0.0

    def show(self, iteration: int, epoch: str, values: Mapping[str, float]) -> None:
        bar = self._bar
        bar.n = iteration
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


class _Lines:
    """Lines of text in a file."""

    def __init__(self, initial: int, total: int | None, out: TextIO) -> None:
        self._initial = initial
        self._total = total
        self._out = out
        self._started = time.monotonic()
        self.rests_until = self._started + _LINE_EVERY

    def show(self, iteration: int, epoch: str, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        line = tqdm.format_meter(
            iteration,
            self._total,  # type: ignore[arg-type]
            now - self._started,
            prefix=epoch,
            initial=self._initial,
            bar_format=_status(self._total, " "),
            postfix=_fitting(values, _VALUES_ROOM),
        )
        self._out.write(f"{line}\n")
        if hasattr(self._out, "flush"):
            self._out.flush()
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
