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
from pte_tracking._snapshots import rng
from pte_tracking._snapshots.summaries import merge_sums, reset_sums


class RankState(TypedDict):
    """State of one rank.

    Attributes:
        rng: States of the random generators.
        extensions: States of the extensions.
        stop_trigger: State of the stop trigger.
        data: States of the data loaders.
        buffers: Buffers that differ from those of rank 0, by model name and buffer name.
    """

    rng: rng.RandomState
    extensions: dict[str, Any]
    stop_trigger: dict[str, Any]
    data: dict[str, Any]
    buffers: dict[str, dict[str, Tensor]]


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
    buffers = dict(_buffers(state, models))
    digests = {key: _digest(tensor) for key, tensor in buffers.items()}
    rank_zero_digests = world.run_on_rank_zero("snapshot buffers", lambda: digests)
    differing: dict[str, dict[str, Tensor]] = {}
    for (name, key), tensor in buffers.items():
        if digests[name, key] != rank_zero_digests.get((name, key)):
            differing.setdefault(name, {})[key] = tensor
    return world.all_gather("snapshot capture", _rank_state(state, differing))[1:]


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
    rank_zero = _rank_state(state, {})
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
        "rng": own["rng"],
        "extensions": own["extensions"],
        "manager": {**manager, "data": own["data"], "stop_trigger": own["stop_trigger"]},
    }


def _rank_state(state: Mapping[str, Any], buffers: dict[str, dict[str, Tensor]]) -> RankState:
    manager = state["manager"]
    return RankState(
        rng=state["rng"],
        extensions=state["extensions"],
        stop_trigger=manager["stop_trigger"],
        data=manager["data"],
        buffers=buffers,
    )


def _buffers(state: Mapping[str, Any], models: Mapping[str, nn.Module]) -> Iterator[tuple[tuple[str, str], Tensor]]:
    for name, model in models.items():
        saved = state["models"][name]
        for key, _ in model.named_buffers():
            # Buffers that are not persistent are not in the state, and a model may use other names in its state.
            if isinstance(tensor := saved.get(key), Tensor) and not is_sharded(tensor):
                yield (name, key), tensor.cpu()


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
