"""Download of a snapshot, and of the journal and the samples of its run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from pte_backends.mirror._journal import download_journal
from pte_backends.mirror._media import download_media
from pte_backends.mirror._pointer import read_pointer
from pte_backends.mirror._samples import download_samples
from pte_backends.mirror._snapshots import download_snapshot, read_indexes
from pte_backends.mirror._store import Store
from pte_tracking.sinks import JOURNAL, Checkpoint, delete_checkpoint, list_checkpoints, verify_digest

_logger = logging.getLogger("pte_tracking")


def fetch(
    store: Store,
    run_id: str | None,
    directory: Path,
    rank: Callable[[Sequence[Checkpoint]], Sequence[Checkpoint]],
    *,
    with_media: bool,
) -> Path | None:
    """Download the first intact snapshot of a run. Damaged ones are reported.

    Args:
        store: Mirror.
        run_id: ID of the run. None for the newest one.
        directory: Empty directory for the snapshot, the journal, and the samples.
        rank: Returns the snapshots in the order in which they are tried.
        with_media: Whether to download the media and artifacts of the run, too.

    Returns:
        Path of the snapshot. None if the mirror contains no intact snapshot of the run.

    Raises:
        OSError: If the mirror cannot be reached.
        ValueError: If the pointer to the newest run is damaged.
    """
    if run_id is None:
        pointer = read_pointer(store)
        if pointer is None:
            store.check_exists()
            return None
        run_id = pointer.run
    download_journal(store, run_id, directory / JOURNAL)
    download_samples(store, run_id, directory)
    copies = {(index.path, index.sha256): (folder, index) for folder, index in read_indexes(store, run_id).items()}
    effective = [item for item in list_checkpoints(directory) if (item.path, item.sha256) in copies]
    if copies and not effective:
        _logger.warning("%s/%s: no snapshot belongs to the journal there, so none can be used.", store.url, run_id)
    for checkpoint in rank(effective):
        folder, index = copies[checkpoint.path, checkpoint.sha256]
        path = directory / Path(index.path).name
        try:
            path = download_snapshot(store, folder, index, directory)
            problem = verify_digest(path, checkpoint.sha256)
        except (FileNotFoundError, ValueError) as error:
            problem = str(error)
        if problem is None:
            if with_media:
                download_media(store, run_id, directory)
            _logger.info("fetched %s of step %d from %s/%s", index.path, index.step, store.url, run_id)
            return path
        _logger.warning("%s/%s: skipping unusable snapshot: %s", store.url, folder, problem)
        delete_checkpoint(path)
    return None
