"""Load a snapshot for evaluation or export, without a training."""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, SupportsIndex, cast

import msgspec
from torch import nn, optim

from pte_tracking._delivery.sink_entries import build_sink
from pte_tracking._distributed.flat_sharding import is_flat
from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._distributed.world import SINGLE_PROCESS, World
from pte_tracking._distributed.wrappers import unwrap
from pte_tracking._engine.construction import state_objects_by_name, stateful_by_name
from pte_tracking._engine.differences import AllowedDifferences
from pte_tracking._engine.parts import StateObjectLike, TrainingParts
from pte_tracking._snapshots.candidate import (
    Candidate,
    SelectedSnapshot,
    first_intact,
    load_candidate,
    load_fetched,
    report_skipped,
)
from pte_tracking._snapshots.compatibility import check_format
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.fetching import fetch, is_uri
from pte_tracking._snapshots.retention import BestPolicy
from pte_tracking._snapshots.selection import list_metrics, rank_checkpoints
from pte_tracking._snapshots.shards import reshard
from pte_tracking._store import lock
from pte_tracking._store.checkpoint_files import checkpoint_digest
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.events import Checkpoint
from pte_tracking._store.layout import MANIFEST, WRITER_LOCK
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.printable import describe_value

_MAX_REPETITIONS = 100  # while a training deletes each snapshot before it is read
_REGISTRATION_SECONDS = 1.0  # Maximum time between the replacement of a snapshot and its event.


class LoadedCheckpoint(Checkpoint, frozen=True):
    """Checkpoint of a loaded snapshot.

    Attributes:
        state: Complete state of the snapshot, with its tensors on the CPU, as :meth:`ExtensionsManager.state_dict`
            returns it.
    """

    state: dict[str, Any] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"LoadedCheckpoint(path={self.path!r}, step={self.step}, epoch={self.epoch}, values={self.values})"


def load(
    run_dir: str | os.PathLike[str],
    source: str | os.PathLike[str] | SupportsIndex = "latest",
    *,
    models: nn.Module | Mapping[str, nn.Module] | None = None,
    optimizers: optim.Optimizer | Mapping[str, optim.Optimizer] | None = None,
    state_objects: StateObjectLike | Mapping[str, StateObjectLike] | None = None,
    best: tuple[str, Literal["min", "max"]] | None = None,
) -> LoadedCheckpoint:
    """Load a snapshot for evaluation or export. The run may be training, and nothing in its directory changes.

    The snapshot is verified, and read with torch's safe loader. In a distributed program, each process calls this
    function on its own; with sharded models, all processes call it.

    Args:
        run_dir: Run directory.
        source: ``"latest"`` for the newest intact snapshot, ``"best"`` for the best one, a step, a path, or the URI of
            a tracked checkpoint such as ``"runs:/<run id>"`` or ``"models:/<model id>"`` for MLflow. A relative path
            may start in the run directory. Defaults to ``"latest"``.
        models: A module, or modules by name, whose weights are loaded. The snapshot may contain others. A single
            module gets the weights of the only model in the snapshot, or of ``"main"``. Defaults to none.
        optimizers: An optimizer, or optimizers by name. Defaults to none.
        state_objects: Other objects by name, such as an average of the weights. Defaults to none.
        best: Metric and mode for ``"best"``, such as ``("loss", "min")``. Defaults to those of ``keep_best``.

    Returns:
        The checkpoint. ``state`` is the complete state of the snapshot, with its tensors on the CPU. ``values`` are
        the latest values at its step; only that of ``keep_best`` is an interval mean.

    Raises:
        RunNotFoundError: If the directory contains no run.
        SnapshotError: If the snapshot is damaged or not a snapshot.
        LookupError: If there is no such snapshot. The message lists the steps or the metrics.
        TypeError: If an argument has the wrong type.
        ValueError: If ``best`` is passed for another source, a named object is missing, or the weights do not fit.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> out_dir = tempfile.mkdtemp()
        >>> snapshot = extensions.snapshot(keep_best=("loss", "min", 1))
        >>> manager = pte.ExtensionsManager(torch.nn.Linear(1, 1), 3, [snapshot], out_dir=out_dir)
        >>> for loss in manager.batches([0.5]):
        ...     with manager.run_iteration():
        ...         pte.report({"loss": abs(manager.epoch - 1)})
        >>> model = torch.nn.Linear(1, 1)
        >>> checkpoint = pte.load(out_dir, "best", models=model)
        >>> checkpoint.step, checkpoint.values["loss"]
        (2, 0.0)
    """
    given = {"models": models, "optimizers": optimizers, "state_objects": state_objects}
    directory = _real_directory(run_dir)
    selected, checkpoint = _select(directory, source, None if best is None else _parse_ranking(best, source))
    try:
        _restore(selected, given)
        return _as_loaded(selected, checkpoint)
    finally:
        selected.clean_up()


def _real_directory(run_dir: object) -> Path:
    if not isinstance(run_dir, str | os.PathLike):
        raise TypeError(f"run_dir: expected the path of a run directory, got {describe_value(run_dir)}")
    return Path(os.path.realpath(run_dir))


def _parse_ranking(best: Sequence[str], source: object) -> BestPolicy:
    if isinstance(best, str) or len(best) != 2:
        raise TypeError(f"best: expected a metric and 'min' or 'max', such as ('val/loss', 'min'), got {best!r}")
    if source != "best":
        raise ValueError(
            f"best: expected only with 'best' as the source, got {best!r} with {source!r}. Write load(run_dir, 'best', "
            f"best={best!r})."
        )
    return BestPolicy.parse((*best, 1))


def _select(
    directory: Path, source: str | os.PathLike[str] | SupportsIndex, best: BestPolicy | None
) -> tuple[SelectedSnapshot, Checkpoint | None]:
    """Select, verify, and read a snapshot. Return its checkpoint too, if it is registered in the run."""
    if isinstance(source, str) and is_uri(source):
        manifest = Manifest.load(directory) if (directory / MANIFEST).exists() else None
        sinks = [build_sink(entry) for entry in manifest.sinks] if manifest else []
        return load_fetched(fetch(source, sinks, None, "load")), None
    for _ in range(_MAX_REPETITIONS):
        is_outdated = functools.partial(_has_changed, directory, list_checkpoints(directory))
        try:
            return _select_local(directory, source, best, is_outdated)
        except SnapshotError:
            if not is_outdated():
                raise
    return _select_local(directory, source, best, lambda: False)


def _has_changed(directory: Path, checkpoints: Sequence[Checkpoint]) -> bool:
    """Whether a training has saved snapshots since, so it may have deleted or replaced earlier ones."""
    deadline = time.monotonic() + _REGISTRATION_SECONDS
    while True:
        is_training = lock.is_held(directory / WRITER_LOCK)
        if list_checkpoints(directory) != checkpoints:
            return True
        if not is_training or time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def _select_local(
    directory: Path,
    source: str | os.PathLike[str] | SupportsIndex,
    best: BestPolicy | None,
    is_outdated: Callable[[], bool],
) -> tuple[SelectedSnapshot, Checkpoint | None]:
    call = f"load({source!r})"
    if isinstance(source, str | os.PathLike) and source not in ("latest", "best"):
        return _select_path(directory, Path(source))
    manifest, checkpoints = Manifest.load(directory), list_checkpoints(directory)
    if not checkpoints:
        raise LookupError(
            f"{call}: the run in {str(directory)!r} has no snapshot. extensions.snapshot() saves "
            "one within manager.iterations() or run_iteration()."
        )
    if source == "latest":
        ranked = checkpoints[::-1]
    elif source == "best":
        ranked = rank_checkpoints(checkpoints, best or _recorded_ranking(manifest, checkpoints, call), call)
    else:
        checkpoint = _at_step(checkpoints, source, call)
        return load_candidate(Candidate.listed(directory, checkpoint)), checkpoint
    by_path = {directory / checkpoint.path: checkpoint for checkpoint in ranked}
    candidates = [Candidate.listed(directory, item) for item in by_path.values()]
    selected, problems = first_intact(candidates, is_outdated=is_outdated)
    if selected is None:
        others = "".join(f"; {problem}" for problem in problems[1:])
        raise SnapshotError(problems[0].path, f"{problems[0].reason}, and no other snapshot can be used{others}")
    report_skipped("load", problems, selected, "To load a skipped one, restore the file from a copy.")
    return selected, by_path[selected.path]


def _select_path(directory: Path, path: Path) -> tuple[SelectedSnapshot, Checkpoint | None]:
    whole, elsewhere = directory / path, Path(os.path.abspath(path))
    candidate = Candidate.at_path(
        elsewhere if elsewhere.exists() and not whole.exists() else whole, list_checkpoints(directory)
    )
    return load_candidate(candidate), candidate.recorded


def _at_step(checkpoints: Sequence[Checkpoint], source: object, call: str) -> Checkpoint:
    if isinstance(source, bool) or not hasattr(source, "__index__"):
        raise TypeError(f"source: expected 'latest', 'best', a step, a path, or a URI, got {source!r}")
    step = operator.index(cast(SupportsIndex, source))
    found = [checkpoint for checkpoint in checkpoints if checkpoint.step == step]
    if not found:
        steps = ", ".join(map(str, sorted({checkpoint.step for checkpoint in checkpoints})))
        raise LookupError(f"{call}: the run has no snapshot of step {step}. Steps with a snapshot: {steps}.")
    return found[-1]


def _recorded_ranking(manifest: Manifest, checkpoints: Iterable[Checkpoint], call: str) -> BestPolicy:
    if manifest.ranking is None:
        raise ValueError(
            f"{call}: the training ranked no snapshots, because it had no snapshot(keep_best=...). Pass best=(metric, "
            f"'min' or 'max') with one of its metrics: {list_metrics(checkpoints)}."
        )
    return BestPolicy(*manifest.ranking, 1)


def _restore(selected: SelectedSnapshot, given: Mapping[str, Any]) -> None:
    """Load the state of objects, after all of them were checked."""
    objects = {part: {} if value is None else _by_name(part, value) for part, value in given.items()}
    objects["models"] = {name: unwrap(model) for name, model in objects["models"].items()}
    single_parts = {part for part, value in given.items() if value is not None and not isinstance(value, Mapping)}
    state = selected.state
    check_format(state)
    objects = {part: _by_saved_name(part, by_name, state, part in single_parts) for part, by_name in objects.items()}
    states: dict[str, Any] = {part: {name: state[part][name] for name in by_name} for part, by_name in objects.items()}
    states["parameters"] = state["parameters"]
    parts, allowed = (
        TrainingParts(objects["models"], objects["optimizers"], objects["state_objects"]),
        AllowedDifferences(is_training=False),
    )
    parts.check(states, allowed)
    states = parts.arrange_users(parts.arrange(states, allowed), states, allowed)
    world = World.current() if any(map(_is_distributed, objects["models"].values())) else SINGLE_PROCESS
    world.join()
    fitted = reshard(states, selected.path, objects, world)
    with contextlib.ExitStack() as undo:
        world.run_on_all_ranks("load()", lambda: parts.load_reversible(fitted, undo, allowed))
        undo.pop_all()
    parts.load_checked(fitted, allowed)


def _by_name(part: str, value: Any) -> dict[str, Any]:
    return state_objects_by_name(value) if part == "state_objects" else stateful_by_name(part, value)


def _is_distributed(model: Any) -> bool:
    return is_flat(model) or any(map(is_sharded, model.state_dict().values()))


def _by_saved_name(part: str, objects: Mapping[str, Any], state: Mapping[str, Any], is_single: bool) -> dict[str, Any]:
    """Return the objects by their names in the snapshot."""
    saved: Mapping[str, Any] = state.get(part, {})
    names = {name: name for name in objects}
    if is_single and "main" not in saved and len(saved) == 1:
        names = dict(zip(objects, saved, strict=True))
    missing = [name for name in names.values() if name not in saved]
    if missing:
        others = ("models", "optimizers", "state_objects")
        found = [f"{missing[0]!r} is in {other}=." for other in others if missing[0] in state.get(other, {})]
        raise ValueError(
            f"{part}: the snapshot does not contain {', '.join(map(repr, missing))}. It contains "
            f"{', '.join(map(repr, saved)) or 'none'}, and {', '.join(map(repr, objects))} was passed. "
            f"{' '.join(found) or 'Pass the objects by these names.'}"
        )
    return {names[name]: item for name, item in objects.items()}


def _as_loaded(selected: SelectedSnapshot, checkpoint: Checkpoint | None) -> LoadedCheckpoint:
    state = selected.state
    if checkpoint is None:
        digest, manager = checkpoint_digest(selected.path), state["manager"]
        length = manager["iters_per_epoch"]
        checkpoint = Checkpoint(
            seq=0,
            time=0.0,
            path=selected.path.name,
            step=manager["iteration"],
            sha256=digest.sha256,
            size=digest.size,
            epoch=manager["iteration"] / length if length else None,
            values=dict(state.get("values") or {}),
        )
    return LoadedCheckpoint(**msgspec.structs.asdict(checkpoint), state=state)
