"""Data loaders of a training by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pte_tracking._data.batch_digest import BatchDigest
from pte_tracking._data.data_check import Recorder
from pte_tracking._data.loader import LoaderState, ResumableLoader
from pte_tracking._snapshots import rng

_Batch = TypeVar("_Batch")


class LoaderRegistry:
    """Loaders of a training by name, with their positions.

    Attributes:
        record_first_batch: Records the first batch of a loader after a snapshot. None if nothing is recorded, as on
            ranks other than 0.
    """

    def __init__(self) -> None:
        self._loaders: dict[str, ResumableLoader[Any]] = {}
        self._saved: dict[str, LoaderState] = {}
        self._first_batches: Mapping[str, BatchDigest] = {}
        self.record_first_batch: Recorder | None = None
        self._is_resized = False
        self._random_state: rng.RandomState | None = None

    def register(self, loader: Iterable[_Batch], name: str = "main") -> ResumableLoader[_Batch]:
        """Return a resumable loader for a loader.

        Args:
            loader: The loader.
            name: Its name in the state. If a position is restored under this name, the first pass continues there.
        """
        resumable = self._loaders.get(name)
        if resumable is None or resumable.loader is not loader:
            resumable = self._loaders[name] = ResumableLoader(loader)
            resumable.check.name, resumable.check.record = name, self.record_first_batch
            if name in self._saved:
                self._restore(name, resumable)
        return resumable

    def begin(self) -> None:
        """Restore the random state again, so that draws between the resume and the first iteration have no effect."""
        if self._random_state is not None:
            rng.set_state(self._random_state)
            self._random_state = None

    def state_dict(self) -> dict[str, LoaderState]:
        """Return the positions, including those restored for loaders that are not registered yet."""
        return {**self._saved, **{name: resumable.state_dict() for name, resumable in self._loaders.items()}}

    def load_state_dict(
        self,
        state: Mapping[str, LoaderState],
        random_state: rng.RandomState,
        is_resized: bool = False,
        first_batches: Mapping[str, BatchDigest] | None = None,
    ) -> None:
        """Restore positions and the random state; see :meth:`ResumableLoader.load_state_dict`.

        Args:
            state: The positions by name.
            random_state: States of the global generators.
            is_resized: Whether the world size has changed.
            first_batches: Digests of the first batches after the snapshot. Defaults to none.
        """
        self._saved, self._is_resized = dict(state), is_resized
        self._first_batches = first_batches or {}
        self._random_state = random_state
        rng.set_state(random_state)
        for name, resumable in self._loaders.items():
            if name in self._saved:
                self._restore(name, resumable)

    def _restore(self, name: str, resumable: ResumableLoader[Any]) -> None:
        state = self._saved.pop(name)
        resumable.load_state_dict(state, self._is_resized)
        if not self._is_resized:  # Each rank then receives other batches.
            resumable.check.expect(state.get("last"), self._first_batches.get(name))
