"""Brings a tracked checkpoint and its run's journal from MLflow.

Another process does it, so that MLflow is not imported where training goes on: its objects slow down every later
garbage collection there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: How that process ends where there is no whole checkpoint.
NOT_FOUND_EXIT_CODE = 3


def fetch(tracking_uri: str, uri: str, directory: Path) -> Path:
    """Bring a checkpoint, by another process.

    Args:
        tracking_uri: The server or store.
        uri: ``runs:/<run id>`` for its newest whole checkpoint, or ``models:/<model id>``.
        directory: Where to put its file, and ``journal.jsonl`` up to it.

    Returns:
        The checkpoint's file.

    Raises:
        LookupError: There is none that is whole.
        ConnectionError: MLflow could not be asked.
    """
    command = [sys.executable, "-m", "pte_backends.mlflow", tracking_uri, uri, str(directory)]
    # Modules are not looked for in the current folder, where a file of the user's may have any name.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if completed.returncode == NOT_FOUND_EXIT_CODE:
        raise LookupError(completed.stderr.strip())
    if completed.returncode:
        raise ConnectionError(f"{uri} could not be fetched from {tracking_uri}: {completed.stderr.strip()[-2000:]}")
    return directory / completed.stdout.rstrip("\n")
