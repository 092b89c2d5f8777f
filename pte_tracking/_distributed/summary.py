"""Summaries over all ranks."""

from __future__ import annotations

from typing import cast

from pte_tracking._distributed.world import World
from pte_tracking.reporter import DictSummary, SummaryState


class SharedSummary:
    """Sum of the summaries of all ranks, with one collective operation for all keys.

    Counts and sums are added, so every value has the same weight on every rank: a rank with more batches has more
    weight, and a rank without a key does not count for that key. When a rank has a new key, two more collective
    operations update the common list of keys.
    """

    def __init__(self) -> None:
        self._keys: list[str] = []

    def reduce(self, world: World, summary: DictSummary) -> DictSummary:
        """Return the summary of all ranks, which is equal on every rank.

        Args:
            world: The ranks.
            summary: The summary of this rank.
        """
        if world.is_single_process:
            return summary
        own = summary.state_dict()
        has_new = not own.keys() <= set(self._keys)
        numbers = (
            number
            for key in self._keys
            for number in (key in own, *(own.get(key, _EMPTY)[name] for name in _NAMES))  # type: ignore[literal-required]
        )
        ranks_with_new, *sums = world.all_reduce_sum([has_new, *numbers])
        if ranks_with_new:
            keys_by_rank = world.all_gather("metric keys", list(own))
            self._keys = list(dict.fromkeys([*self._keys, *(key for keys in keys_by_rank for key in keys)]))
            return self.reduce(world, summary)
        total = DictSummary()
        per_key = zip(self._keys, *(iter(sums),) * (1 + len(_NAMES)), strict=True)
        total.load_state_dict(
            {
                key: cast(SummaryState, dict(zip(_NAMES, values, strict=True)))
                for key, ranks, *values in per_key
                if ranks
            }
        )
        return total


_NAMES = tuple(SummaryState.__annotations__)
_EMPTY = SummaryState(n=0, x=0.0, x2=0.0, large_x=0.0, large_x2=0.0)
