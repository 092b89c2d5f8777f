"""Messages about a data loader: what a resume does, and what it cannot restore."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pte_tracking._data.position import LoaderOptions, counted
from pte_tracking._distributed import environment

_logger = logging.getLogger("pte_tracking")


class LoaderMessages:
    """Messages of rank 0 about a loader.

    Args:
        name: Name of the loader.
        kind: Class of the loader.
    """

    def __init__(self, name: str, kind: str) -> None:
        self._name, self._kind = name, kind
        self._reported: set[str] = set()

    def read_again(self, count: int, seconds: float) -> None:
        """Report that batches were read again to continue after them."""
        if environment.rank() == 0:
            _logger.info(
                "loader %r: re-read the first %s of the pass in %.1f s to continue after them.",
                *(self._name, counted(count, "batch"), seconds),
            )

    def changed_workers(self, saved: LoaderOptions, current: LoaderOptions) -> None:
        """Warn that a stateful loader has another number of workers."""
        self._warn(
            f"num_workers is {current.workers} and was {saved.workers} at the snapshot. The order of the data may "
            f"differ. To resume exactly, pass num_workers={saved.workers}."
        )

    def not_stateful(self) -> None:
        """Warn that the loader cannot restore the state of a stateful loader."""
        self._warn(
            f"the snapshot contains the position of a loader with state_dict(), which this {self._kind} cannot "
            "restore. It reads the batches again, and their order may differ. To resume exactly, pass the same kind of "
            "loader."
        )

    def unrestored(self, paths: Iterable[str]) -> None:
        """Warn that objects below the loader are missing or of another kind."""
        self._warn(
            f"the snapshot contains the state of {', '.join(path or 'the loader' for path in paths)}, which this "
            "loader does not refer to before its first pass, or which is of another kind. The order of the data may "
            "differ. Construct the loader as before, with all random generators."
        )

    def unsaved(self, error: Exception) -> None:
        """Warn that the state of the loader is not part of the snapshot."""
        self._warn(
            f"its state_dict() cannot be saved: {error} A resume in the middle of a pass starts the pass again and "
            "skips the batches that were taken."
        )

    def unsaved_object(self, path: str, part: object, error: Exception) -> None:
        """Warn once that the state of an object below the loader is not part of the snapshot."""
        self._warn_once(
            f"the state of {path} ({type(part).__name__}) is not part of the snapshot: {describe_error(error)} "
            "The data may differ after a resume."
        )

    def refused_object(self, path: str, part: object, error: Exception) -> None:
        """Warn once that an object below the loader did not accept its state."""
        self._warn_once(
            f"{path} ({type(part).__name__}) refused its state: {describe_error(error)} The data may differ from those "
            "of the interrupted training. Construct the object as before."
        )

    def differing_object(self, path: str, part: object) -> None:
        """Warn that an object below the loader has another state after a resume in the middle of a pass."""
        self._warn_once(
            f"{path} ({type(part).__name__}) has another state than at the snapshot, although the batches before it "
            "were read again and load_state_dict() was called. The data may differ. Let load_state_dict() restore all "
            "that state_dict() returns, also in the middle of a pass."
        )

    def short_pass(self, count: int, skipped: int) -> None:
        """Warn that the interrupted pass ends before the saved position."""
        self._warn(
            f"the snapshot was saved after {counted(count, 'batch')} of a pass, but this pass has only {skipped}. "
            "Training continues with the next pass. To continue exactly, resume with the same data."
        )

    def restarted_workers(self) -> None:
        """Warn that persistent workers were started again."""
        self._warn(
            "the persistent workers were restarted. The order of the data is exact. Random numbers that a dataset "
            "draws in the workers differ, because they depend on all earlier passes. Pass persistent_workers=False to "
            "reproduce them."
        )

    def different_length(self, taken: int, expected: int) -> None:
        """Warn that passes have different lengths."""
        self._warn(
            f"a pass had {counted(taken, 'batch')}, and the length of the loader was {expected}. An epoch is a number "
            "of iterations, so epochs and passes no longer end together. Count in iterations, or return the same "
            "number of batches in each pass."
        )

    def _warn_once(self, text: str) -> None:
        if text not in self._reported:
            self._reported.add(text)
            self._warn(text)

    def _warn(self, text: str) -> None:
        if environment.rank() == 0:
            _logger.warning("loader %r: %s", self._name, text)


def describe_error(error: Exception) -> str:
    """Return the message of an exception as a sentence. The class is named unless the library raised it."""
    return str(error) if str(error).startswith("state_dict()") else f"{type(error).__name__}: {error}."
