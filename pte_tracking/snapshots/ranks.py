"""What of a training's state belongs to one rank alone: its random generators, its place in the data, its sums.

Models, optimizers and counts are alike on all ranks. So a snapshot holds the state of rank 0, and beside it, under
``"ranks"``, what is different on the ranks 1, 2 and so on, in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from pte_tracking.snapshots import rng
from pte_tracking.world import World


class OwnState(TypedDict):
    """The state of one rank: of its random generators, its extensions, and its loaders."""

    rng: rng.RandomState
    extensions: dict[str, Any]
    data: dict[str, Any]


def own(state: Mapping[str, Any]) -> OwnState:
    """What of a state is this rank's."""
    return OwnState(rng=state["rng"], extensions=state["extensions"], data=state["manager"]["data"])


def of_rank(state: Mapping[str, Any], world: World) -> Mapping[str, Any]:
    """The state that a rank goes on from.

    A rank that was not there when the snapshot was taken begins where rank 0 was, but draws other random numbers.
    """
    if world.rank == 0:
        return state
    others: list[OwnState] = state.get("ranks", [])
    if world.rank > len(others):
        return {**state, "rng": rng.of_new_rank(state["rng"], world.rank)}
    mine = others[world.rank - 1]
    return {
        **state,
        "rng": mine["rng"],
        "extensions": mine["extensions"],
        "manager": {**state["manager"], "data": mine["data"]},
    }
