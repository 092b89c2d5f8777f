"""Scenarios of metrics, triggers, and extensions on several ranks."""

from __future__ import annotations

import contextlib
import io
import logging
import logging.handlers
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions, triggers
from tests.ranks.components import make_manager, read_rows

#: Values that each rank reports in each of six iterations. Their sums are exact in floating point.
REPORTED: list[list[dict[str, float]]] = [
    [{"x": 1, "a": 5}, {"x": 2}, {"x": 4}, {"x": 64}, {"x": 128}, {"x": 256}],
    [{"x": 8}, {"x": 16}, {"b": 3}, {"b": 7}, {"x": 0.5}, {}],
]
#: Values of the batches that each rank evaluates. The ranks have different numbers of batches.
EVALUATED = [[1.0, 2.0, 4.0], [8.0]]


def log_means(folder: Path) -> Any:
    """Report and evaluate on all ranks, and return the logged rows."""
    rank = dist.get_rank()

    def evaluate(value: float) -> None:
        pte.report({"val/x": value})

    with make_manager(
        folder / "run",
        extensions.Evaluator([(value,) for value in EVALUATED[rank]], nn.Linear(1, 1), evaluate),
        extensions.LogReport(trigger=(3, "iteration")),
        iters_per_epoch=6,
    ) as manager:
        for values in REPORTED[rank]:
            with manager.run_iteration():
                pte.report(values)
    dist.barrier()  # Rank 0 writes the log.
    return read_rows(folder / "run")


def count_collectives_per_iteration(folder: Path) -> Any:
    """Count the collective calls of each iteration."""
    counted: list[dict[str, int]] = []
    with (
        count_collectives() as counts,
        make_manager(
            folder / "run", extensions.LogReport(trigger=(2, "iteration")), epochs=2, iters_per_epoch=4
        ) as manager,
    ):
        for iteration in range(8):
            counts.clear()
            with manager.run_iteration():
                pte.report({"x": iteration, **{f"key{number}": 1.0 for number in range(50)}})
            counted.append(dict(counts))
    return counted


def log_weighted_means(folder: Path) -> Any:
    """Report weighted, deferred, and large values, and return the logged rows and the values of the checkpoints."""
    rank = dist.get_rank()
    best = extensions.snapshot(keep_best=("x", "min", 1))
    with make_manager(folder / "run", extensions.LogReport(), best, iters_per_epoch=2) as manager:
        for value in [(1.0, 6), (9.0, 1)] if rank else [(4.0, 1), (lambda: 7.0, 2)]:
            with manager.run_iteration():
                pte.report({"x": value, "large": 1.5e308 if rank else 1e308, "none": (float("nan"), 0)})
    dist.barrier()  # Rank 0 writes the log.
    return read_rows(folder / "run"), [entry.values["x"] for entry in manager.run.checkpoints()]


def log_last_rows(folder: Path) -> Any:
    """End trainings within an interval, and return the rows by the way in which they end."""
    rank = dist.get_rank()
    rows = {}
    for end in ("stop", "break", "error on rank 1"):
        log = extensions.LogReport(trigger=(3, "iteration"))
        with contextlib.suppress(ValueError), make_manager(folder / end, log, iters_per_epoch=5) as manager:
            while not manager.stop_trigger and (end == "stop" or manager.iteration < 4):
                with manager.run_iteration():
                    pte.report({"x": 10.0 * rank + manager.iteration})
            if end == "error on rank 1" and rank == 1:
                raise ValueError(end)
        dist.barrier()  # Rank 0 writes the log.
        rows[end] = [(row["iteration"], row["x"]) for row in read_rows(folder / end)]
    return rows


def report_on_one_rank(folder: Path) -> Any:
    """Report a value on rank 2 only, and return the logged rows."""
    with make_manager(folder / "run", extensions.LogReport(), iters_per_epoch=2) as manager:
        for _ in range(2):
            with manager.run_iteration():
                if dist.get_rank() == 2:
                    pte.report({"x": 4.0})
    dist.barrier()
    return read_rows(folder / "run")


def record_trigger_decisions(folder: Path) -> Any:
    """Train with different values and clocks on each rank, and return the iterations in which each trigger fired."""
    rank = dist.get_rank()
    fired_iterations: dict[str, list[int]] = {}

    def make_entry(name: str, trigger: Any) -> pte.ExtensionEntry:
        def extension(manager: Any) -> None:
            fired_iterations.setdefault(name, []).append(manager.iteration)

        return pte.ExtensionEntry(extension, name=name, trigger=trigger)

    # The loss improves on rank 0 and worsens on rank 1. The mean of both is lowest in the third interval.
    values = [[10.0, 8, 2, 1, 0, 0, 0, 0], [1.0, 2, 3, 6, 9, 12, 15, 18]]
    stop = triggers.EarlyStoppingTrigger((1, "iteration"), "loss", patience=3, mode="min", max_trigger=(8, "iteration"))
    with make_manager(
        folder / "run",
        make_entry("best", triggers.MinValueTrigger("loss", (1, "iteration"))),
        make_entry("function", lambda manager: manager.iteration % 2 == rank),
        make_entry("time", triggers.TimeTrigger(0.05 if rank == 0 else 1e-6)),
        stop_trigger=stop,
        iters_per_epoch=8,
    ) as manager:
        for value in values[rank]:
            if manager.stop_trigger:
                break
            with manager.run_iteration():
                pte.report({"loss": value})
    return {**fired_iterations, "stopped": manager.iteration}


def collect_disagreement_errors(folder: Path) -> Any:
    """Pass different arguments to the ranks, and return the errors that this rank raises."""
    rank = dist.get_rank()
    errors = {}
    for name, rank_0_options, rank_1_options in (
        ("out_dir", {"out_dir": folder / "first"}, {"out_dir": folder / "other"}),
        ("sinks", {"sinks": ["json"]}, {"sinks": ["json", "tensorboard"]}),
        ("extensions", {}, {"added_extension": extensions.PrintReport()}),
        ("extensions' triggers", {"log": (2, "iteration")}, {"log": (3, "iteration")}),
        (
            "extensions' triggers of values",
            {"added_extension": make_min_value_entry(1)},
            {"added_extension": make_min_value_entry(2)},
        ),
        ("models", {}, {"models": {"net": nn.Linear(1, 1)}}),
        ("iters_per_epoch", {}, {"iters_per_epoch": 2}),
        ("max_epochs", {}, {"max_epochs": 3}),
        ("stop_trigger", {}, {"stop_trigger": (1, "iteration")}),
        (
            "stop_trigger of values",
            {"stop_trigger": make_early_stopping_trigger(1)},
            {"stop_trigger": make_early_stopping_trigger(2)},
        ),
        ("optimizers at resume()", {}, {"optimizers": torch.optim.SGD([torch.zeros(1)], 0.1)}),
    ):
        options: dict[str, Any] = {"out_dir": folder / name, "models": nn.Linear(1, 1), "max_epochs": 1}
        options |= {"iters_per_epoch": 1, **(rank_1_options if rank else rank_0_options)}
        added_extension, log = options.pop("added_extension", None), options.pop("log", (1, "epoch"))
        manager = pte.ExtensionsManager(extensions=[extensions.LogReport(trigger=log)], **options)
        if added_extension is not None:
            manager.extend(added_extension)
        iterations = 0
        try:
            if name.endswith("resume()"):
                manager.resume()
            with manager, manager.run_iteration():
                iterations += 1
        except ValueError as error:
            errors[name] = f"{error} after {iterations}"
    return errors


def make_min_value_entry(iterations: int) -> pte.ExtensionEntry:
    trigger = triggers.MinValueTrigger("loss", (iterations, "iteration"))
    return pte.ExtensionEntry(lambda manager: None, name="entry", trigger=trigger)


def make_early_stopping_trigger(iterations: int) -> triggers.Trigger:
    return triggers.EarlyStoppingTrigger((iterations, "iteration"), "loss", max_trigger=(8, "iteration"))


def read_group_timeouts(folder: Path) -> Any:
    """Return the timeouts in seconds of the process groups of the manager."""
    with make_manager(folder / "run", iters_per_epoch=1) as manager, manager.run_iteration():
        groups = [manager.world.group, manager.world.snapshot_world.group]
    return [group._get_backend(torch.device("cpu")).options._timeout.total_seconds() for group in groups if group]


def resume_within_interval(folder: Path) -> Any:
    """Resume within a logging interval, possibly on another number of ranks.

    The first run stops after iteration 3 of 4. The resumed run reports 10 plus the rank in the fourth iteration.
    """
    stop = triggers.EarlyStoppingTrigger((4, "iteration"), "x", max_trigger=(8, "iteration"))
    with make_manager(
        folder / "run",
        extensions.LogReport(trigger=(4, "iteration")),
        extensions.MicroAverage("x", "count", "ratio", trigger=(4, "iteration")),
        extensions.snapshot(trigger=(3, "iteration")),
        stop_trigger=stop,
        iters_per_epoch=8,
    ) as manager:
        resumed = manager.resume()
        value = 0.0 if resumed is None else 10.0
        while manager.iteration < (3 if resumed is None else 4):
            with manager.run_iteration():
                pte.report({"x": value + dist.get_rank(), "count": 1.0})
        best = stop.state_dict()["best"]
    dist.barrier()
    return {"rows": read_rows(folder / "run"), "best": best} if resumed else None


class UserSum(pte.Extension):
    """User-defined extension with a summary in its state."""

    trigger = (1, "iteration")

    def __init__(self) -> None:
        self.sum = pte.Summary()

    def __call__(self, manager: Any) -> None:
        self.sum.add(manager.observation["x"])

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.sum.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sum.load_state_dict(state["mean"])


def sum_in_user_extension(folder: Path) -> Any:
    """Train or resume with a user-defined sum, and return its state on this rank."""
    mean = UserSum()
    snapshot = extensions.snapshot(trigger=(2, "iteration"))
    with make_manager(folder / "run", mean, snapshot, iters_per_epoch=4) as manager:
        is_new = manager.resume() is None
        while manager.iteration < (2 if is_new else 3):
            with manager.run_iteration():
                pte.report({"x": 1.0})
    return mean.sum.state_dict()


def record_plateau_learning_rates(folder: Path) -> Any:
    """Return the learning rates of a plateau scheduler.

    The loss improves on rank 0 and worsens on rank 1. Rank 1 reports no loss in the last iteration.
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], 1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    stepper = extensions.LRScheduler.step_by_value("loss")
    rates = []
    with make_manager(
        folder / "run",
        extensions.LRScheduler(scheduler, stepper=stepper, trigger=(1, "iteration")),
        optimizers=optimizer,
        iters_per_epoch=4,
    ) as manager:
        for value in [[8.0, 6, 4, 2], [0.0, 4, 8]][dist.get_rank()] + [None]:
            if manager.stop_trigger:
                break
            with manager.run_iteration():
                optimizer.step()
                if value is not None:
                    pte.report({"loss": value})
            rates.append(optimizer.param_groups[0]["lr"])
    return rates


def print_pending_rows(folder: Path) -> Any:
    """Resume from a snapshot that was saved between logging rows and printing them, and return the printed words."""
    snapshot = extensions.snapshot(trigger=(2, "iteration"))
    shown = io.StringIO()
    report = pte.ExtensionEntry(extensions.PrintReport(["iteration"], out=shown), trigger=(4, "iteration"))
    log = extensions.LogReport(trigger=(1, "iteration"))
    with make_manager(folder / "run", log, report, snapshot, iters_per_epoch=8) as manager:
        is_new = manager.resume() is None
        while manager.iteration < (2 if is_new else 3):
            with manager.run_iteration():
                pte.report({"x": 1.0})
    return shown.getvalue().split()


def collect_warnings(folder: Path) -> Any:
    """Return the warnings that this rank issues about values that are not recorded, and about unreported keys."""
    handler = logging.handlers.BufferingHandler(1000)
    logging.getLogger("pte_tracking").addHandler(handler)
    stop = triggers.EarlyStoppingTrigger((1, "iteration"), "not reported", max_trigger=(2, "iteration"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plot = extensions.PlotReport("not reported either", trigger=(1, "iteration"))
        with make_manager(folder / "run", plot, stop_trigger=stop, sinks=["json"], iters_per_epoch=2) as manager:
            while not manager.stop_trigger:
                with manager.run_iteration():
                    pte.report({"other": 1.0})
                if not manager.is_ended:
                    pte.report({"stray": 1.0})
    messages = [record.getMessage() for record in handler.buffer if record.levelno >= logging.WARNING]
    return [*messages, *(str(warning.message) for warning in caught)]


def resume_stop_trigger(folder: Path) -> Any:
    """Return the state of a stop trigger within its interval, without and with a resume."""

    def session(out: Path, iterations: int) -> Any:
        stop = triggers.EarlyStoppingTrigger((4, "iteration"), "x", max_trigger=(8, "iteration"))
        snapshot = extensions.snapshot(trigger=(3, "iteration"))
        with make_manager(out, snapshot, stop_trigger=stop, iters_per_epoch=8) as manager:
            manager.resume()
            while manager.iteration < iterations:
                with manager.run_iteration():
                    pte.report({"x": manager.iteration + 100.0 * dist.get_rank()})
        return stop.state_dict()

    session(folder / "interrupted", 3)
    return [session(folder / "uninterrupted", 5), session(folder / "interrupted", 5)]


def log_before_restore(folder: Path) -> Any:
    """Set tags before restoring a state, and return the final iteration for each way of restoring."""
    iterations = {}
    first = make_manager(folder / "first", extensions.snapshot(trigger=(1, "iteration")), iters_per_epoch=2)
    with first.run_iteration():
        pass
    first.close()
    dist.barrier()
    state = torch.load(folder / "first" / "snapshot_iter_1")
    manager = make_manager(folder / "given", extensions.snapshot(trigger=(1, "iteration")), iters_per_epoch=2)
    manager.run.set_tags({"team": "vision"})
    manager.load_state_dict(state)
    with manager, manager.run_iteration():
        pass
    iterations["load_state_dict"] = manager.iteration
    automatic = extensions.snapshot(trigger=(1, "iteration"), autoload=True)
    manager = make_manager(folder / "automatic", automatic, iters_per_epoch=2)
    manager.run.set_tags({"team": "vision"})
    with manager, manager.run_iteration():
        pass
    iterations["autoload"] = manager.iteration
    return iterations


def run_statistics_on_rank_0(folder: Path) -> Any:
    """Run an extension that exists on rank 0 only and whose trigger needs all ranks."""
    net = nn.parallel.DistributedDataParallel(nn.Linear(1, 1))
    fires = triggers.MinValueTrigger("x", (1, "iteration"))
    statistics = extensions.ParameterStatistics(net.module, {"max": torch.max}, trigger=fires)
    log = extensions.LogReport(trigger=(2, "iteration"))
    with make_manager(folder / "run", statistics, log, models=net, iters_per_epoch=2) as manager:
        for value in (4.0, 3.0):
            with manager.run_iteration():
                pte.report({"x": value})
    return manager.iteration


@contextlib.contextmanager
def count_collectives() -> Iterator[Counter[str]]:
    """Count the calls of the collectives of torch.distributed."""
    counts: Counter[str] = Counter()
    originals = {name: getattr(dist, name) for name in ("all_reduce", "all_gather_object", "broadcast")}

    def counting(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return originals[name](*args, **kwargs)

        return call

    for name in originals:
        setattr(dist, name, counting(name))
    try:
        yield counts
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)
