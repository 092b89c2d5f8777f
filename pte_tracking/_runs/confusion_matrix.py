"""Figure of a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pte_tracking._runs.media import to_host
from pte_tracking._store.dependencies import required_by

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_LABELED_CLASSES = 20  # the labels of more classes would overlap
_INCHES_PER_CLASS = 0.42
_MIN_INCHES, _MAX_INCHES = 4.0, 12.0  # inches


def confusion_figure(matrix: Any, labels: Sequence[str] | None) -> Figure:
    """Draw a confusion matrix. The shade of a cell is its share of the true class.

    Args:
        matrix: Counts of shape ``(classes, classes)``. Rows are true classes, and columns are predicted classes.
        labels: Class names. None labels the classes with their indices.

    Returns:
        The figure. Cells are labeled with their counts if there are at most 20 classes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the matrix is not square, if a count is negative or not finite, or if the number of labels is not
            the number of classes.
    """
    with required_by("A confusion matrix", "matplotlib", "'pte-tracking[plot]'"):
        from matplotlib.figure import Figure
    import numpy as np

    counts = np.asarray(to_host(matrix))
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(f"matrix: expected shape (classes, classes), got {counts.shape}")
    if counts.dtype.kind not in "biuf" or not np.isfinite(counts).all() or counts.min() < 0:
        raise ValueError("matrix: expected finite counts that are not negative")
    classes = len(counts)
    names = [str(name) for name in (range(classes) if labels is None else labels)]
    if len(names) != classes:
        raise ValueError(f"labels: expected as many labels as classes ({classes}), got {len(names)}")

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(max(classes * _INCHES_PER_CLASS, _MIN_INCHES), _MAX_INCHES)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    shading = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shading, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true")
    if classes > _MAX_LABELED_CLASSES:
        return figure
    axes.set_xticks(range(classes), names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(classes), names)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:g}", ha="center", va="center", color=color, fontsize="small")
    return figure
