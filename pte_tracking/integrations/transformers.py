"""Callback of the ``Trainer`` of Hugging Face Transformers that logs to a run."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pte_tracking._runs.outcome import Outcome
from pte_tracking._runs.run import Run
from pte_tracking._store.dependencies import required_by
from pte_tracking._store.params import flatten_params
from pte_tracking.integrations._saved_checkpoints import SavedCheckpoints
from pte_tracking.sinks import Sink

with required_by("TrackingCallback", "transformers", "'pte-tracking[transformers]'"):
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

__all__ = ["TrackingCallback"]

_logger = logging.getLogger("pte_tracking")
_PREFIXES = ("eval", "test")  # of the keys of evaluations; all other keys are those of the training


class TrackingCallback(TrainerCallback):
    """Callback that logs a training of ``transformers.Trainer`` to a run.

    Metrics have the keys of the callbacks in Transformers, such as ``train/loss`` and ``eval/loss``. The parameters of
    the run are ``params``, the training arguments, and the configuration of the model below ``model_config``. If the
    run directory is the ``output_dir`` of the training arguments, the checkpoints are registered in the run.

    Each ``train()`` is a run and archives an earlier one in the directory. ``train(resume_from_checkpoint=...)``
    continues the run in the directory, and supersedes what was logged after the checkpoint. The run ends as FINISHED at
    the end of the training, and as FAILED if ``train()`` raises an exception. Only the process with global rank 0
    writes.

    Args:
        directory: Run directory.
        sinks: Names of installed sinks, or configured :class:`~pte_tracking.sinks.Sink` objects.
        params: Hyperparameters; see :meth:`~pte_tracking.Run.log_params`.
        run_options: Other arguments of :class:`~pte_tracking.Run`, such as ``tags`` and ``name``.

    Attributes:
        run: Run of the last training, to which other values can be logged.

    Raises:
        ImportError: If transformers is not installed, or if its version is not supported.
        TypeError: If an argument has the wrong type.
        ValueError: If a sink is unknown or not installed.

    Example:
        >>> import tempfile
        >>> from pte_tracking.integrations.transformers import TrackingCallback
        >>> from transformers import TrainerControl, TrainerState, TrainingArguments
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     callback = TrackingCallback(directory)
        ...     args, state = TrainingArguments(directory, report_to="none"), TrainerState(global_step=10)
        ...     callback.on_log(args, state, TrainerControl(), logs={"loss": 0.5, "learning_rate": 0.1})
        ...     callback.run.close()
        ...     print(callback.run.rows()[0].values)
        {'train/loss': 0.5, 'train/learning_rate': 0.1}
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        sinks: Iterable[str | Sink] = ("json",),
        params: object = None,
        **run_options: Any,
    ) -> None:
        self._given = flatten_params({} if params is None else params)
        self._options = {"sinks": list(sinks), "params": self._given, **run_options}
        self.run = _TrainingRun(directory, **self._options)
        self._is_run_used = self._is_run_of_evaluation = False
        self._noted_keys: set[str] = set()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Start or continue the run, and log the parameters."""
        if not state.is_world_process_zero:
            return
        is_evaluated, self._is_run_of_evaluation = self._is_run_of_evaluation, False
        if self._is_run_used or (self.run.is_open and not is_evaluated):
            self.run.close()
            self.run = _TrainingRun(self.run.directory, **self._options)
        self._is_run_used = True
        _end_failed_trainings(self.run)
        self.run.training = state
        if state.global_step > 0 and not is_evaluated:
            self.run.resume_at(state.global_step)
            if all(checkpoint.step != state.global_step for checkpoint in self.run.checkpoints()):
                self.on_save(args, state, control)  # The process was killed before it registered the checkpoint.
        config: Any = getattr(model, "config", None)
        params = {"model_config": config.to_dict()} if hasattr(config, "to_dict") else {}
        params |= {name: value for name, value in args.to_dict().items() if not name.endswith("_token")}
        self.run.log_params({name: value for name, value in flatten_params(params).items() if name not in self._given})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log a row of metrics. Texts are logged as texts, and other values are dropped, which is logged once."""
        if not state.is_world_process_zero or not logs:
            return
        if not self._is_run_used and not self.run.is_open:  # an evaluation before a training, or without one
            self._is_run_of_evaluation = self.run.start_position() is None
            self.run.open(resume=True)
        numbers: dict[str, Any] = {}
        for name, value in logs.items():
            if isinstance(value, str):
                self.run.log_text(_to_key(name), value, state.global_step)
            elif isinstance(value, int | float) or getattr(value, "shape", None) in ((), (1,)):
                numbers[_to_key(name)] = value
            elif name not in self._noted_keys:
                self._noted_keys.add(name)
                _logger.warning(
                    "TrackingCallback: %r is not logged, because it is neither a number nor a text: %s. Log it with a "
                    "method of callback.run.",
                    name,
                    type(value).__name__,
                )
        numbers.pop("train/epoch", None)  # the epoch is a field of the row
        if numbers:
            self.run.log_metrics(numbers, state.global_step, epoch=state.epoch)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Register the checkpoint in the run, and the removal of those that were deleted."""
        if state.is_world_process_zero and args.output_dir is not None:
            folder = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
            self.run.saved.add(self.run, folder, state.global_step, state.epoch, self.run.latest_values)
            if state.is_hyper_param_search and "checkpoints" not in self._noted_keys:
                self._noted_keys.add("checkpoints")
                _logger.warning(
                    "TrackingCallback: checkpoints of a hyperparameter search are not registered in the run."
                )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run, and wait until it is delivered."""
        if not state.is_world_process_zero:
            return
        self.run.saved.finish(self.run)
        self.run.training = None
        self.run.close()


class _TrainingRun(Run):
    """Run that is not FINISHED if the training ends without an event, as it does after an exception.

    Attributes:
        training: State of the training. None before its begin and after its end.
        saved: Registered checkpoints.
    """

    def __init__(self, directory: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(directory, **options)
        self.training: TrainerState | None = None
        _training_runs.add(self)
        self.saved = SavedCheckpoints(has_folders=True)

    def _end(self, outcome: Outcome, *, is_collected: bool = False) -> None:
        if (training := self.training) is not None:
            self.saved.join()
            progress = f"ended at step {training.global_step} of {training.max_steps}"
            error = outcome.error or "Trainer.train() raised an exception"
            outcome = Outcome("FAILED" if outcome.status == "FINISHED" else outcome.status, f"{error}; {progress}")
            self.training = None
        super()._end(outcome, is_collected=is_collected)


#: Runs of this process that are referred to.
_training_runs: weakref.WeakSet[_TrainingRun] = weakref.WeakSet()


def _end_failed_trainings(run: _TrainingRun) -> None:
    """End other trainings in the directory of a run. A kept exception may refer to them and thereby keep them open."""
    for other in list(_training_runs):
        if other is not run and other.directory == run.directory and other.training is not None:
            other.close()


def _to_key(name: str) -> str:
    """Return a key such as ``eval/loss`` for a name such as ``eval_loss``."""
    for prefix in _PREFIXES:
        if name.startswith(f"{prefix}_"):
            return f"{prefix}/{name[len(prefix) + 1 :]}"
    return f"train/{name}"
