"""Snapshots and exported models as versions of W&B artifacts of the type model."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

from pte_tracking.sinks import Checkpoint, Model, RunView, file_md5, list_owned_files, owned_path, safe_file_name


def build_version(event: Checkpoint | Model, run: RunView, project: str, entity: str | None) -> pb.Record | None:
    """Build the record that stores a snapshot or an exported model as a version of a model artifact of the run.

    Args:
        event: Event of the snapshot or the model.
        run: Run to deliver.
        project: Project name.
        entity: Team or user that owns the project; None for the default.

    Returns:
        The record. None if the files were pruned, or replaced by links to other files.
    """
    path = owned_path(run.directory, event.path)
    if path is None or list_owned_files(run.directory, path)[1]:
        return None
    aliases, metadata = ["latest", f"step-{event.step}"], {"step": event.step, "sha256": event.sha256}
    if isinstance(event, Checkpoint):
        metadata |= {"epoch": event.epoch, **event.values}
        name, root = f"checkpoint-{run.id}", path.parent
    else:
        name, root = f"{safe_file_name(event.name)}-{run.id}", path
        if event.best:
            aliases.append("best")
            metadata[event.best.key] = event.best.value
    try:
        return _build(event.seq, run, project, entity, name, aliases, metadata, path, root)
    except FileNotFoundError:  # pruned since the path was checked
        return None


def _build(
    seq: int,
    run: RunView,
    project: str,
    entity: str | None,
    name: str,
    aliases: Sequence[str],
    metadata: Mapping[str, Any],
    path: Path,
    root: Path,
) -> pb.Record:
    record = pb.Record()
    artifact = record.artifact
    artifact.run_id, artifact.project, artifact.entity = run.id, project, entity or ""
    artifact.type, artifact.name = "model", name
    artifact.aliases.extend(aliases)
    artifact.metadata = json.dumps(metadata)
    manifest = artifact.manifest
    manifest.version, manifest.storage_policy = 1, "wandb-storage-policy-v1"
    manifest.storage_policy_config.add(key="storageLayout", value_json='"V2"')
    # W&B computes the digest of an artifact from the names and digests of all its files.
    manifest_digest = hashlib.md5(b"wandb-artifact-manifest-v1\n")
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        entry, digest = file.relative_to(root).as_posix(), base64.b64encode(file_md5(file)).decode()
        manifest.contents.add(path=entry, digest=digest, size=file.stat().st_size, local_path=str(file))
        manifest_digest.update(f"{entry}:{digest}\n".encode())
    artifact.digest = manifest_digest.hexdigest()
    artifact.finalize = True
    if "digest_algorithm" in artifact.DESCRIPTOR.fields_by_name:  # missing in releases that have only this algorithm
        artifact.digest_algorithm = "MANIFEST_MD5"
    # The ID depends only on the event, so a repeated event is the same artifact.
    artifact.client_id = hashlib.shake_256(f"{run.id}/{seq}".encode()).hexdigest(64)
    sequence = run.id if name == f"checkpoint-{run.id}" else f"{run.id}/{name}"
    artifact.sequence_client_id = hashlib.shake_256(sequence.encode()).hexdigest(64)
    return record
