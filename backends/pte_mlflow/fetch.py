"""Brings a tracked checkpoint and its run's journal from MLflow: ``python -m pte_mlflow.fetch STORE URI FOLDER``.

A program of its own, so that MLflow is not imported where training goes on: its objects slow down every later garbage
collection there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pte_mlflow import address, product

_NOT_FOUND = 3


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
    command = [sys.executable, "-m", "pte_mlflow.fetch", tracking_uri, uri, str(directory)]
    # Modules are not looked for in the current folder, where a file of the user's may have any name.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == _NOT_FOUND:
        raise LookupError(done.stderr.strip())
    if done.returncode:
        raise ConnectionError(f"{uri} could not be fetched from {tracking_uri}: {done.stderr.strip()[-2000:]}")
    return directory / done.stdout.rstrip("\n")


def main() -> int:
    """Fetch, and print the file's name."""
    tracking_uri, uri, directory = sys.argv[1:]
    product.prepare(None)
    # MLflow is imported by this, and not before it is prepared.
    from pte_mlflow.download import download

    try:
        print(download(address.with_secrets(tracking_uri), uri, Path(directory)))
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return _NOT_FOUND
    return 0


if __name__ == "__main__":
    sys.exit(main())
