"""Logger for Lightning. Requires the extra ``lightning``."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from pte_tracking._runs.run import Run
from pte_tracking._store.dependencies import required_by
from pte_tracking._store.params import flatten_params
from pte_tracking.integrations._adapter_run import AdapterRun
from pte_tracking.integrations._saved_checkpoints import SavedCheckpoints
from pte_tracking.sinks import Sink

with required_by("TrackingLogger", "lightning", "'pte-tracking[lightning]'"):
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.loggers.logger import rank_zero_experiment
    from lightning.pytorch.utilities import rank_zero_only

__all__ = ["TrackingLogger"]


class TrackingLogger(Logger):
    """Logger of Lightning that logs to a run and delivers it to any sinks.

    ``trainer.fit(ckpt_path=...)`` continues the run in the directory at the step of the checkpoint. What was logged for
    later steps before the training was killed is superseded. ``trainer.fit()`` without a checkpoint archives an earlier
    run. ``trainer.validate()`` and ``trainer.test()`` add their values to the run in the directory.

    Lightning saves its checkpoints in ``checkpoints/`` of the run directory, unless ``ModelCheckpoint`` has another
    ``dirpath``. Checkpoint files in the run directory are registered in the run, with the monitored metric, as long as
    Lightning keeps them.

    Media are logged with ``self.logger.experiment``, which is the :class:`~pte_tracking.Run`. Only rank 0 writes. The
    run ends with each call of the trainer: FINISHED, FAILED after an exception, or KILLED after SIGTERM or an
    interrupt. A later call continues it.

    Args:
        directory: Run directory. It is created if it does not exist.
        sinks: Names of installed sinks, or configured :class:`~pte_tracking.sinks.Sink` objects.
        params: Hyperparameters, in addition to those of ``save_hyperparameters()``.
        tags: Labels of the run.
        name: Display name of the run. Defaults to the directory name and a short ID.
        group: Group of the run, such as a sweep; see :class:`~pte_tracking.Run`. Defaults to none.
        resume: Whether to continue the run in the directory even if ``fit`` starts without a checkpoint.
        close_timeout: Maximum number of seconds that the end of the run waits for delivery.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``directory`` or ``name`` is empty, or a sink is unknown or not installed.

    Example:
        >>> import tempfile
        >>> from lightning.pytorch import Trainer
        >>> from pte_tracking.integrations.lightning import TrackingLogger
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     logger = TrackingLogger(directory, params={"lr": 0.1})
        ...     trainer = Trainer(logger=logger, max_epochs=3, accelerator="cpu")
        ...     # trainer.fit(model, loader, ckpt_path="last")
        ...     trainer.log_dir == str(logger.experiment.directory)
        True
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        sinks: Iterable[str | Sink] = ("json",),
        params: object = None,
        tags: Mapping[str, Any] | None = None,
        name: str | None = None,
        group: str | None = None,
        resume: bool = False,
        close_timeout: float = 30.0,
    ) -> None:
        super().__init__()
        self._arguments: dict[str, Any] = {
            "directory": directory,
            "sinks": sinks if isinstance(sinks, str) else tuple(sinks),
            "params": params,
            "tags": tags,
            "name": name,
            "group": group,
            "resume": resume,
            "close_timeout": close_timeout,
        }
        self._directory = str(AdapterRun(**self._arguments).run.directory)  # checks the arguments
        #: Created where the training runs, which may be another process.
        self._adapter: AdapterRun | None = None
        self._checkpoints = SavedCheckpoints()
        self._trainer: weakref.ref[Trainer] | None = None
        self._params: dict[str, Any] = {}
        self._has_trained = self._has_ended = self._has_copy = False

    def __getstate__(self) -> dict[str, Any]:
        self._has_copy = True
        if self._adapter is not None and not self._adapter.is_started:
            self._adapter.join_run_in_directory()  # The copy trains in a process that the trainer spawns.
        return {
            **self.__dict__,
            "_adapter": None,
            "_has_copy": False,
            "_checkpoints": SavedCheckpoints(),
            "_trainer": None,
        }

    @property
    def name(self) -> str:
        """Empty, so that checkpoints are saved in ``checkpoints/`` of the run directory."""
        return ""

    @property
    def version(self) -> str:
        """Empty, like :attr:`name`. ``experiment.id`` and ``experiment.name`` identify the run."""
        return ""

    @property
    def save_dir(self) -> str:
        """Run directory."""
        return self._directory

    @property
    def log_dir(self) -> str:
        """Run directory."""
        return self._directory

    @property
    def root_dir(self) -> str:
        """Run directory."""
        return self._directory

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The run. What is logged to it before the training starts is held until then."""
        return self._adapter_run().run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log metrics of one step.

        Args:
            metrics: Numbers by key. ``epoch`` becomes the epoch of the row.
            step: Step of Lightning, which counts from 0. Defaults to the step after the last one.
        """
        adapter = self._adapter_run()
        if not adapter.is_started and self._trainer is None:
            held_step = adapter.last_step
            # Values of one step may precede a fit() that resumes. A second step shows a loop without a Trainer.
            if (self._arguments["resume"] and step is None) if held_step is None else step != held_step:
                self._start_without_trainer(held_step)
        values = dict(metrics)
        epoch = values.pop("epoch", None)
        adapter.run.log_metrics(values, adapter.step_of(step), epoch=epoch)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log hyperparameters, in addition to those of earlier calls. They are held until the training starts.

        Args:
            params: Mapping, ``argparse.Namespace``, or another object that :meth:`pte_tracking.Run.log_params` accepts.
            args: Ignored, as by other loggers.
            kwargs: Ignored, as by other loggers.
        """
        earlier = {} if self._has_ended else self._params
        self._params, self._has_ended = {**earlier, **flatten_params({} if params is None else params)}, False
        trainer = self._current_trainer()
        # An evaluation passes the hyperparameters of the model again.
        if self._adapter_run().is_started and (trainer is None or _is_fitting(trainer)):
            self._adapter_run().run.log_params(self._params)

    @rank_zero_only
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Log no graph. The trainer calls this method before it starts, which shows whether it trains or evaluates."""
        try:
            trainer, adapter = getattr(model, "trainer", None), self._adapter_run()
        except RuntimeError:  # The caller is the script, and the model is not attached to a Trainer.
            return
        if not isinstance(trainer, Trainer):
            return
        self._trainer = weakref.ref(trainer)
        if not _is_fitting(trainer):
            if not adapter.is_started:
                adapter.start(resume=True)
        elif not any(isinstance(known, _TrainingStart) and known.logger is self for known in trainer.callbacks):
            # The trainer restores its state after this call.
            trainer.callbacks.append(_TrainingStart(self))

    @rank_zero_only
    def start_training(self, trainer: Trainer) -> None:
        """Start or continue the run when the trainer has restored its state. The trainer calls this method.

        Args:
            trainer: Trainer that starts to train.
        """
        adapter, step = self._adapter_run(), _last_step(trainer)
        is_resume = bool(trainer.ckpt_path) or step >= 0 or (self._arguments["resume"] and not adapter.is_started)
        if is_resume:
            adapter.resume_at(step)
        elif adapter.is_started and (self._has_trained or adapter.is_continued):  # another training, or an earlier one
            adapter.run.close()
            self._adapter = None
            adapter = self._adapter_run()
        if not adapter.is_started:
            adapter.start(resume=False)
        self._has_trained = True
        adapter.run.log_params(self._params)
        folders = (getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks)
        self._checkpoints.start(adapter.run, folders)
        if trainer.ckpt_path:
            self._checkpoints.adopt(adapter.run, trainer.ckpt_path, step, trainer.current_epoch)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Register the new checkpoints of a callback, and remove those that were deleted.

        Args:
            checkpoint_callback: Callback that saved a checkpoint.
        """
        trainer = self._current_trainer()
        if trainer is None:
            return
        run, callback = self._adapter_run().run, checkpoint_callback
        scores = {callback.last_model_path: callback.current_score, callback.best_model_path: callback.best_model_score}
        values = run.latest_values
        for path, score in {**scores, **callback.best_k_models}.items():
            if path:
                measured = {} if callback.monitor is None or score is None else {callback.monitor: score}
                self._checkpoints.add(run, path, _last_step(trainer), trainer.current_epoch, {**values, **measured})
        if callback.monitor is not None:
            run.set_ranking(callback.monitor, callback.mode)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run.

        Args:
            status: ``"success"`` or ``"failed"``. ``"finished"`` does not end the run: Lightning passes it before SLURM
                stops and requeues the job.
        """
        adapter = self._adapter_run()
        trainer = self._current_trainer()
        if not adapter.is_started:
            if trainer is not None:
                # The training failed before its start, or was complete. A failed resume must not archive the run.
                adapter.start(resume=bool(trainer.ckpt_path) or self._arguments["resume"])
                adapter.run.log_params(self._params)
            elif adapter.last_step is not None:
                self._start_without_trainer(adapter.last_step)
            else:
                return
        self._has_ended = True
        self._checkpoints.finish(adapter.run)
        if status == "finished":
            adapter.run.sync()
            return
        error = sys.exc_info()[1]
        if type(error).__name__ == "SIGTERMException":  # in Lightning or pytorch_lightning
            adapter.run.close("KILLED", "Lightning received SIGTERM")
        else:
            adapter.close()

    def _adapter_run(self) -> AdapterRun:
        if self._adapter is None:
            self._adapter = AdapterRun(**self._arguments, rank=0)
            if self._has_copy:
                self._adapter.join_run_in_directory()
        return self._adapter

    def _current_trainer(self) -> Trainer | None:
        return None if self._trainer is None else self._trainer()

    def _start_without_trainer(self, first_step: int | None) -> None:
        """Start the run of a loop without a Trainer, such as one of Fabric."""
        # What the process of a copy has logged is not rewound.
        self._adapter_run().start(None if self._has_copy else first_step)
        self._adapter_run().run.log_params(self._params)


class _TrainingStart(Callback):
    """Callback that starts the run of a logger, because a trainer does not inform its loggers.

    Args:
        logger: The logger.
    """

    def __init__(self, logger: TrackingLogger) -> None:
        self.logger = logger

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.logger.start_training(trainer)


def _is_fitting(trainer: Trainer) -> bool:
    return bool(trainer.state.fn == "fit")


def _last_step(trainer: Trainer) -> int:
    """Return the last step of metrics that belongs to the current state of the training. -1 before the first.

    Lightning logs the metrics of the first optimizer step at step 0. The count of these steps, which its own callbacks
    read as well, is increased after a checkpoint within an epoch, but before one at its end. ``global_step`` has been
    increased in both cases, but it counts the steps of all optimizers.
    """
    return int(min(trainer.global_step - 1, trainer.fit_loop.epoch_loop._batches_that_stepped))
