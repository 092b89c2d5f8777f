"""Means over everything that all ranks have seen."""

from __future__ import annotations

from pte_tracking._distributed.world import World
from pte_tracking.reporter import DictSummary, SummaryState


class SharedSummary:
    """Adds up the summaries of all ranks, with one collective for all keys.

    What is added up are counts and sums, so each value weighs the same on whichever rank it was seen: a rank with more
    batches counts more, and one that has not seen a key does not count for it. Which keys there are is agreed upon when
    a rank has a new one; that takes two collectives more.
    """

    def __init__(self) -> None:
        self._keys: list[str] = []

    def reduce(self, world: World, summary: DictSummary) -> DictSummary:
        """The summary of all ranks, the same on each.

        Args:
            world: The ranks.
            summary: What this rank has seen.
        """
        if world.is_single_process:
            return summary
        own = summary.state_dict()
        has_new = not own.keys() <= set(self._keys)
        states = [own.get(key, _EMPTY) for key in self._keys]
        numbers = (number for state in states for number in (state["n"], state["x"], state["x2"]))
        ranks_with_new, *sums = world.all_reduce_sum([has_new, *numbers])
        if ranks_with_new:
            keys_by_rank = world.all_gather("the keys of means", list(own))
            self._keys = list(dict.fromkeys([*self._keys, *(key for keys in keys_by_rank for key in keys)]))
            return self.reduce(world, summary)
        total = DictSummary()
        triples = zip(self._keys, *(iter(sums),) * 3, strict=True)
        total.load_state_dict({key: SummaryState(n=n, x=x, x2=x2) for key, n, x, x2 in triples if n})
        return total


_EMPTY = SummaryState(n=0, x=0.0, x2=0.0)
