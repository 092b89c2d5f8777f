"""Train with Accelerate until the process is killed at a step: python accelerate_training.py RUN_DIR STEP"""

from __future__ import annotations

import os
import signal
import sys

import torch
from accelerate import Accelerator

from pte_tracking.integrations.accelerate import Tracker

STEPS = 10


def main(directory: str, killed_at: int) -> None:
    tracker = Tracker(directory, sinks=["json", "tensorboard"])
    accelerator = Accelerator(log_with=tracker, cpu=True)
    model = torch.nn.Linear(2, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    accelerator.register_for_checkpointing(tracker)
    accelerator.init_trackers("digits", {"lr": 0.1})
    state, first = os.path.join(directory, "state"), 1
    if os.path.isdir(state):
        accelerator.load_state(state)
        first = 5
    for step in range(first, STEPS + 1):
        loss = model(torch.ones(4, 2)).pow(2).mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        accelerator.log({"loss": loss.item()}, step=step)
        if step == 4:
            accelerator.save_state(state)
        if step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
