"""Media, artifacts, and exported models of a run at a mirror, under their paths in the run directory."""

from __future__ import annotations

from pathlib import Path

from pte_backends.mirror._store import Store
from pte_tracking.sinks import Artifact, MediaFile, Model, RunView, list_owned_files, owned_path

_FOLDER = "files"
#: Directories of a run that are downloaded. Another file could take the place of one that the user has there.
_DOWNLOADED = ("figures", "images", "media", "artifacts", "provenance")


def upload_media(store: Store, run: RunView, event: Artifact | MediaFile | Model) -> None:
    """Copy the files of an event. Files that do not exist any more are skipped.

    Args:
        store: Mirror.
        run: Run to deliver.
        event: The event.
    """
    path = owned_path(run.directory, event.path)
    if path is None:
        return
    for file in list_owned_files(run.directory, path)[0]:
        if file.is_file():
            store.upload(file, f"{run.id}/{_FOLDER}/{file.relative_to(run.directory).as_posix()}")


def download_media(store: Store, run_id: str, directory: Path) -> None:
    """Copy the files of a run to a directory.

    Args:
        store: Mirror.
        run_id: ID of the run.
        directory: Local directory.
    """
    folders = list(_DOWNLOADED)
    while folders:
        folder = folders.pop()
        source = f"{run_id}/{_FOLDER}/{folder}"
        folders += [f"{folder}/{name}" for name in store.list_folders(source) if name not in ("", ".", "..")]
        for name in store.list_files(source):
            (directory / folder).mkdir(parents=True, exist_ok=True)
            store.download(f"{source}/{name}", directory / folder / name)
