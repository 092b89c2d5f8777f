"""A figure that is drawn again and again while its data grow."""

from __future__ import annotations

import base64
import io
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pte_tracking._interface.extension import Manager
from pte_tracking._store.files import write_atomically
from pte_tracking.extensions._notebook import NotebookOutput, in_notebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger("pte_tracking")

_ALWAYS_DRAWN = 100  # so many first versions are all drawn
_MIN_GROWTH = 1.01  # later, only when so many times as many versions were offered as when it was last drawn
_MAX_TIME_FRACTION = 0.02  # and at most this part of the time goes into drawing


class Picture:
    """One figure: a file in the run's directory that is replaced, and a figure of the run for the backends. In a
    notebook it is shown below the cell, too, and replaced there.

    Only matplotlib's objects are used, never pyplot: there is no current figure, no window and no global
    state, so that any thread and any forked process may draw.

    A drawing takes a tenth of a second or more, and the training waits for it. So the first hundred versions that are
    offered are all drawn; from then on only when it has grown by a hundredth (less could hardly be seen), and not
    while drawing would take more than a fiftieth of the time. Of a million versions the backends then get a thousand
    figures at most.

    Args:
        owner: Who draws, for messages.
        filename: The file, relative to the run's directory; its suffix says the format. Without the suffix it
            is the figure's name in the backends.
        figsize: Width and height in inches; matplotlib's default if None.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The suffix names no format that matplotlib writes.
    """

    def __init__(self, owner: str, filename: str, figsize: tuple[float, float] | None = None) -> None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
        except ImportError as error:
            raise ImportError(
                f"{owner} draws with matplotlib, which is not installed: pip install 'pte-tracking[plot]'"
            ) from error
        formats = FigureCanvasAgg.get_supported_filetypes()
        self._format = Path(filename).suffix[1:].lower()
        if self._format not in formats:
            raise ValueError(f"filename: {filename!r} must end in one of .{', .'.join(sorted(formats))}")
        self._path = Path(filename)
        self._figsize = figsize
        self._output = NotebookOutput()
        self._next_draw_time = 0.0
        self._offered = 0
        self._drawn = 0  # which of those offered it shows

    def offer(self, manager: Manager, paint: Callable[[Figure], None]) -> None:
        """There is a new version, made by painting on an empty figure: draws it if that is worth its time."""
        self._offered += 1
        if self._offered <= _ALWAYS_DRAWN or (
            self._offered >= self._drawn * _MIN_GROWTH and time.monotonic() >= self._next_draw_time
        ):
            self._draw(manager, paint)

    def finish(self, manager: Manager, paint: Callable[[Figure], None]) -> None:
        """There will be no other version: draws the last one if that was not done."""
        if self._offered > self._drawn:
            self._draw(manager, paint)

    def state_dict(self) -> dict[str, int]:
        return {"offered": self._offered, "drawn": self._drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._offered, self._drawn = state["offered"], state["drawn"]

    def _draw(self, manager: Manager, paint: Callable[[Figure], None]) -> None:
        if manager.world.rank:
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        started = time.monotonic()
        figure = Figure(figsize=self._figsize)
        FigureCanvasAgg(figure)
        paint(figure)
        png = _render(figure, "png")
        if in_notebook():
            self._output.show({"text/plain": str(self._path), "image/png": base64.b64encode(png).decode()})
        manager.run.register_files(self._path.as_posix())
        manager.run.log_figure(self._path.with_suffix("").as_posix(), png, manager.iteration)
        self._write(Path(manager.out) / self._path, png if self._format == "png" else _render(figure, self._format))
        self._drawn = self._offered
        now = time.monotonic()
        self._next_draw_time = now + (now - started) / _MAX_TIME_FRACTION

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            _log.warning("%s could not be drawn, and stays as it was: %s", path, error)


def escape_label(key: str) -> str:
    """A key to be shown as it is: matplotlib takes dollars for formulas, and hides what begins with an underscore."""
    return (" " if key.startswith("_") else "") + key.replace("$", r"\$")


def _render(figure: Figure, file_format: str) -> bytes:
    content = io.BytesIO()
    # Legends may lie outside the axes.
    figure.savefig(content, format=file_format, bbox_inches="tight")
    return content.getvalue()
