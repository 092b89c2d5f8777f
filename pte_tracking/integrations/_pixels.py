"""Conversion of the images and videos of TensorBoard's formats to files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pte_tracking._runs.media import to_host
from pte_tracking._runs.png import encode_png, import_pillow
from pte_tracking._store.dependencies import required_by

_COLUMNS = 8
_BOX_COLOR = "red"
_BOX_WIDTH = 2  # pixels


def to_pixels(image: Any, formats: str, name: str) -> Any:
    """Convert an image, or a batch as a grid of 8 columns, to pixels as torch's writer does.

    Bytes are used as they are. All other values are multiplied by 255 and clipped.

    Args:
        image: Array or tensor.
        formats: Order of the axes: letters of ``NCHW``, such as ``"CHW"``, ``"NHWC"``, or ``"HW"``.
        name: Name of the image in messages.

    Returns:
        Array of bytes of shape ``(height, width, channels)``.

    Raises:
        TypeError: If the image does not consist of real numbers.
        ValueError: If the shape does not fit the format.
    """
    array = to_numbers(image, name)
    axes = formats.upper()
    if sorted(axes) not in (sorted("HW"), sorted("CHW"), sorted("NCHW")) or array.ndim != len(axes) or not array.size:
        raise ValueError(
            f"{name}: expected an image with at least one pixel whose axes are dataformats={formats!r}, got shape "
            f"{array.shape}. Pass the order of its axes, such as dataformats='HWC'."
        )
    if "C" not in axes:
        array, axes = array[..., None], f"{axes}C"
    if "N" not in axes:
        array, axes = array[None], f"N{axes}"
    batch = to_bytes(array.transpose([axes.index(axis) for axis in "NHWC"]))
    if batch.shape[3] not in (1, 3, 4):
        raise ValueError(
            f"{name}: expected 1, 3 or 4 channels, got {batch.shape[3]} in shape {to_host(image).shape} with "
            f"dataformats={formats!r}. Pass the order of its axes, such as dataformats='HWC'."
        )
    return draw_grid(batch, _COLUMNS)


def to_numbers(values: Any, name: str) -> Any:
    """Convert an array or tensor of real numbers to a NumPy array.

    Raises:
        ImportError: If NumPy is not installed.
        TypeError: If the values are not real numbers.
    """
    array = to_array(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got {type(values).__name__} of {array.dtype}")
    return array


def to_array(values: Any) -> Any:
    """Convert an array or tensor to a NumPy array.

    Raises:
        ImportError: If NumPy is not installed.
    """
    with required_by("A SummaryWriter with arrays", "numpy", "'pte-tracking[plot]'"):
        import numpy as np

    return np.asarray(to_host(values))


def to_bytes(numbers: Any) -> Any:
    """Convert numbers from 0 to 1 to bytes. Bytes are returned unchanged."""
    import numpy as np

    if numbers.dtype == np.uint8:
        return numbers
    return np.nan_to_num(numbers.astype(np.float32) * 255).clip(0, 255).astype(np.uint8)


def draw_grid(batch: Any, columns: int) -> Any:
    """Draw images ``(batch, height, width, channels)`` next to each other, without a distance."""
    import numpy as np

    count, height, width, channels = batch.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, height, width, channels), np.uint8)
    cells[:count] = batch
    cells = cells.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return cells.reshape(rows * height, columns * width, channels)


def to_picture(pixels: Any) -> Any:
    """Convert pixels ``(height, width, channels)`` to a PIL image."""
    return import_pillow().fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def draw_boxes(pixels: Any, boxes: Any, labels: Sequence[str] | None, rescale: float, name: str) -> bytes:
    """Draw boxes on an image, and return a PNG file.

    Args:
        pixels: Array of bytes of shape ``(height, width, channels)``.
        boxes: Corners ``(boxes, 4)`` in the order left, top, right, bottom.
        labels: Label of each box. None draws no labels.
        rescale: Factor by which the image is enlarged.
        name: Name of the image in messages.

    Raises:
        ValueError: If ``boxes`` has the wrong shape.
    """
    corners = to_numbers(boxes, name)
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f"{name}: expected boxes of shape (boxes, 4), got {corners.shape}")
    picture = to_picture(pixels).convert("RGB")
    from PIL import ImageDraw

    draw = ImageDraw.Draw(picture)
    for index, (left, top, right, bottom) in enumerate(corners.tolist()):
        draw.rectangle(
            (min(left, right), min(top, bottom), max(left, right), max(top, bottom)),
            outline=_BOX_COLOR,
            width=_BOX_WIDTH,
        )
        if labels is not None:
            draw.text((left + _BOX_WIDTH + 1, top + _BOX_WIDTH), str(labels[index]), fill=_BOX_COLOR)
    size = max(1, int(picture.width * rescale)), max(1, int(picture.height * rescale))
    return encode_png(picture.resize(size), name)


def to_frames(video: Any, name: str) -> Any:
    """Convert a video ``(batch, time, channels, height, width)`` to frames ``(time, height, width, channels)``.

    Raises:
        TypeError: If the video does not consist of real numbers.
        ValueError: If the video has the wrong shape.
    """
    import numpy as np

    array = to_numbers(video, name)
    if array.ndim != 5 or array.shape[2] not in (1, 3) or not array.size:
        raise ValueError(
            f"{name}: expected a video of shape (batch, time, channels, height, width) with 1 or 3 channels, got "
            f"{array.shape}"
        )
    clips = to_bytes(array).transpose(1, 0, 3, 4, 2)
    return np.stack([draw_grid(frames, _COLUMNS) for frames in clips])
