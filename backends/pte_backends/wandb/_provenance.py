"""Origin of a session in the records and files that W&B's own client writes at the start of a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from wandb.proto import wandb_internal_pb2 as pb

from pte_backends._provenance import find_provenance_file
from pte_tracking.sinks import Provenance, RunView


def build_run(run: RunView, project: str, entity: str | None, name: str, facts: Mapping[str, str]) -> pb.Record:
    """Build the record of the run. A later one changes the fields that differ.

    Args:
        run: Run to deliver.
        project: Project name.
        entity: Team or user that owns the project; None for the default.
        name: Display name of the run.
        facts: Origin of the first start, or of a session.

    Returns:
        The record.
    """
    record = pb.Record()
    record.run.run_id, record.run.project, record.run.display_name = run.id, project, name
    if entity:
        record.run.entity = entity
    record.run.run_group = run.context.get("group", "")
    record.run.host = facts.get("host", "")
    record.run.start_time.FromNanoseconds(int(run.start_time * 1e9))
    _set_git(record.run.git, facts)
    return record


def build_records(event: Provenance, run: RunView, files: Path) -> Iterator[pb.Record]:
    """Build the records of the environment and of the files ``diff.patch`` and ``requirements.txt``.

    ``wandb sync`` writes ``wandb-metadata.json`` from the record of the environment.

    Args:
        event: Origin of the session.
        run: Run to deliver.
        files: Directory for files.

    Yields:
        The records.
    """
    if "environment" in pb.Record.DESCRIPTOR.fields_by_name:
        yield _build_environment(event.values, run)
    record = pb.Record()
    for stored, name in (("diff.txt", "diff.patch"), ("requirements.txt", "requirements.txt")):
        (files / name).unlink(missing_ok=True)  # The new commit may contain the earlier changes.
        if source := find_provenance_file(event, run, stored):
            shutil.copyfile(source, files / name)
            record.files.files.add(path=name, policy=pb.FilesItem.PolicyType.NOW, type=pb.FilesItem.FileType.WANDB)
    if record.files.files:
        yield record


def _build_environment(facts: Mapping[str, str], run: RunView) -> pb.Record:
    record = pb.Record()
    environment = record.environment
    root, source = Path(facts.get("git_root", "")), Path(facts.get("source", ""))
    environment.os, environment.python = facts.get("os", ""), facts.get("python", "")
    environment.host, environment.username = facts.get("host", ""), facts.get("user", "")
    environment.program, environment.root = facts.get("source", ""), facts.get("git_root", "")
    if "source" in facts and source.is_relative_to(root):
        environment.code_path = environment.code_path_local = source.relative_to(root).as_posix()
    environment.started_at.FromNanoseconds(int(run.start_time * 1e9))
    environment.cuda_version = facts.get("cuda", "")
    environment.cpu_count_logical = int(facts.get("cpu_count", 0))
    if "gpu" in facts:
        environment.gpu_type = facts["gpu"]
    _set_git(environment.git, facts)
    environment.slurm.update({key.removeprefix("slurm_"): facts[key] for key in facts if key.startswith("slurm_")})
    environment.writer_id = run.id
    return record


def _set_git(git: pb.GitRepoRecord, facts: Mapping[str, str]) -> None:
    git.commit, git.remote_url = facts.get("git_commit", ""), facts.get("git_remote", "")
