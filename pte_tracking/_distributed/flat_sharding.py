"""Models in ``FullyShardedDataParallel``, the first generation of torch's FSDP, whose ranks share flat parameters.

Their states are gathered, so that a snapshot contains full tensors under the names of the original parameters. Every
function is collective.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch.distributed as dist
from torch import nn, optim

from pte_tracking._distributed.wrappers import bare_name


def is_flat(module: object) -> bool:
    """Return whether a module or a part of it is wrapped in ``FullyShardedDataParallel``."""
    wrapper = _wrapper()
    return (
        wrapper is not None and isinstance(module, nn.Module) and any(isinstance(m, wrapper) for m in module.modules())
    )


def find_flat_model(optimizer: object, models: Mapping[str, nn.Module]) -> tuple[str, nn.Module] | None:
    """Return the name and the flat model whose parameters an optimizer steps; None if it steps no flat model."""
    if _wrapper() is None or not isinstance(optimizer, optim.Optimizer):
        return None
    stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, model in models.items():
        if is_flat(model) and any(id(parameter) in stepped for parameter in model.parameters()):
            return name, model
    return None


@contextlib.contextmanager
def full_states(module: nn.Module, *, on_rank_zero: bool = False) -> Iterator[None]:
    """Let a flat model save and restore full states; has no effect on other models.

    Args:
        module: The model.
        on_rank_zero: Whether only rank 0 receives the state.
    """
    if not is_flat(module):
        yield
        return
    from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, StateDictType

    # torch refuses to offload a model that is on the CPU.
    is_offloaded = on_rank_zero and any(parameter.device.type != "cpu" for parameter in module.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch recommends fully_shard.
        with _wrapper().state_dict_type(
            module,
            StateDictType.FULL_STATE_DICT,
            FullStateDictConfig(offload_to_cpu=is_offloaded, rank0_only=is_offloaded),
            FullOptimStateDictConfig(offload_to_cpu=is_offloaded, rank0_only=on_rank_zero),
        ):
            yield


def full_state(module: nn.Module) -> dict[str, Any]:
    """Return the full state of a flat model on rank 0, and only its buffers on other ranks."""
    with full_states(module, on_rank_zero=True):
        state = module.state_dict()
    if dist.get_rank() != 0:
        state = {bare_name(module, name): buffer for name, buffer in module.named_buffers()}
    return state


def full_optimizer_state(optimizer: optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """Return the full state of an optimizer of a flat model on rank 0, and an empty one on other ranks.

    Args:
        optimizer: The optimizer.
        model: The flat model.

    Returns:
        The state. Parameters are named, not numbered.
    """
    with full_states(model, on_rank_zero=True):
        return cast("dict[str, Any]", _wrapper().optim_state_dict(model, optimizer))


def local_optimizer_state(optimizer: optim.Optimizer, model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a full state that the optimizer of this rank loads.

    Args:
        optimizer: The optimizer.
        model: The flat model.
        state: The state, with named parameters.
    """
    with full_states(model):
        return cast("dict[str, Any]", _wrapper().optim_state_dict_to_load(model, optimizer, dict(state)))


def _wrapper() -> Any:
    # A program that uses the class has imported it. The import takes half a second.
    module = sys.modules.get("torch.distributed.fsdp.fully_sharded_data_parallel")
    return None if module is None else module.FullyShardedDataParallel
