"""Event of a model that was exported for deployment."""

from __future__ import annotations

from typing import Literal

import msgspec

from pte_tracking._store.event_base import Event, Int64, RelativePath


class TensorSpec(msgspec.Struct, frozen=True):
    """Input or output of an exported model.

    Attributes:
        name: Name of the argument of ``forward()``, or ``output``, ``output_1``, ...
        dtype: Data type, such as ``"float32"``.
        shape: Size of each dimension. -1 for a size that may differ between calls, such as that of a batch.

    Example:
        >>> from pte_tracking.sinks import TensorSpec
        >>> TensorSpec("x", "float32", [-1, 8]).shape
        [-1, 8]
    """

    name: str
    dtype: str
    shape: list[Int64]


class ModelSignature(msgspec.Struct, frozen=True):
    """Inputs and outputs of an exported model.

    Attributes:
        inputs: Inputs, in the order of the arguments.
        outputs: Outputs. Nested outputs are flattened.
        takes_keywords: Whether the inputs are keyword arguments. Defaults to False: they are positional.

    Example:
        >>> from pte_tracking.sinks import ModelSignature, TensorSpec
        >>> signature = ModelSignature([TensorSpec("x", "float32", [-1, 8])], [TensorSpec("output", "int64", [-1])])
        >>> signature.takes_keywords
        False
    """

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    takes_keywords: bool = False


class BestMetric(msgspec.Struct, frozen=True):
    """Metric whose value is the best so far.

    Attributes:
        key: Name of the metric.
        mode: ``"min"`` if the lowest value is the best, ``"max"`` if the highest.
        value: The value, which is finite.

    Example:
        >>> from pte_tracking.sinks import BestMetric
        >>> BestMetric("val/accuracy", "max", 0.97).mode
        'max'
    """

    key: str
    mode: Literal["min", "max"]
    value: float


class Model(Event, frozen=True):
    """A model was exported for deployment.

    Attributes:
        name: Name of the model in the manager, such as ``"main"``.
        step: Number of completed iterations.
        path: Directory relative to the run directory, with ``model.pt2`` (a program of ``torch.export``),
            ``state_dict.pt`` (its weights), and ``input_example.json`` (an input, unless it is large).
        sha256: Hexadecimal SHA-256 of the weights.
        size: Size of the directory in bytes.
        torch: Version of torch that wrote the files.
        signature: Inputs and outputs.
        registered_name: Name under which a registry lists the model as a new version. Empty for none.
        best: Metric by which this model is the best of the run so far. None if it is not.
    """

    name: str
    step: Int64
    path: RelativePath
    sha256: str
    size: int
    torch: str
    signature: ModelSignature
    registered_name: str = ""
    best: BestMetric | None = None
