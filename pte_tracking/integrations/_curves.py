"""Histograms with given bins, and precision-recall curves."""

from __future__ import annotations

from typing import Any

from pte_tracking._runs import plot_style
from pte_tracking._runs.media import Bins, histogram, render_figure, to_host
from pte_tracking._store.dependencies import required_by
from pte_tracking.integrations._pixels import to_numbers

_MAX_THRESHOLDS = 127
_MIN_COUNT = 1e-7


def to_bins(values: Any, bins: Any, max_bins: int | None, name: str) -> Bins | None:
    """Return the histogram of the finite values of an array or tensor.

    Args:
        values: Array or tensor of any shape.
        bins: ``"tensorflow"`` for 64 bins, or an argument ``bins`` of ``numpy.histogram``.
        max_bins: Number of bins above which neighboring bins are joined. None joins no bins.
        name: Name of the histogram in messages.

    Returns:
        The histogram, or None if there are no finite values.

    Raises:
        TypeError: If the values are not real numbers.
        ValueError: If ``bins`` is invalid.
    """
    result = histogram(values, name)
    if result is None:
        return None
    import numpy as np

    edges, counts = np.asarray(result.edges), np.asarray(result.counts)
    if not isinstance(bins, str) or bins != "tensorflow":
        finite = np.asarray(to_host(values), np.float64).ravel()
        counts, edges = np.histogram(finite[np.isfinite(finite)], bins=bins)
    if max_bins is not None and len(counts) > max_bins:
        joined = -(-len(counts) // max_bins)
        starts = np.arange(0, len(counts), joined)
        counts, edges = np.add.reduceat(counts, starts), np.append(edges[starts], edges[-1])
    return result._replace(edges=edges.astype(float).tolist(), counts=counts.astype(float).tolist())


def compute_curve(labels: Any, predictions: Any, thresholds: int, weights: Any, name: str) -> tuple[Any, Any]:
    """Return precision and recall at evenly spaced thresholds from 0 to 1.

    Args:
        labels: Whether each element is positive.
        predictions: Predicted probability of each element.
        thresholds: Number of thresholds, of which at most 127 are used.
        weights: Weight of each element, or None.
        name: Name of the curve in messages.

    Raises:
        TypeError: If labels or predictions are not real numbers.
        ValueError: If a prediction is not in the range from 0 to 1, or the numbers of elements differ.
    """
    truth, scores = to_numbers(labels, name).ravel().astype(float), to_numbers(predictions, name).ravel().astype(float)
    if truth.shape != scores.shape or not scores.size or not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(
            f"{name}: expected one prediction from 0 to 1 for each label, got {truth.size} labels and {scores.size} "
            "predictions. Apply a sigmoid or softmax first."
        )
    import numpy as np

    count = min(thresholds, _MAX_THRESHOLDS)
    weight = np.broadcast_to(1.0 if weights is None else to_numbers(weights, name).ravel(), truth.shape)
    buckets = np.floor(scores * (count - 1)).astype(int)

    def count_from(values: Any) -> Any:
        """Return the weight at or above each threshold."""
        return np.bincount(buckets, values, minlength=count)[::-1].cumsum()[::-1]

    true_positives, false_positives = count_from(truth * weight), count_from((1 - truth) * weight)
    precision = true_positives / np.maximum(_MIN_COUNT, true_positives + false_positives)
    return precision, true_positives / max(_MIN_COUNT, true_positives[0])


def draw_curve(precision: Any, recall: Any, title: str) -> bytes:
    """Draw a precision-recall curve, and return a PNG file.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    with required_by("A precision-recall curve", "matplotlib", "'pte-tracking[plot]'"):
        from matplotlib.figure import Figure
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    plot_style.style_axes(axes, "recall", "precision")
    axes.plot(to_host(recall), to_host(precision))
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), title=title)
    return render_figure(figure)
