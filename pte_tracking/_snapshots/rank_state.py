"""What of a training's state belongs to one rank alone: its random generators, its place in the data, its sums.

Models, optimizers and counts are alike on all ranks, but for buffers, such as the means that a BatchNorm keeps of what
it has seen. So a snapshot holds the state of rank 0, and beside it, under ``"ranks"``, what is different on the ranks
1, 2 and so on, in their order.
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
    """The state of one rank: its random generators, extensions, stop trigger, loaders, and buffers.

    Attributes:
        buffers: By the names of models and theirs; those alone that are others than on rank 0.
    """

    rng: rng.RandomState
    extensions: dict[str, Any]
    stop_trigger: dict[str, Any]
    data: dict[str, Any]
    buffers: dict[str, dict[str, Tensor]]


def other_rank_states(state: Mapping[str, Any], models: Mapping[str, nn.Module], world: World) -> list[RankState]:
    """What of a state is each rank's own, of the ranks 1, 2 and so on; called on all of them.

    Args:
        state: The state here, a plain one.
        models: The models that it is of, by name.
        world: The ranks.
    """
    if world.is_single_process:
        return []
    buffers = dict(_buffers(state, models))
    digests = {key: _digest(tensor) for key, tensor in buffers.items()}
    rank_zero_digests = world.run_on_rank_zero("the buffers in a snapshot", lambda: digests)
    differing: dict[str, dict[str, Tensor]] = {}
    for (name, key), tensor in buffers.items():
        if digests[name, key] != rank_zero_digests.get((name, key)):
            differing.setdefault(name, {})[key] = tensor
    return world.all_gather("a snapshot", _rank_state(state, differing))[1:]


def state_for_rank(state: Mapping[str, Any], world: World) -> Mapping[str, Any]:
    """The state that a rank goes on from.

    On another number of ranks, rank 0 takes over the sums of all, and the others begin with none. A rank that was not
    there when the snapshot was taken begins where rank 0 was, but draws other random numbers.
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
            # One that is not persistent is not there, and a model may have names of its own for its state.
            if isinstance(tensor := saved.get(key), Tensor) and not is_sharded(tensor):
                yield (name, key), tensor.cpu()


def _redistribute_sums(state: dict[str, Any], others: list[dict[str, Any]], world: World) -> dict[str, Any]:
    """A state on another number of ranks: with the sums of all on rank 0, and with none on the others."""
    redistributed: dict[str, Any] = reset_sums(state) if world.rank else merge_sums(state, others)
    return redistributed


def _digest(tensor: Tensor) -> bytes:
    """What tells a buffer from others: it may be large, and is mostly the same on all ranks."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _with_buffers(model: dict[str, Any], buffers: Mapping[str, Tensor] | None) -> dict[str, Any]:
    if not buffers:
        return model
    updated = copy.copy(model)  # a model's state carries the versions of its modules along
    updated.update(buffers)
    return updated
