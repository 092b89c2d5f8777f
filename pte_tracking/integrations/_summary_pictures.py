"""Images, figures, videos, and curves of a writer with the interface of TensorBoard's."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

from pte_tracking._runs import videos
from pte_tracking._runs.media import render_figure
from pte_tracking._runs.png import encode_png, import_pillow
from pte_tracking._runs.run_media import MediaContent
from pte_tracking._store import events
from pte_tracking.integrations import _curves, _pixels
from pte_tracking.integrations._summary_base import SummaryBase

_COLUMNS = 8


class PictureWriter(SummaryBase):
    """Base class of :class:`~pte_tracking.integrations.tensorboard.SummaryWriter` that adds pictures."""

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """Add an image.

        Args:
            tag: Key of the image.
            img_tensor: Array or tensor of bytes, or of numbers from 0 to 1.
            global_step: Step. None counts the images of the tag.
            walltime: Time in seconds since the Unix epoch.
            dataformats: Order of the axes, such as ``"CHW"``, ``"HWC"``, or ``"HW"``.

        Raises:
            ImportError: If Pillow is not installed.
            TypeError: If the image does not consist of real numbers.
            ValueError: If the shape does not fit ``dataformats``.
        """
        self.run.add_image(
            tag,
            self._step(global_step, tag),
            lambda name: encode_png(_pixels.to_picture(_pixels.to_pixels(img_tensor, dataformats, name)), name),
            walltime,
        )

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Add a batch of images as a grid of 8 columns. The arguments are those of :meth:`add_image`."""
        self.add_image(tag, img_tensor, global_step, walltime, dataformats)

    def add_image_with_boxes(
        self,
        tag: str,
        img_tensor: Any,
        box_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        rescale: float = 1,
        dataformats: str = "CHW",
        labels: Sequence[str] | None = None,
    ) -> None:
        """Add an image with red boxes.

        Args:
            tag: Key of the image.
            img_tensor: Image; see :meth:`add_image`.
            box_tensor: Corners ``(boxes, 4)`` in the order left, top, right, bottom, in pixels.
            global_step: Step. None counts the images of the tag.
            walltime: Time in seconds since the Unix epoch.
            rescale: Factor by which the image is enlarged after the boxes are drawn.
            dataformats: Order of the axes of the image.
            labels: Label of each box.

        Raises:
            ImportError: If Pillow is not installed.
            TypeError: If the image or the boxes do not consist of real numbers.
            ValueError: If a shape is wrong.
        """
        names = [labels] if isinstance(labels, str) else labels
        if names is not None and len(names) != len(box_tensor):
            self._note(f"add_image_with_boxes: the labels of {tag!r} are not drawn, because each box needs one label.")
            names = None

        def render(name: str) -> bytes:
            return _pixels.draw_boxes(
                _pixels.to_pixels(img_tensor, dataformats, name), box_tensor, names, rescale, name
            )

        self.run.add_image(tag, self._step(global_step, tag), render, walltime)

    def add_figure(
        self, tag: str, figure: Any, global_step: Any = None, close: bool = True, walltime: float | None = None
    ) -> None:
        """Add a matplotlib figure, or a list of figures of one size as a grid.

        Args:
            tag: Key of the figure.
            figure: Figure, or a list of figures.
            global_step: Step. None counts the figures of the tag.
            close: Whether to close the figures.
            walltime: Time in seconds since the Unix epoch.

        Raises:
            TypeError: If ``figure`` is not a figure.
            ValueError: If the figures of a list have several sizes.
        """
        figures = list(figure) if isinstance(figure, list | tuple) else [figure]
        if not figures or not all(hasattr(item, "savefig") for item in figures):
            raise TypeError(f"figure: expected a matplotlib Figure or a list of them, got {figure!r}")
        self.run.add_figure(
            tag,
            self._step(global_step, tag),
            lambda name: render_figure(figure) if figures == [figure] else _draw_figures(figures, name),
            walltime,
        )
        pyplot = sys.modules.get("matplotlib.pyplot")  # not imported unless it manages the figures
        if close and pyplot is not None:
            for item in figures:
                pyplot.close(item)

    def add_video(
        self, tag: str, vid_tensor: Any, global_step: Any = None, fps: float = 4, walltime: float | None = None
    ) -> None:
        """Add a video as an animated GIF file.

        Args:
            tag: Key of the video.
            vid_tensor: Video ``(batch, time, channels, height, width)`` of bytes, or of numbers from 0 to 1. The videos
                of a batch are drawn as a grid.
            global_step: Step. None counts the videos of the tag.
            fps: Frames per second, at most 50.
            walltime: Time in seconds since the Unix epoch.

        Raises:
            ImportError: If Pillow is not installed.
            TypeError: If the video does not consist of real numbers, or ``fps`` is no number.
            ValueError: If the shape is wrong, or ``fps`` is not positive.
        """
        step, rate = self._step(global_step, tag), videos.check_fps(fps)
        frames = _pixels.to_frames(vid_tensor, f"video {tag!r} at step {step}")
        self.run.add_media(
            events.Video,
            tag,
            step,
            lambda name: MediaContent(videos.encode_gif(frames, rate), ".gif", (rate,)),
            walltime,
        )

    def add_pr_curve(
        self,
        tag: str,
        labels: Any,
        predictions: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Add a precision-recall curve as a figure.

        Args:
            tag: Key of the figure.
            labels: Whether each element is positive.
            predictions: Predicted probability of each element.
            global_step: Step. None counts the curves of the tag.
            num_thresholds: Number of thresholds, of which at most 127 are used.
            weights: Weight of each element.
            walltime: Time in seconds since the Unix epoch.

        Raises:
            ImportError: If matplotlib is not installed.
            TypeError: If labels or predictions are not real numbers.
            ValueError: If a prediction is not in the range from 0 to 1, or the numbers of elements differ.
        """
        precision, recall = _curves.compute_curve(labels, predictions, num_thresholds, weights, f"curve {tag!r}")
        self._add_curve(tag, precision, recall, global_step, walltime)

    def add_pr_curve_raw(
        self,
        tag: str,
        true_positive_counts: Any,
        false_positive_counts: Any,
        true_negative_counts: Any,
        false_negative_counts: Any,
        precision: Any,
        recall: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Add a precision-recall curve as a figure, from ``precision`` and ``recall`` at each threshold.

        Args:
            tag: Key of the figure.
            true_positive_counts: Not recorded.
            false_positive_counts: Not recorded.
            true_negative_counts: Not recorded.
            false_negative_counts: Not recorded.
            precision: Precision at each threshold.
            recall: Recall at each threshold.
            global_step: Step. None counts the curves of the tag.
            num_thresholds: Has no effect.
            weights: Has no effect.
            walltime: Time in seconds since the Unix epoch.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        self._note("add_pr_curve_raw: only precision and recall are recorded. Log the counts with add_tensor().")
        self._add_curve(tag, precision, recall, global_step, walltime)

    def _add_curve(self, tag: str, precision: Any, recall: Any, global_step: Any, walltime: float | None) -> None:
        step = self._step(global_step, tag)
        self.run.add_figure(tag, step, lambda name: _curves.draw_curve(precision, recall, tag), walltime)


def _draw_figures(figures: Sequence[Any], name: str) -> bytes:
    """Draw figures of one size as a grid, and return a PNG file."""
    image_module = import_pillow()
    import numpy as np

    pictures = [np.asarray(image_module.open(io.BytesIO(render_figure(figure))).convert("RGB")) for figure in figures]
    if len({picture.shape for picture in pictures}) > 1:
        sizes = ", ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in pictures)
        raise ValueError(f"{name}: expected figures of one size, got {sizes} pixels. Add them one by one.")
    return encode_png(_pixels.to_picture(_pixels.draw_grid(np.stack(pictures), _COLUMNS)), name)
