"""Values of event files, as TensorFlow, torch, tensorboardX, and this package write them."""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

from tensorboard.compat.proto import types_pb2
from tensorboard.util.tensor_util import make_ndarray

from pte_tracking.sinks import Scalar

SCALARS, HISTOGRAMS, IMAGES, TEXTS, HPARAMS = "scalars", "histograms", "images", "text", "hparams"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Field with the number, and format of its bytes, by data type.
_NUMBER_FIELDS = {
    types_pb2.DT_FLOAT: ("float_val", struct.Struct("<f")),
    types_pb2.DT_DOUBLE: ("double_val", struct.Struct("<d")),
    types_pb2.DT_INT32: ("int_val", struct.Struct("<i")),
    types_pb2.DT_INT64: ("int64_val", struct.Struct("<q")),
}


class HistogramFields(NamedTuple):
    """Fields of :class:`pte_tracking.sinks.Histogram` after its step."""

    edges: list[float]
    counts: list[float]
    min: float
    max: float
    sum: float
    sum_squares: float


def read_number(tensor: Any) -> float | None:
    """Return the number in a tensor. None if it does not contain exactly one.

    Args:
        tensor: ``TensorProto`` message.
    """
    if tensor.dtype in _NUMBER_FIELDS:
        name, content = _NUMBER_FIELDS[tensor.dtype]
        numbers = getattr(tensor, name)
        if len(numbers) == 1:
            return numbers[0]  # type: ignore[no-any-return]
        if len(tensor.tensor_content) == content.size:
            return content.unpack(tensor.tensor_content)[0]  # type: ignore[no-any-return]
    try:
        return float(make_ndarray(tensor).item())
    except (TypeError, ValueError):
        return None


def read_histogram(histo: Any) -> HistogramFields | None:
    """Return the fields of a histogram. None if it is empty or contains a number that is not finite.

    TensorBoard uses the minimum and the maximum as the outer edges.

    Args:
        histo: ``HistogramProto`` message.
    """
    limits, counts = list(histo.bucket_limit), list(histo.bucket)
    filled = [index for index, count in enumerate(counts) if count > 0]
    if not filled or len(limits) != len(counts):
        return None
    first, last = filled[0], filled[-1]
    inner = [min(max(limit, histo.min), histo.max) for limit in limits[first:last]]
    edges = [histo.min, *inner, histo.max]
    return _if_finite(
        HistogramFields(edges, counts[first : last + 1], histo.min, histo.max, histo.sum, histo.sum_squares)
    )


def read_histogram_tensor(tensor: Any) -> HistogramFields | None:
    """Return the fields of a histogram with left edge, right edge and count of each bucket.

    Its sums are estimated from the centers of the buckets. None if it is empty or contains a number that is not finite.

    Args:
        tensor: ``TensorProto`` message.
    """
    try:
        buckets = make_ndarray(tensor).reshape(-1, 3).tolist()
    except (TypeError, ValueError):
        return None
    if not buckets:
        return None
    centers = [((left + right) / 2, count) for left, right, count in buckets]
    edges = [buckets[0][0], *(right for _, right, _ in buckets)]
    total = sum(center * count for center, count in centers)
    squares = sum(center**2 * count for center, count in centers)
    return _if_finite(HistogramFields(edges, [count for *_, count in buckets], edges[0], edges[-1], total, squares))


def _if_finite(fields: HistogramFields) -> HistogramFields | None:
    return fields if all(map(math.isfinite, (*fields.edges, *fields.counts, *fields[2:]))) else None


def read_param(value: Any) -> Scalar:
    """Return a hyperparameter. TensorBoard stores all numbers as floats, also integers.

    Args:
        value: ``google.protobuf.Value`` message.
    """
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number: float = value.number_value
        return int(number) if number.is_integer() else number
    return (
        str(value.string_value) if kind == "string_value" else bool(value.bool_value) if kind == "bool_value" else None
    )
