"""Pictures as PNG, and distributions as histograms."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

_BINS = 64
_MAX_MAGNITUDE = 1e150


class Bins(NamedTuple):
    """A histogram's numbers, in the order of the fields of :class:`pte_tracking._store.events.Histogram`."""

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
        raise TypeError(f"figure: expected a matplotlib Figure or the bytes of a PNG, got {type(figure).__name__}")


def figure_png(figure: Any) -> bytes:
    """A PNG of a matplotlib figure, or such bytes themselves."""
    if isinstance(figure, bytes):
        return figure
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def image_png(image: Any) -> bytes:
    """A PNG of a picture.

    Args:
        image: A PIL image; an array of shape ``(height, width)`` or ``(height, width, channels)``; or a tensor of shape
            ``(height, width)`` or ``(channels, height, width)``. 1, 3 or 4 channels; integers from 0 to 255 or floats
            from 0 to 1.

    Raises:
        TypeError: It is none of these.
        ValueError: Its shape is another one.
    """
    if isinstance(image, bytes):
        return image
    from PIL import Image  # installed with the extras that show pictures

    if not isinstance(image, Image.Image):
        image = Image.fromarray(_pixels(image))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def histogram(values: Any) -> Bins | None:
    """The histogram of an array or tensor of any shape, its non-finite values left out; None if nothing is left."""
    import numpy as np

    flat = np.asarray(to_host(values), dtype=np.float64).ravel()
    # Within the cut-off, ranges and squares are finite too.
    flat = flat[np.isfinite(flat)].clip(-_MAX_MAGNITUDE, _MAX_MAGNITUDE)
    if not flat.size:
        return None
    low, high = flat.min(), flat.max()
    # Bins narrower than the distance of neighbouring floats cannot be made.
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
            f"with 1, 3 or 4 channels; got {type(image).__name__} of shape {tuple(np.shape(to_host(image)))}"
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
    """A tensor as a NumPy array; anything else as it is."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    # NumPy has no bfloat16.
    return values.float().numpy() if values.is_floating_point() and values.element_size() < 4 else values.numpy()
