"""What the ranks of ``forked.py`` do; each function returns what its test looks at."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions, triggers
from pte_tracking._distributed.sharding import full_tensor, local_tensor
from pte_tracking._snapshots import shards
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load
from pte_tracking._snapshots.plain_state import map_tensors
from pte_tracking._store import checkpoint_files
from pte_tracking._store.checkpoint_files import FileDigest

#: What each rank reports in each of six iterations; sums of these numbers are exact.
SEEN: list[list[dict[str, float]]] = [
    [{"x": 1, "a": 5}, {"x": 2}, {"x": 4}, {"x": 64}, {"x": 128}, {"x": 256}],
    [{"x": 8}, {"x": 16}, {"b": 3}, {"b": 7}, {"x": 0.5}, {}],
]
#: The values of each batch that a rank evaluates: not as many on each.
EVALUATED = [[1.0, 2.0, 4.0], [8.0]]


def means(folder: Path) -> Any:
    rank = dist.get_rank()

    def evaluate(value: float) -> None:
        pte.report({"val/x": value})

    with manager_of(
        folder / "run",
        extensions.Evaluator([(value,) for value in EVALUATED[rank]], nn.Linear(1, 1), evaluate),
        extensions.LogReport(trigger=(3, "iteration")),
        iters_per_epoch=6,
    ) as manager:
        for values in SEEN[rank]:
            with manager.run_iteration():
                pte.report(values)
    dist.barrier()  # until rank 0 has written all of it
    return rows(folder / "run")


def collectives(folder: Path) -> Any:
    """How often the ranks talk: per iteration, after the keys are agreed upon."""
    counted: list[dict[str, int]] = []
    with (
        count_collectives() as counts,
        manager_of(
            folder / "run", extensions.LogReport(trigger=(2, "iteration")), epochs=2, iters_per_epoch=4
        ) as manager,
    ):
        for iteration in range(8):
            counts.clear()
            with manager.run_iteration():
                pte.report({"x": iteration, **{f"key{number}": 1.0 for number in range(50)}})
            counted.append(dict(counts))
    return counted


def reported_by_one(folder: Path) -> Any:
    with manager_of(folder / "run", extensions.LogReport(), iters_per_epoch=2) as manager:
        for _ in range(2):
            with manager.run_iteration():
                if dist.get_rank() == 2:
                    pte.report({"x": 4.0})
    dist.barrier()
    return rows(folder / "run")


def decisions(folder: Path) -> Any:
    """Each rank sees other values, and other times; returns the iterations in which something happened."""
    rank = dist.get_rank()
    happened: dict[str, list[int]] = {}

    def note(name: str, trigger: Any) -> pte.ExtensionEntry:
        def extension(manager: Any) -> None:
            happened.setdefault(name, []).append(manager.iteration)

        return pte.ExtensionEntry(extension, name=name, trigger=trigger)

    # Ever better on rank 0, ever worse on rank 1; over both, best in the third interval.
    values = [[10.0, 8, 2, 1, 0, 0, 0, 0], [1.0, 2, 3, 6, 9, 12, 15, 18]]
    stop = triggers.EarlyStoppingTrigger((1, "iteration"), "loss", patience=3, mode="min", max_trigger=(8, "iteration"))
    with manager_of(
        folder / "run",
        note("best", triggers.MinValueTrigger("loss", (1, "iteration"))),
        note("function", lambda manager: manager.iteration % 2 == rank),
        note("time", triggers.TimeTrigger(0.05 if rank == 0 else 1e-6)),
        stop_trigger=stop,
        iters_per_epoch=8,
    ) as manager:
        for value in values[rank]:
            if manager.stop_trigger:
                break
            with manager.run_iteration():
                pte.report({"loss": value})
    return {**happened, "stopped": manager.iteration}


def disagreements(folder: Path) -> Any:
    """What each rank is told where they were given different things."""
    rank = dist.get_rank()
    told = {}
    for name, here, there in (
        ("out_dir", {"out_dir": folder / "one"}, {"out_dir": folder / "other"}),
        ("sinks", {"sinks": ["json"]}, {"sinks": ["json", "tensorboard"]}),
        ("extensions", {}, {"extended": extensions.PrintReport()}),
        ("extensions' triggers", {"log": (2, "iteration")}, {"log": (3, "iteration")}),
        ("extensions' triggers of values", {"extended": when_least(1)}, {"extended": when_least(2)}),
        ("models", {}, {"models": {"net": nn.Linear(1, 1)}}),
        ("iters_per_epoch", {}, {"iters_per_epoch": 2}),
        ("max_epochs", {}, {"max_epochs": 3}),
        ("stop_trigger", {}, {"stop_trigger": (1, "iteration")}),
        ("stop_trigger of values", {"stop_trigger": early(1)}, {"stop_trigger": early(2)}),
        ("optimizers at resume()", {}, {"optimizers": torch.optim.SGD([torch.zeros(1)], 0.1)}),
    ):
        options: dict[str, Any] = {"out_dir": folder / name, "models": nn.Linear(1, 1), "max_epochs": 1}
        options |= {"iters_per_epoch": 1, **(there if rank else here)}
        extended, log = options.pop("extended", None), options.pop("log", (1, "epoch"))
        manager = pte.ExtensionsManager(extensions=[extensions.LogReport(trigger=log)], **options)
        if extended is not None:
            manager.extend(extended)
        iterations = 0
        try:
            if name.endswith("resume()"):
                manager.resume()
            with manager, manager.run_iteration():
                iterations += 1
        except ValueError as error:
            told[name] = f"{error} after {iterations}"
    return told


def when_least(iterations: int) -> pte.ExtensionEntry:
    trigger = triggers.MinValueTrigger("loss", (iterations, "iteration"))
    return pte.ExtensionEntry(lambda manager: None, name="noted", trigger=trigger)


def early(iterations: int) -> triggers.Trigger:
    return triggers.EarlyStoppingTrigger((iterations, "iteration"), "loss", max_trigger=(8, "iteration"))


def timeouts(folder: Path) -> Any:
    """How many seconds the groups of the manager wait for a rank that is late."""
    with manager_of(folder / "run", iters_per_epoch=1) as manager, manager.run_iteration():
        groups = [manager.world.group, manager.world.snapshot_world.group]
    return [each._get_backend(torch.device("cpu")).options._timeout.total_seconds() for each in groups if each]


def torn(folder: Path) -> Any:
    """The weights are changed at once after a save has begun; returns what was saved."""
    net, optimizer = sharded(500)
    fill(net, 1.0)
    with manager_of(
        folder / "run",
        extensions.snapshot(trigger=(1, "iteration")),
        models=net,
        optimizers=optimizer,
        iters_per_epoch=3,
    ) as manager:
        for value in (1.0, 2.0, 3.0):
            fill(net, value)
            with manager.run_iteration():
                pass
            fill(net, 100.0)
    dist.barrier()
    return [
        sorted({float(one) for tensor in weights(folder / "run" / f"snapshot_iter_{step}") for one in tensor.unique()})
        for step in (1, 2, 3)
    ]


def two_at_once(folder: Path) -> Any:
    """Two extensions whose snapshots are due in the same iterations."""
    net, optimizer = sharded()
    with manager_of(
        folder / "run",
        extensions.snapshot("one_{.iteration}", trigger=(1, "iteration")),
        extensions.snapshot("other_{.iteration}", trigger=(1, "iteration"), n_retains=2),
        extensions.snapshot_object(net, "weights_{.iteration}", trigger=(1, "iteration"), n_retains=1),
        models=net,
        optimizers=optimizer,
        iters_per_epoch=4,
    ) as manager:
        for _ in range(4):
            with manager.run_iteration():
                step(net, optimizer)
    return sorted(path.name for path in (folder / "run").glob("*_*"))


def full_disk(folder: Path) -> Any:
    """Rank 1 cannot write its shard of the first snapshot, rank 0 not the rest of the second."""
    rank = dist.get_rank()
    net, optimizer = sharded(200)
    limits = {0: 2_000, 1: 20_000}
    saved = extensions.snapshot(trigger=(1, "iteration"), asynchronous=False)
    with manager_of(folder / "run", saved, models=net, optimizers=optimizer, iters_per_epoch=3) as manager:
        for iteration in range(3):
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            with manager.run_iteration():
                step(net, optimizer)
                if iteration == 1 - rank:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limits[rank], hard))
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return {
        "iterations": manager.iteration,
        "left": sorted(path.name for path in (folder / "run").glob("*snapshot*")),
        "announced": [one.path for one in manager.run.checkpoints()],
    }


def no_memory(folder: Path) -> Any:
    """Rank 1 has none for its copy of the first snapshot."""
    net, optimizer = sharded()
    saved = extensions.snapshot(trigger=(1, "iteration"))
    buffers = saved._writer._buffers  # type: ignore[attr-defined]
    copy = buffers.copy
    with manager_of(folder / "run", saved, models=net, optimizers=optimizer, iters_per_epoch=3) as manager:
        for iteration in range(3):
            with manager.run_iteration():
                step(net, optimizer)
                if dist.get_rank() == 1:
                    buffers.copy = _raise_memory_error if iteration == 0 else copy
    dist.barrier()
    announced = json.loads((folder / "run" / "checkpoints.json").read_text())
    return {"iterations": manager.iteration, "announced": [one["path"] for one in announced]}


def _raise_memory_error(state: Any) -> Any:
    raise MemoryError


def not_possible(folder: Path) -> Any:
    """What is told of snapshots that shards do not allow."""
    told = []
    for number, saved in enumerate(
        (extensions.snapshot("latest"), extensions.snapshot(snapshot_on_error=True)),
    ):
        net, optimizer = sharded()
        try:
            with (
                manager_of(folder / str(number), saved, models=net, optimizers=optimizer, iters_per_epoch=1) as manager,
                manager.run_iteration(),
            ):
                pass
        except ValueError as error:
            told.append(str(error))
    return told


def object_is_loaded(folder: Path) -> Any:
    """The newest file of one object is loaded into shards; returns the weights before and after."""
    net, optimizer = sharded()
    saved = extensions.snapshot_object(net, "net_{.iteration}", trigger=(1, "iteration"))
    with manager_of(folder / "run", saved, models=net, optimizers=optimizer, iters_per_epoch=2) as manager:
        for _ in range(2):
            with manager.run_iteration():
                step(net, optimizer)
    kept = [parameter.full_tensor().tolist() for parameter in net.parameters()]
    other, optimizer = sharded()
    fill(other, 7.0)
    loading = extensions.snapshot_object(other, "net_{.iteration}", trigger=None, autoload=True)
    manager = manager_of(folder / "run", loading, models=other, optimizers=optimizer, iters_per_epoch=3)
    manager.resume()
    with manager, manager.run_iteration():
        pass
    return kept == [parameter.full_tensor().tolist() for parameter in other.parameters()]


def trained(folder: Path, wrap: Callable[[nn.Module], nn.Module] = lambda net: shard(net)) -> Any:
    """Two epochs with three snapshots; returns the run's id."""
    net, optimizer = learner(wrap)
    saved = extensions.snapshot(trigger=(2, "iteration"), n_retains=int(os.environ.get("N_RETAINS", "-1")))
    manager = learning(folder / "run", net, optimizer, saved)
    learn(manager, net, optimizer)
    return manager.run.id


def trained_ddp(folder: Path) -> Any:
    return trained(folder, nn.parallel.DistributedDataParallel)


def went_on(folder: Path, wrap: Callable[[nn.Module], nn.Module] = lambda net: shard(net)) -> Any:
    """Goes on from the newest snapshot for one more epoch; rank 0 keeps all that was restored."""
    torch.manual_seed(9)
    net, optimizer = learner(wrap)
    manager = learning(folder / "run", net, optimizer, extensions.snapshot(trigger=(1, "epoch")), epochs=3)
    resumed = manager.resume()
    assert resumed is not None
    state = map_tensors(manager.state_dict(), lambda tensor, _: full_tensor(tensor))
    if dist.get_rank() == 0:
        torch.save({part: state[part] for part in ("models", "optimizers")}, folder / "restored")
    learn(manager, net, optimizer)
    return {"step": resumed.step, "id": manager.run.id, "iterations": manager.iteration, "epoch": manager.epoch}


def checked_together(folder: Path) -> Any:
    """Goes on from the newest intact snapshot; returns what this rank has checked of each, and what it said."""
    checked: dict[str, list[str]] = {}
    said: list[str] = []

    def part(path: Path) -> FileDigest:
        checked.setdefault(path.parent.name, []).append(path.name)
        return original_part(path)

    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pte_tracking").addHandler(handler)
    original_part, checkpoint_files.digest_file = checkpoint_files.digest_file, part
    net, optimizer = learner(shard)
    manager = learning(folder / "run", net, optimizer, extensions.snapshot(trigger=(1, "epoch")), epochs=3)
    resumed = manager.resume()
    assert resumed is not None
    error = ""
    try:
        load(folder / "run" / "snapshot_iter_8", world=manager.world)
    except SnapshotError as caught:
        error = str(caught)
    return {"step": resumed.step, "checked": checked, "said": said, "error": error}


def went_on_ddp(folder: Path) -> Any:
    return went_on(folder, nn.parallel.DistributedDataParallel)


def sums_pooled(folder: Path) -> Any:
    """Goes on in the middle of an interval with a snapshot of other ranks; each iteration reports 10."""
    stop = triggers.EarlyStoppingTrigger((4, "iteration"), "x", max_trigger=(8, "iteration"))
    with manager_of(
        folder / "run",
        extensions.LogReport(trigger=(4, "iteration")),
        extensions.MicroAverage("x", "one", "ratio", trigger=(4, "iteration")),
        extensions.snapshot(trigger=(3, "iteration")),
        stop_trigger=stop,
        iters_per_epoch=8,
    ) as manager:
        resumed = manager.resume()
        value = 0.0 if resumed is None else 10.0
        while manager.iteration < (3 if resumed is None else 4):
            with manager.run_iteration():
                pte.report({"x": value + dist.get_rank(), "one": 1.0})
        best = stop.state_dict()["best"]
    dist.barrier()
    return {"rows": rows(folder / "run"), "best": best} if resumed else None


class OwnMean(pte.Extension):
    """A user's extension that keeps a sum."""

    trigger = (1, "iteration")

    def __init__(self) -> None:
        self.sum = pte.Summary()

    def __call__(self, manager: Any) -> None:
        self.sum.add(manager.observation["x"])

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.sum.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sum.load_state_dict(state["mean"])


def own_sums(folder: Path) -> Any:
    """An extension of the user's with a sum in its state, on other ranks; returns what is summed up."""
    mean = OwnMean()
    saved = extensions.snapshot(trigger=(2, "iteration"))
    with manager_of(folder / "run", mean, saved, iters_per_epoch=4) as manager:
        is_new = manager.resume() is None
        while manager.iteration < (2 if is_new else 3):
            with manager.run_iteration():
                pte.report({"x": 1.0})
    return mean.sum.state_dict()


def plateau(folder: Path) -> Any:
    """Ever better on rank 0, ever worse on rank 1, which reports nothing in the end; returns the learning rates."""
    optimizer = torch.optim.SGD([torch.zeros(1)], 1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    stepper = extensions.LRScheduler.step_by_value("loss")
    rates = []
    with manager_of(
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


def printed(folder: Path) -> Any:
    """A snapshot between a row and its printing, on other ranks; returns what each prints."""
    saved = extensions.snapshot(trigger=(2, "iteration"))
    shown = io.StringIO()
    report = pte.ExtensionEntry(extensions.PrintReport(["iteration"], out=shown), trigger=(4, "iteration"))
    log = extensions.LogReport(trigger=(1, "iteration"))
    with manager_of(folder / "run", log, report, saved, iters_per_epoch=8) as manager:
        is_new = manager.resume() is None
        while manager.iteration < (2 if is_new else 3):
            with manager.run_iteration():
                pte.report({"x": 1.0})
    return shown.getvalue().split()


def on_condition(folder: Path) -> Any:
    """A condition that holds on another rank in each iteration; returns what was saved."""
    manager = manager_of(
        folder / "run",
        extensions.snapshot(trigger=(1, "iteration"), condition=lambda: manager.iteration % 2 == dist.get_rank()),
        extensions.LogReport(trigger=(1, "iteration")),
        iters_per_epoch=3,
    )
    with manager:
        for _ in range(3):
            with manager.run_iteration():
                pte.report({"x": 1.0})
    dist.barrier()
    return [path.name for path in (folder / "run").glob("snapshot_*")]


def warned(folder: Path) -> Any:
    """What each rank is warned of that concerns all."""
    stop = triggers.EarlyStoppingTrigger((1, "iteration"), "not reported", max_trigger=(2, "iteration"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plot = extensions.PlotReport("not reported either", trigger=(1, "iteration"))
        with manager_of(folder / "run", plot, stop_trigger=stop, sinks=["json"], iters_per_epoch=2) as manager:
            while not manager.stop_trigger:
                with manager.run_iteration():
                    pass
    return [str(one.message).partition(",")[0] for one in caught]


def stops_exactly(folder: Path) -> Any:
    """A stop trigger in the middle of its interval, uninterrupted and after a resume; returns its state of both."""

    def session(out: Path, iterations: int) -> Any:
        stop = triggers.EarlyStoppingTrigger((4, "iteration"), "x", max_trigger=(8, "iteration"))
        saved = extensions.snapshot(trigger=(3, "iteration"))
        with manager_of(out, saved, stop_trigger=stop, iters_per_epoch=8) as manager:
            manager.resume()
            while manager.iteration < iterations:
                with manager.run_iteration():
                    pte.report({"x": manager.iteration + 100.0 * dist.get_rank()})
        return stop.state_dict()

    session(folder / "parts", 3)
    return [session(folder / "whole", 5), session(folder / "parts", 5)]


def logged_before(folder: Path) -> Any:
    """Something is logged before a state is restored, by each way there is; returns how far each came."""
    came = {}
    first = manager_of(folder / "first", extensions.snapshot(trigger=(1, "iteration")), iters_per_epoch=2)
    with first.run_iteration():
        pass
    first.close()
    dist.barrier()
    state = torch.load(folder / "first" / "snapshot_iter_1")
    manager = manager_of(folder / "given", extensions.snapshot(trigger=(1, "iteration")), iters_per_epoch=2)
    manager.run.set_tags({"team": "vision"})
    manager.load_state_dict(state)
    with manager, manager.run_iteration():
        pass
    came["load_state_dict"] = manager.iteration
    automatic = extensions.snapshot(trigger=(1, "iteration"), autoload=True)
    manager = manager_of(folder / "automatic", automatic, iters_per_epoch=2)
    manager.run.set_tags({"team": "vision"})
    with manager, manager.run_iteration():
        pass
    came["autoload"] = manager.iteration
    return came


def statistics(folder: Path) -> Any:
    """An extension that looks at weights on rank 0 alone, with a trigger that needs all ranks."""
    net = nn.parallel.DistributedDataParallel(nn.Linear(1, 1))
    fires = triggers.MinValueTrigger("x", (1, "iteration"))
    seen = extensions.ParameterStatistics(net.module, {"max": torch.max}, trigger=fires)
    log = extensions.LogReport(trigger=(2, "iteration"))
    with manager_of(folder / "run", seen, log, models=net, iters_per_epoch=2) as manager:
        for value in (4.0, 3.0):
            with manager.run_iteration():
                pte.report({"x": value})
    return manager.iteration


def signalled(folder: Path) -> Any:
    """Rank 1 gets a signal; both save in the same iteration, and leave when that is on the disk."""
    saved = extensions.snapshot(trigger=(8, "iteration"), on_signal=signal.SIGUSR1)
    manager = manager_of(folder / "run", saved, models=nn.Linear(1000, 1000), iters_per_epoch=8)
    status = None
    try:
        with manager:
            for iteration in range(8):
                with manager.run_iteration():
                    if iteration == 2 and dist.get_rank() == 1:
                        os.kill(os.getpid(), signal.SIGUSR1)
    except SystemExit as error:
        status = error.code
    name = f"snapshot_iter_{manager.iteration}"
    return {"status": status, "iteration": manager.iteration, "is there": (folder / "run" / name).exists()}


def exact(folder: Path) -> Any:
    """A training that stops in the middle and goes on, beside one that does not; returns what differs here."""

    def session(out: Path, fail_in: int | None = None, resume: bool = False) -> Any:
        torch.manual_seed(dist.get_rank())
        net, optimizer = learner(shard)
        manager = learning(out, net, optimizer, extensions.snapshot(trigger=(2, "iteration")))
        if resume:
            manager.resume()
        with contextlib.suppress(InterruptedError):
            learn(manager, net, optimizer, fail_in)
        here = {key: local_tensor(tensor) for key, tensor in net.state_dict().items()}
        return here, rows(out) if dist.get_rank() == 0 else None

    uninterrupted, log = session(folder / "whole")
    session(folder / "parts", fail_in=7)
    again, log_again = session(folder / "parts", resume=True)
    differing = [key for key, tensor in uninterrupted.items() if not torch.equal(tensor, again[key])]
    return {"differing": differing, "same log": log == log_again, "tensors": len(again), "rows": len(log or ())}


# -- what they share ---------------------------------------------------------------------------------------------------


def manager_of(out: Path, *listed: Any, models: Any = None, epochs: int = 1, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({} if models is None else models, epochs, listed, out_dir=out, **options)


def sharded(width: int = 8) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 1))
    fully_shard(net)
    return net, torch.optim.Adam(net.parameters(), 0.1)


class Learner(nn.Module):
    """Has all that can differ between ranks: means of what was seen, and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layers(x)
        return output


def shard(net: nn.Module) -> nn.Module:
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(net)
    return net


def learner(wrap: Callable[[nn.Module], nn.Module]) -> tuple[nn.Module, torch.optim.Optimizer]:
    net = wrap(Learner())
    return net, torch.optim.Adam(net.parameters(), 0.01)


def learning(
    out: Path, net: nn.Module, optimizer: torch.optim.Optimizer, saved: Any, epochs: int = 2
) -> pte.ExtensionsManager:
    sinks = os.environ.get("SINKS", "json").split(",")
    # An evaluation right before a snapshot leaves parameters of fully_shard put together.
    evaluator = extensions.Evaluator([torch.ones(2, 4)], net, lambda x: pte.report({"val/output": net(x).mean()}))
    return manager_of(
        out,
        evaluator,
        extensions.LogReport(trigger=(1, "iteration")),
        saved,
        models=net,
        epochs=epochs,
        optimizers=optimizer,
        sinks=sinks,
    )


def learn(
    manager: pte.ExtensionsManager, net: nn.Module, optimizer: torch.optim.Optimizer, fail_in: int | None = None
) -> None:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    dataset = TensorDataset(x, x.sum(1, keepdim=True))
    loader = DataLoader(dataset, 2, sampler=DistributedSampler(dataset, seed=3))
    for inputs, targets in manager.batches(loader):
        with manager.run_iteration():
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(inputs), targets)
            loss.backward()
            optimizer.step()
            pte.report({"loss": loss})
            if manager.iteration == fail_in:
                raise InterruptedError


def fill(net: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)


def step(net: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    width = net[0].in_features
    net(torch.ones(1, width)).sum().backward()
    optimizer.step()


def weights(snapshot: Path) -> list[torch.Tensor]:
    """All weights of a snapshot, read by this process alone."""
    assert load(snapshot)
    return list(shards.gather_shards(snapshot)["models"]["main"].values())


def rows(out: Path) -> list[dict[str, Any]]:
    loaded = json.loads((out / "log").read_text())
    return [{key: value for key, value in row.items() if key != "elapsed_time"} for row in loaded]


@contextlib.contextmanager
def count_collectives() -> Iterator[Counter[str]]:
    """Counts the calls of torch's collectives."""
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
