"""Ways to log five values per iteration: pte_tracking, other libraries, and a lower bound.

Each function is a context manager that takes a directory and the URI of an MLflow store and yields a logging function.
Leaving the context delivers everything that is pending.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

Values = dict[str, torch.Tensor]
#: Logs the values of an iteration at a step.
Log = Callable[[Values, int], object]
#: For libraries that take milliseconds per row.
SLOW_ITERATIONS = 250
#: For libraries that return at once but send one request per row afterward.
UNBUFFERED_ITERATIONS = 500
FAST_ITERATIONS = 2000


def to_floats(values: Values) -> dict[str, float]:
    return {key: value.item() for key, value in values.items()}


@contextmanager
def encode_and_write(folder: Path, store: str) -> Iterator[Log]:
    """Encode the values as JSON and append them to a file: the lower bound for a durable row."""
    import msgspec

    encode = msgspec.json.Encoder().encode
    file = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield lambda values, step: os.write(file, encode({key: value.item() for key, value in values.items()}) + b"\n")
    os.close(file)


@contextmanager
def pte_run(folder: Path, store: str, *, close_timeout: float = 60) -> Iterator[Log]:
    import pte_tracking as pte
    from pte_backends.mlflow import MLflowSink

    with pte.Run(
        folder / "run", sinks=["tensorboard", MLflowSink(tracking_uri=store)], close_timeout=close_timeout
    ) as run:
        yield run.log_metrics


@contextmanager
def pte_manager(
    folder: Path,
    store: str,
    sinks: Sequence[str] = ("json", "tensorboard", "mlflow"),
    *,
    close_timeout: float = 60,
) -> Iterator[Log]:
    import pte_tracking as pte
    from pte_backends.mlflow import MLflowSink
    from pte_tracking import extensions

    manager = pte.ExtensionsManager(
        {},
        1,
        [extensions.LogReport(trigger=(1, "iteration"))],
        iters_per_epoch=1_000_000,
        out_dir=folder / "run",
        sinks=[MLflowSink(tracking_uri=store) if name == "mlflow" else name for name in sinks],
        close_timeout=close_timeout,
    )

    def log(values: Values, step: int) -> None:
        with manager.run_iteration():
            pte.report(values)

    with manager:
        yield log


@contextmanager
def buffered_mlflow(store: str) -> Iterator[None]:
    """Let mlflow collect metrics for one second and send them from a background thread."""
    os.environ["MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS"] = "1"
    import mlflow

    mlflow.set_tracking_uri(store)
    mlflow.config.enable_async_logging()
    yield
    mlflow.flush_async_logging()


@contextmanager
def mlflow_sync(folder: Path, store: str) -> Iterator[Log]:
    import mlflow

    mlflow.set_tracking_uri(store)
    with mlflow.start_run():
        yield lambda values, step: mlflow.log_metrics(to_floats(values), step=step)


@contextmanager
def mlflow_async(folder: Path, store: str) -> Iterator[Log]:
    import mlflow

    mlflow.set_tracking_uri(store)
    with mlflow.start_run():
        yield lambda values, step: mlflow.log_metrics(to_floats(values), step=step, synchronous=False)
        mlflow.flush_async_logging()


@contextmanager
def mlflow_buffered(folder: Path, store: str) -> Iterator[Log]:
    with buffered_mlflow(store), mlflow_sync(folder, store) as log:
        yield log


@contextmanager
def mlflow_client(folder: Path, store: str) -> Iterator[Log]:
    import mlflow
    from mlflow.entities import Metric

    with buffered_mlflow(store):
        client = mlflow.MlflowClient(store)
        run_id = client.create_run("0").info.run_id

        def log(values: Values, step: int) -> None:
            now = int(time.time() * 1000)
            metrics = [Metric(key, value.item(), now, step) for key, value in values.items()]
            client.log_batch(run_id, metrics, synchronous=False)

        yield log
        mlflow.flush_async_logging()
        client.set_terminated(run_id)


@contextmanager
def summary_writer(folder: Path, store: str) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    def log(values: Values, step: int) -> None:
        for key, value in to_floats(values).items():  # add_scalar takes four times as long for a tensor
            writer.add_scalar(key, value, step)

    # A long queue: the training thread never waits for the writing thread.
    writer = SummaryWriter(str(folder / "tensorboard"), max_queue=5 * FAST_ITERATIONS)
    yield log
    writer.close()


@contextmanager
def summary_writer_and_client(folder: Path, store: str) -> Iterator[Log]:
    with summary_writer(folder, store) as log_to_tensorboard, mlflow_client(folder, store) as log_to_mlflow:

        def log(values: Values, step: int) -> None:
            log_to_tensorboard(values, step)
            log_to_mlflow(values, step)

        yield log


@contextmanager
def lightning(folder: Path, store: str, synchronous: bool | None = None) -> Iterator[Log]:
    from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger

    loggers = [TensorBoardLogger(str(folder)), MLFlowLogger(tracking_uri=store, synchronous=synchronous)]

    def log(values: Values, step: int) -> None:
        floats = to_floats(values)  # as its trainer does
        for logger in loggers:
            logger.log_metrics(floats, step)

    yield log
    for logger in loggers:
        logger.finalize("success")


@contextmanager
def lightning_async(folder: Path, store: str) -> Iterator[Log]:
    import mlflow

    mlflow.set_tracking_uri(store)
    with lightning(folder, store, synchronous=False) as log:
        yield log
        mlflow.flush_async_logging()


@contextmanager
def lightning_buffered(folder: Path, store: str) -> Iterator[Log]:
    with buffered_mlflow(store), lightning_async(folder, store) as log:
        yield log


@contextmanager
def ignite(folder: Path, store: str) -> Iterator[Log]:
    from ignite.engine import Engine, Events
    from ignite.handlers import MLflowLogger, TensorboardLogger

    engine = Engine(lambda engine, values: values)
    handlers = [TensorboardLogger(log_dir=str(folder / "tensorboard")), MLflowLogger(tracking_uri=store)]
    for handler in handlers:
        handler.attach_output_handler(engine, Events.ITERATION_COMPLETED, tag="train", output_transform=lambda o: o)

    def log(values: Values, step: int) -> None:
        engine.state.iteration, engine.state.output = step, values  # type: ignore[assignment]
        engine.fire_event(Events.ITERATION_COMPLETED)

    yield log
    for handler in handlers:
        handler.close()


@contextmanager
def ignite_buffered(folder: Path, store: str) -> Iterator[Log]:
    with buffered_mlflow(store), ignite(folder, store) as log:
        yield log


@contextmanager
def accelerate(folder: Path, store: str) -> Iterator[Log]:
    from accelerate import Accelerator

    os.environ["MLFLOW_TRACKING_URI"] = store
    accelerator = Accelerator(cpu=True, log_with=["tensorboard", "mlflow"], project_dir=str(folder))
    accelerator.init_trackers("peers")
    yield lambda values, step: accelerator.log(to_floats(values), step=step)
    accelerator.end_training()


@contextmanager
def accelerate_buffered(folder: Path, store: str) -> Iterator[Log]:
    with buffered_mlflow(store), accelerate(folder, store) as log:
        yield log


@contextmanager
def dvclive(folder: Path, store: str) -> Iterator[Log]:
    from dvclive import Live

    def log(values: Values, step: int) -> None:
        live.step = step
        for key, value in to_floats(values).items():
            live.log_metric(key, value)
        live.make_summary()

    os.chdir(folder)
    with Live(dir=str(folder / "live"), save_dvc_exp=False, report=None, dvcyaml=None) as live:
        yield log


@contextmanager
def pfn_extras(folder: Path, store: str) -> Iterator[Log]:
    import pytorch_pfn_extras as ppe

    writer = ppe.writing.TensorBoardWriter(out_dir=str(folder / "tensorboard"))
    manager = ppe.training.ExtensionsManager({}, {}, 1, iters_per_epoch=FAST_ITERATIONS + 1, out_dir=str(folder))
    manager.extend(ppe.training.extensions.LogReport(trigger=(1, "iteration"), writer=writer, filename="log"))

    def log(values: Values, step: int) -> None:
        with manager.run_iteration():
            ppe.reporting.report(values)

    yield log
    manager.finalize()
    writer.finalize()


class Candidate(NamedTuple):
    """One way to log.

    Attributes:
        label: Name in the table.
        open: Returns the context manager that yields the logging function.
        iterations: Number of iterations to measure.
        is_peer: Whether it is another library that writes to both TensorBoard and MLflow.
        package: Package that must be installed. Defaults to none.
    """

    label: str
    open: Callable[[Path, str], AbstractContextManager[Log]]
    iterations: int = FAST_ITERATIONS
    is_peer: bool = False
    package: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether the package is installed."""
        return self.package is None or importlib.util.find_spec(self.package) is not None


CANDIDATES = {
    "floor": Candidate("encode and write", encode_and_write),
    "run": Candidate("pte_tracking: Run.log_metrics, both", pte_run),
    "manager": Candidate("pte_tracking: manager and LogReport, both and JSON", pte_manager),
    "writer": Candidate("SummaryWriter", summary_writer),
    "sync": Candidate("mlflow", mlflow_sync, SLOW_ITERATIONS),
    "async": Candidate("mlflow, asynchronous", mlflow_async, UNBUFFERED_ITERATIONS),
    "buffered": Candidate("mlflow, asynchronous, 1 s", mlflow_buffered),
    "client": Candidate("MlflowClient, asynchronous, 1 s", mlflow_client),
    "combined": Candidate("SummaryWriter and MlflowClient, asynchronous, 1 s", summary_writer_and_client, is_peer=True),
    "lightning": Candidate("Lightning: both loggers", lightning, SLOW_ITERATIONS, True, "lightning"),
    "lightning_async": Candidate(
        "Lightning: both loggers, asynchronous", lightning_async, UNBUFFERED_ITERATIONS, True, "lightning"
    ),
    "lightning_buffered": Candidate(
        "Lightning: both loggers, asynchronous, 1 s", lightning_buffered, is_peer=True, package="lightning"
    ),
    "ignite": Candidate("Ignite: both handlers", ignite, SLOW_ITERATIONS, True),
    "ignite_buffered": Candidate("Ignite: both handlers, asynchronous, 1 s", ignite_buffered, is_peer=True),
    "accelerate": Candidate("Accelerate: both trackers", accelerate, SLOW_ITERATIONS, True, "accelerate"),
    "accelerate_buffered": Candidate(
        "Accelerate: both trackers, asynchronous, 1 s", accelerate_buffered, is_peer=True, package="accelerate"
    ),
    "dvclive": Candidate("DVCLive: files only", dvclive, SLOW_ITERATIONS, package="dvclive"),
    "pfn": Candidate(
        "pytorch-pfn-extras: LogReport, TensorBoardWriter", pfn_extras, SLOW_ITERATIONS, package="pytorch_pfn_extras"
    ),
}
