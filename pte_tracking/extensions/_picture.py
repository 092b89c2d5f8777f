"""Figure that is redrawn while its data grows."""

from __future__ import annotations

import base64
import io
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pte_tracking._interface.extension import Manager
from pte_tracking._store.dependencies import required_by
from pte_tracking._store.files import write_atomically
from pte_tracking.extensions._notebook import NotebookOutput, in_notebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_logger = logging.getLogger("pte_tracking")

_ALWAYS_DRAWN = 100  # number of first versions that are all drawn
_MIN_GROWTH = 1.01  # later versions are drawn when the number of versions has grown by this factor
_MAX_TIME_FRACTION = 0.02  # maximum fraction of the training time spent on drawing later versions


class Picture:
    """Figure that is written to a file, logged to the run, and displayed in a notebook.

    The file and the notebook output are replaced by each new version. Only objects of matplotlib are used, not pyplot,
    so drawing needs no window and no global state and is safe in any thread or forked process.

    Drawing takes 0.1 seconds or more and blocks the training. The first 100 versions are all drawn. A later version is
    drawn if the number of versions has grown by 1 percent since the last drawing, and if drawing takes less than
    2 percent of the time. A million versions result in about 1000 figures.

    Args:
        owner: Name of the calling extension, for error messages.
        filename: Path of the file relative to the run directory. The suffix selects the format. The path without the
            suffix is the key of the figure in the run.
        figsize: Width and height in inches. None for the default of matplotlib.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the suffix is not a format that matplotlib can write.
    """

    def __init__(self, owner: str, filename: str, figsize: tuple[float, float] | None = None) -> None:
        with required_by(owner, "matplotlib", "'pte-tracking[plot]'"):
            from matplotlib.backends.backend_agg import FigureCanvasAgg
        formats = FigureCanvasAgg.get_supported_filetypes()
        self._format = Path(filename).suffix[1:].lower()
        if self._format not in formats:
            raise ValueError(f"filename: expected one of the suffixes .{', .'.join(sorted(formats))}, got {filename!r}")
        self._path = Path(filename)
        self._figsize = figsize
        self._output = NotebookOutput()
        self._next_draw_time = 0.0
        self._offered = 0
        self._drawn = 0  # The number of offered versions when the figure was last drawn.

    def offer(self, manager: Manager, paint: Callable[[Figure], None]) -> None:
        """Draw a new version unless drawing is throttled.

        Args:
            manager: Manager of the run.
            paint: Function that draws the version on an empty figure.
        """
        self._offered += 1
        if self._offered <= _ALWAYS_DRAWN or (
            self._offered >= self._drawn * _MIN_GROWTH and time.monotonic() >= self._next_draw_time
        ):
            self._draw(manager, paint)

    def finish(self, manager: Manager, paint: Callable[[Figure], None]) -> None:
        """Draw the last version if it was not drawn. Takes the arguments of :meth:`offer`."""
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
            _logger.warning("Could not write figure %s: %s", path, error)


def _render(figure: Figure, file_format: str) -> bytes:
    content = io.BytesIO()
    # A tight bounding box includes legends outside the axes.
    figure.savefig(content, format=file_format, bbox_inches="tight")
    return content.getvalue()
