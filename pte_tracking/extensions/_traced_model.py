"""Models as programs of ``torch.export``, which need neither the class of the model nor its source code."""

from __future__ import annotations

import copy
import inspect
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pte_tracking._snapshots import rng
from pte_tracking._snapshots.file import save
from pte_tracking._snapshots.module_state import save_module
from pte_tracking._store.checkpoint_files import FileDigest
from pte_tracking._store.model_event import ModelSignature, TensorSpec
from pte_tracking._store.printable import describe_value

PROGRAM_FILE = "model.pt2"
WEIGHTS_FILE = "state_dict.pt"
EXAMPLE_FILE = "input_example.json"
_MAX_EXAMPLE_NUMBERS = 100_000  # in JSON, a number takes up to 20 bytes


class ModelInput:
    """Arguments with which a model is traced.

    Args:
        example: A tensor, a sequence of tensors for several positional arguments, or a mapping for keyword arguments.
            An array is converted to a tensor.

    Attributes:
        tensors: The tensors by name, with copies of the values on the CPU. The keys of positional ones are numbers.
        takes_keywords: Whether the tensors are keyword arguments.

    Raises:
        TypeError: If the example contains anything other than tensors and arrays.
        ValueError: If it contains no values.
    """

    def __init__(self, example: object) -> None:
        self.takes_keywords = isinstance(example, Mapping)
        if isinstance(example, Mapping):
            items: list[tuple[Any, Any]] = list(example.items())
        else:
            items = list(enumerate(example if isinstance(example, list | tuple) else [example]))
        self.tensors = {str(name): _to_tensor(value) for name, value in items}
        if not self.tensors or not all(tensor.numel() for tensor in self.tensors.values()):
            raise ValueError(f"input_example: expected tensors with at least one value each, got {example!r}")

    def arguments(self, rows: int | None = None) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Return the positional and the keyword arguments.

        Args:
            rows: Number of rows of each batch. Defaults to None: that of the example.
        """
        tensors = dict(self.tensors)
        if rows is not None:
            for name in self.batched():
                tensors[name] = tensors[name].repeat(rows, *[1] * (tensors[name].dim() - 1))[:rows]
        return ((), tensors) if self.takes_keywords else (tuple(tensors.values()), {})

    def batched(self) -> list[str]:
        """Return the names of the tensors whose first dimension has the size of that of the first tensor."""
        shape = next(iter(self.tensors.values())).shape
        return [name for name, tensor in self.tensors.items() if shape and tensor.shape[:1] == shape[:1]]

    def to_json(self, rows: int | None) -> bytes | None:
        """Return the first rows in the format that MLflow serves, or None if they are large or not finite.

        Args:
            rows: Number of rows. None for all rows.
        """
        positional, keywords = self.arguments(rows)
        tensors = [*positional, *keywords.values()]
        if sum(tensor.numel() for tensor in tensors) > _MAX_EXAMPLE_NUMBERS:
            return None
        if not all(torch.isfinite(tensor).all() for tensor in tensors):
            return None  # JSON has no such numbers.
        named = {name: tensor.tolist() for name, tensor in keywords.items()}
        values = [tensor.tolist() for tensor in positional]
        return json.dumps({"inputs": named or (values[0] if len(values) == 1 else values)}).encode()


class TracedModel(NamedTuple):
    """Copy of a model at one iteration.

    Attributes:
        program: The exported program.
        state: State of the model, with the names that the model itself has.
        signature: Inputs and outputs.
        example: Content of the file with the input example. None if there is no file.
    """

    program: Any  # torch.export.ExportedProgram, whose import takes time
    state: dict[str, Any]
    signature: ModelSignature
    example: bytes | None


def trace(model: nn.Module, example: ModelInput, *, should_run: bool = False) -> TracedModel:
    """Copy a model to the CPU, and trace the copy in evaluation mode. The model itself stays unchanged.

    Args:
        model: The model.
        example: Example of its arguments.
        should_run: Whether to call the copy with the example first, whose failure has a clearer message.

    Raises:
        Exception: If the copy, the call, or the trace fails.
    """
    from torch import export  # A training without this extension does not need the module, whose import takes time.

    random_state = rng.get_state()
    try:
        copied = _copy_to_cpu(model).eval()
        with torch.no_grad():
            if should_run:
                positional, keywords = example.arguments()
                copied(*positional, **keywords)
            # torch.export makes a dimension of size 1 a constant.
            rows = len(next(iter(example.tensors.values()))) if example.batched() else 1
            positional, keywords = example.arguments(2 if rows == 1 and example.batched() else None)
            sizes = {name: {0: export.Dim.AUTO} for name in example.batched()}
            dynamic = {name: sizes.get(name, {}) for name in example.tensors}
            shapes = _bind(copied, *(((), dynamic) if example.takes_keywords else (dynamic.values(), {})))
            program = export.export(copied, positional, keywords, dynamic_shapes=shapes, strict=False)
    finally:
        rng.set_state(random_state)
    signature = _read_signature(program, example)
    is_variable = any(spec.shape[:1] == [-1] for spec in signature.inputs)
    return TracedModel(program, save_module(copied), signature, example.to_json(1 if is_variable else None))


def write(directory: Path, traced: TracedModel) -> FileDigest:
    """Write the files of a model into an empty directory.

    Args:
        directory: The directory.
        traced: The model.

    Returns:
        The digest of the weights.

    Raises:
        OSError: If the disk is full or a file cannot be written.
    """
    digest = save(directory / WEIGHTS_FILE, traced.state)
    with open(directory / PROGRAM_FILE, "wb") as file:
        torch.export.save(traced.program, file)
    if traced.example is not None:
        (directory / EXAMPLE_FILE).write_bytes(traced.example)
    return digest


def _to_tensor(value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if hasattr(value, "__array__"):
        return torch.as_tensor(value).clone()
    raise TypeError(
        "input_example: expected a tensor, a tuple of tensors, or a dictionary of tensors for keyword arguments, got "
        f"{describe_value(value)}"
    )


def _copy_to_cpu(model: nn.Module) -> nn.Module:
    """Copy a model without its gradients. A device does not need memory for the copy."""
    known: dict[int, Any] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        data = tensor.detach().to("cpu", copy=True)
        known[id(tensor)] = nn.Parameter(data, requires_grad=False) if isinstance(tensor, nn.Parameter) else data
    return copy.deepcopy(model, known)


def _bind(model: nn.Module, positional: Iterable[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for the arguments of a model by the names of the parameters, as a tuple for ``*args``."""
    signature = inspect.signature(model.forward)
    bound = signature.bind(*positional, **keywords).arguments
    variable = [name for name in bound if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD]
    if variable:
        raise TypeError(
            f"torch.export does not accept several batch sizes for **{variable[0]} of forward(). Pass input_example as "
            "a tuple of positional arguments, or export the module within, such as average.module of an AveragedModel"
        )
    return bound


def _read_signature(program: Any, example: ModelInput) -> ModelSignature:
    from torch.fx.experimental.symbolic_shapes import is_concrete_int  # for the same reason

    nodes = {node.name: node for node in program.graph.nodes}

    def specs(names: list[Any], shown: list[str]) -> list[TensorSpec]:
        values = [nodes[name].meta["val"] for name in names if isinstance(name, str)]
        tensors = [value for value in values if isinstance(value, Tensor)]
        if not shown:
            shown = ["output", *(f"output_{number}" for number in range(1, len(tensors)))]
        return [
            TensorSpec(
                name,
                str(tensor.dtype).removeprefix("torch."),
                [int(size) if is_concrete_int(size) else -1 for size in tensor.shape],
            )
            for name, tensor in zip(shown, tensors, strict=True)
        ]

    inputs = list(program.graph_signature.user_inputs)
    return ModelSignature(
        specs(inputs, inputs),
        specs(list(program.graph_signature.user_outputs), []),
        example.takes_keywords,
    )
