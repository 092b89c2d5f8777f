"""Samples of system metrics of a run at a mirror. Without them, their numbers would begin again after a resume."""

from __future__ import annotations

from pathlib import Path

from pte_backends.mirror._parts import PartedCopy, download_parts
from pte_backends.mirror._store import Store
from pte_tracking.sinks import is_sample_file, owned_path

_FOLDER = "samples"


class SampleCopies:
    """Copies of the files with samples, one per node.

    Args:
        store: Mirror.
        run_id: ID of the run.
        directory: Run directory.
    """

    def __init__(self, store: Store, run_id: str, directory: Path) -> None:
        self._store = store
        self._folder = f"{run_id}/{_FOLDER}"
        self._directory = directory
        self._copies: dict[str, PartedCopy] = {}

    def update(self) -> None:
        """Copy all complete samples that are not at the mirror."""
        for path in sorted(self._directory.glob("system-*.jsonl")):
            if is_sample_file(path.name) and owned_path(self._directory, path.name):
                if path.name not in self._copies:
                    self._copies[path.name] = self._compare(path)
                self._copies[path.name].update()

    def _compare(self, path: Path) -> PartedCopy:
        copy = PartedCopy(self._store, f"{self._folder}/{path.name}", path)
        while not copy.is_last_part_equal():
            copy.remove_last_part()  # A loss of power took samples that were copied.
        return copy


def download_samples(store: Store, run_id: str, directory: Path) -> None:
    """Write the samples of a run to a directory.

    Args:
        store: Mirror.
        run_id: ID of the run.
        directory: Local directory.
    """
    for name in store.list_folders(f"{run_id}/{_FOLDER}"):
        if is_sample_file(name):
            download_parts(store, f"{run_id}/{_FOLDER}/{name}", directory / name)
