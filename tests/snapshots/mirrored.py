"""Training with a mirror: ``python -m tests.snapshots.mirrored OUT MIRROR STORE ITERATION`` kills itself there."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from tests.snapshots import small_training as small


def train(
    out: Path, mirror: str | None, store: str, hook: Callable[[int], object] = lambda iteration: None
) -> tuple[dict[str, list[float]], Any]:
    """Train or resume. Return the final weights, and the checkpoint from which the run resumed."""
    parts = small.TrainingParts()
    manager = pte.ExtensionsManager(
        parts.model,
        small.EPOCHS,
        small.default_extensions(mirror=mirror, n_retains=2),
        optimizers=parts.optimizer,
        out_dir=out,
        sinks=["json", "tensorboard", MLflowSink(tracking_uri=store, experiment="mirrored")],
        state_objects=parts.state_objects,
        close_timeout=60,
    )
    resumed = manager.resume()
    for batch in manager.batches(parts.loader):
        with manager.run_iteration():
            parts.update(batch)
            hook(manager.iteration + 1)
    return parts.weights(), resumed


if __name__ == "__main__":
    last, listed = int(sys.argv[4]), Path(sys.argv[1], "checkpoints.json")

    def kill(iteration: int) -> None:
        deadline = time.monotonic() + 60
        if iteration == last:
            # The snapshot is written in another thread.
            while "snapshot_iter_10" not in listed.read_text() and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    train(Path(sys.argv[1]), sys.argv[2], sys.argv[3], kill)
