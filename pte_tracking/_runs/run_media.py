"""Logging of figures, images, histograms, and texts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pte_tracking._runs import attachments, media
from pte_tracking._runs.confusion_matrix import confusion_figure
from pte_tracking._runs.images import encode_image
from pte_tracking._runs.null_writer import NullWriter
from pte_tracking._runs.session import RunSession
from pte_tracking._store import events
from pte_tracking._store.events import AnyEvent
from pte_tracking._store.files import safe_file_name
from pte_tracking._store.journal_reader import read_effective_reversed
from pte_tracking._store.layout import FIGURES, IMAGES, JOURNAL, MEDIA
from pte_tracking._store.printable import describe_value
from pte_tracking._store.secrets import mask_secrets
from pte_tracking._store.values import check_key, check_step, to_text

_logger = logging.getLogger("pte_tracking")


_PICTURE_FOLDERS: dict[type[events.MediaFile], str] = {events.Figure: FIGURES, events.Image: IMAGES}


class MediaContent(NamedTuple):
    """File of an event.

    Attributes:
        data: Content of the file.
        suffix: Suffix of its name.
        fields: Fields of the event after the caption.
    """

    data: bytes
    suffix: str
    fields: tuple[Any, ...] = ()


class RunMedia(RunSession):
    """Base class of :class:`~pte_tracking.Run` that logs media.

    Attributes:
        current_step: Function that returns the step of media that are logged without one. None for the step of the
            last row of the run, or 0.
    """

    current_step: Callable[[], int] | None = None

    def log_figure(self, key: str, figure: Any, step: int | None = None, *, caption: str = "") -> None:
        """Log a figure. A later figure with the same key and step replaces it.

        Args:
            key: Name of the figure.
            figure: Matplotlib figure, or the bytes of an image file, which is converted to PNG.
            step: Number of completed iterations. Defaults to the current iteration of the manager, from 1. Without a
                manager, it defaults to the step of the last row, or 0.
            caption: Text that backends show with the figure.

        Raises:
            ImportError: If the bytes are no PNG file and Pillow is not installed.
            TypeError: If an argument has the wrong type.
            ValueError: If ``key`` is empty, or the bytes are no intact image file.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        if isinstance(figure, bytes | bytearray | memoryview):
            self._add_picture(events.Figure, key, step, lambda name: encode_image(figure, False, name).png, caption)
            return
        if not hasattr(figure, "savefig"):
            advice = " Log a figure of plotly with log_html()." if hasattr(figure, "to_html") else ""
            raise TypeError(
                f"figure: expected a matplotlib Figure or the bytes of an image file, "
                f"got {type(figure).__name__}.{advice}"
            )
        self._add_picture(events.Figure, key, step, lambda name: media.render_figure(figure), caption)

    def log_image(
        self, key: str, image: Any, step: int | None = None, *, normalize: bool = False, caption: str = ""
    ) -> None:
        """Log an image, or a batch as a grid of 8 columns with 2 black pixels around each image.

        Array values are booleans, integers from 0 to 255, or floats from 0 to 1. Other values are scaled, and a warning
        is logged once per key: floats up to 255 are divided by 255, 16-bit integers are divided by 257, and others are
        scaled from their range to black and white. NaN is drawn black. PIL images of modes that PNG lacks, such as
        CMYK, are converted to RGB. This method requires Pillow, except for the bytes of a PNG file.

        Args:
            key: Name of the image.
            image: PIL image, array ``([batch, ]height, width[, channels])``, tensor ``([batch, ][channels, ]height,
                width)``, list of arrays or tensors of one shape, or the bytes of an image file, such as PNG or JPEG.
                There are 1, 3, or 4 channels. Three dimensions are one image with channels, never a batch.
            step: Number of completed iterations. Defaults as in :meth:`log_figure`.
            normalize: Whether to scale the values from the lowest to the highest of the image or batch. Defaults to
                False.
            caption: Text that backends show with the image.

        Raises:
            ImportError: If Pillow is required and not installed.
            TypeError: If an argument has the wrong type, or the image does not consist of real numbers.
            ValueError: If ``key`` is empty, the image has the wrong shape, or the bytes are no intact image file.
            RuntimeError: If the run has ended, and the directory contains another run.

        Example:
            >>> import tempfile
            >>> import torch
            >>> import pte_tracking as pte
            >>> with tempfile.TemporaryDirectory() as directory, pte.Run(directory) as run:
            ...     run.log_image("samples", torch.rand(16, 3, 8, 8), 1, normalize=True)
        """

        def render(name: str) -> bytes:
            encoded = encode_image(image, normalize, name)
            advice = "Pass floats from 0 to 1, integers from 0 to 255, or normalize=True."
            self._note_once("image", key, name, encoded.note, advice)
            return encoded.png

        self._add_picture(events.Image, key, step, render, caption)

    def log_confusion_matrix(
        self, key: str, matrix: Any, step: int | None = None, labels: Sequence[str] | None = None
    ) -> None:
        """Log a confusion matrix as a figure. This method requires matplotlib.

        Args:
            key: Name of the figure.
            matrix: Counts as an array or tensor of shape ``(classes, classes)``. Rows are true classes, and columns are
                predicted classes.
            step: Number of completed iterations. Defaults as in :meth:`log_figure`.
            labels: Class names. None labels the classes with their indices.

        Raises:
            ImportError: If matplotlib is not installed.
            TypeError: If ``key`` or ``step`` has the wrong type.
            ValueError: If ``key`` is empty, ``matrix`` is not square or contains invalid counts, or the number of
                labels is wrong.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        self._add_picture(events.Figure, key, step, lambda name: media.render_figure(confusion_figure(matrix, labels)))

    def log_histogram(self, key: str, values: Any, step: int | None = None) -> None:
        """Log the distribution of the finite values of an array or tensor.

        Args:
            key: Name of the histogram.
            values: Array or tensor of any shape. Nothing is logged if it has no finite values.
            step: Number of completed iterations. Defaults as in :meth:`log_figure`.

        Raises:
            TypeError: If ``key`` or ``step`` has the wrong type, or the values are not real numbers.
            ValueError: If ``key`` is empty.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        key, step = check_key(key), self._check_step(step)
        name = f"histogram {key!r} at step {step}"
        self._opened().add_deferred(
            events.Histogram,
            lambda: media.histogram(values, name),
            lambda bins: None if bins is None else (*self._note_step("histogram", key, step), *bins),
        )

    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """Log a text.

        Secrets in the text, such as passwords in URLs, are masked.

        Args:
            key: Name of the text.
            text: The text, in Markdown or plain. TensorBoard and Trackio render Markdown, other backends show the
                source.
            step: Number of completed iterations. Defaults as in :meth:`log_figure`.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``key`` is empty.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected a string, got {describe_value(text)}")
        key, step = check_key(key), self._check_step(step)
        if not isinstance(self._opened(), NullWriter):
            self._note_step("text", key, step)
        self._append(events.Text, key, step, mask_secrets(to_text(text)))

    @functools.cached_property
    def _noted_keys(self) -> set[tuple[str, str]]:
        """Kinds and keys of the media whose inexact conversion, or repeated step, was logged."""
        return set()

    def _note_once(self, kind: str, key: str, name: str, note: str | None, advice: str) -> None:
        """Log how the content of an event differs from the argument, once per kind and key."""
        if note and (kind, key) not in self._noted_keys:
            self._noted_keys.add((kind, key))
            message = "%s: %s. %s Later values of this key are converted without a message."
            _logger.warning(message, name, note, advice)

    @functools.cached_property
    def _last_steps(self) -> dict[tuple[str, str], int]:
        """Last steps of the media by kind and key."""
        return {}

    def _note_step(self, kind: str, key: str, step: int, effect: str = "") -> tuple[str, int]:
        """Log that a key was logged before at a step, once per kind and key. Return the key and the step."""
        noted = (f"step of {kind}", key)
        if self._last_steps.get((kind, key)) == step and noted not in self._noted_keys:
            self._noted_keys.add(noted)
            _logger.warning(
                "%s %r was logged before at step %d.%s Backends may show one or all of them. Use another key, or one "
                "step for each. Later repetitions of this key are not reported.",
                *(kind, key, step, effect),
            )
        self._last_steps[kind, key] = step
        return key, step

    def _append(self, kind: type[AnyEvent], *fields: Any, at: float | None = None) -> None:
        (self._writer or self._opened()).add(kind, *fields, at=at)

    def _check_step(self, step: int | None) -> int:
        if step is not None:
            return check_step(step)
        if self.current_step is not None:
            return self.current_step()
        if self._last_step is None:
            self._last_step = self._read_last_step()
        return self._last_step

    def _read_last_step(self) -> int:
        """Return the step of the last row of a run that is continued; 0 without one."""
        self._opened()  # Another run in the directory is archived first.
        journal = self.directory / JOURNAL
        if not journal.exists():  # on a rank that writes nothing
            return 0
        return next((event.step for event in read_effective_reversed(journal) if isinstance(event, events.Metrics)), 0)

    def _add_picture(
        self,
        kind: type[events.MediaFile],
        key: str,
        step: int | None,
        render: Callable[[str], bytes],
        caption: str = "",
        at: float | None = None,
    ) -> None:
        """Add an event with a PNG file; see :meth:`_add_file`."""
        self._add_file(kind, key, step, lambda name: MediaContent(render(name), ".png"), caption, at)

    def _add_file(
        self,
        kind: type[events.MediaFile],
        key: str,
        step: int | None,
        render: Callable[[str], MediaContent],
        caption: str,
        at: float | None = None,
    ) -> None:
        """Add an event with a file that is rendered only by the process that writes the run."""
        if not isinstance(caption, str):
            raise TypeError(f"caption: expected a string, got {describe_value(caption)}")
        key, checked_step, text = check_key(key), self._check_step(step), mask_secrets(to_text(caption))
        kind_name = kind.__name__.lower()
        name = f"{kind_name} {key!r} at step {checked_step}"
        folder = _PICTURE_FOLDERS.get(kind, f"{MEDIA}/{kind_name}")

        def store(content: MediaContent) -> tuple[Any, ...] | None:
            self._note_step(kind_name, key, checked_step, " Only the file of the last one is kept.")
            file_name = f"step_{checked_step}{content.suffix}"
            path = attachments.save_content(self.directory, Path(folder, safe_file_name(key), file_name), content.data)
            return None if path is None else (key, checked_step, path, text, *content.fields)

        self._opened().add_deferred(kind, lambda: render(name), store, at)  # type: ignore[arg-type]
