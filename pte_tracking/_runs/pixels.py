"""Conversion of arrays and tensors to the pixels of a picture."""

from __future__ import annotations

from typing import Any

from pte_tracking._runs.media import to_host
from pte_tracking._store.dependencies import required_by

_CHANNELS = (1, 3, 4)
_COLUMNS = 8
_PADDING = 2  # pixels
_TOLERANCE = 1 / 512  # Half a shade makes no difference.
_MAX_EXCESS = 2  # Higher floats result from bytes that were not divided by 255.


def to_pixels(image: Any, normalize: bool, name: str) -> tuple[Any, str | None]:
    """Convert an array or tensor to pixels.

    Args:
        image: Array ``([batch, ]height, width[, channels])`` or tensor ``([batch, ][channels, ]height, width)`` with 1,
            3, or 4 channels, or a list of such images of one shape.
        normalize: Whether to scale the values from the lowest to the highest of the image or batch.
        name: Name of the image in messages.

    Returns:
        Array of bytes of shape ``(height, width)`` or ``(height, width, channels)``, and a description of an inexact
        conversion, or None. A batch is drawn as a grid of 8 columns.

    Raises:
        TypeError: If the image does not consist of real numbers.
        ValueError: If the shape is invalid.
    """
    batch = _to_batch(image, name)
    pixels, note = to_bytes(batch, normalize)
    grid = _draw_grid(pixels)
    return (grid[:, :, 0] if grid.shape[2] == 1 else grid), note


def _to_batch(image: Any, name: str) -> Any:
    """Return an array of shape ``(batch, height, width, channels)``."""
    with required_by("An image as an array", "numpy", "'pte-tracking[plot]'"):
        import numpy as np

    if (
        isinstance(image, list | tuple)
        and image
        and all(np.ndim(item) >= 2 and hasattr(item, "shape") for item in image)
    ):
        images = [_to_batch(item, name) for item in image]
        if len({item.shape for item in images}) > 1 or len(images[0]) != 1:
            shapes = ", ".join(sorted({str(tuple(item.shape)) for item in image}))
            raise ValueError(f"{name}: expected a list of images of one shape, got {shapes}")
        return np.concatenate(images)
    try:
        values = np.ma.filled(np.asanyarray(to_host(image)), 0)  # Masked elements are drawn black.
    except Exception as error:  # Libraries of tensors raise many types, for example for tensors without data.
        raise TypeError(
            f"{name}: expected an array, tensor, PIL image, or bytes of an image file, got {type(image).__name__} that "
            f"could not be read: {error}"
        ) from error
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        advice = " Pass its magnitude, such as abs(image)." if values.dtype.kind == "c" else ""
        raise TypeError(f"{name}: expected real numbers, got {type(image).__name__} of {values.dtype}.{advice}")
    is_tensor = hasattr(image, "detach")
    channel_axis = -3 if is_tensor else -1
    if values.ndim == 2:
        values = values[..., None]
    elif values.ndim in (3, 4) and values.shape[channel_axis] in _CHANNELS:
        values = np.moveaxis(values, channel_axis, -1)
    else:
        raise _shape_error(image, values, is_tensor, name)
    if not values.size:
        raise _shape_error(image, values, is_tensor, name)
    return values[None] if values.ndim == 3 else values


def _shape_error(image: Any, values: Any, is_tensor: bool, name: str) -> ValueError:
    expected = "([batch, ][channels, ]height, width)" if is_tensor else "([batch, ]height, width[, channels])"
    kind = "a tensor" if is_tensor else "an array"
    message = (
        f"{name}: expected shape {expected} of {kind}, with 1, 3 or 4 channels and at least one pixel, got "
        f"{type(image).__name__} of shape {tuple(getattr(image, 'shape', values.shape))}."
    )
    other_axis = -1 if is_tensor else -3
    if values.size and values.ndim in (3, 4) and values.shape[other_axis] in _CHANNELS:
        axes = {3: ("2, 0, 1", "1, 2, 0"), 4: ("0, 3, 1, 2", "0, 2, 3, 1")}[values.ndim]
        advice = f"image.permute({axes[0]})" if is_tensor else f"image.transpose({axes[1]})"
        message += f" Move the channels: {advice}."
    return ValueError(message)


def to_bytes(values: Any, normalize: bool) -> tuple[Any, str | None]:
    """Convert the numbers of images to bytes.

    Args:
        values: Array of booleans, integers from 0 to 255, or floats from 0 to 1. Other values are scaled.
        normalize: Whether to scale the values from the lowest to the highest.

    Returns:
        The bytes, and a description of an inexact conversion or None.
    """
    import numpy as np

    if values.dtype == bool:
        return values.astype(np.uint8) * 255, None
    if values.dtype == np.uint8 and not normalize:
        return values, None
    numbers = values.astype(np.result_type(values.dtype, np.float32))
    is_finite = np.isfinite(numbers)
    low, high = (numbers[is_finite].min(), numbers[is_finite].max()) if is_finite.any() else (0.0, 0.0)
    numbers = np.nan_to_num(numbers, nan=low, posinf=high, neginf=low)
    shades, note = (_stretch(numbers, low, high), None) if normalize else _scale(numbers, values.dtype, low, high)
    if not is_finite.all():
        shades = np.where(is_finite, shades, np.where(values > 0, 255, 0))
        count = is_finite.size - int(is_finite.sum())
        undefined = f"values that are not finite ({count} of {is_finite.size}) were drawn black or white"
        note = f"{undefined}, and {note}" if note else undefined
    return np.clip(np.rint(shades), 0, 255).astype(np.uint8), note


def _scale(numbers: Any, dtype: Any, low: Any, high: Any) -> tuple[Any, str | None]:
    """Scale finite numbers to the range 0 to 255. Return a description of an inexact conversion too."""
    span = f"values from {low:.6g} to {high:.6g}"
    if dtype.kind != "f":
        if low >= 0 and high <= 255:
            return numbers, None
        if dtype.kind == "u" and dtype.itemsize == 2:  # Files may contain big-endian integers.
            return numbers / 257, f"16-bit {span} were divided by 257"
    elif low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
        return numbers * 255, None
    elif low >= 0 and _MAX_EXCESS < high <= 255:
        return numbers, f"{span} were divided by 255"
    return _stretch(numbers, low, high), f"{span} were scaled to the range from black to white"


def _stretch(numbers: Any, low: Any, high: Any) -> Any:
    """Scale numbers from their range to the range 0 to 255."""
    # Divided first, because the difference of the largest floats overflows.
    scale = max(abs(low), abs(high), 1e-30)
    return (numbers / scale - low / scale) / max(high / scale - low / scale, 1e-5 / scale) * 255


def _draw_grid(images: Any) -> Any:
    """Draw a batch like ``torchvision.utils.make_grid``: 8 columns, 2 black pixels around each image."""
    import numpy as np

    count, height, width, channels = images.shape
    if count == 1:
        return images[0]
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    cell_height, cell_width = height + _PADDING, width + _PADDING
    grid = np.zeros((rows * cell_height + _PADDING, columns * cell_width + _PADDING, channels), np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * cell_height + _PADDING, index % columns * cell_width + _PADDING
        grid[top : top + height, left : left + width] = image
    return grid
