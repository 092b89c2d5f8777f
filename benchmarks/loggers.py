"""Time that the training thread spends in the loggers of other libraries, compared with the adapters.

``python benchmarks/loggers.py [--rounds N] [--rows N]`` (default: 7 rounds of 2000 rows; about one minute)

Each round creates all loggers in turn and passes the same rows of five floats to each, as the framework does after half
a millisecond of work. The adapters deliver to the JSON log and to TensorBoard. Lightning's CSVLogger writes a file
every 100 rows. Accelerate and Transformers have no CSV logger, so their TensorBoard loggers are the baselines. The time
per row is the mean, which includes the writes of every hundredth row.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from _measure import Figure, format_spread, interleave, ratios

Log = Callable[[dict[str, float], int], None]
NAMES = ["train/loss", "train/accuracy", "train/norm", "train/a", "train/b"]
SINKS = ["json", "tensorboard"]


def _lightning(logger: Any) -> tuple[Log, Callable[[], None]]:
    def log(values: dict[str, float], step: int) -> None:  # as the trainer does
        logger.log_metrics(metrics=values, step=step)
        logger.save()

    return log, lambda: logger.finalize("success")


def lightning_csv(folder: Path) -> tuple[Log, Callable[[], None]]:
    from lightning.pytorch.loggers import CSVLogger

    return _lightning(CSVLogger(folder))


def lightning_tracking(folder: Path) -> tuple[Log, Callable[[], None]]:
    from pte_tracking.integrations.lightning import TrackingLogger

    return _lightning(TrackingLogger(folder, sinks=SINKS))


def _accelerate(tracker: Any) -> tuple[Log, Callable[[], None]]:
    from accelerate import Accelerator

    accelerator = Accelerator(log_with=tracker, cpu=True)
    accelerator.init_trackers("run")
    return accelerator.log, accelerator.end_training


def accelerate_tensorboard(folder: Path) -> tuple[Log, Callable[[], None]]:
    from accelerate.tracking import TensorBoardTracker

    return _accelerate(TensorBoardTracker("run", folder))


def accelerate_tracking(folder: Path) -> tuple[Log, Callable[[], None]]:
    from pte_tracking.integrations.accelerate import Tracker

    return _accelerate(Tracker(folder, sinks=SINKS))


def _transformers(callback: Any, folder: Path) -> Log:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    arguments = TrainingArguments(str(folder), report_to="none", use_cpu=True)
    state, control = TrainerState(), TrainerControl()

    def log(values: dict[str, float], step: int) -> None:
        state.global_step, state.epoch = step, values["epoch"]
        callback.on_log(arguments, state, control, logs=values)

    return log


def transformers_tensorboard(folder: Path) -> tuple[Log, Callable[[], None]]:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    writer = SummaryWriter(str(folder))
    return _transformers(TensorBoardCallback(writer), folder), writer.close


def transformers_tracking(folder: Path) -> tuple[Log, Callable[[], None]]:
    from pte_tracking.integrations.transformers import TrackingCallback

    callback = TrackingCallback(folder, sinks=SINKS)
    return _transformers(callback, folder), callback.run.close


def _write_scalars(writer: Any) -> tuple[Log, Callable[[], None]]:
    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    return log, writer.close


def torch_writer(folder: Path) -> tuple[Log, Callable[[], None]]:
    from torch.utils.tensorboard import SummaryWriter

    return _write_scalars(SummaryWriter(str(folder)))


def tracking_writer(folder: Path) -> tuple[Log, Callable[[], None]]:
    from pte_tracking.integrations.tensorboard import SummaryWriter

    return _write_scalars(SummaryWriter(folder, sinks=SINKS))


CANDIDATES = {
    "Lightning's CSVLogger": lightning_csv,
    "TrackingLogger": lightning_tracking,
    "Accelerate's TensorBoardTracker": accelerate_tensorboard,
    "Tracker": accelerate_tracking,
    "Transformers' TensorBoardCallback": transformers_tensorboard,
    "TrackingCallback": transformers_tracking,
    "torch's SummaryWriter": torch_writer,
    "SummaryWriter": tracking_writer,
}


def measure(open_logger: Callable[[Path], tuple[Log, Callable[[], None]]], rows: int) -> tuple[float, float]:
    """Return the mean and the median of the microseconds per row."""
    with tempfile.TemporaryDirectory() as directory:
        log, close = open_logger(Path(directory, "run"))
        seconds = []
        for step in range(rows):
            deadline = time.perf_counter() + 0.0005
            while time.perf_counter() < deadline:
                pass
            values = {**{name: step / (index + 1) for index, name in enumerate(NAMES)}, "epoch": float(step // 100)}
            start = time.perf_counter()
            log(values, step)
            seconds.append(time.perf_counter() - start)
        close()
    return statistics.mean(seconds) * 1e6, statistics.median(seconds) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=2000)
    args = parser.parse_args()
    results = interleave(args.rounds, {name: partial(measure, CANDIDATES[name], args.rows) for name in CANDIDATES})
    for name, values in results.items():
        means, medians = zip(*values, strict=True)
        print(f"  {name:32s} mean {format_spread(means):>24s} us, median {format_spread(medians):>24s} us")
    for name, baseline in (
        ("TrackingLogger", "Lightning's CSVLogger"),
        ("Tracker", "Accelerate's TensorBoardTracker"),
        ("TrackingCallback", "Transformers' TensorBoardCallback"),
        ("SummaryWriter", "torch's SummaryWriter"),
    ):
        means, baselines = ([mean for mean, _ in results[key]] for key in (name, baseline))
        Figure(f"a row of 5 values by {name}, training thread", baseline, ratios(means, baselines), "<= 1").publish()


if __name__ == "__main__":
    main()
