"""Weights and gradients of models by the keys under which extensions report them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from pte_tracking._distributed.flat_sharding import is_flat
from pte_tracking._distributed.sharding import full_tensor, is_sharded
from pte_tracking._distributed.world import World
from pte_tracking._distributed.wrappers import unwrap
from pte_tracking._store.printable import describe_value


def named_tensors(
    links: nn.Module | Iterable[nn.Module], params: bool, grads: bool, prefix: str | None
) -> Callable[[], Iterator[tuple[str, Tensor]]]:
    """Check models, and return a function that iterates over their weights and gradients and their keys.

    Args:
        links: Model, or several models.
        params: Whether to include the weights.
        grads: Whether to include the gradients.
        prefix: First part of the keys. None for no prefix.

    Returns:
        A function without arguments that calls :func:`iterate_tensors`.

    Raises:
        TypeError: If a value in ``links`` is not a module.
        ValueError: If several models have a parameter of the same name, or a model is wrapped in
            ``FullyShardedDataParallel``.
    """
    models = [links] if isinstance(links, nn.Module) else list(links)
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
    return lambda: iterate_tensors(models, params, grads, prefix)


def iterate_tensors(
    models: Iterable[nn.Module], params: bool, grads: bool, prefix: str | None
) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the weights and gradients of models and their keys, as they are stored on this rank.

    The keys are ``prefix/layer.weight/data`` and ``prefix/layer.weight/grad``.

    Args:
        models: The models, without wrappers such as ``DistributedDataParallel``.
        params: Whether to include the weights.
        grads: Whether to include the gradients.
        prefix: First part of the keys. None for no prefix.
    """
    key_prefix = f"{prefix}/" if prefix else ""
    for model in models:
        for name, parameter in model.named_parameters():
            if params:
                yield f"{key_prefix}{name}/data", parameter.detach()
            if grads and parameter.grad is not None:
                yield f"{key_prefix}{name}/grad", parameter.grad.detach()


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
