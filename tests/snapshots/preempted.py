"""Training that waits for preemption: ``python -m tests.snapshots.preempted FOLDER SIGNAL``.

The script creates the file ``waiting`` and continues after 60 seconds, or as soon as the file ``signalled`` exists.
"""

import signal
import sys
import time
from pathlib import Path

from tests.snapshots import small_training as small

ITERATION = 13

if __name__ == "__main__":
    out = Path(sys.argv[1])

    def wait(iteration: int) -> None:
        if iteration == ITERATION:
            (out / "waiting").touch()
            deadline = time.monotonic() + 60
            while not (out / "signalled").exists() and time.monotonic() < deadline:
                time.sleep(0.01)

    small.train(
        out, hook=wait, workers=2, extension_list=small.default_extensions(on_signal=signal.Signals[sys.argv[2]])
    )
