"""Weights and gradients of models by the keys under which extensions report them."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pte_tracking._distributed.flat_sharding import is_flat
from pte_tracking._distributed.sharding import full_tensor, is_sharded
from pte_tracking._distributed.world import World
from pte_tracking._distributed.wrappers import unwrap
from pte_tracking._interface.extension import Manager
from pte_tracking._store.printable import describe_value

_logger = logging.getLogger("pte_tracking")


class NamedTensors(NamedTuple):
    """Weights and gradients of models, as they are stored on this rank.

    Attributes:
        models: The models, without wrappers such as ``DistributedDataParallel``.
        params: Whether to include the weights.
        grads: Whether to include the gradients.
        prefix: First part of the keys. None for no prefix.
    """

    models: Sequence[nn.Module]
    params: bool
    grads: bool
    prefix: str | None

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over the keys and the current tensors. Parameters can be replaced, and gradients can be None.

        The keys are ``prefix/layer.weight/data`` and ``prefix/layer.weight/grad``.
        """
        key_prefix = f"{self.prefix}/" if self.prefix else ""
        for model in self.models:
            for name, parameter in model.named_parameters():
                if self.params:
                    yield f"{key_prefix}{name}/data", parameter.detach()
                if self.grads and parameter.grad is not None:
                    yield f"{key_prefix}{name}/grad", parameter.grad.detach()

    def parameters_with_grads(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters whose gradients are included."""
        return itertools.chain.from_iterable(model.parameters() for model in self.models if self.grads)


def named_tensors(
    links: nn.Module | Iterable[nn.Module], params: bool, grads: bool, prefix: str | None
) -> NamedTensors:
    """Check the argument ``links`` of an extension, and return the weights and gradients of the models.

    Args:
        links: Model, or several models.
        params: Whether to include the weights.
        grads: Whether to include the gradients.
        prefix: First part of the keys. None for no prefix.

    Raises:
        TypeError: If ``links``, or a value in it, is not a module.
        ValueError: If several models have a parameter of the same name, or a model is wrapped in
            ``FullyShardedDataParallel``.
    """
    models = list(links) if isinstance(links, Iterable) and not isinstance(links, nn.Module) else [links]
    for model in models:
        if not isinstance(model, nn.Module):
            raise TypeError(f"links: expected a torch.nn.Module or several, got {describe_value(model)}")
    models = [unwrap(model) for model in models]
    check_not_flat("links", models)
    names = Counter(name for model in models for name, _ in model.named_parameters())
    if duplicates := [name for name, count in names.items() if count > 1]:
        raise ValueError(
            f"links: several modules have parameters named {', '.join(map(repr, duplicates))}. "
            "Use one extension per module, each with a different prefix."
        )
    return NamedTensors(models, params, grads, prefix)


class GradientCheck:
    """Check that parameters still have gradients when extensions run, at its first call after an iteration.

    Args:
        owner: Name of the extension, for the message.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._is_pending = True

    def check(self, manager: Manager, parameters: Iterable[Tensor]) -> None:
        """Log a warning if the loop has removed the gradients of all trained parameters.

        Args:
            manager: The manager.
            parameters: The parameters whose gradients the extension reads.
        """
        if not self._is_pending or manager.is_before_training:
            return
        self._is_pending = False
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if trained and all(parameter.grad is None for parameter in trained) and manager.world.rank == 0:
            _logger.warning(
                "%s: no parameter has a gradient at the end of iteration %d, when extensions run, so gradients are not "
                "reported. Call zero_grad() before backward(), not after the step of the optimizer.",
                *(self._owner, manager.iteration),
            )


def check_not_flat(argument: str, parts: Iterable[nn.Module | Tensor]) -> None:
    """Check that no weights are part of a flat parameter, whose shards have neither their names nor their shapes.

    Args:
        argument: Name of the argument that contains the parts.
        parts: Models or parameters.

    Raises:
        ValueError: If a model is wrapped in ``FullyShardedDataParallel``, or a parameter is flat.
    """
    # Every flat parameter has this attribute, whose name torch uses for its own isinstance().
    if any(is_flat(part) or getattr(part, "_is_flat_param", False) for part in parts):
        raise ValueError(
            f"{argument}: a model in FullyShardedDataParallel hides its weights, because each rank stores a part of "
            "flat parameters. Shard it with torch.distributed.fsdp.fully_shard, or remove the extension."
        )


def dense_values(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Iterate over tensors converted to dense, real, floating-point tensors, for statistics.

    Sharded tensors are gathered. Sparse tensors are filled with zeros. Complex tensors become real tensors with a last
    dimension of size 2 for the real and imaginary parts. Empty tensors are omitted.

    Args:
        tensors: Tensors by key.

    Returns:
        An iterator over keys and converted tensors.
    """
    for key, tensor in tensors.items():
        values = full_tensor(tensor)
        values = values if values.layout is torch.strided else values.to_dense()
        values = torch.view_as_real(values) if values.is_complex() else values
        if values.numel():
            yield key, values if values.is_floating_point() else values.float()


def should_measure(world: World, tensors: Iterable[Tensor]) -> bool:
    """Return whether this rank takes part in measuring tensors: rank 0, or every rank if a tensor is sharded."""
    return world.rank == 0 or any(map(is_sharded, tensors))
