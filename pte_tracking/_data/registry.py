"""Data loaders of a training by name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch

from pte_tracking._data.batch_digest import BatchDigest
from pte_tracking._data.combined import is_same_loader
from pte_tracking._data.counters import counters_of
from pte_tracking._data.data_check import Recorder
from pte_tracking._data.loader import ResumableLoader
from pte_tracking._data.loader_state import LoaderState
from pte_tracking._data.meter import MeasuredLoader, Meter
from pte_tracking._data.position import length_of
from pte_tracking._distributed import environment
from pte_tracking._snapshots import rng

_Batch = TypeVar("_Batch")

#: Key of the state of metrics. No loader has this name.
_METRICS = "metrics of the pass"
_logger = logging.getLogger("pte_tracking")


class LoaderRegistry:
    """Loaders of a training by name, with their positions.

    Args:
        state_objects: State objects of the training, before any state is restored. A loader may refer to them. Defaults
            to none.

    Attributes:
        record_first_batch: Records the first batch of a loader after a snapshot. None if nothing is recorded, as on
            ranks other than 0.
        metrics: Metrics that accumulate values over a pass, with ``state_dict()`` and ``load_state_dict()``; None if
            there are none.
        meter: Measures the loaders.
    """

    def __init__(self, state_objects: Iterable[object] = ()) -> None:
        self._loaders: dict[str, ResumableLoader[Any]] = {}
        self._saved: dict[str, LoaderState] = {}
        self._first_batches: Mapping[str, BatchDigest] = {}
        self.record_first_batch: Recorder | None = None
        self.metrics: Any = None
        self.meter = Meter()
        self._is_restored = False
        self._is_resized = False
        self._random_state: rng.RandomState | None = None
        self._state_objects = list(state_objects)  # references, so that the identities stay unique
        self._constructed = {id(item): counters_of("sampler", item) for item in self._state_objects}

    def register(self, loader: Iterable[_Batch], name: str = "main") -> ResumableLoader[_Batch]:
        """Return a resumable loader for a loader.

        Args:
            loader: The loader.
            name: Its name in the state. If a position is restored under this name, the first pass continues there.
        """
        resumable = self._loaders.get(name)
        if resumable is None or not (resumable is loader or is_same_loader(resumable.loader, loader)):
            resumable = self._loaders[name] = MeasuredLoader(loader, name, self._constructed, self.meter)
            resumable.check.record = self.record_first_batch
            if name in self._saved:
                self._restore(name, resumable)
        return resumable

    def begin(self) -> None:
        """Restore the random state again, so that draws between the resume and the first iteration have no effect."""
        if self._random_state is not None:
            rng.set_state(self._random_state)
            self._random_state = None

    @property
    def is_position_lost(self) -> bool:
        """Whether a state was restored, but no loader is registered that continues at its position."""
        return self._is_restored and not self._loaders

    @property
    def has_drawn(self) -> bool:
        """Whether numbers were drawn from the global generator of torch since a state was restored.

        Every iterator over a DataLoader draws one.
        """
        restored = self._random_state
        return restored is not None and not torch.equal(restored["torch"], torch.get_rng_state())

    def rescaled_position(self, name: str, length: int) -> int | None:
        """Return the restored position of a loader, if it is not the saved one and a pass has the given length."""
        resumable = self._loaders.get(name)
        if resumable is None or not resumable.is_rescaled or length_of(resumable.loader) != length:
            return None
        return resumable.resumed_taken

    def warn_about_new_loaders(self) -> None:
        """Warn about the loaders that a restored state has no position of."""
        new = [name for name, resumable in self._loaders.items() if resumable.resumed_taken is None]
        if self._is_restored and new and environment.rank() == 0:
            saved = ", ".join(map(repr, self._saved)) or "no loader"
            _logger.warning(
                "loader %s: the snapshot contains no position of this name, only of: %s. The data start with the first "
                "batch of a pass. Pass the same name= as before.",
                *(", ".join(map(repr, new)), saved),
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the positions, including those restored for loaders that are not registered yet, and the metrics."""
        positions = {**self._saved, **{name: resumable.state_dict() for name, resumable in self._loaders.items()}}
        return positions if self.metrics is None else {**positions, _METRICS: self.metrics.state_dict()}

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        random_state: rng.RandomState,
        is_resized: bool = False,
        first_batches: Mapping[str, BatchDigest] | None = None,
    ) -> None:
        """Restore positions and the random state; see :meth:`ResumableLoader.load_state_dict`.

        Args:
            state: The state returned by :meth:`state_dict`.
            random_state: States of the global generators.
            is_resized: Whether the world size has changed.
            first_batches: Digests of the first batches after the snapshot. Defaults to none.
        """
        self._saved, self._is_resized = dict(state), is_resized
        metrics: Any = self._saved.pop(_METRICS, None)
        if self.metrics is not None and not is_resized:
            self.metrics.load_state_dict(metrics or {})
        self._first_batches = first_batches or {}
        self._is_restored = True
        self._random_state = random_state
        rng.set_state(random_state)
        for name, resumable in self._loaders.items():
            if name in self._saved:
                self._restore(name, resumable)

    def _restore(self, name: str, resumable: ResumableLoader[Any]) -> None:
        state = self._saved.pop(name)
        resumable.load_state_dict(state, self._is_resized)
        if resumable.expects_same_batches:  # Otherwise, other batches are expected, and this was logged.
            resumable.check.expect(state["last"], self._first_batches.get(name))
