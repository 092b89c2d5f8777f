"""File names of the snapshot extensions of a training."""

from __future__ import annotations

from collections.abc import Iterable

from pte_tracking._interface.extension import Extension
from pte_tracking.extensions.object_snapshot import ObjectSnapshot
from pte_tracking.extensions.training_snapshot import TrainingSnapshot


def check_snapshot_files(extension: Extension, earlier: Iterable[Extension]) -> None:
    """Check that a snapshot extension does not write and prune the files of another one.

    Args:
        extension: The extension.
        earlier: Extensions registered before.

    Raises:
        ValueError: If an earlier extension has the same file names.
    """
    if not isinstance(extension, TrainingSnapshot | ObjectSnapshot):
        return
    for other in earlier:
        if isinstance(other, TrainingSnapshot | ObjectSnapshot) and extension.template.overlaps(other.template):
            raise ValueError(
                f"filename: the files {extension.template.glob!r} are also those of the extension {other.name!r}. Each "
                "would overwrite and prune those of the other. Pass another filename, or combine n_retains=, "
                "keep_best=, and the other options in one snapshot extension."
            )
