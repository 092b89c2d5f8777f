"""Process that samples the system metrics of another node than that of the process that writes the run."""

from __future__ import annotations

import contextlib
import logging
import subprocess
from pathlib import Path

import msgspec

from pte_tracking._delivery.delivery_environment import child_variables
from pte_tracking._delivery.supervisor import is_delivery_enabled
from pte_tracking._platform.processes import BACKGROUND_OPTIONS
from pte_tracking._store.interpreter import python_command
from pte_tracking._store.manifest import Sampling

_MODULE = "pte_tracking._delivery.sampler"
_MAX_STOP_SECONDS = 5.0
_logger = logging.getLogger("pte_tracking")


class NodeSampler:
    """Sampler of this node, which appends to a file in the shared run directory. It ends with this process.

    Args:
        directory: The run directory.
        run_id: ID of the run.
        sampling: The request.
    """

    def __init__(self, directory: Path, run_id: str, sampling: Sampling) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if not is_delivery_enabled():
            return
        arguments = [str(directory), run_id, msgspec.json.encode(sampling).decode()]
        try:
            self._process = subprocess.Popen(
                [*python_command(_MODULE), *arguments],
                env=child_variables(),
                stdin=subprocess.DEVNULL,
                **BACKGROUND_OPTIONS,
            )
        except OSError as error:  # such as too many processes
            _logger.error("%s: system metrics of this node are not sampled: %s", directory, error)

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()  # it takes a sample if it has none
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a dead file system
                process.wait(_MAX_STOP_SECONDS)
            process.kill()  # a torn last line is truncated by the next sampler
