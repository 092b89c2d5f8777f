"""Snapshot retention rules."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pte_tracking._runs.run import Run
from pte_tracking._snapshots.template import Template
from pte_tracking._store.checkpoint_files import delete_checkpoint
from pte_tracking._store.checkpoints import rank_by_metric
from pte_tracking._store.events import Checkpoint
from pte_tracking._store.values import check_key

_logger = logging.getLogger("pte_tracking")


class BestPolicy(NamedTuple):
    """Ranking of snapshots by a metric.

    Attributes:
        key: Name of the metric.
        mode: ``"min"`` if the lowest value is the best, ``"max"`` if the highest.
        keep: Number of best snapshots to keep.
    """

    key: str
    mode: Literal["min", "max"]
    keep: int

    @classmethod
    def parse(cls, value: Sequence[object]) -> BestPolicy:
        """Parse the argument ``keep_best``, such as ``("val/loss", "min", 3)``.

        Raises:
            TypeError: If the argument is not a sequence of three.
            ValueError: If the mode is unknown or the count is not positive.
        """
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 3:
            raise TypeError(f"keep_best: expected (key, 'min' or 'max', count), got {value!r}")
        key, mode, count = value
        check_key(key, "keep_best")
        if mode not in ("min", "max"):
            raise ValueError(f"keep_best: expected the mode 'min' or 'max', got {mode!r}")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"keep_best: expected a count of at least 1, got {count!r}")
        return cls(str(key), "min" if mode == "min" else "max", count)

    def ranked(self, checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
        """Return the checkpoints with a finite value, the best first. Of equal values, the earlier one is first."""
        return rank_by_metric(checkpoints, self.key, self.mode)


def prunable(checkpoints: Sequence[Checkpoint], n_retains: int, best: BestPolicy | None) -> list[Checkpoint]:
    """Return the checkpoints that retention no longer keeps.

    Args:
        checkpoints: All checkpoints, the newest last. The newest is always kept, because a resume needs it.
        n_retains: Number of newest checkpoints to keep. If it is not positive, all are kept without ``best``, and only
            the newest with ``best``.
        best: Rule for checkpoints that are kept in addition.
    """
    if n_retains <= 0 and best is None:
        return []
    kept_paths = {checkpoint.path for checkpoint in checkpoints[-max(n_retains, 1) :]}
    if best is not None:
        kept_paths.update(checkpoint.path for checkpoint in best.ranked(checkpoints)[: best.keep])
    return [checkpoint for checkpoint in checkpoints if checkpoint.path not in kept_paths]


class Retention(NamedTuple):
    """Retention rule of one snapshot extension.

    Attributes:
        template: The names of its files. Other files are never deleted.
        n_retains: Number of newest snapshots to keep. If it is not positive, all are kept without ``best``, and only
            the newest with ``best``.
        best: Rule for snapshots that are kept in addition.
        protected: Paths of snapshots that are not deleted.
    """

    template: Template
    n_retains: int
    best: BestPolicy | None = None
    protected: frozenset[str] = frozenset()

    def own_checkpoints(self, run: Run) -> list[Checkpoint]:
        """Return the checkpoints of a run whose files match the template, the newest last."""
        return [checkpoint for checkpoint in run.checkpoints() if self.template.matches(checkpoint.path)]

    def protect(self, run: Run, earlier: Sequence[BestPolicy]) -> Retention:
        """Return the same rule, which also keeps the present best snapshots by earlier rules.

        The script may have another ``keep_best`` since the resume, possibly by mistake, and a deletion is final.

        Args:
            run: The run.
            earlier: The rules of earlier sessions.
        """
        own = self.own_checkpoints(run)
        protected = {item.path: best.key for best in earlier for item in best.ranked(own)[: best.keep]}
        for path, key in protected.items():
            _logger.info(
                "snapshot: %s is the best by %r, the metric of keep_best before the resume, and is kept. Delete the "
                "file if you do not need it.",
                *(path, key),
            )
        return self._replace(protected=frozenset(protected))

    def prune(self, run: Run) -> None:
        """Delete prunable snapshots of a run and unregister them."""
        for checkpoint in prunable(self.own_checkpoints(run), self.n_retains, self.best):
            if checkpoint.path in self.protected:
                continue
            # In this order, a snapshot that a crash leaves registered is pruned the next time.
            if _delete(run.directory / checkpoint.path):
                run.remove_checkpoint(checkpoint.path, checkpoint.step)

    def prune_files(self, directory: Path) -> None:
        """Delete files of a run directory that are not registered as checkpoints, except the newest."""
        if self.n_retains > 0:
            for name in self.template.list_files(directory)[: -self.n_retains]:
                _delete(directory / name)


def _delete(path: Path) -> bool:
    try:
        delete_checkpoint(path)
    except OSError as error:
        _logger.error("%s: deletion of the old snapshot failed: %s", path, error)
        return False
    return True
