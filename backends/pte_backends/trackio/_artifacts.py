"""Artifacts and snapshots as versions of Trackio artifacts."""

from __future__ import annotations

import re
from pathlib import Path

from trackio import cas
from trackio.sqlite_storage import SQLiteStorage

from pte_tracking.sinks import Artifact, Checkpoint, RejectedEventError, RunView, list_owned_files, owned_path

_Entry = dict[str, str | int]


def store(event: Artifact | Checkpoint, project: str, run: RunView) -> None:
    """Store an artifact or a snapshot of the run. Trackio recognizes a version by its content.

    Args:
        event: Event of the artifact or the snapshot.
        project: Name of the project.
        run: Run to deliver.

    Raises:
        RejectedEventError: If the artifact does not exist any more, has no files, or has a name that the project uses
            for another type of artifacts.
    """
    path = owned_path(run.directory, event.path)
    if path is None:
        if isinstance(event, Checkpoint):
            return  # The snapshot was pruned.
        raise RejectedEventError(event.seq, f"File {event.path} does not exist in the run directory.")
    files = list_owned_files(run.directory, path)[0]
    if isinstance(event, Checkpoint):
        try:
            manifest = [_refer(file, path, event) for file in files]
        except FileNotFoundError:
            manifest = []
        if not manifest:
            return  # The snapshot was pruned since its path was checked.
        name, kind, aliases = f"checkpoint-{run.id}", "model", [f"step-{event.step}"]
        metadata = {"step": event.step, "epoch": event.epoch, "sha256": event.sha256, **event.values}
    else:
        label = Path(event.artifact_path, path.name).as_posix()
        name, kind, aliases, metadata = re.sub(r"[^A-Za-z0-9._-]", "_", label), "artifact", [], {"path": label}
        manifest = [_copy(file, path, project) for file in files]
    if not manifest:
        raise RejectedEventError(event.seq, f"{event.path} contains no files.")
    try:
        SQLiteStorage.commit_artifact_version(
            project, name, kind, None, manifest, metadata, aliases, run_name=run.name, run_id=run.id
        )
    except ValueError as error:
        raise RejectedEventError(event.seq, str(error)) from error


def _copy(file: Path, root: Path, project: str) -> _Entry:
    digest, size = cas.stage_blob_into_project(file, project)
    return {"path": file.relative_to(root.parent).as_posix(), "digest": digest, "size": size}


def _refer(file: Path, root: Path, event: Checkpoint) -> _Entry:
    """Refer to a file of a snapshot, which would fill the disk if each one was copied.

    The digest of the snapshot identifies the version, since that of a file may not be known.
    """
    name = file.relative_to(root.parent).as_posix()
    return {"path": name, "ref": file.as_uri(), "digest": event.sha256, "size": file.stat().st_size}
