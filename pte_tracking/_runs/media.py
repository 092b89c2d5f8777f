"""Conversion of figures to PNG, and of arrays to histograms."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

from pte_tracking._store.dependencies import required_by

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


def render_figure(figure: Any) -> bytes:
    """Render a matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def histogram(values: Any, name: str) -> Bins | None:
    """Return the histogram of the finite values of an array or tensor.

    Args:
        values: Array or tensor of any shape. Masked elements are ignored.
        name: Name of the histogram in error messages.

    Returns:
        The histogram, or None if there are no finite values.

    Raises:
        TypeError: If the values are not real numbers.
    """
    with required_by("A histogram", "numpy", "'pte-tracking[plot]'"):
        import numpy as np

    try:
        array = np.ma.compressed(np.asanyarray(to_host(values)))
    except Exception as error:  # Libraries of tensors raise many types, for example for tensors without data.
        raise TypeError(
            f"{name}: expected an array or tensor, got {type(values).__name__} that could not be read: {error}"
        ) from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got {type(values).__name__} of {array.dtype}")
    flat = array.astype(np.float64)
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


def read_array(values: Any, kinds: str, name: str, feature: str) -> Any:
    """Return an array or tensor of real numbers as a NumPy array.

    Args:
        values: Array or tensor.
        kinds: Kinds of NumPy data types that are accepted.
        name: Name of the values in messages.
        feature: Feature that requires NumPy, such as ``"A sound as an array"``.

    Raises:
        ImportError: If NumPy is not installed.
        TypeError: If the values are not real numbers of these kinds.
    """
    with required_by(feature, "numpy", "'pte-tracking[plot]'"):
        import numpy as np

    try:
        array = np.asarray(to_host(values))
    except Exception as error:  # Libraries of tensors raise many types, for example for tensors without data.
        raise TypeError(
            f"{name}: expected an array, tensor, or the bytes or the path of a file, got {type(values).__name__} that "
            f"could not be read: {error}"
        ) from error
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name}: expected real numbers, got {type(values).__name__} of {array.dtype}")
    return array


def to_host(values: Any) -> Any:
    """Convert a tensor to a NumPy array. Other values are returned unchanged."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    # NumPy does not support bfloat16.
    return values.float().numpy() if values.is_floating_point() and values.element_size() < 4 else values.numpy()
