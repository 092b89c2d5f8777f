"""Which snapshots are worth their place on the disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pte_tracking._store.events import Checkpoint
from pte_tracking._store.values import check_key


class BestPolicy(NamedTuple):
    """What makes a snapshot good.

    Attributes:
        key: The value that is looked at.
        mode: Whether ``"min"`` or ``"max"`` is best.
        keep: How many of the best are kept.
    """

    key: str
    mode: str
    keep: int

    @classmethod
    def parse(cls, given: Sequence[object]) -> BestPolicy:
        """From what a user writes, such as ``("val/loss", "min", 3)``.

        Raises:
            TypeError: It is no such triple.
            ValueError: The mode is unknown or the count not positive.
        """
        if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 3:
            raise TypeError(f"keep_best: expected (key, 'min' or 'max', count), got {given!r}")
        key, mode, count = given
        check_key(key, "keep_best")
        if mode not in ("min", "max"):
            raise ValueError(f"keep_best: expected the mode 'min' or 'max', got {mode!r}")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"keep_best: expected a count of at least 1, got {count!r}")
        return cls(str(key), str(mode), count)

    def ranked(self, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Those that have a finite value, the best first; of equal ones the earlier."""
        sign = 1 if self.mode == "min" else -1
        values = {one.path: float(one.values.get(self.key, math.nan)) for one in checkpoints}
        finite = [one for one in checkpoints if math.isfinite(values[one.path])]
        return sorted(finite, key=lambda one: (sign * values[one.path], one.step))


def prunable(checkpoints: Sequence[Checkpoint], n_retains: int, best: BestPolicy | None) -> list[Checkpoint]:
    """The snapshots that may go.

    Args:
        checkpoints: All, the newest last. That one stays in any case: a resume needs it.
        n_retains: How many of the newest stay; all if not positive, or with ``best`` the newest alone.
        best: Which others stay.
    """
    if n_retains <= 0 and best is None:
        return []
    stay = {one.path for one in checkpoints[-max(n_retains, 1) :]}
    if best is not None:
        stay.update(one.path for one in best.ranked(checkpoints)[: best.keep])
    return [one for one in checkpoints if one.path not in stay]
