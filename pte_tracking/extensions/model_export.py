"""Export of models for deployment."""

from __future__ import annotations

import logging
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

import torch

from pte_tracking._distributed import flat_sharding
from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._platform.files import replace_file, sync_directory
from pte_tracking._store.effective_files import list_models
from pte_tracking._store.files import safe_file_name, sync_tree
from pte_tracking._store.layout import ARTIFACTS
from pte_tracking._store.model_event import BestMetric
from pte_tracking._store.owned_files import make_owned_directory
from pte_tracking._store.values import check_key
from pte_tracking.extensions._traced_model import ModelInput, TracedModel, trace, write
from pte_tracking.triggers import MaxValueTrigger, MinValueTrigger, Trigger, get_trigger

_logger = logging.getLogger("pte_tracking")


def export_model(
    name: str = "main",
    *,
    input_example: object,
    registered_name: str | None = None,
    best: tuple[str, Literal["min", "max"]] | None = None,
    trigger: TriggerLike = None,
) -> Extension:
    """Export a model for deployment: its weights, and a program that runs without the source code of the model.

    The model is exported at the end of the training, including after ``break`` or ``close()``, but not after an error.
    With ``best``, it is also exported each time the metric improves. MLflow loads the exports with
    ``mlflow.pytorch.load_model``. The program is made by ``torch.export`` from a copy of the model on the CPU, in
    evaluation mode. The training waits for it. A failure in the first iteration raises, and a later one is logged.

    The directory ``artifacts/models/<name>/step_<iteration>`` of the run contains ``model.pt2``, ``state_dict.pt``, and
    ``input_example.json``.

    Args:
        name: Name of the model in the manager.
        input_example: Arguments of the model: a tensor, a tuple of tensors, or a dictionary of keyword arguments.
            The first dimension, if it has the size of that of the first tensor, is the batch, whose size may vary.
        registered_name: Name in the model registry of MLflow, which lists each export as a version. Defaults to None:
            the exports are not registered.
        best: Metric and mode, such as ``("val/loss", "min")`` or ``("val/accuracy", "max")``. The registry gives the
            alias ``best`` to the newest best export. Defaults to None.
        trigger: When to export the model in addition to the end. With ``best``, when the mean of the metric since the
            last time is compared. Defaults to never, or ``(1, "epoch")`` with ``best``.

    Returns:
        The extension.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a name is invalid, the mode is unknown, or ``input_example`` contains no values.

    Example:
        >>> import os, tempfile, torch, pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model, out_dir = torch.nn.Linear(2, 1), tempfile.mkdtemp()
        >>> exported = extensions.export_model(input_example=torch.zeros(1, 2))
        >>> with pte.ExtensionsManager(model, 1, [exported], out_dir=out_dir, iters_per_epoch=1, sinks=[]) as manager:
        ...     with manager.run_iteration():
        ...         pass
        >>> program = torch.export.load(os.path.join(out_dir, "artifacts/models/main/step_1/model.pt2")).module()
        >>> bool((program(torch.ones(3, 2)) == model(torch.ones(3, 2))).all())
        True
    """
    return ModelExport(name, ModelInput(input_example), registered_name, best, trigger)


class ModelExport(Extension):
    """Extension that exports a model; see :func:`export_model`.

    Args:
        model_name: Name of the model in the manager.
        example: Arguments of the model.
        registered_name: Name in the model registry, or None.
        best: Metric and mode, or None.
        trigger: When to export the model in addition to the end.
    """

    default_name = "export_model"

    def __init__(
        self,
        model_name: str,
        example: ModelInput,
        registered_name: str | None,
        best: tuple[str, Literal["min", "max"]] | None,
        trigger: TriggerLike,
    ) -> None:
        self._model_name = check_key(model_name, "name")
        self._example = example
        self._registered_name = "" if registered_name is None else _check_registered_name(registered_name)
        self._best = None if best is None else _parse_best(best)
        self._due = self._get_trigger((1, "epoch") if trigger is None and best is not None else trigger)
        self._exported_step: int | None = None
        self._has_failed = False

    def take_trigger(self, trigger: TriggerLike) -> bool:
        self._due = self._get_trigger(trigger)
        return True

    def check(self, manager: Manager) -> None:
        if self._model_name not in manager.models:
            names = ", ".join(map(repr, manager.models)) or "none"
            raise ValueError(f"name: the manager has no model {self._model_name!r}. Its models: {names}.")
        model = manager.models[self._model_name]
        if flat_sharding.is_flat(model) or any(map(is_sharded, model.parameters())):
            raise ValueError(
                f"export_model: the model {self._model_name!r} is sharded, which is not supported. Export it from a "
                "snapshot in a single process, or save its state with snapshot_object(..., artifact=True)."
            )

    def initialize(self, manager: Manager) -> None:
        # An example that does not fit raises an error now, not after hours of training.
        manager.world.run_on_rank_zero("the export of a model", lambda: self._prepare(manager))

    def __call__(self, manager: Manager) -> None:
        if self._due.evaluate(manager):
            self._export(manager, self._best_metric())

    def on_stop(self, manager: Manager) -> None:
        self._export_last(manager)

    def on_error(self, manager: Manager, exc: Exception, tb: TracebackType | None) -> None:
        self._has_failed = True

    def finalize(self, manager: Manager) -> None:
        # A loop that was left early. An interrupt and an exit call no on_error(). An exception that leaves the body of
        # a loop over iterations() and is caught leaves a model that an unfinished iteration has changed.
        run = manager.run
        if not (self._has_failed or run.is_abandoned or sys.exc_info()[1] or run.uncaught_error):
            self._export_last(manager)

    def state_dict(self) -> dict[str, Any]:
        return {"due": self._due.state_dict(), "step": self._exported_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._due.load_state_dict(state["due"])
        self._exported_step = state["step"]

    def _get_trigger(self, trigger: TriggerLike) -> Trigger:
        if self._best is None:
            return get_trigger(trigger)
        key, mode = self._best
        return (MinValueTrigger if mode == "min" else MaxValueTrigger)(key, trigger)

    def _best_metric(self) -> BestMetric | None:
        value = getattr(self._due, "best_mean", None)
        if self._best is None or value is None or not math.isfinite(value):
            return None
        return BestMetric(*self._best, float(value))

    def _prepare(self, manager: Manager) -> None:
        folder = self._folder(manager)
        known = {manager.run.directory / model.path for model in list_models(manager.run.directory)}
        # A crash or a rewind may have left others.
        for path in {*folder.glob("step_*"), *folder.glob(".step_*")} - known:
            shutil.rmtree(path, ignore_errors=True)
        traced = self._trace(manager, should_run=True)
        fixed = [spec.name for spec in traced.signature.inputs if spec.shape[:1] != [-1]]
        if fixed and self._example.batched():
            _logger.warning(
                "export_model: the exported program of %r accepts only the batch size of the example (inputs: %s), "
                "because forward() uses this size as a constant.",
                self._model_name,
                ", ".join(fixed),
            )

    def _trace(self, manager: Manager, *, should_run: bool = False) -> TracedModel:
        try:
            return trace(manager.models[self._model_name], self._example, should_run=should_run)
        except Exception as error:
            shapes = ", ".join(f"{key}: {list(tensor.shape)}" for key, tensor in self._example.tensors.items())
            raise RuntimeError(
                f"export_model: torch.export failed for the model {self._model_name!r} with an input_example of shape "
                f"{shapes}: {type(error).__name__}: {str(error).rstrip('.')}. Check that the model accepts the example "
                "on the CPU, and that its forward() has no control flow that depends on values of tensors. To store "
                "only the weights, use snapshot_object(..., artifact=True)."
            ) from error

    def _export_last(self, manager: Manager) -> None:
        if manager.iteration not in (0, self._exported_step):
            self._export(manager, None)

    def _export(self, manager: Manager, best: BestMetric | None) -> None:
        self._exported_step = manager.iteration  # on all ranks, whose states are compared
        if manager.world.rank:
            return
        try:
            self._write(manager, best)
        except Exception as error:
            _logger.error("%s", error if isinstance(error, RuntimeError) else f"export_model: not exported: {error!r}")

    def _write(self, manager: Manager, best: BestMetric | None) -> None:
        run, step = manager.run, manager.iteration
        traced = self._trace(manager)
        path = self._folder(manager) / f"step_{step}"
        temporary = path.with_name(f".{path.name}")
        make_owned_directory(path.parent, run.directory)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        digest = write(temporary, traced)
        size = sum(file.stat().st_size for file in temporary.iterdir())
        sync_tree(temporary)
        shutil.rmtree(path, ignore_errors=True)  # an export of this step that a rewind superseded
        replace_file(temporary, path)
        sync_directory(path.parent)
        run.log_model(
            path,
            self._model_name,
            step,
            digest.sha256,
            size,
            str(torch.__version__),
            traced.signature,
            self._registered_name,
            best,
        )

    def _folder(self, manager: Manager) -> Path:
        return manager.run.directory / ARTIFACTS / "models" / safe_file_name(self._model_name)


def _check_registered_name(name: object) -> str:
    text = check_key(name, "registered_name")
    if not text.strip() or any(character in text for character in "/:"):
        raise ValueError(f"registered_name: expected a name without '/' and ':', got {name!r}")
    return text


def _parse_best(best: object) -> tuple[str, Literal["min", "max"]]:
    if isinstance(best, str) or not isinstance(best, Sequence) or len(best) != 2:
        raise TypeError(f"best: expected (key, 'min' or 'max'), got {best!r}")
    key, mode = best
    check_key(key, "best")
    if mode not in ("min", "max"):
        raise ValueError(f"best: expected the mode 'min' or 'max', got {mode!r}")
    return key, cast(Literal["min", "max"], mode)
