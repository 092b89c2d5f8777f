"""Life cycle of a writer with the interface of TensorBoard's."""

from __future__ import annotations

import datetime
import logging
import os
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeVar

from pte_tracking._store.printable import describe_value
from pte_tracking.integrations._summary_run import SummaryRun
from pte_tracking.sinks import Sink

_logger = logging.getLogger("pte_tracking")
_W = TypeVar("_W", bound="SummaryBase")


class SummaryBase:
    """Base class of :class:`~pte_tracking.integrations.tensorboard.SummaryWriter` that opens and ends the run."""

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
        *,
        sinks: Iterable[str | Sink] = ("json", "tensorboard"),
        params: object = None,
        **run_options: Any,
    ) -> None:
        if not log_dir:
            log_dir = f"runs/{datetime.datetime.now():%b%d_%H-%M-%S}_{socket.gethostname()}{comment}"
        self.log_dir = log_dir
        #: Run to which the writer logs.
        self.run = SummaryRun(log_dir, sinks=sinks, params=params, **run_options)
        if purge_step is not None:
            self.run.resume_at(int(purge_step) - 1)
        self._notes: set[str] = set()
        if filename_suffix:
            self._note("filename_suffix has no effect, because each sink names its files.")

    def get_logdir(self) -> str:
        """Return the argument ``log_dir``, or its default."""
        return os.fspath(self.log_dir)

    def flush(self) -> None:
        """Flush all logged values to disk. They are delivered without this call, too."""
        self.run.sync()

    def close(self) -> None:
        """End the run as FINISHED, and wait until it is delivered. A later call of ``add_*`` opens the run again."""
        self.run.close()

    def __enter__(self: _W) -> _W:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run.__exit__(kind, error, trace)

    def _step(self, global_step: Any, *tags: str) -> int:
        """Return a step as an integer. Values without a step are counted for each tag."""
        if global_step is None:
            return self.run.next_step(*tags)
        try:
            return int(global_step)
        except (OverflowError, RuntimeError, TypeError, ValueError):
            raise TypeError(f"global_step: expected an integer, got {describe_value(global_step)}") from None

    def _note(self, message: str) -> None:
        """Log a warning once."""
        if message not in self._notes:
            self._notes.add(message)
            _logger.warning("SummaryWriter: %s", message)
