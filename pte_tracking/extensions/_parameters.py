"""The weights and gradients of models, by the names that they are reported under."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from pte_tracking._distributed.sharding import full_tensor, is_sharded
from pte_tracking._distributed.world import World
from pte_tracking._distributed.wrappers import unwrap


def named_tensors(
    links: nn.Module | Iterable[nn.Module], params: bool, grads: bool, prefix: str | None
) -> Callable[[], Iterator[tuple[str, Tensor]]]:
    """A function that goes through the weights and gradients, as ``prefix/layer.weight/data`` and ``.../grad``.

    Raises:
        TypeError: One of ``links`` is no module.
        ValueError: Two of them have a parameter of the same name.
    """
    models = [links] if isinstance(links, nn.Module) else list(links)
    for model in models:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"links: expected a torch.nn.Module or several, got {model!r} of type {type(model).__name__}"
            )
    models = [unwrap(model) for model in models]
    names = Counter(name for model in models for name, _ in model.named_parameters())
    if duplicates := [name for name, count in names.items() if count > 1]:
        raise ValueError(
            f"links: {', '.join(map(repr, duplicates))} would be reported by several modules under the same name; "
            "use one extension for each, with different prefixes"
        )
    key_prefix = f"{prefix}/" if prefix else ""

    def iterate() -> Iterator[tuple[str, Tensor]]:
        # Asked anew each time: parameters may be added or replaced, and gradients come and go.
        for model in models:
            for name, parameter in model.named_parameters():
                if params:
                    yield f"{key_prefix}{name}/data", parameter.detach()
                if grads and parameter.grad is not None:
                    yield f"{key_prefix}{name}/grad", parameter.grad.detach()

    return iterate


def dense_values(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """All values of each tensor, as dense real floats, as statistics need them; what is empty is left out.

    A sparse gradient, such as an embedding's, has zeros where nothing is stored. Of complex numbers the real and the
    imaginary parts stand beside one another.
    """
    for key, tensor in tensors.items():
        values = full_tensor(tensor)
        values = values if values.layout is torch.strided else values.to_dense()
        values = torch.view_as_real(values) if values.is_complex() else values
        if values.numel():
            yield key, values if values.is_floating_point() else values.float()


def should_measure(world: World, tensors: Iterable[Tensor]) -> bool:
    """Whether this rank is needed to look at weights: rank 0 is, and all are where they lie in shards."""
    return world.rank == 0 or any(map(is_sharded, tensors))
