"""State that differs between ranks: random generators, position in the data, sums, and buffers.

Models, optimizers, and counters are equal on all ranks, except for buffers such as the running means of a BatchNorm. A
snapshot contains the state of rank 0. Its entry ``"ranks"`` lists the differing state of ranks 1, 2, and so on.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._distributed.world import World
from pte_tracking._distributed.wrappers import bare_name
from pte_tracking._snapshots import rng
from pte_tracking._snapshots.rank_gradients import local_gradients
from pte_tracking._snapshots.summaries import merge_sums, reset_sums


class RankState(TypedDict):
    """State of one rank.

    Attributes:
        rng: States of the random generators.
        extensions: States of the extensions.
        stop_trigger: State of the stop trigger.
        data: States of the data loaders.
        buffers: Buffers that differ from those of rank 0, by model name and buffer name.
        gradients: Accumulated gradients that differ from those of rank 0, by the names of the optimizer and the
            parameter. None if only rank 0 has a gradient.
    """

    rng: rng.RandomState
    extensions: dict[str, Any]
    stop_trigger: dict[str, Any]
    data: dict[str, Any]
    buffers: dict[str, dict[str, Tensor]]
    gradients: dict[str, dict[str, Tensor | None]]


def other_rank_states(state: Mapping[str, Any], models: Mapping[str, nn.Module], world: World) -> list[RankState]:
    """Collect the states of ranks 1, 2, and so on. Call this on every rank.

    Args:
        state: The plain state of this rank.
        models: The models by name.
        world: The ranks.

    Returns:
        The states in the order of ranks, without rank 0. Empty in a single process.
    """
    if world.is_single_process:
        return []
    tensors = dict([*_buffers(state, models), *_gradients(state)])
    digests = {key: _digest(tensor) for key, tensor in tensors.items()}
    rank_zero_digests = world.run_on_rank_zero("snapshot buffers", lambda: digests)
    differing: dict[str, dict[str, dict[str, Any]]] = {"buffers": {}, "gradients": {}}
    for part, name, key in dict.fromkeys([*digests, *rank_zero_digests]):
        if digests.get((part, name, key)) != rank_zero_digests.get((part, name, key)):
            differing[part].setdefault(name, {})[key] = tensors.get((part, name, key))
    own = _rank_state(state, differing["buffers"], differing["gradients"])
    return world.all_gather("snapshot capture", own)[1:]


def state_for_rank(state: Mapping[str, Any], world: World) -> Mapping[str, Any]:
    """Return the state that this rank restores.

    If the world size has changed, rank 0 restores the sums of all ranks and the other ranks start with empty sums. A
    rank without saved state restores that of rank 0, with different random numbers.

    Args:
        state: The state in the snapshot.
        world: The current ranks.
    """
    others: list[RankState] = state.get("ranks", [])
    manager = state["manager"]
    rank_zero = _rank_state(state, {}, {})
    own = rank_zero.copy()
    if 0 < world.rank <= len(others):
        own = others[world.rank - 1].copy()
    elif world.rank:
        own["rng"] = rng.derive_for_rank(state["rng"], world.rank)
    if len(others) + 1 != world.size:
        own["extensions"] = _redistribute_sums(rank_zero["extensions"], [rank["extensions"] for rank in others], world)
        own["stop_trigger"] = _redistribute_sums(
            rank_zero["stop_trigger"], [rank["stop_trigger"] for rank in others], world
        )
    return {
        **state,
        "models": {name: _with_buffers(model, own["buffers"].get(name)) for name, model in state["models"].items()},
        "gradients": local_gradients(state, world),
        "rng": own["rng"],
        "extensions": own["extensions"],
        "manager": {**manager, "data": own["data"], "stop_trigger": own["stop_trigger"]},
    }


def _rank_state(
    state: Mapping[str, Any], buffers: dict[str, dict[str, Tensor]], gradients: dict[str, dict[str, Tensor | None]]
) -> RankState:
    manager = state["manager"]
    return RankState(
        rng=state["rng"],
        extensions=state["extensions"],
        stop_trigger=manager["stop_trigger"],
        data=manager["data"],
        buffers=buffers,
        gradients=gradients,
    )


#: Part of the state (``"buffers"`` or ``"gradients"``), name of the model or optimizer, and name of the tensor.
_Key = tuple[str, str, str]


def _buffers(state: Mapping[str, Any], models: Mapping[str, nn.Module]) -> Iterator[tuple[_Key, Tensor]]:
    for name, model in models.items():
        saved = state["models"][name]
        for path, _ in model.named_buffers():
            key = bare_name(model, path)
            # Buffers that are not persistent are not in the state, and a model may use other names in its state.
            if isinstance(tensor := saved.get(key), Tensor) and not is_sharded(tensor):
                yield ("buffers", name, key), tensor.cpu()


def _gradients(state: Mapping[str, Any]) -> Iterator[tuple[_Key, Tensor]]:
    for name, gradients in state["gradients"].items():
        for key, tensor in gradients.items():
            if not is_sharded(tensor):
                yield ("gradients", name, key), tensor.cpu()


def _redistribute_sums(state: dict[str, Any], others: list[dict[str, Any]], world: World) -> dict[str, Any]:
    """Return a state with the sums of all ranks on rank 0, and with empty sums on other ranks."""
    redistributed: dict[str, Any] = reset_sums(state) if world.rank else merge_sums(state, others)
    return redistributed


def _digest(tensor: Tensor) -> bytes:
    """Return a digest, with which ranks compare large buffers."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _with_buffers(model: dict[str, Any], buffers: Mapping[str, Tensor] | None) -> dict[str, Any]:
    if not buffers:
        return model
    updated = copy.copy(model)  # keeps the attribute with the module versions
    updated.update(buffers)
    return updated
