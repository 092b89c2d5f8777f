"""Delay of the first iteration by tracking, and import time of the package.

``python benchmarks/start_up.py``

- start-up: milliseconds from ``import pte_tracking`` to the body of the first iteration, for a training with the JSON
  log, TensorBoard, and MLflow whose model and optimizer already exist
- import: milliseconds of ``import pte_tracking``, without the start of Python
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from _measure import Figure, interleave

from tests import servers

ROUNDS = 9
# Create the optimizer first, as a training does. It imports so much that the next full garbage collection of Python
# happens there. That collection takes 90 ms and is due after `import torch` in any case.
TRAINING = """
import time, torch
model = torch.nn.Linear(64, 10)
optimizer = torch.optim.Adam(model.parameters())
begin = time.perf_counter()
import pte_tracking as pte
from pte_tracking import extensions
from pte_backends.mlflow import MLflowSink
manager = pte.ExtensionsManager(
    {"main": model}, 1, [extensions.LogReport(trigger=(1, "iteration"))], optimizers={"main": optimizer},
    iters_per_epoch=9, out_dir=OUT, sinks=["json", "tensorboard", MLflowSink(STORE)],
)
with manager.run_iteration():
    print((time.perf_counter() - begin) * 1000)
"""


def run_child(code: str) -> str:
    # Allow bytecode files, which an installed package also has.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def first_iteration(folder: Path, store: str) -> float:
    out = tempfile.mkdtemp(dir=folder)
    return float(run_child(TRAINING.replace("OUT", repr(out)).replace("STORE", repr(store))))


def measure_seconds(code: str) -> float:
    start = time.perf_counter()
    run_child(code)
    return time.perf_counter() - start


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        servers.make_store(folder / "template.db")
        store = f"sqlite:///{servers.copy_store(folder / 'template.db', folder)}"
        first_iteration(folder, store)  # writes the bytecode files
        (start_milliseconds,) = interleave(ROUNDS, {"start": partial(first_iteration, folder, store)}).values()
        imports = interleave(ROUNDS, {code: partial(measure_seconds, code) for code in ("import pte_tracking", "pass")})
    Figure("start-up with three sinks", "ms", start_milliseconds, "<= 100").publish()
    milliseconds = [
        (with_import - bare_start) * 1000 for with_import, bare_start in zip(*imports.values(), strict=True)
    ]
    Figure("import pte_tracking", "ms", milliseconds, "<= 50").publish()


if __name__ == "__main__":
    main()
