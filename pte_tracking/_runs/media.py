"""Conversion of figures and images to PNG, and of arrays to histograms."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

_BINS = 64
_MAX_MAGNITUDE = 1e150


class Bins(NamedTuple):
    """Fields of a histogram, in the order of :class:`pte_tracking._store.events.Histogram`."""

    edges: list[float]
    counts: list[float]
    min: float
    max: float
    sum: float
    sum_squares: float


def check_figure(figure: Any) -> None:
    """Check the type of a figure without rendering it.

    Raises:
        TypeError: If it is neither a matplotlib figure nor bytes.
    """
    if not isinstance(figure, bytes) and not hasattr(figure, "savefig"):
        raise TypeError(f"figure: expected a matplotlib Figure or bytes of a PNG, got {type(figure).__name__}")


def figure_png(figure: Any) -> bytes:
    """Render a matplotlib figure as PNG. Bytes are returned unchanged."""
    if isinstance(figure, bytes):
        return figure
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def image_png(image: Any) -> bytes:
    """Encode an image as PNG. Bytes are returned unchanged.

    Args:
        image: PIL image, array of shape ``(height, width)`` or ``(height, width, channels)``, or tensor of shape
            ``(height, width)`` or ``(channels, height, width)``, with 1, 3 or 4 channels. Values are integers from 0 to
            255 or floats from 0 to 1.

    Raises:
        TypeError: If the image does not consist of numbers.
        ValueError: If the shape is invalid.
    """
    if isinstance(image, bytes):
        return image
    from PIL import Image  # optional dependency

    if not isinstance(image, Image.Image):
        image = Image.fromarray(_pixels(image))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def histogram(values: Any) -> Bins | None:
    """Return the histogram of the finite values of an array or tensor, or None if there are no finite values."""
    import numpy as np

    flat = np.asarray(to_host(values), dtype=np.float64).ravel()
    # Larger magnitudes are clipped, so that the range and the squares are finite.
    flat = flat[np.isfinite(flat)].clip(-_MAX_MAGNITUDE, _MAX_MAGNITUDE)
    if not flat.size:
        return None
    low, high = flat.min(), flat.max()
    # Bins cannot be narrower than the distance between adjacent floats.
    min_width = _BINS * 4 * np.spacing(max(abs(low), abs(high)))
    if high - low < min_width:
        low, high = low - max(min_width, 0.5), high + max(min_width, 0.5)
    counts, edges = np.histogram(flat, bins=_BINS, range=(low, high))
    return Bins(
        edges.tolist(),
        counts.astype(np.float64).tolist(),
        float(flat.min()),
        float(flat.max()),
        float(flat.sum()),
        float((flat * flat).sum()),
    )


def _pixels(image: Any) -> Any:
    import numpy as np

    is_tensor = hasattr(image, "detach")
    pixels = np.asarray(to_host(image))
    if is_tensor and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ValueError(
            "image: expected shape (height, width[, channels]) as an array or ([channels, ]height, width) as a tensor, "
            f"with 1, 3 or 4 channels, got {type(image).__name__} of shape {tuple(np.shape(to_host(image)))}"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels) * 255
    elif pixels.dtype == bool:
        pixels = pixels * 255
    elif pixels.dtype.kind not in "iu":
        raise TypeError(f"image: expected numbers, got {type(image).__name__} of {pixels.dtype}")
    return np.ascontiguousarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def to_host(values: Any) -> Any:
    """Convert a tensor to a NumPy array. Other values are returned unchanged."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    # NumPy does not support bfloat16.
    return values.float().numpy() if values.is_floating_point() and values.element_size() < 4 else values.numpy()
