"""Download of a tracked checkpoint in a separate process.

The training process must not import MLflow, because its objects slow down every later garbage collection.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pte_tracking.sinks import python_command

#: Exit code of the process if there is no complete checkpoint.
NOT_FOUND_EXIT_CODE = 3


def fetch(tracking_uri: str, uri: str, directory: Path) -> Path:
    """Download a checkpoint and the journal of its run.

    Args:
        tracking_uri: Tracking URI of the server or store, without credentials.
        uri: ``runs:/<run id>`` for the newest complete checkpoint of a run, or ``models:/<model id>``.
        directory: Directory for the snapshot and for ``journal.jsonl``, which ends with the checkpoint.

    Returns:
        Path of the snapshot.

    Raises:
        LookupError: If there is no complete checkpoint.
        ConnectionError: If the download failed for another reason.
    """
    command = [*python_command("pte_backends.mlflow"), tracking_uri, uri, str(directory)]
    # Without the current directory on the path, a user's file cannot shadow a module.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if completed.returncode == NOT_FOUND_EXIT_CODE:
        raise LookupError(completed.stderr.strip())
    if completed.returncode:
        raise ConnectionError(f"Fetching {uri!r} from {tracking_uri} failed: {completed.stderr.strip()[-2000:]}")
    return directory / completed.stdout.rstrip("\n")
