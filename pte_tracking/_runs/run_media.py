"""Logging of figures, images, histograms, and texts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from pte_tracking._runs import attachments, media
from pte_tracking._runs.confusion_matrix import confusion_figure
from pte_tracking._runs.images import encode_image
from pte_tracking._runs.session import RunSession
from pte_tracking._store import events
from pte_tracking._store.events import AnyEvent
from pte_tracking._store.journal_reader import read_effective_reversed
from pte_tracking._store.layout import FIGURES, IMAGES, JOURNAL
from pte_tracking._store.secrets import mask_secrets
from pte_tracking._store.values import check_key, check_step, to_text

_logger = logging.getLogger("pte_tracking")


class RunMedia(RunSession):
    """Base class of :class:`~pte_tracking.Run` that logs media.

    Attributes:
        current_step: Function that returns the step of media that are logged without one. None for the step of the
            last row of the run, or 0.
    """

    current_step: Callable[[], int] | None = None

    def log_figure(self, key: str, figure: Any, step: int | None = None) -> None:
        """Log a figure. A later figure with the same key and step replaces it.

        Args:
            key: Name of the figure.
            figure: Matplotlib figure, or the bytes of an image file, which is converted to PNG.
            step: Number of completed iterations. Defaults to the iteration of the manager. Without a manager, it
                defaults to the step of the last row, or 0.

        Raises:
            ImportError: If the bytes are no PNG file and Pillow is not installed.
            TypeError: If an argument has the wrong type.
            ValueError: If ``key`` is empty, or the bytes are no intact image file.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        if isinstance(figure, bytes | bytearray | memoryview):
            self._add_picture(events.Figure, FIGURES, key, step, lambda name: encode_image(figure, False, name).png)
            return
        if not hasattr(figure, "savefig"):
            raise TypeError(
                f"figure: expected a matplotlib Figure or the bytes of an image file, got {type(figure).__name__}"
            )
        self._add_picture(events.Figure, FIGURES, key, step, lambda name: media.render_figure(figure))

    def log_image(self, key: str, image: Any, step: int | None = None, *, normalize: bool = False) -> None:
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
            if encoded.note and key not in self._noted_images:
                self._noted_images.add(key)
                _logger.warning(
                    "%s: %s. Pass floats from 0 to 1, integers from 0 to 255, or normalize=True. Later images of this "
                    "key are converted without a message.",
                    name,
                    encoded.note,
                )
            return encoded.png

        self._add_picture(events.Image, IMAGES, key, step, render)

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
        self._add_picture(
            events.Figure, FIGURES, key, step, lambda name: media.render_figure(confusion_figure(matrix, labels))
        )

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
            lambda bins: None if bins is None else (key, step, *bins),
        )

    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """Log a text.

        Args:
            key: Name of the text.
            text: The text. Backends that support Markdown render it.
            step: Number of completed iterations. Defaults as in :meth:`log_figure`.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If ``key`` is empty.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        if not isinstance(text, str):
            raise TypeError(f"text: expected a string, got {text!r} of type {type(text).__name__}")
        self._append(events.Text, check_key(key), self._check_step(step), mask_secrets(to_text(text)))

    @functools.cached_property
    def _noted_images(self) -> set[str]:
        """Keys of the images whose inexact conversion was logged."""
        return set()

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
        kind: type[AnyEvent],
        folder: str,
        key: str,
        step: int | None,
        render: Callable[[str], bytes],
        at: float | None = None,
    ) -> None:
        """Add an event with a PNG file that is rendered only by the process that writes the run."""
        key, checked_step = check_key(key), self._check_step(step)
        name = f"{kind.__name__.lower()} {key!r} at step {checked_step}"

        def store(png: bytes) -> tuple[str, int, str] | None:
            path = attachments.save_picture(self.directory, folder, key, checked_step, png)
            return None if path is None else (key, checked_step, path)

        self._opened().add_deferred(kind, lambda: render(name), store, at)
