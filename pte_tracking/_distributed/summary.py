"""Summaries over all ranks."""

from __future__ import annotations

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
        states = [own.get(key, _EMPTY) for key in self._keys]
        numbers = (number for state in states for number in (state["n"], state["x"], state["x2"]))
        ranks_with_new, *sums = world.all_reduce_sum([has_new, *numbers])
        if ranks_with_new:
            keys_by_rank = world.all_gather("metric keys", list(own))
            self._keys = list(dict.fromkeys([*self._keys, *(key for keys in keys_by_rank for key in keys)]))
            return self.reduce(world, summary)
        total = DictSummary()
        triples = zip(self._keys, *(iter(sums),) * 3, strict=True)
        total.load_state_dict({key: SummaryState(n=n, x=x, x2=x2) for key, n, x, x2 in triples if n})
        return total


_EMPTY = SummaryState(n=0, x=0.0, x2=0.0)
