"""Training of examples/transformers_loop.py that is killed when it logs a step.

Arguments: the step, then those of the example.
"""

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from pte_tracking.integrations.transformers import TrackingCallback

KILL_STEP = int(sys.argv.pop(1))
on_log = TrackingCallback.on_log


def on_log_then_kill(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    on_log(self, args, state, control, **kwargs)
    if state.global_step == KILL_STEP:
        os.kill(os.getpid(), signal.SIGKILL)


TrackingCallback.on_log = on_log_then_kill
example = Path(__file__).parent.parent.parent / "examples" / "transformers_loop.py"
runpy.run_path(str(example), run_name="__main__")
