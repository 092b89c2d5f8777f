"""Time from start to exit of a script that trains for twenty iterations, compared with plain trackers.

``python benchmarks/short_run.py [--rounds N]``

Three scripts run in turn, each as a new process: the loop without tracking, the loop with ``SummaryWriter`` and
``mlflow``, and the loop with a manager, LogReport, and three sinks. The ratio is the additional time of pte_tracking
divided by the additional time of the plain trackers. Both deliver everything to a SQLite store before they exit. The
store is either empty or has its tables already.

The time of pte_tracking is CPU time of the delivery process, which has a low priority. On a machine with other load, it
waits for the processor, so the ratio of the CPU times of all processes is printed, too.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from _measure import Figure, format_spread, interleave

from tests import servers

ITERATIONS = 20
_PR_SET_CHILD_SUBREAPER = 36
LOOP = """
import torch
model = torch.nn.Linear(64, 10)
optimizer = torch.optim.Adam(model.parameters())
def update():
    loss = model(torch.randn(32, 64)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"train/loss": loss.detach(), "train/accuracy": 1 - loss.detach()}
"""
SCRIPTS = {
    "bare": LOOP
    + f"""
for step in range({ITERATIONS}):
    update()
""",
    "plain": LOOP
    + f"""
import mlflow
from torch.utils.tensorboard import SummaryWriter
mlflow.set_tracking_uri(STORE)
with SummaryWriter(OUT) as writer, mlflow.start_run():
    for step in range({ITERATIONS}):
        values = {{key: value.item() for key, value in update().items()}}
        for key, value in values.items():
            writer.add_scalar(key, value, step)
        mlflow.log_metrics(values, step)
""",
    "pte_tracking": LOOP
    + f"""
import pte_tracking as pte
from pte_tracking import extensions
from pte_backends.mlflow import MLflowSink
manager = pte.ExtensionsManager(
    {{"main": model}}, 1, [extensions.LogReport(trigger=(1, "iteration"))], optimizers={{"main": optimizer}},
    iters_per_epoch={ITERATIONS}, out_dir=OUT, sinks=["json", "tensorboard", MLflowSink(STORE)],
)
while not manager.stop_trigger:
    with manager.run_iteration():
        pte.report(update())
""",
}


class Usage(NamedTuple):
    """Resources of a script and its children.

    Attributes:
        seconds: Time from start to exit.
        cpu_seconds: CPU time.
    """

    seconds: float
    cpu_seconds: float


def run_script(name: str, folder: Path, template: Path | None) -> Usage:
    """Run a script with its own copy of the store.

    Args:
        name: Name of the script.
        folder: Directory for temporary files.
        template: Store to copy. None for a store that does not exist.

    Raises:
        RuntimeError: If not all data points are in the store when the script exits.
    """
    directory = Path(tempfile.mkdtemp(dir=folder))
    store = servers.copy_store(template, directory) if template else directory / "mlflow.db"
    code = SCRIPTS[name].replace("OUT", repr(str(directory / "run"))).replace("STORE", repr(f"sqlite:///{store}"))
    # Allow bytecode files, which an installed package also has.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before, start = _children_cpu_seconds(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=directory, capture_output=True, check=True)
    seconds = time.perf_counter() - start
    if name != "bare":
        _check_store(store)
    _wait_for_children()
    usage = Usage(seconds, _children_cpu_seconds() - before)
    shutil.rmtree(directory)
    return usage


def _adopt_orphans() -> None:
    """Make this process the parent of delivery processes, which outlive the scripts, to measure their CPU time."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait_for_children() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.wait():
            pass


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _check_store(store: Path) -> None:
    with sqlite3.connect(store) as database:
        query = "SELECT count(*) FROM metrics WHERE key LIKE 'train/%'"
        count = database.execute(query).fetchone()[0]
        status = database.execute("SELECT status FROM runs").fetchall()
    database.close()
    if count != 2 * ITERATIONS or status != [("FINISHED",)]:
        raise RuntimeError(f"The store has {count} of {2 * ITERATIONS} data points, and the status {status}.")


def compare(case: str, folder: Path, template: Path | None, rounds: int) -> None:
    """Measure the three scripts in turn and publish the ratios of their additional times."""
    for name in SCRIPTS:
        run_script(name, folder, template)  # writes the bytecode files
    usages = interleave(rounds, {name: partial(run_script, name, folder, template) for name in SCRIPTS})
    for name, results in usages.items():
        wall, cpu = (format_spread([getattr(usage, field) for usage in results]) for field in Usage._fields)
        print(f"{case}, {name}: {wall} s, CPU {cpu} s")
    rows = list(zip(*usages.values(), strict=True))
    seconds, cpu = (
        [(ours[field] - bare[field]) / (plain[field] - bare[field]) for bare, plain, ours in rows] for field in range(2)
    )
    print(f"{case}: additional CPU time compared with SummaryWriter and mlflow: {format_spread(cpu)}")
    Figure(f"short run, {case}: additional time", "SummaryWriter and mlflow", seconds, "<= 0.35").publish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    _adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "template.db"
        servers.make_store(template)
        compare("existing store", folder, template, args.rounds)
        compare("empty store", folder, None, args.rounds)


if __name__ == "__main__":
    main()
