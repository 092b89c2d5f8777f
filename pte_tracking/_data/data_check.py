"""Check that the data after a resume are those that followed the snapshot before.

The first batch after a snapshot is recorded in the journal when the loop receives it. The last batch before a snapshot
is part of the snapshot if a resume loads this batch again. The digests are computed for these batches only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pte_tracking._data.batch_digest import (
    BatchDigest,
    differing_parts,
    digest_new_batch,
    digest_used_batch,
    is_content_equal,
)
from pte_tracking._data.data_difference import Comparison, describe_difference
from pte_tracking._distributed import environment

_logger = logging.getLogger("pte_tracking")

#: Records the digest of the first batch of a loader after a snapshot, by the name of the loader.
Recorder = Callable[[str, BatchDigest], None]


class DataCheck:
    """Check of one loader.

    A difference is logged once, and the training continues.

    Args:
        loader: The loader.
        name: Name of the loader.

    Attributes:
        record: Records the first batch after a snapshot. None if nothing is recorded, as on ranks other than 0.
        batch: Batch that the loop has received last. None while it requests the next one.
        is_due: Whether the next batch is the first one after a snapshot or a resume.
    """

    def __init__(self, loader: object, name: str) -> None:
        self.record: Recorder | None = None
        self.batch: Any = None
        self.is_due = False
        self._loader, self._name = loader, name
        self._expected_last: BatchDigest | None = None
        self._expected_first: BatchDigest | None = None
        self._skipped: Comparison | None = None
        self._last: BatchDigest | None = None

    def begin_pass(self) -> None:
        """Forget the last batch of a pass that the loop has left."""
        self._last = None

    def release_batch(self) -> None:
        """Keep the digest of the last batch in place of the batch, when the loop leaves the pass before its end."""
        self._last, self.batch = self.digest_last(), None

    def digest_last(self) -> BatchDigest | None:
        """Return the digest of the batch that the loop has received last, for a snapshot. None if there is none."""
        return self._last if self.batch is None else digest_used_batch(self.batch)

    def expect(self, last: BatchDigest | None, first: BatchDigest | None) -> None:
        """Expect the batches around a snapshot.

        Args:
            last: Digest of the last batch before the snapshot. None if it is unknown.
            first: Digest of the first batch after the snapshot. None if it is unknown.
        """
        self._expected_last, self._expected_first, self._skipped = last, first, None
        self.is_due = True

    def check_skipped(self, batch: object, taken: int) -> None:
        """Compare the last skipped batch.

        Args:
            batch: The batch.
            taken: Number of skipped batches of this pass.
        """
        earlier, self._expected_last = self._expected_last, None
        if earlier is None:
            return
        current = digest_new_batch(batch)
        self._skipped = Comparison(earlier, current, taken, is_skipped=True)
        if self._expected_first is None:
            self._report(self._skipped)

    def check_first(self, batch: object, taken: int) -> None:
        """Compare and record the first batch after a snapshot or a resume.

        Args:
            batch: The batch.
            taken: Number of batches of this pass up to this one.
        """
        self.is_due = False
        earlier, self._expected_first = self._expected_first, None
        if earlier is None and self.record is None:
            return
        current = digest_new_batch(batch)
        if earlier is not None:
            self._compare_first(Comparison(earlier, current, taken, is_skipped=False))
        if self.record is not None:
            self.record(self._name, current)

    def _compare_first(self, first: Comparison) -> None:
        skipped, self._skipped = self._skipped, None
        # If the first new batch is equal, the training modified the last batch before the snapshot in place.
        if not differing_parts(first.earlier, first.current):
            return
        if skipped is not None and differing_parts(skipped.earlier, skipped.current):
            self._report(skipped)
        else:
            is_equal = skipped is not None and is_content_equal(skipped.earlier, skipped.current)
            self._report(first._replace(is_predecessor_equal=is_equal))

    def _report(self, comparison: Comparison) -> None:
        difference = describe_difference(self._loader, comparison)
        if difference is None:
            return
        rank = environment.rank()
        _logger.warning(
            "loader %r (%s)%s: the data after the resume differ from those before. %s",
            self._name,
            type(self._loader).__name__,
            f" on rank {rank}" if rank else "",
            difference,
        )
