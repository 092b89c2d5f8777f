"""Reader of Aim runs."""

from __future__ import annotations

import json
from pathlib import Path

import aim
from aim.sdk.index_manager import RepoIndexManager
from aim.storage.context import Context

CONTEXT = Context({})


def read_run(repository: str, run_directory: Path) -> aim.Run:
    """Return the Aim run of a run.

    A reader finds the runs in an index, which ``aim up`` updates while it runs. This function updates it in the same
    way.
    """
    run_hash = json.loads((run_directory / "run.json").read_text())["id"]
    repo = aim.Repo(repository)  # not from the pool, because a repository keeps opened files
    RepoIndexManager(repo).index(run_hash)
    repo.container_pool.clear()
    return aim.Run(run_hash, repo=repo, read_only=True)
