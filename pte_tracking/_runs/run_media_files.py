"""Logging of tables, pages, sounds, and videos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pte_tracking._runs import sounds, tables, videos
from pte_tracking._runs.run_media import MediaContent, RunMedia
from pte_tracking._store import events
from pte_tracking._store.values import to_text

_DEFAULT_FPS = 4.0  # as that of SummaryWriter.add_video


class RunMediaFiles(RunMedia):
    """Base class of :class:`~pte_tracking.Run` that logs media that are files other than pictures."""

    def log_table(self, key: str, table: Any, step: int | None = None, *, caption: str = "") -> None:
        """Log a table.

        At most 10,000 rows are stored, and a warning is logged once per key if there are more. The index of a pandas
        data frame is not stored; pass ``frame.reset_index()`` to store it. Cells are stored as JSON: NaN and missing
        values as null, infinities as the texts ``"Infinity"`` and ``"-Infinity"``, integers of more than 64 bits,
        times, and other objects as texts, arrays and tensors as lists.

        Args:
            key: Name of the table.
            table: Data frame of pandas or polars, ``pyarrow.Table``, list of dictionaries, or dictionary of columns.
            step: Number of completed iterations. Defaults as in :meth:`log_figure`.
            caption: Text that backends show with the table.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``key`` is empty, the columns differ in length, or a cell is an array of more than 1,000
                elements.
            RuntimeError: If the run has ended, and the directory contains another run.

        Example:
            >>> import tempfile
            >>> import pte_tracking as pte
            >>> with tempfile.TemporaryDirectory() as directory, pte.Run(directory) as run:
            ...     run.log_table("predictions", {"label": [3, 5], "predicted": [3, 8]}, 1)
            ...     print((run.directory / "media/table/predictions/step_1.json").read_text())
            {"columns":["label","predicted"],"data":[[3,3],[5,8]]}
        """

        def render(name: str) -> MediaContent:
            encoded = tables.encode_table(table, name)
            self._note_once("table", key, name, encoded.note, "Log a file of all rows with log_artifact().")
            return MediaContent(encoded.json, ".json")

        self._add_file(events.Table, key, step, render, caption)

    def log_html(self, key: str, html: Any, step: int | None = None, *, caption: str = "") -> None:
        """Log an HTML page or a plotly figure.

        A page of a plotly figure loads the JavaScript library from the internet when it is opened. To log a page that
        contains it, which adds 5 MB, pass ``figure.to_html(include_plotlyjs=True)``. Pages are stored without changes.
        Do not log pages with secrets.

        Args:
            key: Name of the page.
            html: Source text of the page, a plotly figure, or another object with a method ``to_html``, such as a data
                frame of pandas.
            step: Number of completed iterations. Defaults as in :meth:`log_figure`.
            caption: Text that backends show with the page.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``key`` is empty.
            RuntimeError: If the run has ended, and the directory contains another run.

        Example:
            >>> import tempfile
            >>> import pte_tracking as pte
            >>> with tempfile.TemporaryDirectory() as directory, pte.Run(directory) as run:
            ...     run.log_html("attention", "<b>The</b> cat", 1)
            ...     print((run.directory / "media/html/attention/step_1.html").read_text())
            <b>The</b> cat
        """
        if not isinstance(html, str) and not callable(getattr(html, "to_html", None)):
            raise TypeError(
                f"html: expected a string, a plotly figure, or an object with to_html(), got {type(html).__name__}. "
                "Log a file with log_artifact()."
            )

        def render(name: str) -> MediaContent:
            return MediaContent(to_text(_to_html(html)).encode(), ".html")

        self._add_file(events.Html, key, step, render, caption)

    def log_audio(
        self, key: str, audio: Any, step: int | None = None, *, sample_rate: int | None = None, caption: str = ""
    ) -> None:
        """Log a sound.

        Arrays and tensors are stored as a WAV file of 16 bits. Values of floats are from -1 to 1. Others are clipped,
        and a warning is logged once per key. Bytes and files are stored without changes.

        Args:
            key: Name of the sound.
            audio: Array ``(samples[, channels])`` or tensor ``([channels, ]samples)`` of floats, uint8, int16, or
                int32 with at most 16 channels, the bytes of a WAV, MP3, FLAC, or Ogg file, or the path of such a file.
            step: Number of completed iterations. Defaults as in :meth:`log_figure`.
            sample_rate: Samples per second, which arrays and tensors require. None reads it from a WAV file.
            caption: Text that backends show with the sound.

        Raises:
            ImportError: If NumPy is required and not installed.
            FileNotFoundError: If the path does not exist.
            TypeError: If an argument has the wrong type, or the sound does not consist of real numbers.
            ValueError: If ``key`` is empty, ``sample_rate`` is missing, the shape is wrong, or the bytes are no sound.
            RuntimeError: If the run has ended, and the directory contains another run.

        Example:
            >>> import math, tempfile
            >>> import torch
            >>> import pte_tracking as pte
            >>> tone = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(8000) / 8000)
            >>> with tempfile.TemporaryDirectory() as directory, pte.Run(directory) as run:
            ...     run.log_audio("tone", tone, 1, sample_rate=8000)
            ...     print((run.directory / "media/audio/tone/step_1.wav").stat().st_size)
            16044
        """
        rate = sounds.check_sample_rate(sample_rate)
        if rate is None and not isinstance(audio, str | os.PathLike | bytes | bytearray | memoryview):
            raise ValueError(
                "sample_rate: expected the samples per second of an array or tensor, such as 16000, got None"
            )
        source = _absolute(audio)

        def render(name: str) -> MediaContent:
            encoded = sounds.encode_sound(source, rate, name)
            self._note_once("audio", key, name, encoded.note, "Divide the sound by its highest value.")
            return MediaContent(encoded.content, encoded.suffix, (encoded.sample_rate,))

        self._add_file(events.Audio, key, step, render, caption)

    def log_video(
        self, key: str, video: Any, step: int | None = None, *, fps: float | None = None, caption: str = ""
    ) -> None:
        """Log a video.

        Arrays and tensors are stored as an animated GIF file, which requires Pillow and is limited to 256 colors per
        frame, 50 frames per second, and 65,535 pixels in width and height. Their values are converted as in
        :meth:`log_image`. Bytes and files are stored without changes.

        Args:
            key: Name of the video.
            video: Array ``(frames, height, width[, channels])`` or tensor ``(frames, [channels, ]height, width)`` with
                1, 3, or 4 channels, the bytes of a GIF, MP4, or WebM file, or the path of such a file.
            step: Number of completed iterations. Defaults as in :meth:`log_figure`.
            fps: Frames per second. Defaults to 4 for arrays and tensors.
            caption: Text that backends show with the video.

        Raises:
            ImportError: If Pillow is required and not installed.
            FileNotFoundError: If the path does not exist.
            TypeError: If an argument has the wrong type, or the video does not consist of real numbers.
            ValueError: If ``key`` is empty, the shape is wrong, ``fps`` is not positive, or the bytes are no video.
            RuntimeError: If the run has ended, and the directory contains another run.

        Example:
            >>> import tempfile
            >>> import torch
            >>> import pte_tracking as pte
            >>> with tempfile.TemporaryDirectory() as directory, pte.Run(directory) as run:
            ...     run.log_video("rollout", torch.rand(8, 3, 16, 16), 1, fps=8)
            ...     print([path.name for path in (run.directory / "media/video/rollout").iterdir()])
            ['step_1.gif']
        """
        checked = None if fps is None else videos.check_fps(fps)
        if checked is None and not isinstance(video, str | os.PathLike | bytes | bytearray | memoryview):
            checked = _DEFAULT_FPS
        source = _absolute(video)

        def render(name: str) -> MediaContent:
            encoded = videos.encode_video(source, checked or _DEFAULT_FPS, name)
            self._note_once("video", key, name, encoded.note, "Pass floats from 0 to 1 or integers from 0 to 255.")
            return MediaContent(encoded.content, encoded.suffix, (checked,))

        self._add_file(events.Video, key, step, render, caption)


def _absolute(source: Any) -> Any:
    """Return an absolute path, since a script may change its directory before the run is opened."""
    return Path(source).absolute() if isinstance(source, str | os.PathLike) else source


def _to_html(html: Any) -> str:
    if isinstance(html, str):
        return html
    options = {"include_plotlyjs": "cdn"} if hasattr(html, "write_html") and hasattr(html, "to_plotly_json") else {}
    return str(html.to_html(**options))
