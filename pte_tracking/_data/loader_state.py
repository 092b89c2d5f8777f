"""State of a data loader in a snapshot."""

from __future__ import annotations

from typing import Any, TypedDict

from pte_tracking._data.batch_digest import BatchDigest
from pte_tracking._data.loader_parts import PartsState
from pte_tracking._snapshots import rng


class DataState(TypedDict):
    """State that the order and the content of a pass follow from.

    Attributes:
        everywhere: States of the global random generators.
        parts: States of the objects that the loader refers to.
    """

    everywhere: rng.RandomState
    parts: PartsState


class LoaderState(TypedDict):
    """Position in the data.

    Attributes:
        passes: Number of started passes.
        taken: Number of batches taken in the current pass; 0 between two passes.
        start: State at the start of the current pass. None between two passes.
        parts: Current states of the objects that the loader refers to.
        workers_live: Whether persistent workers were running before the current pass, or are running between passes.
        loader: State of a stateful loader, None for other loaders.
        options: Length, batch size, and number of workers of the loader.
        last: Digest of the last batch taken, if a resume reads it again. None otherwise.
    """

    passes: int
    taken: int
    start: DataState | None
    parts: PartsState
    workers_live: bool
    loader: dict[str, Any] | None
    options: dict[str, int | None]
    last: BatchDigest | None
